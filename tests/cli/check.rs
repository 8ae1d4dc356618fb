//! `stockade check`, in network namespaces of its own: what it sees, what it says, and that it leaves no trace.

use std::process::{Command, Output};

use serde_json::Value;

use super::{Place, npm};

/// Runs check in a new network namespace, as its root, after these shell commands; `$STOCKADE` is the program.
fn run(place: &Place, unshare: &str, script: &str) -> Output {
    Command::new("unshare")
        .args([unshare, "sh", "-euc", script])
        .env("STOCKADE", env!("CARGO_BIN_EXE_stockade"))
        .env("STOCKADE_CONFIG", place.dir().join("config.yaml"))
        .env("DIR", place.dir())
        .env("XTABLES_LOCKFILE", place.dir().join("xtables.lock"))
        .output()
        .unwrap()
}

/// The same with `--json`: the exit code and what was said.
fn check(place: &Place, setup: &str, wrap: &str) -> (i32, Value) {
    let out = run(place, "-rn", &format!("{setup}\nexec {wrap} $STOCKADE check --json"));
    let text = || format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", text()));
    (out.status.code().unwrap(), value)
}

fn feature<'v>(told: &'v Value, name: &str) -> &'v Value {
    let features = told["features"].as_array().unwrap();
    features.iter().find(|f| f["feature"] == name).unwrap_or_else(|| panic!("no feature {name}: {told:#}"))
}

/// The findings of this name.
fn findings<'v>(told: &'v Value, what: &str) -> Vec<&'v Value> {
    told["findings"].as_array().unwrap().iter().filter(|finding| finding["what"] == what).collect()
}

fn finding<'v>(told: &'v Value, what: &str) -> &'v Value {
    findings(told, what).first().copied().unwrap_or_else(|| panic!("no finding {what}: {told:#}"))
}

#[test]
fn the_root_of_a_namespace_is_told_what_there_is() {
    let place = Place::new();
    place.write("a-1.log", &npm(0, "203.0.113.7", 404));
    let (code, told) = check(&place, "", "");
    assert_eq!((code, &told["ok"]), (0, &true.into()), "{told:#}");
    assert_eq!(told["backend"]["chosen"], "nft");
    for name in ["table-inet", "table-bridge", "timeout", "interval", "match-string-inet", "match-bpf-inet"] {
        assert_eq!(feature(&told, name)["available"], true, "{told:#}");
    }
    for each in told["features"].as_array().unwrap() {
        for key in ["feature", "used_for", "instead"] {
            assert!(each[key].as_str().is_some_and(|text| !text.is_empty()), "{each:#}");
        }
        assert_eq!(each["available"] == true, each["reason"].is_null(), "{each:#}");
    }
    // Root of a user namespace only, whatever its capabilities: BPF is the host's affair.
    assert_eq!(feature(&told, "bpf-load")["available"], false);
    assert_eq!(told["header_matcher"]["chosen"], "string");
    assert!(told["header_matcher"]["why"].as_str().unwrap().contains("user namespace"), "{told:#}");
    assert_eq!(finding(&told, "network")["mark"], "!!");
    assert_eq!(finding(&told, "CAP_NET_ADMIN")["ok"], true);
}

