//! The configuration from outside: what a file says, and what an administrator is told about a wrong one.
//!
//! Every `tests/config/*.yaml` ends with what it is told: `#!` lines are the mistakes, `#?` lines the warnings, all of
//! them and in that order, without the name of the file.
#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::path::Path;

use stockade::config::{Config, Shipped};

#[path = "config/escalation.rs"]
mod escalation;
#[path = "config/files.rs"]
mod files;
#[path = "config/meaning.rs"]
mod meaning;
#[path = "config/properties.rs"]
mod properties;

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
                .filter(|f| f.ends_with(".yaml"))
                .collect();
            files.sort();
            assert_eq!(files, [$($file),*]);
        }
    };
}

judge! {
    addresses "addresses.yaml",
    aliases "aliases.yaml",
    cloudflare "cloudflare.yaml",
    doubtful "doubtful.yaml",
    duplicates "duplicates.yaml",
    escalation "escalation.yaml",
    exec "exec.yaml",
    filters "filters.yaml",
    jails "jails.yaml",
    mail "mail.yaml",
    map "map.yaml",
    oddities "oddities.yaml",
    sources "sources.yaml",
    telegram "telegram.yaml",
    unknown_keys "unknown-keys.yaml",
    values "values.yaml",
    webhook "webhook.yaml",
}

const DEFAULT_CONFIG: &str = include_str!("../config.yaml");
const MAN: &str = include_str!("../packaging/man/stockade.yaml.5");

const KEYS: &[&str] = &[
    "ignoreip",
    "trusted_proxies",
    "defaults",
    "jails",
    "filters",
    "sinks",
    "zone_id",
    "account_id",
    "token_file",
    "email",
    "key_file",
    "list",
    "rule",
    "instance",
    "requests",
    "url",
    "cloudflare_ranges",
    "refresh",
    "kind",
    "events",
    "chat_id",
    "token_file",
    "thread_id",
    "silent",
    "lookup",
    "templates",
    "unban_button",
    "url",
    "timeout",
    "ca_file",
    "proxy",
    "preset",
    "method",
    "secret_file",
    "body",
    "per_minute",
    "batch",
    "room",
    "text",
    "journal",
    "directory",
    "docker",
    "root",
    "syslog",
    "senders",
    "mode",
    "backend",
    "headers",
    "paths",
    "limits",
    "leaks",
    "grace",
    "log",
    "enabled",
    "filter",
    "logpath",
    "listen",
    "render",
    "from",
    "maxretry",
    "findtime",
    "bantime",
    "ipv6_prefix",
    "escalation",
    "multipliers",
    "formula",
    "factor",
    "max",
    "jitter",
    "across",
    "memory",
    "decay",
    "neighbours",
    "after",
    "within",
    "ipv6",
    "ipv4",
    "history",
    "ports",
    "timezone",
    "names",
    "action",
    "matcher",
    "max_rules",
    "proxy_protocol",
    "state",
    "control",
    "memory",
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
    "path",
    "value",
    "test",
    "reload",
    "interval",
    "timeout",
    "socket",
    "map",
    "command",
    "to",
    "server",
    "encryption",
    "unencrypted",
    "user",
    "password_file",
    "password_env",
    "sendmail",
    "digest",
    "subject",
    "lines",
    "owner",
    "rdap_url",
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
        (&packaged.paths, &packaged.limits, &packaged.leaks, &packaged.log),
        (&silent.paths, &silent.limits, &silent.leaks, &silent.log)
    );
    assert_eq!((packaged.backend, &packaged.headers), (silent.backend, &silent.headers));
    assert_eq!(packaged.sources, silent.sources);
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
fn a_broken_shipped_filter_is_named() {
    let text = "jails: { broken: { logpath: /a }, again: { filter: broken, logpath: /a } }\nignoreip: [x]";
    let wanted = [
        "#! 2:12: ignoreip[0]: `x` is not an address, a network (10.0.0.0/8) or one of loopback, private, self, cloudflare; host names are not looked up",
        "the shipped filter broken:1:1: failregexx: unknown key; did you mean `failregex`?",
        "the shipped filter broken:1:1: a filter with a format needs `match:`, the fields of a line that is an offense",
    ];
    assert_eq!(told(text), wanted);
}

#[test]
fn what_is_not_yaml_says_what_usually_helps() {
    let cases = [
        (
            "filters:\n  a: { failregex: '^x' }\n  b:\n    failregex: user: <HOST>\n",
            "#! 4:20: not valid YAML: mapping values are not allowed in this context; text with a `: ` in it must stand in quotes",
        ),
        (
            "jails:\n\tsshd: {}\n",
            "#! 2:2: not valid YAML: tabs disallowed within this context (block indentation); indent with spaces",
        ),
        (
            "log: { level: \"a\\d\" }\n",
            "#! 1:15: not valid YAML: while parsing a quoted scalar, found unknown escape character; use single quotes: in them a backslash is a backslash",
        ),
        (
            "log: 'x\n",
            "#! 2:1: not valid YAML: invalid indentation in multiline quoted scalar; is a quote not closed?",
        ),
        ("log: [text\n", "#! 1:6: not valid YAML: unclosed bracket '['"),
        (
            "log: { level: @info }\n",
            "#! 1:15: not valid YAML: unexpected character: `@'; put the text in quotes",
        ),
        (
            "trusted_proxies: *all\n",
            "#! 1:18: trusted_proxies: no anchor `&all` stands above; put text with a leading `*` in quotes",
        ),
        ("jails: &a { sshd: { <<: *a } }\n", "#! 1:25: jails.sshd: this alias names the block it stands in"),
        ("log: {}\n---\nlog: {}\n", "#! 2:1: a second document begins here; only one is read"),
        ("%YAML 1.2\n---\nlog: {}\n", "#! 1:1: not valid YAML: YAML directives are disallowed"),
        ("- a\n", "#! 1:1: expected a map, found a list"),
        ("text\n", "#! 1:1: expected a map, found `text`"),
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

#[test]
fn depth_and_aliases_are_bounded() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let blocks: String = (0..2000).map(|i| format!("{}-\n", " ".repeat(i))).collect();
    let bomb = |levels: usize, width: usize| {
        let mut text = "a0: &a0 x\n".to_owned();
        for i in 1..=levels {
            text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); width].join(","));
        }
        text
    };
    // One long text named often weighs what it is long.
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1000].join(","));
    let merged = format!("a: &a {{ b: 1 }}\nc: {{ <<: [{}] }}\n", vec!["*a"; 300_000].join(","));
    for text in [deep, blocks, bomb(9, 9), bomb(1000, 1), bomb(20, 2), long, merged] {
        let told = told(&text);
        assert!(
            told.len() < 105 && told.iter().any(|t| t.contains("limit") || t.contains("too large")),
            "{told:?}"
        );
    }
}

#[test]
fn of_very_many_mistakes_the_first_are_said() {
    let text: String = (0..1000).map(|i| format!("key{i}: 1\n")).collect();
    let told = told(&text);
    assert_eq!(told.len(), 101);
    assert!(told[99].starts_with("#! 100:1: key99: unknown key"), "{}", told[99]);
    assert_eq!(told[100], "#!  900 more mistakes are not shown; mend these first");
}

#[test]
fn a_list_of_many_entries_is_read() {
    let list: String = (0..50_000).map(|i| format!("- 10.{}.{}.0/24\n", i / 256, i % 256)).collect();
    assert_eq!(parse(&format!("ignoreip:\n{list}")).ignoreip.len(), 50_000);
}
