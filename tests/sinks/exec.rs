//! Programs that are told, with real ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use stockade::sinks::event::{Event, Unbanned};
use stockade::sinks::{Checked, Context, Sinks};
use tempfile::TempDir;

use crate::support::{banned, config, start, status, tell, until};

/// A program of these lines, and a sink that runs it with these settings; it runs in the directory as `$D`.
fn program(script: &str, more: &str) -> (TempDir, Sinks) {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), script);
    let sinks = start(&sink(&path, more), dir.path());
    (dir, sinks)
}

fn write(dir: &Path, script: &str) -> String {
    let path = dir.join("program");
    let text = format!("#!/bin/sh\nD={}\n{script}\n", dir.display());
    // Written by another process: who is forked meanwhile would keep it open for writing, and it could not be run.
    let new = dir.join("new");
    fs::write(&new, text).unwrap();
    let copied = std::process::Command::new("install").arg("-m755").arg(&new).arg(&path).status().unwrap();
    assert!(copied.success());
    path.to_str().unwrap().to_owned()
}

fn sink(path: &str, more: &str) -> String {
    format!("  exec: {{ command: [{path}, '{{event}}', '{{address}}', '--jail={{jail}}'], {more} }}")
}

fn lines(dir: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(dir.join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn done(sinks: &Sinks) -> u64 {
    status(sinks, "exec")["done"].as_u64().unwrap()
}

fn error(sinks: &Sinks) -> String {
    status(sinks, "exec")["last_error"]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn it_is_given_arguments_variables_and_json_and_all_of_it_is_text() {
    let script = r#"
{ echo $#; for a; do echo "$a"; done; } >$D/arguments
env | sort >$D/variables
cat >$D/input"#;
    let (dir, sinks) = program(script, "");
    let mut sinks = sinks;
    let mut event = banned("2001:db8::/64");
    if let Event::Ban(ban) = &mut event {
        ban.line = format!(
            "GET /$(touch {0}/x) `touch {0}/x`\n; touch {0}/x; rm -rf {0}\u{1b}[2J",
            dir.path().display()
        );
        ban.fields.insert(
            "user_agent".to_owned(),
            "'; touch x; \"$(touch x)\u{0}\r\nSTOCKADE_EVENT=unban".to_owned(),
        );
    }
    tell(&mut sinks, event.clone());
    until(|| sinks.value().to_string(), || done(&sinks) == 1);
    assert_eq!(lines(dir.path(), "arguments"), ["3", "ban", "2001:db8::/64", "--jail=npm"]);
    let variables = lines(dir.path(), "variables");
    for wanted in [
        "STOCKADE_EVENT=ban",
        "STOCKADE_ADDRESS=2001:db8::/64",
        "STOCKADE_JAIL=npm",
        "STOCKADE_OFFENSES=5",
        "STOCKADE_COUNT=2",
        "STOCKADE_HOST=web1",
        "STOCKADE_FIELD_USER_AGENT='; touch x; \"$(touch x)   STOCKADE_EVENT=unban",
        "STOCKADE_FIELD_SENT_TO=app:8080",
    ] {
        assert!(variables.iter().any(|line| line == wanted), "{wanted}: {variables:#?}");
    }
    // A shell adds some of its own.
    let own = |line: &&String| {
        ["PWD=", "SHLVL=", "_=", "OLDPWD=", "PATH="].iter().any(|name| line.starts_with(name))
    };
    let strange: Vec<_> =
        variables.iter().filter(|line| !line.starts_with("STOCKADE_") && !own(line)).collect();
    assert!(strange.is_empty(), "of the agent's own: {strange:?}");
    let input = fs::read_to_string(dir.path().join("input")).unwrap();
    assert_eq!(serde_json::from_str::<Event>(&input).unwrap(), event);
    assert_eq!(serde_json::from_str::<Value>(&input).unwrap()["event"], "ban");
    assert!(!dir.path().join("x").exists() && dir.path().join("program").exists());
}

#[test]
fn each_event_once_and_in_order_and_none_of_what_was_only_observed() {
    let (dir, mut sinks) = program("echo \"$1 $2 $STOCKADE_REASON\" >>$D/told", "");
    let unban = |address: &str| {
        let Event::Ban(ban) = banned(address) else { panic!("a ban") };
        let (at, jail, offender) = (ban.at, ban.jail, ban.offender);
        Event::Unban(Unbanned {
            at,
            jail,
            offender,
            since: at,
            reason: "expired".to_owned(),
            observed: false,
        })
    };
    for n in 1..=5 {
        let mut observed = banned("198.51.100.1");
        if let Event::Ban(ban) = &mut observed {
            ban.observed = true;
        }
        tell(&mut sinks, observed);
        tell(&mut sinks, banned(&format!("192.0.2.{n}")));
        tell(&mut sinks, unban(&format!("192.0.2.{n}")));
    }
    until(|| sinks.value().to_string(), || done(&sinks) == 15);
    let expected: Vec<String> =
        (1..=5).flat_map(|n| [format!("ban 192.0.2.{n} "), format!("unban 192.0.2.{n} expired")]).collect();
    assert_eq!(lines(dir.path(), "told"), expected);
}

#[test]
fn one_that_fails_is_run_again_and_then_given_up() {
    let (dir, mut sinks) = program("echo $2 >>$D/told; echo 'no way' >&2; [ $2 != 192.0.2.1 ] || exit 3", "");
    tell(&mut sinks, banned("192.0.2.1"));
    tell(&mut sinks, banned("192.0.2.2"));
    until(|| sinks.value().to_string(), || error(&sinks).contains("exit status: 3: no way"));
    until(|| sinks.value().to_string(), || done(&sinks) == 1);
    assert_eq!(lines(dir.path(), "told"), ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"]);
    assert_eq!(status(&sinks, "exec")["lost"], 1);
    assert!(error(&sinks).starts_with("given up after 4 attempts"), "{}", error(&sinks));
}

#[test]
fn one_that_hangs_is_killed_with_all_that_it_has_begun() {
    let (dir, mut sinks) =
        program("trap '' TERM INT HUP; sleep 600 & echo $! >>$D/children; sleep 600", "timeout: 1s");
    tell(&mut sinks, banned("192.0.2.1"));
    until(|| sinks.value().to_string(), || error(&sinks).contains("its time was up, and it was killed"));
    let children = lines(dir.path(), "children");
    let stat = format!("/proc/{}/stat", children[0]);
    until(|| stat.clone(), || fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z ")));
    // What runs when the sink ends does not outlive it either.
    until(|| format!("{children:?}"), || lines(dir.path(), "children").len() > 1);
    drop(sinks);
    let last = lines(dir.path(), "children").last().unwrap().clone();
    let stat = format!("/proc/{last}/stat");
    until(|| stat.clone(), || fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z ")));
}

#[test]
fn one_that_says_very_much_and_hears_nothing_is_no_burden() {
    let script = "exec 0<&-; head -c 1000000000 /dev/zero | tr '\\0' x; echo end >$D/end";
    let (dir, mut sinks) = program(script, "timeout: 60s");
    tell(&mut sinks, banned("192.0.2.1"));
    until(|| sinks.value().to_string(), || done(&sinks) == 1);
    assert!(dir.path().join("end").exists());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let peak: u64 = peak.split(' ').next().unwrap().parse().unwrap();
    assert!(peak < 300_000, "{peak} KB");
}

#[test]
fn one_that_is_missing_is_waited_for_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let mut sinks = start(&sink(path.to_str().unwrap(), ""), dir.path());
    tell(&mut sinks, banned("192.0.2.1"));
    until(|| sinks.value().to_string(), || error(&sinks).contains("cannot be run: No such file"));
    let status = status(&sinks, "exec");
    assert_eq!(
        (&status["state"], &status["lost"], &status["queue"]),
        (&"refused".into(), &0.into(), &1.into())
    );
}

fn check(text: &str) -> Vec<Checked> {
    let config = config(text);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(stockade::sinks::check(&config.sinks[0], &Context::default()))
}

#[test]
fn check_looks_at_the_program_and_does_not_run_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "touch $D/ran");
    let told = |path: &str| {
        let told = check(&sink(path, ""));
        assert_eq!(told.len(), 1);
        (told[0].good, told[0].text.clone())
    };
    assert_eq!(told(&path), (true, format!("{path} can be run; it was not")));
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    let (good, text) = told(&path);
    assert!(!good && text.contains("can be changed by others") && text.ends_with("chmod 755 it"), "{text}");
    mode(0o644);
    let (good, text) = told(&path);
    assert!(!good && text.ends_with("chmod +x it"), "{text}");
    let (good, text) = told("/nonexistent/x");
    assert!(!good && text.contains("No such file"), "{text}");
    assert!(!dir.path().join("ran").exists());
}
