//! Apache.

use std::fs;
use std::path::Path;

use stockade::types::JailId;

use super::server::{Server, directory, free_port};
use super::snippet;
use crate::support::{names, net, start, status, until, want};

const OWN: &str = "/etc/apache2/stockade";

fn apache(dir: &Path, name: &str) -> Server {
    let d = dir.display();
    let port = free_port();
    let snippet = snippet(name, OWN, dir);
    let modules: String = [
        ("mpm_event", "mpm_event"),
        ("authz_core", "authz_core"),
        ("authz_host", "authz_host"),
        ("remoteip", "remoteip"),
        ("rewrite", "rewrite"),
    ]
    .map(|(name, file)| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{file}.so\n"))
    .concat();
    fs::create_dir(dir.join("htdocs")).unwrap();
    fs::write(dir.join("htdocs/index.txt"), "welcome").unwrap();
    for file in ["banned.txt", "banned.conf"] {
        fs::write(dir.join(file), "").unwrap();
    }
    let user = if nix::unistd::geteuid().is_root() { "User www-data\nGroup www-data" } else { "" };
    let config = format!(
        "{modules}
ServerRoot {d}
PidFile {d}/apache.pid
DefaultRuntimeDir {d}
ErrorLog {d}/error.log
ServerName a
{user}
StartServers 1
Listen 127.0.0.1:{port}
DocumentRoot {d}/htdocs
<Directory />
    Require all denied
</Directory>
<Directory {d}/htdocs>
    Require all granted
</Directory>
{snippet}
"
    );
    fs::write(dir.join("apache.conf"), config).unwrap();
    Server::start(dir, port, &["/usr/sbin/apache2", "-f", &format!("{d}/apache.conf"), "-DFOREGROUND"])
}

#[test]
fn a_rewrite_map_needs_no_reload() {
    let dir = directory();
    let server = apache(dir.path(), "apache rewrite");
    let path = dir.path().join("banned.txt");
    let sinks =
        start(&format!("  map: {{ format: apache, path: {}, interval: 1s }}", path.display()), dir.path());
    let map = names(&["map"]);
    let told = || sinks.value().to_string();
    assert_eq!(server.page("192.0.2.1"), (200, "welcome".to_owned()));
    let banned = ["192.0.2.1", "2001:db8::1:0:0:1", "2001:db8:0:1:1:1:1:1", "::192.0.2.7"];
    banned.iter().for_each(|address| sinks.ban(&map, net(address), &want(1)));
    sinks.ban(&map, net("2001:db8:7::/64"), &want(1));
    banned.iter().for_each(|address| server.expect(address, 403, told));
    server.expect("::ffff:192.0.2.1", 403, told);
    assert_eq!((server.visit("192.0.2.10"), server.visit("2001:db8:7::1")), (200, 200));
    until(told, || status(&sinks, "map")["left_out"] == 1);
    sinks.unban(&map, net("192.0.2.1"), JailId(1));
    server.expect("192.0.2.1", 200, told);
    assert_eq!(server.visit("2001:db8::1:0:0:1"), 403);
}

#[test]
fn required_not_to_be_of_a_network() {
    let dir = directory();
    let server = apache(dir.path(), "apache require");
    let d = dir.path().display();
    let apache = format!("/usr/sbin/apache2, -f, {d}/apache.conf");
    let sinks = start(
        &format!(
            "  map: {{ format: apache-require, path: {d}/banned.conf, interval: 1s, test: [{apache}, -t], reload: [{apache}, -k, graceful] }}"
        ),
        dir.path(),
    );
    let map = names(&["map"]);
    let told = || {
        format!("{}\n{}", sinks.value(), fs::read_to_string(dir.path().join("error.log")).unwrap_or_default())
    };
    for address in ["192.0.2.1", "198.51.100.0/24", "2001:db8:7::/64"] {
        sinks.ban(&map, net(address), &want(1));
    }
    for address in ["192.0.2.1", "198.51.100.200", "2001:db8:7::1"] {
        server.expect(address, 403, told);
    }
    assert_eq!((server.visit("192.0.2.10"), server.visit("2001:db8:8::1")), (200, 200));
    sinks.unban(&map, net("192.0.2.1"), JailId(1));
    server.expect("192.0.2.1", 200, told);
    // Who is not in it, and is denied elsewhere, stays so.
    fs::set_permissions(dir.path().join("htdocs"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let config = fs::read_to_string(dir.path().join("apache.conf")).unwrap();
    let denied = config.replace("htdocs>\n    Require all granted", "htdocs>\n    Require all denied");
    assert_ne!(config, denied);
    fs::write(dir.path().join("apache.conf"), denied).unwrap();
    sinks.ban(&map, net("192.0.2.1"), &want(1));
    server.expect("192.0.2.10", 403, told);
}
