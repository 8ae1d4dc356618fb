use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::filter::builtin;

fn filter(yaml: &str) -> Arc<Filter> {
    let definition = crate::config::filter::definition(yaml, "test").expect("readable");
    Arc::new(Filter::compile("mine", &definition, &TimeZone::UTC).unwrap_or_else(|e| panic!("{e}")))
}

fn shipped(name: &str) -> Arc<Filter> {
    filter(builtin::text(name).unwrap())
}

fn matcher(filters: &[Arc<Filter>]) -> Matcher {
    let trust = Arc::new(Trust::new(vec!["10.0.0.0/8".parse().unwrap()]));
    let jails = filters.iter().enumerate();
    Matcher::new(jails.map(|(n, f)| (JailId(n as u16), Arc::clone(f), Arc::clone(&trust))).collect())
}

/// `jail:offender` of every hit, `@never` if its time could not be read.
fn hits(m: &mut Matcher, line: &str) -> Vec<String> {
    let mut out = Vec::new();
    m.line(line.as_bytes(), Timestamp::from_secs(1_735_900_000), |h| {
        let who = h.who.offender().map_or_else(|| "nobody".to_owned(), |a| a.to_string());
        out.push(format!("{}:{who}{}", h.jail.0, if h.at.is_none() { "@never" } else { "" }));
    });
    out.sort();
    out
}

const NPM: &str = r#"[02/Jan/2025:22:46:04 +0000] - - 404 - GET https h "/x" [Client 203.0.113.7] [Length 1] [Gzip -] [Sent-to s] "ua" "-""#;
const CLF: &str =
    r#"203.0.113.8 - - [02/Jan/2025:22:46:04 +0000] "GET /x HTTP/1.1" 404 5 "-" "ua" 1 "r@file" "-" 0ms"#;

