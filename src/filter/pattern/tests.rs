use proptest::prelude::*;

use super::*;

fn compile(fail: &str) -> (Patterns, Vec<String>) {
    Patterns::compile(&[fail.to_owned()], &[]).unwrap_or_else(|e| panic!("{fail}: {}", e.2))
}

fn reason(fail: &str) -> String {
    match Patterns::compile(&[fail.to_owned()], &[]) {
        Ok(_) => panic!("{fail} was taken"),
        Err((_, _, reason)) => reason.to_string(),
    }
}

fn offender(fail: &str, line: &str) -> Option<String> {
    let (patterns, _) = compile(fail);
    let mut scratch = Vec::new();
    let (text, _) = cut(line.as_bytes(), &mut scratch);
    patterns.find(text, &mut patterns.locations())?.address.map(|a| a.to_string())
}

#[test]
fn tags_capture_addresses() {
    for (fail, line, expected) in [
        ("from <HOST>$", "x from 1.2.3.4", Some("1.2.3.4")),
        ("from <HOST>$", "x from [1.2.3.4]", Some("1.2.3.4")),
        ("from <HOST>$", "x from ::ffff:1.2.3.4", Some("1.2.3.4")),
        ("from <HOST>$", "x from 2001:db8::1", Some("2001:db8::1")),
        ("from <HOST>$", "x from [2001:db8::]", Some("2001:db8::")),
        ("from <HOST>:", "x from 1.2.3.4:80", Some("1.2.3.4")),
        ("from <HOST>\\.", "x from 1.2.3.4. Bye", Some("1.2.3.4")),
        ("from <ADDR> port", "x from 1.2.3.4 port", Some("1.2.3.4")),
        ("from <IP4>", "x from 1.2.3.4", Some("1.2.3.4")),
        ("from <IP6>", "x from ::1", Some("::1")),
        ("from <SUBNET>$", "x from 1.2.3.0/24", Some("1.2.3.0")),
        ("from <F-ID>\\S+</F-ID>$", "x from 1.2.3.4", Some("1.2.3.4")),
        ("from <F-ID/>$", "x from bob", None),
        ("from (?P<host>\\S+)$", "x from 1.2.3.4", Some("1.2.3.4")),
        ("user <F-USER>.*</F-USER> from <HOST>$", "user a from 9.9.9.9 from 1.2.3.4", Some("1.2.3.4")),
        ("<HOST> (?:is|was) <HOST>", "1.2.3.4 was 5.6.7.8", Some("1.2.3.4")),
        ("from <HOST>", "x from host.example", None),
    ] {
        assert_eq!(offender(fail, line).as_deref(), expected, "{fail} on {line}");
    }
}

#[test]
fn a_part_of_a_longer_word_is_no_address() {
    for line in [
        "from 9.9.9.9.evil.example",
        "from 9.9.9.99999",
        "from evil-9.9.9.9",
        "from 9.9.9.9-evil",
        "from 9.9.9.9x",
        "from x9.9.9.9",
        "from 256.1.1.1",
        "from fe80::1%eth0",
    ] {
        for fail in ["from .*?<HOST>", "<HOST>"] {
            assert_eq!(offender(fail, line), None, "{fail} on {line}");
        }
    }
}

