//! The configuration from outside: what a file says, and what an administrator is told about a wrong one.
//!
//! Every `tests/config/*.yaml` ends with what it is told: `#!` lines are the mistakes, `#?` lines the warnings, all of
//! them and in that order, without the name of the file.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stockade::config::filter::definition;
use stockade::config::{AllowEntry, Config, From, Jail, Limits, Log, LogFormat, LogLevel, Paths, Shipped};
use stockade::filter::definition::{Clause, Definition, Pattern};
use stockade::types::BanTime;

const NPM_404: &str = "{ format: npm, match: { status: 404 } }";

const SHIPPED: Shipped<'static> = Shipped {
    names: &["npm-404", "sshd", "broken"],
    text: |name| match name {
        "npm-404" => Some(NPM_404),
        "sshd" => Some("failregex: '^x <HOST>$'"),
        "broken" => Some("failregexx: x\nformat: a\n"),
        _ => None,
    },
};

/// What a text is told, as in the files.
fn told(text: &str) -> Vec<String> {
    match Config::parse(text, "f", &SHIPPED) {
        Ok(config) => config.warnings.iter().map(|w| w.to_string().replacen("f:", "#? ", 1)).collect(),
        Err(e) => {
            assert!(!e.mistakes().is_empty(), "no configuration, and no reason");
            e.mistakes().iter().map(|m| m.to_string().replacen("f:", "#! ", 1)).collect()
        }
    }
}

fn judge(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let wanted: Vec<_> = text.lines().filter(|l| l.starts_with("#!") || l.starts_with("#?")).collect();
    let got = told(&text);
    assert!(!wanted.is_empty(), "{name} expects nothing; expected and got differ:\n{}", got.join("\n"));
    assert_eq!(wanted, got, "\n{name} was told:\n{}\n", got.join("\n"));
}

