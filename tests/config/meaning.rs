//! What a valid text means, key by key.

use std::sync::Arc;
use std::time::Duration;

use stockade::config::filter::definition;
use stockade::config::{
    AllowEntry, Backend, From, HeaderAction, Headers, Jail, Leaks, Limits, Log, LogFormat, LogLevel,
    MatcherChoice, Paths,
};
use stockade::filter::definition::{Clause, Definition, Pattern};
use stockade::source::Shape;
use stockade::types::BanTime;

use super::*;

fn nets(entries: &[AllowEntry]) -> Vec<String> {
    let show = |e: &AllowEntry| match e {
        AllowEntry::Net(net) => net.to_string(),
        AllowEntry::OwnHost => "self".to_owned(),
        AllowEntry::Cloudflare => "cloudflare".to_owned(),
    };
    entries.iter().map(show).collect()
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
    observe: yes
  npm-404: { logpath: /a, from: start, enabled: yes, findtime: 90, bantime: 1d12h }
  off: { filter: mine, logpath: /a, enabled: off }
filters: { mine: { failregex: ['^a <HOST>$', '^b <HOST>$'], ignoreregex: c, timezone: UTC } }
backend: nft
headers: { names: [True-Client-IP, true-client-ip, X-Real-IP], action: drop, matcher: off, max_rules: 7, proxy_protocol: no }
paths: { state: /s, control: /c/s }
limits: { offenders: 1000, history: 500, line: 4096, memory: 96M }
leaks: { grace: 1m }
log: { level: debug, format: json }
";
    let config = parse(text);
    assert_eq!(nets(&config.ignoreip), ["192.0.2.1/32", "2001:db8::/32", "self"]);
    assert_eq!(nets(&config.trusted_proxies), ["10.0.0.0/8"]);
    assert_eq!(config.backend, Backend::Nft);
    let headers = Headers {
        names: vec!["true-client-ip".into(), "x-real-ip".into()],
        action: HeaderAction::Drop,
        matcher: MatcherChoice::Off,
        max_rules: 7,
        proxy_protocol: false,
    };
    assert_eq!(config.headers, headers);
    assert_eq!(config.paths, Paths { state: "/s".into(), control: "/c/s".into() });
    assert_eq!(config.limits, Limits { offenders: 1000, history: 500, line: 4096, memory: 96 << 20 });
    assert_eq!(config.leaks, Leaks { grace: Duration::from_secs(60) });
    assert_eq!(config.log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    assert_eq!(config.warnings, []);
    let [web, npm] = &config.jails[..] else { panic!("{:?}", config.jails) };
    let wanted = Jail {
        name: "web".into(),
        enabled: true,
        filter_name: "npm-404".into(),
        filter: Arc::new(definition(NPM_404, "x").unwrap()),
        logpath: vec!["/var/log/*.log".into(), "/var/log/b.log".into()],
        journal: None,
        docker: Vec::new(),
        listen: Vec::new(),
        render: None,
        from: From::End,
        maxretry: 3,
        findtime: Duration::from_secs(3600),
        bantime: BanTime::Permanent,
        escalation: None,
        ipv6_prefix: 56,
        ignoreip: vec![AllowEntry::Net("198.51.100.0/24".parse().unwrap())],
        ports: vec![22, 443, 8000, 8001, 8002],
        observe: true,
        sinks: Vec::new(),
        timezone: Some("+01:00".into()),
    };
    assert_eq!(*web, wanted);
    assert!(Arc::ptr_eq(&web.filter, &npm.filter), "jails of one filter share it");
    assert_eq!((npm.from, npm.findtime, &npm.ports[..]), (From::Start, Duration::from_secs(90), &[80][..]));
    assert!(!npm.observe);
    assert_eq!(npm.bantime, BanTime::For(Duration::from_secs(36 * 3600)));
}

#[test]
fn sources_mean_what_they_say() {
    let config = parse(
        "
journal: { directory: /j }
docker: { root: /d }
syslog: { senders: [10.0.0.0/8], mode: '0660' }
defaults: { render: message }
jails:
  sshd: { journal: [_SYSTEMD_UNIT=b.service _UID=0, _SYSTEMD_UNIT=a.service + _UID=0 _SYSTEMD_UNIT=b.service], render: syslog }
  npm-404: { docker: [web, label=a=b, web], listen: ['udp://10.0.0.1:514', /run/x.sock, 'unix:///run/x.sock'] }
",
    );
    assert_eq!(config.warnings, []);
    let [sshd, npm] = &config.jails[..] else { panic!("{:?}", config.jails) };
    assert_eq!(
        sshd.journal.as_ref().unwrap().source(),
        "journal:_SYSTEMD_UNIT=a.service + _SYSTEMD_UNIT=b.service _UID=0"
    );
    assert_eq!((sshd.render, npm.render), (Some(Shape::Syslog), Some(Shape::Message)));
    assert_eq!(npm.docker.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web", "label=a=b"]);
    let listen: Vec<_> = npm.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["udp://10.0.0.1:514", "unix:///run/x.sock"]);
    let sources = &config.sources;
    assert_eq!(
        (sources.journal.as_deref(), sources.docker.as_path()),
        (Some(Path::new("/j")), Path::new("/d"))
    );
    assert_eq!((nets(&sources.senders), sources.mode), (vec!["10.0.0.0/8".to_owned()], 0o660));
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
    assert!(with_jail("ports: 1-65535").jails[0].ports.is_empty());
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