#[test]
fn jails_of_one_file_are_judged_apart() {
    let text = filter(r#"{failregex: '"[A-Z]+ /x[^"]*" 404 .*"ua"', ignoreregex: x}"#.replace("failregex: '", "failregex: '^<HOST> .*").as_str());
    let mut m = matcher(&[
        shipped("npm-404"),
        shipped("npm-403"),
        shipped("npm-forceful-browsing"),
        shipped("traefik-forceful-browsing"),
        text,
    ]);
    assert_eq!(hits(&mut m, NPM), ["0:203.0.113.7", "2:203.0.113.7"]);
    assert_eq!(hits(&mut m, &NPM.replace(" 404 ", " 403 ")), ["1:203.0.113.7", "2:203.0.113.7"]);
    assert_eq!(hits(&mut m, &NPM.replace(" 404 ", " 200 ")), [] as [&str; 0]);
    assert_eq!(hits(&mut m, CLF), ["3:203.0.113.8"]);
    assert_eq!(hits(&mut m, &format!("{CLF}\r")), ["3:203.0.113.8"]);
    assert_eq!(hits(&mut m, &NPM.replace("\"/x\"", "\"/x.js\"")), ["0:203.0.113.7"]);
    assert_eq!(hits(&mut m, &NPM.replace("203.0.113.7", "10.0.0.1")), ["0:nobody", "2:nobody"]);
    assert_eq!(hits(&mut m, ""), [] as [&str; 0]);
    assert_eq!(hits(&mut m, "garbage"), [] as [&str; 0]);
    let expected = Counts { lines: 9, matched: 6, ignored: 0, missed: 1, unattributable: 2 };
    assert_eq!(m.counts(), expected);
    let mut m = matcher(&[shipped("npm-forceful-browsing")]);
    assert_eq!(hits(&mut m, &NPM.replace("\"/x\"", "\"/x.js\"")), [] as [&str; 0]);
    assert_eq!(m.counts(), Counts { lines: 1, ignored: 1, ..Counts::default() });
}

#[test]
fn the_first_format_that_understands_decides() {
    // Both formats understand the line; the second filter asks them in the other order.
    let line = r#"203.0.113.8 - - [02/Jan/2025:22:46:04 +0000] "GET /x HTTP/1.1" 404 5 "-" "ua""#;
    let one = filter("{format: [combined, traefik_clf], match: {status: 404}}");
    let other = filter("{format: [traefik_clf, combined], match: {status: 404}}");
    for filters in
        [vec![one.clone(), other.clone()], vec![other.clone(), one.clone()], vec![one], vec![other]]
    {
        let mut m = matcher(&filters);
        assert_eq!(hits(&mut m, line).len(), filters.len());
        assert_eq!(hits(&mut m, &line.replace("404", "200")).len(), 0);
        assert_eq!(m.counts().matched, 1);
    }
}

#[test]
fn json_filters_do_not_share_paths() {
    let one = filter("{format: json, peer: .a, time: .t, match: {.s: 1}}");
    let other = filter("{format: json, peer: .b, time: .t, match: {.s: 1}}");
    let mut m = matcher(&[one.clone(), other, one]);
    let line = r#"{"a":"203.0.113.1","b":"203.0.113.2","s":1,"t":1735858014}"#;
    assert_eq!(hits(&mut m, line), ["0:203.0.113.1", "1:203.0.113.2", "2:203.0.113.1"]);
}

#[test]
fn every_line_has_its_time() {
    let now = Timestamp::from_secs(1_735_900_000);
    for (name, line) in [
        ("npm-404", NPM.replace(" 404 ", " 200 ")),
        ("traefik-forceful-browsing", CLF.replace(" 404 ", " 200 ")),
        ("npm-forbidden", "2025/01/02 22:46:04 [notice] 1#1: signal process started".into()),
        ("sshd", "Jan  2 22:46:04 web1 sshd[1]: Server listening on 0.0.0.0 port 22.".into()),
    ] {
        let at = matcher(&[shipped(name)]).stamp(line.as_bytes(), now);
        assert_eq!(at.map(|t| t.to_string()).as_deref(), Some("2025-01-02T22:46:04Z"), "{name}");
    }
    let mut m = matcher(&[filter("{failregex: 'from <HOST>'}")]);
    assert_eq!(m.stamp(b"2025-01-02T22:46:04Z x", now).map(Timestamp::as_millis), Some(1_735_857_964_000));
    assert_eq!(m.stamp(b"x", now), None);
}

#[test]
fn a_torn_record_gives_nobody_away() {
    // The user of basic authentication was `x\n9.9.9.9 - y`.
    let mut m = matcher(&[shipped("traefik-forceful-browsing")]);
    assert_eq!(hits(&mut m, "203.0.113.8 - x"), [] as [&str; 0]);
    assert_eq!(hits(&mut m, "more"), [] as [&str; 0]);
    assert_eq!(hits(&mut m, &CLF.replace("203.0.113.8 - -", "9.9.9.9 - y")), ["0:nobody"]);
    assert_eq!(hits(&mut m, CLF), ["0:203.0.113.8"]);
}

#[test]
fn a_broken_error_record_gives_nobody_away() {
    // The path of a missing file held `%0A` and a whole line.
    let line = |c: &str| {
        format!(
            "2025/01/02 22:46:54 [error] 1#1: *5 access forbidden by rule, client: {c}, server: s, request: \"GET / HTTP/1.1\", host: \"h\""
        )
    };
    let mut m = matcher(&[shipped("npm-forbidden")]);
    assert_eq!(hits(&mut m, &line("203.0.113.7")), ["0:203.0.113.7"]);
    let open = "2025/01/02 22:46:54 [error] 1#1: *5 open() \"/x\" failed (2: No), client: 9.9.9.9, server: s";
    assert_eq!(hits(&mut m, open), [] as [&str; 0]);
    let mut passed = open.len() + 1;
    while passed < 2048 {
        assert_eq!(hits(&mut m, &line("9.9.9.9")), ["0:nobody"], "{passed}");
        passed += line("9.9.9.9").len() + 1;
    }
    assert_eq!(hits(&mut m, &line("203.0.113.7")), ["0:203.0.113.7"]);
}

proptest! {
    /// Jails on one matcher see what each would see alone.
    #[test]
    fn jails_do_not_disturb_each_other(
        chosen in prop::collection::vec(0usize..7, 1..5),
        lines in prop::collection::vec((0usize..5, 0usize..4), 0..12),
    ) {
        let all = [
            shipped("npm-404"), shipped("npm-forceful-browsing"), shipped("traefik-forceful-browsing"), shipped("nginx-forceful-browsing"),
            filter("{format: [combined, traefik_clf, npm], match: {status: [200, 404]}}"),
            filter("{failregex: ['^<HOST> .* 404 ', 'Client <HOST>\\].*\"ua\"'], ignoreregex: ' 403 '}"),
            filter("{failregex: '^<HOST> - '}"),
        ];
        let combined = r#"203.0.113.9 - u [02/Jan/2025:22:46:04 +0000] "GET /x HTTP/1.1" 404 5 "-" "ua""#;
        let shapes = [NPM, CLF, combined, "203.0.113.8 - x", "2025-01-02 22:46:04 x"];
        let lines: Vec<String> = lines
            .iter()
            .map(|&(shape, status)| shapes[shape].replace(" 404 ", [" 404 ", " 200 ", " 403 ", " 500 "][status]))
            .collect();
        let filters: Vec<Arc<Filter>> = chosen.iter().map(|&n| Arc::clone(&all[n])).collect();
        let mut together = matcher(&filters);
        let mut alone: Vec<Matcher> = filters.iter().map(|f| matcher(std::slice::from_ref(f))).collect();
        for line in &lines {
            let mut expected = Vec::new();
            for (n, m) in alone.iter_mut().enumerate() {
                expected.extend(hits(m, line).iter().map(|h| h.replacen('0', &n.to_string(), 1)));
            }
            expected.sort();
            prop_assert_eq!(hits(&mut together, line), expected, "{}", line);
        }
    }
}
