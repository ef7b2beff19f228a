//! The body of a unary gRPC call: any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mobula_router::fuzzing::grpc_message(bytes));