#[test]
fn the_stamp_is_cut_out() {
    let web = r#"^<HOST> - \S+ \[\] "[^"]*" (404|403|401) .*$"#;
    assert_eq!(
        offender(web, r#"1.2.3.4 - - [02/Jan/2025:22:46:54 +0000] "GET / HTTP/1.1" 404 5"#).as_deref(),
        Some("1.2.3.4")
    );
    for fail in ["^login of <HOST>$", "^\\s*login of <HOST>$", "^ login of <HOST>$"] {
        assert_eq!(
            offender(fail, "2025-01-02 22:46:54 login of 1.2.3.4").as_deref(),
            Some("1.2.3.4"),
            "{fail}"
        );
    }
    assert_eq!(offender("^login of <HOST>$", "2025-01-02 22:46:54 x login of 1.2.3.4"), None);
}

#[test]
fn what_python_reads_otherwise_is_rewritten() {
    for (fail, line) in [
        (r"^\{a\} [[a&&~]+ <HOST>", "{a} [& 1.2.3.4"),
        ("a{b} {x <HOST>", "a{b} {x 1.2.3.4"),
        (r"\<a\> \/\-\= <HOST>\Z", "<a> /-= 1.2.3.4"),
        (r"[]x]+ [^]]+ <HOST>", "]x y 1.2.3.4"),
        (r"(?#note)a{2,3} <HOST>", "aa 1.2.3.4"),
        (r"(?i)FROM\x20<HOST>", "from 1.2.3.4"),
        ("<F-ALT_USER1>a</F-ALT_USER1> <F-PORT/> <HOST>", "a 22 1.2.3.4"),
        ("<a> <HOST>", "<a> 1.2.3.4"),
        ("é+ <HOST>", "éé 1.2.3.4"),
    ] {
        assert_eq!(offender(fail, line).as_deref(), Some("1.2.3.4"), "{fail} on {line}");
    }
}

#[test]
fn refusals_name_the_construct() {
    for (fail, word) in [
        ("(?=x)<HOST>", "look-ahead `(?=`"),
        ("(?!x)<HOST>", "look-ahead `(?!`"),
        ("(?<=x)<HOST>", "look-behind `(?<=`"),
        ("(?<!x)<HOST>", "look-behind `(?<!`"),
        ("(x)\\1 <HOST>", "back-reference `\\1`"),
        ("(?P<a>x)(?P=a)<HOST>", "back-reference `(?P=`"),
        ("(?(a)b|c)<HOST>", "conditional group"),
        ("(?>x)<HOST>", "atomic group"),
        ("<F-NOFAIL>x</F-NOFAIL> <HOST>", "<F-NOFAIL>"),
        ("x<SKIPLINES><HOST>", "<SKIPLINES>"),
        ("no address", "no group for the address"),
        ("from <DNS>", "no group for the address"),
        ("<NAME> <HOST>", "no known tag"),
        ("<F-USER>x <HOST>", "no partner"),
        ("x</F-USER> <HOST>", "no partner"),
        ("(<HOST>", "unclosed group"),
        ("[<HOST>", "not closed"),
        ("<HOST>\\", "ends in a backslash"),
    ] {
        let said = reason(fail);
        assert!(said.contains(word), "{fail}: {said}");
    }
}

#[test]
fn greed_before_the_address_is_warned_of() {
    assert_eq!(compile(r"^.* from <HOST>").1.len(), 1);
    assert_eq!(compile(r"^.* from <HOST>$").1.len(), 0);
    assert_eq!(compile(r".*? from <HOST>").1.len(), 0);
    assert_eq!(compile(r"from <HOST>.*").1.len(), 0);
}

#[test]
fn many_patterns_are_told_apart() {
    let fail: Vec<String> = (0..40).map(|n| format!("^app{n}: login failure from <HOST>$")).collect();
    let (patterns, _) = Patterns::compile(&fail, &["^app7: .* 5\\.6\\.7\\.8$".to_owned()]).unwrap();
    let mut locations = patterns.locations();
    for n in 0..40 {
        let line = format!("app{n}: login failure from 1.2.3.{n}");
        let expected = Match { pattern: n, address: Some(format!("1.2.3.{n}").parse().unwrap()) };
        assert_eq!(patterns.find(line.as_bytes(), &mut locations), Some(expected));
        assert_eq!(patterns.ignored(line.as_bytes()), None);
    }
    assert_eq!(patterns.find(b"app41: login failure from 1.2.3.4", &mut locations), None);
    assert_eq!(patterns.ignored(b"app7: login failure from 5.6.7.8"), Some(0));
}

proptest! {
    #[test]
    fn any_pattern_is_taken_or_refused(text in "[a.*+?^$()\\[\\]{}|\\\\<>/FHOSTUER,0-9:#&~-]{0,24}", line in "[a<>\\[\\]0-9.: ]{0,24}") {
        for pattern in [text.clone(), format!("{text}<HOST>")] {
            if let Ok((patterns, _)) = Patterns::compile(&[pattern], &[]) {
                let _ = patterns.find(line.as_bytes(), &mut patterns.locations());
            }
        }
    }

    #[test]
    fn a_host_is_the_address_between_delimiters(a in any::<[u8; 16]>(), v6 in any::<bool>(), open in "[ =(\"\\[]", close in "[ ,)\"\\]]") {
        let ip: IpAddr = if v6 { IpAddr::from(a) } else { IpAddr::from([a[0], a[1], a[2], a[3]]) };
        let ip = ip.to_canonical();
        prop_assume!(!ip.is_unspecified());
        prop_assert_eq!(offender("from.<HOST>.end", &format!("from{open}{ip}{close}end")), Some(ip.to_string()));
    }
}
