//! see `tongban::decoders`
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tongban::decoders::odbc(bytes);
});
