//! Any bytes as an entry of the journal, and as a message of syslog: nothing panics, and one is never two lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stockade::source::Shape;
use stockade::source::journal::{Entry, Matches};
use stockade::source::syslog::Message;
use stockade::types::Timestamp;

fuzz_target!(|data: &[u8]| {
    let mut line = Vec::new();
    let one = |line: &[u8]| assert!(!line.iter().any(|b| matches!(b, b'\n' | b'\r' | 0)));
    for shape in [Shape::Syslog, Shape::Message] {
        Message::parse(data).render(shape, b"host", Timestamp::default(), &mut line);
        one(&line);
        if let Ok(entry) = Entry::parse(data) {
            entry.render(entry.message.as_deref().unwrap_or_default(), shape, &mut line);
            one(&line);
        }
        // As a message too, whatever the rest of the entry.
        let message = serde_json::to_string(data).expect("bytes are JSON");
        let text = format!("{{\"__CURSOR\":\"c\",\"__REALTIME_TIMESTAMP\":\"1\",\"MESSAGE\":{message}}}");
        let entry = Entry::parse(text.as_bytes()).expect("an entry");
        entry.render(entry.message.as_deref().expect("a message"), shape, &mut line);
        one(&line);
    }
    if let Some(matches) = std::str::from_utf8(data).ok().and_then(|text| Matches::parse(text).ok()) {
        let again = Matches::parse(&matches.to_string());
        assert!(again.is_ok() || matches.to_string().contains('\''), "{matches}");
    }
});