#[test]
fn nothing_is_changed_and_nobody_is_notified() {
    let place = Place::new();
    // What is there already, also of ours, must not be touched.
    let script = "
        nft add table inet stockade
        nft monitor >$DIR/monitor &
        monitor=$!
        saw() { for _ in $(seq 500); do grep -q \"$1\" $DIR/monitor && return; sleep 0.01; done; exit 9; }
        until grep -q 'table ip before' $DIR/monitor; do nft add table ip before; nft delete table ip before; done
        nft add table ip first; saw 'add table ip first'
        nft list ruleset >$DIR/before
        $STOCKADE check >/dev/null
        nft list ruleset >$DIR/after
        nft add table ip last; saw 'add table ip last'
        kill $monitor
        cmp $DIR/before $DIR/after";
    let out = run(&place, "-rn", script);
    assert!(out.status.success(), "{out:?}");
    let seen = std::fs::read_to_string(place.dir().join("monitor")).unwrap();
    let since = seen.split_once("add table ip first\n").unwrap().1;
    let lines: Vec<&str> = since.lines().collect();
    let generation = |line: &str| -> u32 {
        let (_, rest) = line.split_once("# new generation ").unwrap_or_else(|| panic!("{since}"));
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!((lines.len(), lines[1]), (3, "add table ip last"), "{since}");
    assert_eq!(generation(lines[2]), generation(lines[0]) + 1, "{since}");
}

#[test]
fn who_may_not_ask_asks_in_a_namespace_made_for_it() {
    let place = Place::new();
    place.write("a-1.log", &npm(0, "203.0.113.7", 404));
    let dropped = "setpriv --bounding-set=-net_admin";
    let (code, told) = check(&place, "", dropped);
    assert_eq!(code, 1, "without the capability no ban is enforced: {told:#}");
    assert_eq!(finding(&told, "CAP_NET_ADMIN")["ok"], false);
    assert_eq!(feature(&told, "table-inet")["available"], true, "the kernel has it: {told:#}");
    assert_eq!(told["backend"]["chosen"], "nft");
    assert_eq!(finding(&told, "before our hook")["ok"], Value::Null, "what is there cannot be seen");
    // Where that is not allowed either, it says that it could not see.
    let (code, told) = check(&place, "echo 0 >/proc/sys/user/max_user_namespaces", dropped);
    assert_eq!(code, 1);
    assert_eq!(feature(&told, "table-inet")["available"], Value::Null, "{told:#}");
    assert_eq!(finding(&told, "bans by source")["ok"], Value::Null);
    assert!(told["backend"]["chosen"].is_null() && told["header_matcher"]["chosen"].is_null(), "{told:#}");
}

#[test]
fn what_comes_before_our_hook_is_told_and_whether_it_matters() {
    let place = Place::new();
    let early = |rule: &str| {
        format!(
            "nft add table ip early; nft 'add chain ip early pre {{ type filter hook prerouting priority -400; }}'\n\
             nft add rule ip early pre {rule}"
        )
    };
    let (code, told) = check(&place, &early("accept"), "");
    let harmless = finding(&told, "before our hook");
    assert_eq!((code, &harmless["mark"]), (0, &"ok".into()), "{told:#}");
    assert!(harmless["told"].as_str().unwrap().contains("chain ip early pre (prerouting, priority -400)"));
    let (code, told) = check(&place, &early("ip saddr set 192.0.2.1"), "");
    let matters = finding(&told, "before our hook");
    assert_eq!((code, &matters["mark"]), (0, &"!!".into()), "{told:#}");
    assert!(matters["told"].as_str().unwrap().contains("rewrites packets"), "{told:#}");
}

#[test]
fn the_firewall_backend_of_docker_is_told() {
    let place = Place::new();
    for (setup, expected) in [
        ("nft add table ip docker-bridges", "firewall backend nftables"),
        (
            "nft add table ip filter; nft add chain ip filter DOCKER-USER",
            "firewall backend iptables, over nf_tables",
        ),
        ("iptables-legacy -N DOCKER-USER", "firewall backend iptables-legacy"),
        ("", "no rules of Docker"),
    ] {
        let (_, told) = check(&place, setup, "");
        let docker = finding(&told, "docker")["told"].as_str().unwrap();
        assert!(
            docker.contains(expected) || (setup.is_empty() && docker.contains("no rules")),
            "{setup}: {docker}"
        );
    }
}

#[test]
fn the_switch_of_br_netfilter_is_seen() {
    let place = Place::new();
    let (_, told) = check(&place, "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables", "");
    let switch = feature(&told, "br-netfilter-call");
    assert_eq!(switch["available"], false, "{switch:#}");
    assert_eq!(switch["reason"], "net.bridge.bridge-nf-call-iptables is 0");
    assert!(switch["advice"].as_str().unwrap().starts_with("sysctl -w net.bridge.bridge-nf-call-iptables=1"));
    assert_eq!(feature(&told, "br-netfilter")["available"], true);
}

#[test]
fn a_saved_copy_of_our_table_is_warned_of() {
    let place = Place::new();
    let script = "mount -t tmpfs none /etc\nprintf '\\ntable inet stockade {\\n}\\n' >/etc/nftables.conf\n\
                  exec $STOCKADE check --json";
    let out = run(&place, "-rnm", script);
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    let saved = finding(&told, "saved ruleset");
    assert_eq!(saved["mark"], "!!");
    assert_eq!(saved["told"], "/etc/nftables.conf has a copy of our table, at line 2");
    assert!(findings(&check(&place, "", "").1, "saved ruleset").is_empty());
}

/// A jail over a log in nginx' own format, as a proxy on another host or Cloudflare would fill it.
fn behind(place: &Place, header_bans: &str, ports: &str) {
    let dir = place.dir().display();
    place.write(
        "config.yaml",
        &format!(
            "paths: {{ state: {dir}, control: {dir}/control.sock }}\ntrusted_proxies: [loopback, private, cloudflare]\n\
             headers: {{ matcher: {header_bans} }}\nfilters:\n  app: {{ format: json, peer: .peer, forwarded: .xff, match: {{ \
             .status: 404 }} }}\njails:\n  app: {{ filter: app, logpath: {dir}/app.json, ports: {ports} }}\n"
        ),
    );
    let line = |peer: &str, client: &str| {
        format!("{{\"peer\": \"{peer}\", \"xff\": \"{client}\", \"status\": 200}}\n")
    };
    let lines =
        [line("203.0.113.5", ""), line("192.168.77.7", "203.0.113.7"), line("104.16.1.1", "203.0.113.8")];
    place.write("app.json", &lines.concat());
}

#[test]
fn a_jail_whose_offenders_no_packet_shows_is_a_no() {
    let place = Place::new();
    for (matcher, ports, code) in
        [("auto", "[]", 0), ("off", "[]", 1), ("auto", "[443]", 1), ("bpf", "[]", 1)]
    {
        behind(&place, matcher, ports);
        let (found, told) = check(&place, "", "");
        assert_eq!(found, code, "{matcher} {ports}: {told:#}");
        for way in ["offenders, proxy", "offenders, Cloudflare"] {
            assert_eq!(finding(&told, way)["ok"], code == 0, "{told:#}");
        }
        assert_eq!(finding(&told, "offenders, direct")["ok"], true, "{told:#}");
    }
}

#[test]
fn a_jail_reads_like_this() {
    let place = Place::new();
    behind(&place, "string", "[]");
    let out = run(&place, "-rn", "exec $STOCKADE check");
    let text = String::from_utf8(out.stdout).unwrap().replace(&place.dir().display().to_string(), "DIR");
    let (_, rest) = text.split_once("jail app").unwrap();
    let jail = rest.split("\n\n").next().unwrap();
    insta::assert_snapshot!(format!("jail app{jail}"), @r"
    jail app (5 in 10m, banned for 10m)
      ok  logs                   DIR/app.json
      ok  offenders, direct      1 of 3 lines: stopped by source
      !!  offenders, proxy       1 of 3 lines through a proxy elsewhere: stopped by header bans (string), where the request is plain HTTP/1
            -> TLS and HTTP/2 cannot be looked into: header bans hold where a proxy passes requests on as plain HTTP/1 through this host
      !!  offenders, Cloudflare  1 of 3 lines through Cloudflare: stopped by header bans (string), where the request is plain HTTP/1
            -> a Cloudflare sink, which would stop them at Cloudflare, is not configured
    ");
    assert!(text.starts_with("configuration\n  ok  DIR/config.yaml"), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("Everything that is configured can be enforced"), "{text}");
}
