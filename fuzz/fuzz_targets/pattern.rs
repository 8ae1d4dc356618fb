//! A pattern of fail2ban's dialect is taken or refused, and what was taken judges any line.
#![no_main]

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use stockade::filter::definition::Definition;
use stockade::filter::{Filter, Trust};
use stockade::types::Timestamp;

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (fail, ignore, line) = input;
    let definition =
        Definition { failregex: vec![fail.to_owned()], ignoreregex: vec![ignore.to_owned()], ..Definition::default() };
    if let Ok(filter) = Filter::compile("fuzz", &definition, &TimeZone::UTC) {
        let _ = filter.examine(line, Timestamp::from_secs(1_735_862_400), &Trust::default());
    }
});
