//! When the file is written, and what is kept.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::host::{CLIENT, Host, combined, stderr, text};

fn host() -> Host {
    let host = Host::new();
    host.log("/var/log/nginx/access.log", &combined(CLIENT, 404), 40);
    host
}

#[test]
fn without_a_terminal_and_without_yes_it_is_only_shown() {
    let host = host();
    let out = host.setup(&[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(stderr(&out).contains("Nothing was written: there is no terminal to ask at"), "{}", text(&out));
    assert!(
        String::from_utf8_lossy(&out.stdout).contains("\n  nginx-forceful-browsing:\n"),
        "{}",
        text(&out)
    );
    assert!(!host.config().parent().unwrap().exists());
}

#[test]
fn yes_writes_it_checks_it_and_shows_the_last_day() {
    let host = host();
    // Yesterday's yesterday, and what rotation made of today.
    host.log("/var/log/nginx/access.log.2", &combined("203.0.113.99", 404).replace("/2026:", "/2001:"), 40);
    host.log("/var/log/nginx/access.log.1", &combined("203.0.113.8", 404), 20);
    let out = host.setup_apart(&["--yes", "--observe"]);
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let meta = fs::metadata(host.config()).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o640);
    assert!(stderr(&out).contains("\nWritten to "), "{}", text(&out));
    // The check, then who would have been banned, by which jail, with a line of his.
    assert!(told.contains("1 jail, "), "{told}");
    assert!(told.contains("2 offenders would have been banned, 2 times in all."), "{told}");
    assert!(told.contains("nginx-forceful-browsing: "), "{told}");
    for client in [CLIENT, "203.0.113.8"] {
        assert!(
            told.contains(&format!("\n  {client} ")) && told.contains(&format!("    {client} - - [")),
            "{told}"
        );
    }
    assert!(!told.contains("203.0.113.99"), "{told}");
    assert!(told.lines().next_back().unwrap().starts_with("Next: "), "{told}");

    // Once more: it says the same already, and is not touched.
    let again = host.setup_apart(&["--yes"]);
    assert!(
        stderr(&again).contains("says the same already (comments aside): nothing to write."),
        "{}",
        text(&again)
    );
    assert_eq!(fs::metadata(host.config()).unwrap().ino(), meta.ino());
    assert_eq!(fs::read_dir(host.config().parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_was_there_is_kept_beside_it() {
    let host = host();
    fs::create_dir_all(host.config().parent().unwrap()).unwrap();
    let old = "# mine\nignoreip: [loopback]\njails: { sshd: { logpath: /var/log/auth.log } }\n";
    fs::write(host.config(), old).unwrap();
    let out = host.setup_apart(&["--yes"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let mut names: Vec<String> = fs::read_dir(host.config().parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].starts_with("config.yaml.20") && names[1].ends_with(".old"), "{names:?}");
    assert_eq!(fs::read_to_string(host.config().with_file_name(&names[1])).unwrap(), old);
    assert!(stderr(&out).contains(&names[1]), "{}", text(&out));
}

#[test]
fn at_a_terminal_it_asks() {
    let host = host();
    let out = host.setup_at_terminal("n");
    assert!(text(&out).contains("? [y/N]"), "{}", text(&out));
    assert!(text(&out).contains("Nothing was written."), "{}", text(&out));
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(!host.config().exists());

    let out = host.setup_at_terminal("y");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(text(&out).contains("Written to "), "{}", text(&out));
    assert!(host.config().exists());

    // A file that says something else: what changes is shown first.
    fs::write(host.config(), "jails: { sshd: { logpath: /var/log/auth.log } }\n").unwrap();
    let out = host.setup_at_terminal("");
    assert!(text(&out).contains("  - jails: { sshd: { logpath: /var/log/auth.log } }"), "{}", text(&out));
    assert!(text(&out).contains("What is there is kept beside it. [y/N]"), "{}", text(&out));
    assert_eq!(
        fs::read_to_string(host.config()).unwrap(),
        "jails: { sshd: { logpath: /var/log/auth.log } }\n"
    );
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_nothing_is_left() {
    let host = host();
    fs::create_dir_all(host.config()).unwrap();
    let out = host.setup_apart(&["--yes"]);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(stderr(&out).contains("is no regular file: name another with --config"), "{}", text(&out));
    assert_eq!(fs::read_dir(host.config().parent().unwrap()).unwrap().count(), 1);
}
