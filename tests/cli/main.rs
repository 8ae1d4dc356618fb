//! The command line as a person meets it: the real binary, its output, its exit codes. Nothing here needs root.
#![expect(clippy::unwrap_used, reason = "what a test relies on and does not find fails the test")]

mod check;
mod manual;
mod wait;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A line of an NPM proxy host at a second of one minute.
fn npm(second: u32, client: &str, status: u16) -> String {
    format!(
        "[04/Jan/2025:21:27:{second:02} +0000] - {status} {status} - GET https one.example \"/abc\" [Client {client}] \
         [Length 111] [Gzip -] [Sent-to app] \"curl/8\" \"-\"\n"
    )
}

struct Place(tempfile::TempDir);

impl Place {
    /// A directory with a configuration of one jail: 3 in 10 s are a ban of 20 s.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let dir = place.dir().display().to_string();
        place.write(
            "config.yaml",
            &format!(
                "paths: {{ state: {dir}, control: {dir}/control.sock }}\nignoreip: [loopback, 198.51.100.9]\njails:\n  web:\n    \
                 filter: npm-404\n    logpath: {dir}/a-*.log\n    maxretry: 3\n    findtime: 10s\n    bantime: 20s\n"
            ),
        );
        place
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_stockade"))
            .args(args)
            .current_dir(self.dir())
            .env("STOCKADE_CONFIG", self.dir().join("config.yaml"))
            .output()
            .unwrap()
    }

    fn said(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Exit code and standard error.
    fn failed(&self, args: &[&str]) -> (i32, String) {
        let out = self.run(args);
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    }
}

