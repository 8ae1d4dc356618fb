//! What the machine serves, and who comes to it.
//!
//! ```text
//! internet ──────────────┐                 ┌─ web    published port 8080
//!                       host ── a bridge ──┼─ proxy  published ports 80, 443
//! cdn ───── TLS ─────────┘                 └─ app    behind the proxy, not published
//! ```
//! The CDN is trusted by the proxy and says for whom it asks. It speaks TLS, so that nothing on the way can see that; between
//! proxy and application it is plain.

use std::time::Duration;

use crate::machine::{Machine, eventually};

/// The host.
const HOST4: &str = "203.0.113.1";
const HOST6: &str = "2001:db8:0:1::1";
/// Who offends at the published port, and who does not. The IPv6 addresses are in different /64 networks.
pub(crate) const OFFENDERS: [&str; 2] = ["203.0.113.66", "2001:db8:0:66::1"];
pub(crate) const INNOCENT: [&str; 2] = ["203.0.113.77", "2001:db8:0:77::1"];
/// Who does by way of the CDN.
pub(crate) const HIDDEN: [&str; 2] = ["192.0.2.88", "2001:db8:0:88::1"];
pub(crate) const OTHERS: [&str; 2] = ["192.0.2.99", "2001:db8:0:99::1"];

/// An innocent is answered within this time after a restart of whatever it was.
const PATIENCE: Duration = Duration::from_secs(40);

/// Networks around the host, the web servers' image, and they themselves.
pub(crate) fn start(machine: &Machine) {
    machine.sh("for name in internet cdn; do ip netns add $name; ip -n $name link set lo up; done
        ip link add out type veth peer name eth0 netns internet
        ip link add out2 type veth peer name eth0 netns cdn
        # A duplicate address check would delay IPv6 by seconds.
        add() { ip ${3:+-n $3} addr add $1 dev $2 $(case $1 in *:*) echo nodad ;; esac); }
        ip link set out up; ip link set out2 up; ip -n internet link set eth0 up; ip -n cdn link set eth0 up
        add 203.0.113.1/24 out; add 2001:db8:0:1::1/48 out
        add 203.0.113.66/24 eth0 internet; add 203.0.113.77/24 eth0 internet
        add 2001:db8:0:66::1/48 eth0 internet; add 2001:db8:0:77::1/48 eth0 internet
        add 198.51.100.1/24 out2; add 2001:db8:c::1/48 out2
        add 198.51.100.7/24 eth0 cdn; add 2001:db8:c::7/48 eth0 cdn
        ip -n cdn route add default via 198.51.100.1; ip -n cdn -6 route add default via 2001:db8:c::1");
    // nginx and what it loads.
    machine.sh(
        "mkdir -p /opt/image/etc/nginx /opt/image/var/log/nginx /opt/image/var/lib/nginx /opt/image/run /opt/image/tmp
        cd /opt/image
        for file in /usr/sbin/nginx $(ldd /usr/sbin/nginx | grep -o '/[^ ]*'); do cp --parents --dereference $file .; done
        printf 'root:x:0:0::/:/bin/false\\nnobody:x:65534:65534::/:/bin/false\\n' > etc/passwd
        printf 'root:x:0:\\nnogroup:x:65534:\\n' > etc/group
        tar -c . | docker import --change 'ENTRYPOINT [\"/usr/sbin/nginx\"]' - nginx >/dev/null
        mkdir -p /opt/npm/data/logs /opt/npm/tls
        cp /src/tests/docker/web/* /opt/npm/
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=example.org \
            -addext basicConstraints=CA:FALSE -addext subjectAltName=IP:203.0.113.1 -keyout /opt/npm/tls/key.pem \
            -out /opt/npm/tls/cert.pem 2>/dev/null
        cd /opt/npm && docker compose up --detach 2>&1",
    );
}

/// A request from `source` to the published port; its status, or `None` when there is no answer.
pub(crate) fn visit(machine: &Machine, source: &str, path: &str) -> Option<u16> {
    curl(machine, "internet", &format!("--interface {source} http://{}:8080{path}", host(source)))
}

/// So many requests from `source` to the published port, of pages that are not there.
pub(crate) fn visit_many(machine: &Machine, source: &str, count: u32) {
    let pages: Vec<String> =
        (0..count).map(|n| format!("--output /dev/null http://{}:8080/wp-{n}.php", host(source))).collect();
    curl(machine, "internet", &format!("--interface {source} {}", pages.join(" ")));
}

/// A request that the CDN makes for `client`, by way of the proxy to the application.
pub(crate) fn visit_for(machine: &Machine, client: &str, path: &str) -> Option<u16> {
    let (source, path) = match client.contains(':') {
        true => ("2001:db8:c::7", format!("/six{path}")),
        false => ("198.51.100.7", path.to_owned()),
    };
    let what = format!(
        "--insecure --interface {source} --header 'X-Forwarded-For: {client}' https://{}{path}",
        host(source)
    );
    curl(machine, "cdn", &what)
}

fn host(source: &str) -> String {
    if source.contains(':') { format!("'[{HOST6}]'") } else { HOST4.to_owned() }
}

/// The status of the last answer.
fn curl(machine: &Machine, namespace: &str, what: &str) -> Option<u16> {
    // `\n` and not the body: of many requests each has a line.
    let command = format!(
        "ip netns exec {namespace} curl --silent --max-time 1.5 --output /dev/null --write-out '%{{http_code}}\\n' {what} || true"
    );
    machine.sh(&command).lines().last()?.parse().ok().filter(|code| *code != 0)
}

/// Everybody who offends does so, at once.
pub(crate) fn offend(machine: &Machine) {
    for offender in OFFENDERS {
        visit_many(machine, offender, 16);
    }
    for hidden in HIDDEN {
        for _ in 0..16 {
            visit_for(machine, hidden, "/wp-login.php");
        }
    }
}

/// Offenders are stopped, the others are not; `when` is for the message.
#[track_caller]
pub(crate) fn assert_guarded(machine: &Machine, when: &str) {
    // Whatever was restarted must be there again before it can be said that somebody is let in.
    for innocent in INNOCENT {
        let comes = eventually(PATIENCE, || visit(machine, innocent, "/") == Some(200));
        assert!(comes, "{innocent} does not come through {when}\n{}", machine.state());
    }
    for other in OTHERS {
        let comes = eventually(PATIENCE, || visit_for(machine, other, "/") == Some(200));
        assert!(comes, "{other} does not come through the proxy {when}\n{}", machine.state());
    }
    assert_stopped(machine, when);
}

/// Offenders are stopped.
#[track_caller]
pub(crate) fn assert_stopped(machine: &Machine, when: &str) {
    for offender in OFFENDERS {
        assert_eq!(visit(machine, offender, "/"), None, "{offender} {when}\n{}", machine.state());
    }
    for hidden in HIDDEN {
        let seen = visit_for(machine, hidden, "/");
        assert!(matches!(seen, None | Some(502 | 504)), "{hidden} got {seen:?} {when}\n{}", machine.state());
    }
}
