//! Lines of any bytes through all shipped filters at once: nothing panics, and alone or behind other lines a filter sees the same format.
#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use stockade::filter::{Filter, Matcher, Trust, builtin};
use stockade::types::{JailId, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_735_862_400);

fn filters() -> Vec<Arc<Filter>> {
    let own = "{format: json, time: .ts, peer: .remote.0.ip, forwarded: '.\"x.y\"', match: {.status: [4xx, '^a']}}";
    let texts = builtin::names().into_iter().filter_map(builtin::text).chain([own, "{failregex: '<HOST> .*'}"]);
    texts
        .map(|text| {
            let definition = stockade::config::filter::definition(text, "fuzz").expect("readable");
            Arc::new(Filter::compile("fuzz", &definition, &TimeZone::UTC).expect("compiles"))
        })
        .collect()
}

thread_local! {
    static STATE: RefCell<(Vec<Arc<Filter>>, Matcher)> = RefCell::new({
        let filters = filters();
        let trust = Arc::new(Trust::new(vec!["10.0.0.0/8".parse().expect("a network")]));
        let jails = filters.iter().map(|f| (JailId(0), Arc::clone(f), Arc::clone(&trust))).collect();
        (filters, Matcher::new(jails))
    });
}

fuzz_target!(|data: &[u8]| {
    STATE.with_borrow_mut(|(filters, matcher)| {
        for line in data.split(|&b| b == b'\n') {
            let mut hits = 0;
            matcher.line(line, NOW, |_| hits += 1);
            let _ = matcher.stamp(line, NOW);
            let alone = filters.iter().filter(|f| f.examine(line, NOW, &Trust::default()).outcome.word() == "matched").count();
            assert_eq!(hits, alone);
        }
    });
});