#[test]
fn replay_bans_in_the_logs_own_time() {
    let place = Place::new();
    let log: String = [0, 1, 2, 3, 30, 31, 32].map(|s| npm(s, "203.0.113.7", 404)).concat();
    place.write("a-1.log", &log);
    insta::assert_snapshot!(place.said(&["replay", "--json", "a-1.log"]), @r#"
    {"at":"2025-01-04T21:27:02Z","decision":"ban","jail":"web","offender":"203.0.113.7","offenses":3,"until":"2025-01-04T21:27:22Z"}
    {"at":"2025-01-04T21:27:22Z","decision":"unban","jail":"web","offender":"203.0.113.7","offenses":3,"until":"2025-01-04T21:27:22Z"}
    {"at":"2025-01-04T21:27:32Z","decision":"ban","jail":"web","offender":"203.0.113.7","offenses":3,"until":"2025-01-04T21:27:52Z"}
    {"bans":2,"lines":7,"offenders":1,"offenses":7,"too_long":0,"unattributable":0}
    "#);
    insta::assert_snapshot!(place.said(&["replay", "a-1.log"]), @r#"
    2025-01-04T21:27:02Z ban 203.0.113.7 in web until 2025-01-04T21:27:22Z, 3 offenses, the last: [04/Jan/2025:21:27:02 +0000] - 404 404 - GET https one.example "/abc" [Client 203.0.113.7] [Length 111] [Gzip -] [Sent-to app] "curl/8" "-"
    2025-01-04T21:27:32Z ban 203.0.113.7 in web until 2025-01-04T21:27:52Z, 3 offenses, the last: [04/Jan/2025:21:27:32 +0000] - 404 404 - GET https one.example "/abc" [Client 203.0.113.7] [Length 111] [Gzip -] [Sent-to app] "curl/8" "-"
    7 lines, 7 offenses, 2 bans of 1 offenders
    "#);
}

#[test]
fn replay_and_explain_show_longer_bans() {
    let place = Place::new();
    let config = fs::read_to_string(place.dir().join("config.yaml")).unwrap();
    let escalation =
        "escalation: { multipliers: [1, 2, 30], jitter: 1m, max: 5m, neighbours: { after: 2, ipv4: 24 } }\n";
    place.write("config.yaml", &format!("{escalation}{}", config.replace("bantime: 20s", "bantime: 10s")));
    let log: String = [0, 1, 2, 20, 21, 22].map(|s| npm(s, "203.0.113.7", 404)).concat();
    let other: String = [40, 41, 42].map(|s| npm(s, "203.0.113.8", 404)).concat();
    place.write("a-1.log", &format!("{log}{other}"));
    let said = place.said(&["replay", "--json", "a-1.log"]);
    // Without the ledger's secret the jitter is the same everywhere.
    insta::assert_snapshot!(said, @r#"
    {"at":"2025-01-04T21:27:02Z","decision":"ban","jail":"web","offender":"203.0.113.7","offenses":3,"until":"2025-01-04T21:27:12Z"}
    {"at":"2025-01-04T21:27:12Z","decision":"unban","jail":"web","offender":"203.0.113.7","offenses":3,"until":"2025-01-04T21:27:12Z"}
    {"at":"2025-01-04T21:27:22Z","decision":"ban","jail":"web","offender":"203.0.113.7","offenses":3,"until":"2025-01-04T21:27:54.376Z"}
    {"at":"2025-01-04T21:27:42Z","decision":"ban","jail":"web","offender":"203.0.113.8","offenses":3,"until":"2025-01-04T21:27:52Z"}
    {"at":"2025-01-04T21:27:42Z","decision":"ban","jail":"web","offender":"203.0.113.0/24","offenses":2,"until":"2025-01-04T21:27:52Z"}
    {"bans":4,"lines":9,"offenders":3,"offenses":9,"too_long":0,"unattributable":0}
    "#);
    let said = place.said(&["explain", npm(0, "203.0.113.7", 404).trim()]);
    assert!(
        said.ends_with("repeaters banned for 10s, then 20s, 5m, 5m, 5m, 5m, ... (and up to 1m of jitter)\n"),
        "{said}"
    );
}

#[test]
fn replay_merges_several_logs_by_time() {
    let place = Place::new();
    // Two in each log: only together are they three within ten seconds.
    place.write("a-1.log", &[npm(0, "203.0.113.7", 404), npm(20, "203.0.113.7", 404)].concat());
    place.write("a-2.log", &[npm(2, "203.0.113.7", 404), npm(4, "203.0.113.7", 404)].concat());
    let said = place.said(&["replay", "--json", "a-1.log", "a-2.log"]);
    assert!(said.starts_with("{\"at\":\"2025-01-04T21:27:04Z\",\"decision\":\"ban\""), "{said}");
}

#[test]
fn replay_never_bans_whom_the_allowlist_names() {
    let place = Place::new();
    place.write("a-1.log", &[0, 1, 2, 3].map(|s| npm(s, "198.51.100.9", 404)).concat());
    assert!(place.said(&["replay", "a-1.log"]).starts_with("4 lines, 4 offenses, 0 bans"));
}

#[test]
fn test_says_what_became_of_each_line() {
    let place = Place::new();
    place
        .write("a.log", &[npm(0, "203.0.113.7", 404), npm(1, "203.0.113.8", 200), "x\n".to_owned()].concat());
    assert_eq!(
        place.said(&["test", "npm-404", "a.log"]),
        "3 lines: 1 matched, 0 ignored, 2 missed (1 not of the filter's format)\n"
    );
    let json = place.said(&["test", "npm-404", "a.log", "--json"]);
    let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["line"], 1);
    assert_eq!(lines[0]["outcome"], "matched");
    assert_eq!(lines[0]["offender"], "203.0.113.7");
    assert_eq!(lines[0]["at"], "2025-01-04T21:27:00Z");
    assert_eq!(lines[0]["fields"]["uri"], "/abc");
    assert_eq!(lines[2]["outcome"], "missed");
    assert_eq!(lines[3], serde_json::json!({ "lines": 3, "matched": 1, "ignored": 0, "missed": 2 }));
    let regex = place.said(&["test", r"^\[\] - 404 .* \[Client <HOST>\]", "a.log", "--print", "matched"]);
    assert!(regex.starts_with("1: 203.0.113.7  [04/Jan"), "{regex}");
}

#[test]
fn explain_goes_step_by_step() {
    let place = Place::new();
    let said = place.said(&["explain", npm(0, "203.0.113.7", 404).trim()]);
    insta::assert_snapshot!(said, @r"
    jail web (filter npm-404, 3 in 10s, banned for 20s)
      format    npm
      field     time = 04/Jan/2025:21:27:00 +0000
      field     peer = 203.0.113.7
      field     status = 404
      field     upstream_status = 404
      field     method = GET
      field     scheme = https
      field     host = one.example
      field     uri = /abc
      field     user_agent = curl/8
      field     sent_to = app
      field     length = 111
      field     static = no
      time      2025-01-04T21:27:00Z
      filter    matched: match status: 404
      offender  203.0.113.7
      decision  one of the 3 offenses that ban 203.0.113.7
    ");
    let allowed = place.said(&["explain", npm(0, "198.51.100.9", 404).trim()]);
    assert!(allowed.ends_with("decision  none: 198.51.100.9 is never banned (see ignoreip)\n"), "{allowed}");
    let proxy = place.said(&["explain", npm(0, "172.18.0.1", 404).trim()]);
    assert!(proxy.contains("nobody (only 172.18.0.1, a trusted proxy)"), "{proxy}");
}

#[test]
fn exit_codes_are_as_documented() {
    let place = Place::new();
    assert_eq!(place.failed(&["frobnicate"]).0, 2);
    let (code, said) = place.failed(&["ping"]);
    assert_eq!((code, said.contains("no agent answers on")), (3, true), "{said}");
    let (code, said) = place.failed(&["test", "npm-40", "a.log"]);
    assert_eq!((code, said.contains("npm-404")), (2, true), "{said}");
    let (code, said) = place.failed(&["replay", "none.log"]);
    assert_eq!(code, 4);
    assert_eq!(said, "stockade: failed to open none.log: No such file or directory (os error 2)\n");
    let (code, said) = place.failed(&["replay", "--jail", "none", "a.log"]);
    assert_eq!((code, said.as_str()), (1, "stockade: there is no jail \"none\" in the configuration\n"));
}

#[test]
fn verify_refuses_what_no_packet_comes_from() {
    let place = Place::new();
    assert_eq!(place.failed(&["verify"]).0, 2);
    let (code, said) = place.failed(&["verify", "localhost"]);
    assert_eq!((code, said.as_str()), (2, "stockade: \"localhost\" is no address and no network\n"));
    let (code, said) = place.failed(&["verify", "127.0.0.1"]);
    assert_eq!(code, 2);
    assert_eq!(
        said,
        "stockade: 127.0.0.1 cannot be tried: it is a loopback address, and no packet from a network comes from there\n"
    );
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once() {
    let place = Place::new();
    place.write("config.yaml", "jails:\n  web:\n    filter: npm-40\n    logpath: x.log\n    maxrety: 3\n");
    let (code, said) = place.failed(&["check"]);
    assert_eq!(code, 2);
    assert_eq!(said.matches("config.yaml:").count(), 3, "{said}");
    assert!(said.contains("did you mean `maxretry`?") && said.contains("did you mean `npm-403`?"), "{said}");
}

#[test]
fn check_says_which_log_cannot_be_read() {
    let place = Place::new();
    // Root may read everything, so a permission cannot be missing here; a link to itself cannot be followed by anybody.
    std::os::unix::fs::symlink("loop.log", place.dir().join("loop.log")).unwrap();
    place.write("a-1.log", "");
    let config = fs::read_to_string(place.dir().join("config.yaml")).unwrap();
    let check = || {
        let out = Command::new("unshare")
            .args(["-rn", env!("CARGO_BIN_EXE_stockade"), "check", "--json"])
            .env("STOCKADE_CONFIG", place.dir().join("config.yaml"))
            .output()
            .unwrap();
        let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        (out.status.code().unwrap(), told)
    };
    let (code, told) = check();
    assert_eq!((code, &told["ok"]), (0, &true.into()), "{told:#}");
    place.write("config.yaml", &config.replace("a-*.log", "loop.log"));
    let (code, told) = check();
    assert_eq!(code, 1);
    let jail = told["findings"].as_array().unwrap().iter().find(|f| f["ok"] == false).unwrap();
    assert!(
        jail["told"].as_str().unwrap().contains("loop.log: Too many levels of symbolic links"),
        "{told:#}"
    );
}

/// A file named as the control socket was taken for what a crashed agent leaves, and removed.
#[test]
fn a_file_is_no_socket() {
    let place = Place::new();
    let precious = place.write("control.sock", "precious");
    let out = Command::new("unshare")
        .args(["-rn", env!("CARGO_BIN_EXE_stockade"), "run"])
        .env("STOCKADE_CONFIG", place.dir().join("config.yaml"))
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(4));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("something is there that is no socket"), "{said}");
    assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
}

#[test]
fn output_may_be_cut_short() {
    let place = Place::new();
    let log: String = (0..20_000).map(|n| npm(n % 60, "203.0.113.7", 404)).collect();
    place.write("a-1.log", &log);
    let out = Command::new("sh")
        .args(["-c", &format!("{} test npm-404 a-1.log --json | head -1", env!("CARGO_BIN_EXE_stockade"))])
        .current_dir(place.dir())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stderr), "", "a closed pipe is no error");
}

#[test]
fn the_ruleset_is_printed_as_nft_would() {
    let place = Place::new();
    assert_eq!(place.said(&["check", "--print-ruleset"]), include_str!("../golden/one-jail.nft"));
    let config = fs::read_to_string(place.dir().join("config.yaml")).unwrap();
    let two = format!(
        "headers: {{ matcher: string }}\n{config}  ssh:\n    filter: sshd\n    logpath: /var/log/auth.log\n    ports: [ssh, 2222]\n    ipv6_prefix: 56\n"
    );
    place.write("config.yaml", &two);
    assert_eq!(place.said(&["check", "--print-ruleset"]), include_str!("../golden/ports.nft"));
}
