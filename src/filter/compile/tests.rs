use super::*;
use crate::filter::Trust;
use crate::filter::builtin;
use crate::filter::examine::Outcome;
use crate::types::Timestamp;

fn compile(yaml: &str) -> Result<Filter, CompileError> {
    let definition = crate::config::filter::definition(yaml, "test").expect("readable");
    Filter::compile("mine", &definition, &TimeZone::UTC)
}

fn outcome(yaml: &str, line: &str) -> (Outcome, Option<String>) {
    let filter = compile(yaml).unwrap_or_else(|e| panic!("{e}"));
    let seen = filter.examine(line.as_bytes(), Timestamp::default(), &Trust::default());
    (seen.outcome, seen.who.and_then(|w| w.offender()).map(|a| a.to_string()))
}

#[test]
fn shipped_filters_compile_without_warnings() {
    for name in builtin::names() {
        let text = builtin::text(name).unwrap();
        let definition =
            crate::config::filter::definition(text, name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let filter = Filter::compile(name, &definition, &TimeZone::UTC).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(filter.warnings(), &[] as &[String], "{name}");
        assert_eq!(filter.name(), name);
    }
    assert_eq!(builtin::text("nonesuch"), None);
    assert!(builtin::names().is_sorted());
}

#[test]
fn errors_name_the_filter_the_key_and_the_reason() {
    for (yaml, expected) in [
        (
            "{format: npn, match: {status: 404}}",
            "filter `mine`, key `format`, pattern `npn`: is not known; there are npm,",
        ),
        (
            "{format: npm, match: {statuss: 404}}",
            "key `match`: `statuss` is no field of npm, which have: time, peer,",
        ),
        ("{format: npm, match: {.status: 404}}", "`.status` is no field of npm"),
        ("{format: sshd, match: {static: yes}}", "`static` is no field of sshd"),
        ("{format: npm, match: {uri: '(?=x)'}}", "`uri`: `(?=x)` is no regular expression"),
        ("{format: npm, match: {static: maybe}}", "`maybe` is not `yes` or `no`"),
        ("{format: [npm, json], peer: .a, match: {status: 404}}", "pattern `json`: stands alone"),
        ("{format: json, peer: .a, match: {status: 404}}", "`status` is no field of json"),
        ("{format: json, peer: .a, match: {'.\"x': 404}}", "is not a path"),
        ("{failregex: 'from <HOST>', format: npm, match: {status: 404}}", "either `format` or `failregex`"),
        ("{failregex: 'from me'}", "pattern `from me`: it has no group for the address"),
        (
            "{failregex: 'from <HOST>', ignoreregex: '(?!x)'}",
            "key `ignoreregex`, pattern `(?!x)`: the look-ahead `(?!` is not supported by the linear-time engine",
        ),
        ("{format: npm, match: {status: 404}, ignoreregex: x}", "belongs to `failregex`"),
    ] {
        let said = compile(yaml).expect_err(yaml).to_string();
        assert!(said.contains(expected), "{yaml}: {said}");
    }
    let said =
        Filter::compile("mine", &Definition::default(), &TimeZone::UTC).expect_err("empty").to_string();
    assert!(said.contains("needs `format` and `match`, or `failregex`"), "{said}");
    let definition = Definition {
        timezone: Some("Mars/Olympus".into()),
        failregex: vec!["<HOST>".into()],
        ..Definition::default()
    };
    assert_eq!(Filter::compile("mine", &definition, &TimeZone::UTC).expect_err("no zone").key, "timezone");
}

#[test]
fn json_filters_find_what_their_paths_name() {
    let yaml = "{format: json, time: .ts, peer: .remote.ip, forwarded: .xff, match: {.status: [401, 403], .path: '^/login'}, ignore: {.user: '-'}}";
    let line = |status: &str, path: &str, user: &str| {
        format!(
            r#"{{"ts":1735858014.5,"remote":{{"ip":"203.0.113.7:80"}},"status":{status},"path":"{path}","user":{user}}}"#
        )
    };
    let offender = Some("203.0.113.7".to_owned());
    assert_eq!(outcome(yaml, &line("401", "/login", "\"bob\"")), (Outcome::Matched, offender.clone()));
    assert_eq!(outcome(yaml, &line("\"403\"", "/login", "\"bob\"")), (Outcome::Matched, offender.clone()));
    assert_eq!(outcome(yaml, &line("403", "\\u002flog\\u0069n", "\"bob\"")), (Outcome::Matched, offender));
    assert_eq!(outcome(yaml, &line("401", "/login", "null")), (Outcome::Ignored, None));
    assert_eq!(outcome(yaml, &line("200", "/login", "\"bob\"")), (Outcome::Passed, None));
    assert_eq!(outcome(yaml, r#"{"status":401,"path":"/login"}"#), (Outcome::Missed, None));
    assert_eq!(outcome(yaml, "status=401"), (Outcome::Missed, None));
    let list = "{format: json, forwarded: .xff, match: {.status: 401}}";
    let expected = (Outcome::Matched, Some("198.51.100.2".to_owned()));
    assert_eq!(outcome(list, r#"{"xff":"9.9.9.9, 198.51.100.2","status":401}"#), expected);
}

#[test]
fn zones_are_taken_as_names_and_offsets() {
    for (zone, expected) in [
        ("UTC", "22:46:54"),
        ("+01:00", "21:46:54"),
        ("'-03:30'", "2025-01-03T02:16:54"),
        ("Europe/Berlin", "21:46:54"),
    ] {
        let filter = compile(&format!("{{failregex: 'from <HOST>', timezone: {zone}}}")).unwrap();
        let seen =
            filter.examine(b"2025/01/02 22:46:54 from 1.2.3.4", Timestamp::default(), &Trust::default());
        let at = seen.at.unwrap().to_string();
        assert!(at.contains(expected), "{zone}: {at}");
    }
}
