//! Names and files that somebody made who means harm: none becomes more than a name, and none leads anywhere.

use std::fs;
use std::os::unix::fs::symlink;

use crate::host::{CLIENT, Host, combined, golden, npm, stderr, text};

const ESCAPE: &str = "\u{1b}]0;owned\u{7}";

#[test]
fn odd_names_stay_names() {
    let host = Host::new();
    let odd = format!("/srv/a'b \"c\" #d\n    enabled: false\n{ESCAPE}[x]*/data");
    host.container('a', "npm", "jc21/nginx-proxy-manager", &["/init"], &[(&odd, "/data")]);
    host.log(&format!("{odd}/logs/proxy-host-1_access.log"), &npm(CLIENT, 404), 3);
    // Next to it, what the name would mean as a glob.
    host.log(
        "/srv/a'b \"c\" #d\n    enabled: false\nx/data/logs/proxy-host-1_access.log",
        &npm(CLIENT, 404),
        3,
    );
    let evil = host.container('b', &format!("evil\n  injected: 1{ESCAPE}"), "nginx", &["nginx"], &[]);
    host.stdout(&evil, &combined(CLIENT, 404), 20);
    host.log(&format!("/var/log/nginx/x\n  y: {ESCAPE}access.log"), &combined(CLIENT, 404), 5);
    host.log("/var/log/nginx/\u{202e}odd.access.log", "no line that is known", 5);
    let out = host.setup(&[]);
    assert!(!text(&out).contains(['\u{1b}', '\u{7}', '\u{202e}']), "{}", text(&out));
    assert!(stderr(&out).contains("Docker gives no such names"), "{}", text(&out));
    let proposal = host.proposal();
    assert!(!proposal.contains("injected"), "{proposal}");
    golden("odd-names", &proposal);
    // The path means that directory and no other.
    let file = host.config().with_file_name("read.yaml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, host.setup(&[]).stdout).unwrap();
    let config = stockade::commands::load(&file).unwrap();
    let npm = config.jails.iter().find(|jail| jail.name == "npm-forceful-browsing").unwrap();
    let (files, failed) = stockade::follow::matching_files(&npm.logpath[0]);
    assert!(failed.is_empty(), "{failed:?}");
    let odd = host.root().canonicalize().unwrap().join(&odd[1..]).join("logs/proxy-host-1_access.log");
    assert_eq!((files, npm.logpath.len()), (vec![odd], 1));
}

#[test]
fn a_containers_links_lead_nowhere() {
    let host = Host::new();
    // What they lead to would be taken for logs if it were read.
    host.log("/root/secret", &npm(CLIENT, 404), 50);
    host.log("/root/logs/proxy-host-9_access.log", &npm(CLIENT, 404), 50);
    host.container('a', "npm", "jc21/nginx-proxy-manager", &["/init"], &[("npm_data", "/data")]);
    host.container('b', "npm2", "jc21/nginx-proxy-manager", &["/init"], &[("other", "/data")]);
    let volumes = host.root().join("var/lib/docker/volumes");
    fs::create_dir_all(volumes.join("npm_data/_data/logs")).unwrap();
    fs::create_dir_all(volumes.join("other/_data")).unwrap();
    symlink("/root/secret", volumes.join("npm_data/_data/logs/proxy-host-1_access.log")).unwrap();
    symlink("../../../../../../../root/logs", volumes.join("other/_data/logs")).unwrap();
    // And where the host would look for them anyway.
    let mounts = [("/opt/npm/data", "/data"), ("/var/log/nginx", "/weblogs")];
    host.container('c', "npm3", "jc21/nginx-proxy-manager", &["/init"], &mounts);
    for (directory, name) in
        [("opt/npm/data/logs", "proxy-host-1_access.log"), ("var/log/nginx", "access.log")]
    {
        fs::create_dir_all(host.root().join(directory)).unwrap();
        symlink("/root/secret", host.root().join(directory).join(name)).unwrap();
    }
    host.container(
        'd',
        "npm4",
        "jc21/nginx-proxy-manager",
        &["/init"],
        &[("/opt/nginx-proxy-manager/data", "/data")],
    );
    fs::create_dir_all(host.root().join("opt/nginx-proxy-manager/data")).unwrap();
    symlink("/root/logs", host.root().join("opt/nginx-proxy-manager/data/logs")).unwrap();
    nix::unistd::mkfifo(
        &volumes.join("npm_data/_data/logs/proxy-host-2_access.log"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    let out = host.setup(&[]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(out.stdout.is_empty(), "{}", text(&out));
    assert!(
        stderr(&out).contains("links in what a container can write lead wherever the container says"),
        "{}",
        text(&out)
    );
    assert!(stderr(&out).contains("is no regular file"), "{}", text(&out));
}

#[test]
fn what_is_no_utf8_is_told_and_left_out() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let host = Host::new();
    host.log("/var/log/nginx/access.log", &combined(CLIENT, 404), 5);
    let odd = host.root().join("var/log/nginx").join(OsStr::from_bytes(b"\xff.access.log"));
    fs::write(odd, combined(CLIENT, 404)).unwrap();
    let out = host.setup(&[]);
    assert!(stderr(&out).contains("its name is no UTF-8"), "{}", text(&out));
    assert!(
        String::from_utf8_lossy(&out.stdout).contains("/var/log/nginx/*access.log: 1 file"),
        "{}",
        text(&out)
    );
}
