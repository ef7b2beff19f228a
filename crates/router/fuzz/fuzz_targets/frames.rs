//! What a worker sends: any bytes, as frames on a link with one call.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mobula_router::fuzzing::frames(bytes));
