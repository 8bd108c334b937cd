#![no_main]

use treepie_testkit::hostile::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| Target::WireFrame.run(bytes));