macro_rules! judge {
    ($($test:ident $file:literal),* $(,)?) => {
        $(#[test] fn $test() { judge($file); })*

        #[test]
        fn every_file_is_judged() {
            let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config"))
                .unwrap()
                .map(|f| f.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(files, [$($file),*]);
        }
    };
}

judge! {
    addresses "addresses.yaml",
    aliases "aliases.yaml",
    doubtful "doubtful.yaml",
    duplicates "duplicates.yaml",
    filters "filters.yaml",
    jails "jails.yaml",
    oddities "oddities.yaml",
    unknown_keys "unknown-keys.yaml",
    values "values.yaml",
}

const DEFAULT_CONFIG: &str = include_str!("../config.yaml");
const MAN: &str = include_str!("../packaging/man/stockade.yaml.5");

const KEYS: &[&str] = &[
    "ignoreip",
    "trusted_proxies",
    "defaults",
    "jails",
    "filters",
    "paths",
    "limits",
    "log",
    "enabled",
    "filter",
    "logpath",
    "from",
    "maxretry",
    "findtime",
    "bantime",
    "ipv6_prefix",
    "ports",
    "timezone",
    "state",
    "control",
    "offenders",
    "line",
    "level",
    "format",
    "match",
    "ignore",
    "failregex",
    "ignoreregex",
    "time",
    "peer",
    "forwarded",
];

/// The filters that the packaged configuration names; what is in them is not its business.
const PACKAGED: Shipped<'static> = Shipped {
    names: &["npm-forceful-browsing", "sshd"],
    text: |name| ["npm-forceful-browsing", "sshd"].contains(&name).then_some(NPM_404),
};

fn parse(text: &str) -> Config {
    match Config::parse(text, "f", &SHIPPED) {
        Ok(config) => config,
        Err(e) => panic!("{e}\n{text}"),
    }
}

/// The configuration whose jail `npm-404` has these keys besides its logpath.
fn with_jail(keys: &str) -> Config {
    parse(&format!("jails: {{ npm-404: {{ logpath: /a, {keys} }} }}"))
}

fn nets(entries: &[AllowEntry]) -> Vec<String> {
    let show = |e: &AllowEntry| match e {
        AllowEntry::Net(net) => net.to_string(),
        AllowEntry::OwnHost => "self".to_owned(),
    };
    entries.iter().map(show).collect()
}

#[test]
fn the_packaged_configuration_has_no_mistake_and_says_the_defaults() {
    let packaged = Config::parse(DEFAULT_CONFIG, "config.yaml", &PACKAGED).unwrap();
    assert_eq!(packaged.warnings, []);
    assert_eq!(
        packaged.jails.iter().map(|j| j.name.as_str()).collect::<Vec<_>>(),
        ["npm-forceful-browsing", "sshd"]
    );

    // What it states as its defaults are the defaults.
    let silent = with_jail("");
    assert_eq!(
        (&packaged.paths, &packaged.limits, &packaged.log),
        (&silent.paths, &silent.limits, &silent.log)
    );
    let defaults = DEFAULT_CONFIG.split("jails:").next().unwrap();
    let stated = parse(&format!("{defaults}\njails: {{ npm-404: {{ logpath: /a }} }}"));
    assert_eq!(stated.jails, silent.jails);
}

#[test]
fn every_example_of_the_packaged_configuration_can_be_uncommented() {
    let mut uncommented = String::new();
    for line in DEFAULT_CONFIG.lines() {
        let text = line.trim_start();
        let code =
            text.strip_prefix('#').filter(|code| code.starts_with(|c| c != ' ') || code.starts_with("  "));
        // Prose has one space after the #, the list of names three.
        match code.filter(|code| !code.starts_with("   ")) {
            Some(code) => uncommented += &format!("{}{code}\n", &line[..line.len() - text.len()]),
            None => uncommented += &format!("{line}\n"),
        }
    }
    assert!(uncommented.contains("\n  my-app:\n    enabled: false\n"), "{uncommented}");
    let config = Config::parse(&uncommented, "config.yaml", &PACKAGED)
        .unwrap_or_else(|e| panic!("{e}\n{uncommented}"));
    assert_eq!(config.warnings, []);
}

#[test]
fn every_key_is_documented_twice() {
    for key in KEYS {
        let stands = |l: &str| l.trim_start_matches([' ', '#']).starts_with(&format!("{key}:"));
        assert!(DEFAULT_CONFIG.lines().any(stands), "config.yaml does not explain `{key}`");
        let item = |l: &str| l.strip_prefix(".It Cm ").is_some_and(|l| l.split(" , ").any(|k| k == *key));
        assert!(MAN.lines().any(item), "stockade.yaml(5) does not explain `{key}`");
    }
}

#[test]
fn the_example_of_the_manual_is_valid() {
    let example = MAN.split(".Sh EXAMPLES\n.Bd -literal\n").nth(1).unwrap().split(".Ed").next().unwrap();
    assert_eq!(Config::parse(example, "man", &PACKAGED).unwrap().warnings, []);
}

#[test]
fn every_key_means_what_it_says() {
    let text = "
ignoreip: [192.0.2.1, 2001:db8::/32, self]
trusted_proxies: 10.0.0.0/8
defaults: { findtime: 1h, bantime: -1, ports: [http] }
jails:
  web:
    filter: npm-404
    logpath: [/var/log/*.log, /var/log/b.log, /var/log/b.log]
    from: end
    maxretry: 3
    ipv6_prefix: 56
    ignoreip: 198.51.100.0/24
    ports: [https, 8000-8002, 22]
    timezone: '+01:00'
  npm-404: { logpath: /a, from: start, enabled: yes, findtime: 90, bantime: 1d12h }
  off: { filter: mine, logpath: /a, enabled: off }
filters: { mine: { failregex: ['^a <HOST>$', '^b <HOST>$'], ignoreregex: c, timezone: UTC } }
paths: { state: /s, control: /c/s }
limits: { offenders: 1000, line: 4096 }
log: { level: debug, format: json }
";
    let config = parse(text);
    assert_eq!(nets(&config.ignoreip), ["192.0.2.1/32", "2001:db8::/32", "self"]);
    assert_eq!(nets(&config.trusted_proxies), ["10.0.0.0/8"]);
    assert_eq!(config.paths, Paths { state: "/s".into(), control: "/c/s".into() });
    assert_eq!(config.limits, Limits { offenders: 1000, line: 4096 });
    assert_eq!(config.log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!(config.warnings, []);
    let [web, npm] = &config.jails[..] else { panic!("{:?}", config.jails) };
    let wanted = Jail {
        name: "web".into(),
        enabled: true,
        filter_name: "npm-404".into(),
        filter: Arc::new(definition(NPM_404, "x").unwrap()),
        logpath: vec!["/var/log/*.log".into(), "/var/log/b.log".into()],
        from: From::End,
        maxretry: 3,
        findtime: Duration::from_secs(3600),
        bantime: BanTime::Permanent,
        ipv6_prefix: 56,
        ignoreip: vec![AllowEntry::Net("198.51.100.0/24".parse().unwrap())],
        ports: vec![22, 443, 8000, 8001, 8002],
        timezone: Some("+01:00".into()),
    };
    assert_eq!(*web, wanted);
    assert!(Arc::ptr_eq(&web.filter, &npm.filter), "jails of one filter share it");
    assert_eq!((npm.from, npm.findtime, &npm.ports[..]), (From::Start, Duration::from_secs(90), &[80][..]));
    assert_eq!(npm.bantime, BanTime::For(Duration::from_secs(36 * 3600)));
}

#[test]
fn silence_has_defaults() {
    let config = with_jail("");
    assert_eq!(nets(&config.ignoreip), ["127.0.0.0/8", "::1/128", "self"]);
    assert_eq!(nets(&config.trusted_proxies).len(), 2 + 6);
    let jail = &config.jails[0];
    assert_eq!((jail.maxretry, jail.findtime, jail.ipv6_prefix), (5, Duration::from_secs(600), 64));
    assert_eq!(jail.bantime, BanTime::For(Duration::from_secs(600)));
    assert_eq!((jail.from, &jail.ports, &jail.timezone), (From::Recent, &vec![], &None));
}

#[test]
fn an_empty_list_is_a_list() {
    let config = parse("ignoreip: []\ntrusted_proxies: []\n");
    assert_eq!((config.ignoreip.len(), config.trusted_proxies.len()), (0, 0));
}

#[test]
fn a_text_may_stand_for_a_list_as_fail2ban_writes_it() {
    let config = with_jail("ignoreip: '192.0.2.1 192.0.2.1,198.51.100.1', ports: 'http,https 22'");
    assert_eq!(nets(&config.jails[0].ignoreip), ["192.0.2.1/32", "198.51.100.1/32"]);
    assert_eq!(config.jails[0].ports, [22, 80, 443]);
    assert_eq!(with_jail("ports: 1-65535").jails[0].ports, []);
}

#[test]
fn the_words_of_yaml_1_1_are_truth_only_where_truth_is_asked_for() {
    for (word, truth) in [("yes", true), ("Off", false), ("TRUE", true), ("no", false), ("'on'", true)] {
        assert_eq!(with_jail(&format!("enabled: {word}")).jails.len(), usize::from(truth), "{word}");
    }
    let text = "filters: { f: { format: json, peer: .p, match: { .a: no, .b: true, .c: 1e3, .d: 0x1F, .e: 1_0, .f: 012 } } }";
    let config = parse(&format!("{text}\njails: {{ f: {{ logpath: /a }} }}"));
    let Clause(fields) = &config.jails[0].filter.matches[0];
    let regex = |t: &str| vec![Pattern::Regex(t.into())];
    let wanted =
        [regex("no"), regex("true"), regex("1e3"), regex("0x1F"), regex("1_0"), vec![Pattern::Number(12)]];
    assert_eq!(fields.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>(), wanted);
}

#[test]
fn values_of_fields() {
    let text = r"{ format: [npm, json], match: { status: [404, '404', '4xx', 40X, 400-499, '-', -5, 4x4, '^/a-b', x, 0xx] },
                   ignore: [{ uri: '\.png$' }, { user: a, host: b }], peer: .a.b, time: .t, forwarded: .f }";
    let found = definition(text, "x").unwrap();
    let regex = |t: &str| Pattern::Regex(t.into());
    let status = vec![
        Pattern::Number(404),
        Pattern::Number(404),
        Pattern::Range(400, 499),
        Pattern::Range(400, 409),
        Pattern::Range(400, 499),
        Pattern::Absent,
        Pattern::Number(-5),
        regex("4x4"),
        regex("^/a-b"),
        regex("x"),
        regex("0xx"),
    ];
    let clause =
        |fields: &[(&str, &str)]| Clause(fields.iter().map(|(f, p)| ((*f).into(), vec![regex(p)])).collect());
    let wanted = Definition {
        formats: vec!["npm".into(), "json".into()],
        matches: vec![Clause(vec![("status".into(), status)])],
        ignore: vec![clause(&[("uri", r"\.png$")]), clause(&[("user", "a"), ("host", "b")])],
        peer: Some(".a.b".into()),
        time: Some(".t".into()),
        forwarded: Some(".f".into()),
        ..Definition::default()
    };
    assert_eq!(found, wanted);
}

#[test]
fn a_broken_shipped_filter_is_named() {
    let text = "jails: { broken: { logpath: /a }, again: { filter: broken, logpath: /a } }\nignoreip: [x]";
    let wanted = [
        "#! 2:12: ignoreip[0]: `x` is not an address, a network (10.0.0.0/8) or one of loopback, private, self, cloudflare; host names are not looked up",
        "the shipped filter broken:1:1: a filter with a format needs `match:`, the fields of a line that is an offense",
        "the shipped filter broken:1:1: failregexx: unknown key; did you mean `failregex`?",
    ];
    assert_eq!(told(text), wanted);
}

#[test]
fn merge_keys_and_anchors() {
    let text = "
defaults: &all { filter: npm-404, maxretry: 7, findtime: 1h }
jails:
  one: &one { <<: *all, logpath: /one, maxretry: 3 }
  two: { logpath: /two, <<: [*one, { bantime: 1d, maxretry: 9 }] }
";
    let config = parse(text);
    let [one, two] = &config.jails[..] else { panic!("{:?}", config.jails) };
    assert_eq!((one.maxretry, one.findtime), (3, Duration::from_secs(3600)));
    assert_eq!((two.maxretry, two.findtime, &two.logpath[0][..]), (3, Duration::from_secs(3600), "/two"));
    assert_eq!(two.bantime, BanTime::For(Duration::from_secs(86_400)));
}

#[test]
fn what_is_not_yaml_says_what_usually_helps() {
    let cases = [
        (
            "filters:\n  a: { failregex: '^x' }\n  b:\n    failregex: user: <HOST>\n",
            "#! 4:20: not valid YAML: mapping values are not allowed in this context; text with a `: ` in it must stand in quotes",
        ),
        ("jails:\n\tsshd: {}\n", ""),
        ("log: { level: \"a\\d\" }\n", ""),
        ("log: 'x\n", ""),
        ("log: [text\n", ""),
        ("log: { level: @info }\n", ""),
        ("trusted_proxies: *all\n", ""),
        ("jails: &a { sshd: { <<: *a } }\n", ""),
        ("log: {}\n---\nlog: {}\n", ""),
        ("%YAML 1.2\n---\nlog: {}\n", ""),
        ("- a\n", ""),
        ("text\n", ""),
        ("", "#?  no jail is enabled, so nothing is watched; add one under `jails:`"),
        ("# nothing\n---\n...\n", "#?  no jail is enabled, so nothing is watched; add one under `jails:`"),
        (
            "\u{feff}log:\r\n  level: info\r\n",
            "#?  no jail is enabled, so nothing is watched; add one under `jails:`",
        ),
    ];
    for (text, wanted) in cases {
        assert_eq!(told(text), [wanted], "{text}");
    }
}
