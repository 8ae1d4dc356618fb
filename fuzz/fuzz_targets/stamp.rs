//! Stamps and addresses of any bytes.
#![no_main]

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use stockade::filter::{client, timestamp};
use stockade::types::Timestamp;

fuzz_target!(|input: (&[u8], i64)| {
    let (text, now) = input;
    let mut reader = timestamp::Reader::new(TimeZone::UTC);
    let _ = reader.read(text, Timestamp::from_millis(now));
    if let Some(range) = timestamp::detect(text) {
        assert!(!range.is_empty() && range.end <= text.len());
    }
    if let Some(address) = client::endpoint(text) {
        assert_eq!(address, address.to_canonical());
    }
});
