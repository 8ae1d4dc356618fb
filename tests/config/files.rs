//! A configuration as a file: what the file itself may be.

use std::os::unix::fs::PermissionsExt as _;

use stockade::config::ConfigError;

use super::*;

fn load(bytes: &[u8], mode: u32) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    Config::load(&path, &SHIPPED)
}

fn error(bytes: &[u8]) -> String {
    load(bytes, 0o600).unwrap_err().to_string().rsplit_once("c.yaml").unwrap().1.to_owned()
}

#[test]
fn who_may_write_the_file_decides_who_is_banned() {
    let text = b"jails: { npm-404: { logpath: /a } }";
    assert_eq!(load(text, 0o664).unwrap().warnings, []);
    let [warning] = &load(text, 0o666).unwrap().warnings[..] else { panic!("one warning is expected") };
    assert!(warning.to_string().ends_with(
        "c.yaml: every user of this host may change this file, and so whom it bans; chmod o-w it"
    ));
}

#[test]
fn what_cannot_be_read_is_named() {
    let missing = Config::load(Path::new("/nonexistent/stockade.yaml"), &SHIPPED).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "failed to read the configuration /nonexistent/stockade.yaml (--config names another)"
    );
    assert_eq!(missing.mistakes(), []);
    assert!(Config::load(Path::new("/"), &SHIPPED).unwrap_err().to_string().contains("configuration / "));
    // It has no end; reading stops.
    assert!(
        Config::load(Path::new("/dev/zero"), &SHIPPED).unwrap_err().to_string().contains("larger than 8 MiB")
    );
}

#[test]
fn what_is_not_text_is_told_where() {
    let wanted = ":2:4: is not UTF-8 text from here; save the file as UTF-8";
    assert_eq!(error(b"a: \xc3\xa4\n\xc3\xa4b:\xff"), wanted);
}

#[test]
fn mistakes_stand_one_per_line() {
    assert_eq!(
        error(b"a: 1").trim_start_matches(':'),
        "1:1: a: unknown key; known here are ignoreip, trusted_proxies, defaults, escalation, jails, filters, sinks, cloudflare_ranges, journal, docker, syslog, backend, headers, paths, limits, leaks, log"
    );
    assert_eq!(load(b"log: 1\nlimits: 2\n", 0o600).unwrap_err().to_string().lines().count(), 2);
}
