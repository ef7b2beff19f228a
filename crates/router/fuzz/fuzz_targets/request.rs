//! What a client sends: any bytes, as a path and headers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mobula_router::fuzzing::request(bytes));
