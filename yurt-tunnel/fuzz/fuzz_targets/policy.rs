#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| yurt_tunnel::fuzzing::policy(bytes));
