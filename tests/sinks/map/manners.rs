//! What any server may expect: how files are written, and how often it is told.

use std::fs;
use std::path::Path;
use std::time::Duration;

use stockade::sinks::Context;

use super::server::directory;
use super::{check, end};
use crate::support::{config, names, net, start, status, until, want};

/// A reload that notes when it was and what it saw.
fn reload(dir: &Path) -> String {
    let d = dir.display();
    fs::write(
        dir.join("reload"),
        format!("echo \"$(date +%s%N) $(grep -c . {d}/list)\" >>{d}/reloads; echo fine >&2\n"),
    )
    .unwrap();
    format!("[/bin/sh, {d}/reload]")
}

fn reloads(dir: &Path) -> Vec<(u64, u64)> {
    let text = fs::read_to_string(dir.join("reloads")).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(at, entries)| (at.parse().unwrap(), entries.parse().unwrap()))
        .collect()
}

#[test]
fn it_is_told_once_in_an_interval_whatever_happens() {
    let dir = directory();
    let d = dir.path().display();
    let text =
        format!("  map: {{ format: list, path: {d}/list, interval: 2s, reload: {} }}", reload(dir.path()));
    let mut sinks = start(&text, dir.path());
    for n in 1..=40 {
        sinks.ban(&names(&["map"]), net(&format!("192.0.2.{n}")), &want(1));
        std::thread::sleep(Duration::from_millis(100));
    }
    until(
        || format!("{:?} {}", reloads(dir.path()), sinks.value()),
        || reloads(dir.path()).last().is_some_and(|r| r.1 == 40),
    );
    until(|| sinks.value().to_string(), || status(&sinks, "map")["state"] == "ok");
    let all = reloads(dir.path());
    assert!(all.len() >= 3, "{all:?}");
    for pair in all.windows(2) {
        // Programs start with some delay.
        assert!(pair[1].0 - pair[0].0 >= 1_500_000_000, "{all:?}");
        assert!(pair[1].1 > pair[0].1, "nothing was new: {all:?}");
    }
    let shown = status(&sinks, "map");
    assert_eq!(shown["reload"]["result"], "fine");
    assert_eq!(shown["reloads"], all.len());
    // Who takes its leave does not wait for the interval.
    sinks.ban(&names(&["map"]), net("192.0.2.41"), &want(1));
    assert_eq!(end(&mut sinks), Vec::<String>::new());
    assert_eq!(fs::read_to_string(dir.path().join("list")).unwrap(), "");
    assert_eq!(reloads(dir.path()).last().unwrap().1, 0);
}

#[test]
fn a_file_that_is_right_is_left_alone_and_the_server_told_once() {
    let dir = directory();
    let d = dir.path().display();
    let text =
        format!("  map: {{ format: list, path: {d}/list, interval: 1s, reload: {} }}", reload(dir.path()));
    fs::write(dir.path().join("list"), "192.0.2.1\n").unwrap();
    let before = fs::metadata(dir.path().join("list")).unwrap();
    let context = Context { state: dir.path().to_owned(), ..Context::default() };
    let sinks = stockade::sinks::Sinks::start(&config(&text).sinks, context, Vec::new()).unwrap();
    // Nobody is unbanned before it is known whom to ban.
    sinks.show(|_| vec![(net("192.0.2.1"), want(1))]);
    until(|| sinks.value().to_string(), || status(&sinks, "map")["state"] == "ok");
    sinks.ban(&names(&["map"]), net("192.0.2.1"), &want(2));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(reloads(dir.path()).len(), 1);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(dir.path().join("list")).unwrap().ino(), before.ino());
}

#[test]
fn a_reload_that_fails_or_hangs_is_told_and_the_last_good_file_put_back() {
    for (script, told) in
        [("echo 'I will not' >&2; exit 7", "exit status: 7: I will not"), ("sleep 600", "its time was up")]
    {
        let dir = directory();
        let d = dir.path().display();
        fs::write(dir.path().join("reload"), script).unwrap();
        fs::write(dir.path().join("list"), "198.51.100.1\n").unwrap();
        let sinks = start(
            &format!(
                "  map: {{ format: list, path: {d}/list, interval: 1s, timeout: 1s, reload: [/bin/sh, {d}/reload] }}"
            ),
            dir.path(),
        );
        sinks.ban(&names(&["map"]), net("192.0.2.1"), &want(1));
        let error = || status(&sinks, "map")["last_error"]["message"].as_str().unwrap_or_default().to_owned();
        until(|| sinks.value().to_string(), || error().contains(told));
        assert!(error().ends_with("list is the last good one again"), "{}", error());
        until(
            || sinks.value().to_string(),
            || fs::read_to_string(dir.path().join("list")).unwrap() == "198.51.100.1\n",
        );
        // Mended, it is tried again by itself.
        fs::write(dir.path().join("reload"), "true").unwrap();
        until(
            || sinks.value().to_string(),
            || fs::read_to_string(dir.path().join("list")).unwrap() == "192.0.2.1\n",
        );
    }
}

#[test]
fn check_changes_nothing_and_tells_what_is_wrong() {
    let dir = directory();
    let d = dir.path().display();
    fs::write(dir.path().join("list"), "x\n").unwrap();
    let told = check(&format!(
        "  map: {{ format: list, path: {d}/list, test: [/bin/sh, -c, 'echo well >&2'], reload: [/bin/sh, -c, 'touch {d}/reloaded'] }}"
    ));
    assert!(told.iter().all(|c| c.good), "{told:?}");
    assert!(
        told[0].text.contains("/list can be replaced; owner ") && told[1].text.ends_with("says: well"),
        "{told:?}"
    );
    let told = check(&format!(
        "  map: {{ format: list, path: {d}/gone/list, test: [/bin/false], reload: [/nonexistent/x, -y] }}"
    ));
    let text: Vec<&str> = told.iter().map(|c| c.text.as_str()).collect();
    assert!(told.iter().all(|c| !c.good) && told.len() == 3, "{told:?}");
    assert!(text[0].contains("gone: No such file or directory (os error 2); make it first"), "{text:?}");
    assert!(text.iter().any(|t| t.contains("/nonexistent/x cannot be run: No such file")), "{text:?}");
    assert!(text.iter().any(|t| t.contains("the test `/bin/false` failed: exit status: 1")), "{text:?}");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let told = check(&format!("  map: {{ format: list, path: {d}/list }}"));
    assert!(!told[0].good && told[0].text.contains("anybody may write into"), "{told:?}");
    assert_eq!(fs::read_to_string(dir.path().join("list")).unwrap(), "x\n");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
