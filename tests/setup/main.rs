//! `stockade setup` on directories that stand for hosts: what it proposes is kept in `golden/`, to be read as a person would.
#![expect(clippy::unwrap_used, reason = "what a test relies on and does not find fails the test")]

mod host;
mod hostile;
mod writing;

use host::{CLIENT, CLOUDFLARE, GATEWAY, Host, combined, golden, haproxy, npm, sshd, stderr, text, traefik};

const NPM: &str = "jc21/nginx-proxy-manager:latest";

#[test]
fn nginx_proxy_manager_in_docker_with_a_bind_mount() {
    let host = Host::new();
    host.container(
        'a',
        "npm",
        NPM,
        &["/init"],
        &[("/opt/proxy/data", "/data"), ("/opt/proxy/tls", "/etc/letsencrypt")],
    );
    host.log("/opt/proxy/data/logs/proxy-host-1_access.log", &npm(CLIENT, 404), 3);
    host.log("/opt/proxy/data/logs/proxy-host-2_access.log", &npm(CLIENT, 200), 3);
    host.file("/opt/proxy/data/logs/proxy-host-3_access.log", "");
    host.file("/opt/proxy/data/logs/proxy-host-1_access.log.1.gz", "\u{1f}\u{8b}");
    host.log("/opt/proxy/data/logs/fallback_http_access.log", &npm(CLIENT, 400), 2);
    host.file("/opt/proxy/data/logs/fallback_http_error.log", "x\n");
    host.sshd_in_journal();
    golden("npm-bind-mount", &host.proposal());
}

#[test]
fn nginx_proxy_manager_in_a_volume_behind_cloudflare() {
    let host = Host::new();
    host.container('a', "npm-app-1", NPM, &["/init"], &[("npm_data", "/data")]);
    host.log(
        "/var/lib/docker/volumes/npm_data/_data/logs/proxy-host-1_access.log",
        &npm(CLOUDFLARE, 404),
        30,
    );
    let proposal = host.proposal();
    golden("npm-volume-cloudflare", &proposal);
    // With all that is there to be uncommented it is a configuration, too.
    let uncommented: Vec<String> = proposal
        .lines()
        .map(|line| {
            let text = line.trim_start();
            let example = text.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            example
                .map_or_else(|| line.to_owned(), |rest| format!("{}{rest}", &line[..line.len() - text.len()]))
        })
        .collect();
    assert!(uncommented.contains(&"  cloudflare:".to_owned()), "{uncommented:?}");
    host.is_read(&uncommented.join("\n").replace("ROOT", host.root().to_str().unwrap()));
    // When the proxy says who is behind Cloudflare there is nothing to do any more.
    let told = npm("203.0.113.9", 404);
    host.log("/var/lib/docker/volumes/npm_data/_data/logs/proxy-host-1_access.log", &told, 30);
    host.file(
        "/var/lib/docker/volumes/npm_data/_data/nginx/custom/server_proxy.conf",
        "real_ip_header CF-Connecting-IP;\n",
    );
    let proposal = host.proposal();
    assert!(!proposal.contains("TO DO"), "{proposal}");
    assert!(proposal.contains("ignoreip: [loopback, self, private, cloudflare]"), "{proposal}");
    assert!(proposal.contains("server_proxy.conf speaks of its header CF-Connecting-IP"), "{proposal}");
}

#[test]
fn traefik_in_docker_with_a_log_file() {
    let host = Host::new();
    let mounts = [("/srv/traefik/traefik.yml", "/etc/traefik/traefik.yml"), ("/srv/traefik/logs", "/logs")];
    host.container('b', "traefik", "traefik:v3.3", &["/entrypoint.sh", "traefik"], &mounts);
    let trusted = ["173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22"].join(", ");
    host.file(
        "/srv/traefik/traefik.yml",
        &format!(
            "entryPoints:\n  web:\n    address: :80\n    forwardedHeaders: {{ trustedIPs: [{trusted}] }}\naccessLog:\n  \
             filePath: /logs/access.log\n  format: json\n"
        ),
    );
    host.log("/srv/traefik/logs/access.log", &traefik(CLIENT, 404), 5);
    golden("traefik-file", &host.proposal());
}

#[test]
fn traefik_in_docker_with_its_standard_output() {
    let host = Host::new();
    let args = ["/entrypoint.sh", "--accesslog=true", "--accesslog.format=json", "--token=hunter2"];
    let id = host.container('b', "edge-traefik-1", "docker.io/library/traefik:3", &args, &[]);
    host.stdout(&id, &traefik(GATEWAY, 404), 30);
    // What is behind it is not to be watched, too: nobody can be told apart there.
    let id = host.container('c', "shop", "example/shop", &["/bin/shop"], &[]);
    host.stdout(&id, &combined("172.18.0.2", 404), 30);
    let out = host.setup(&[]);
    assert!(
        stderr(&out).contains("container shop: the 30 requests in its log name no client from elsewhere"),
        "{}",
        text(&out)
    );
    assert!(!text(&out).contains("hunter2"), "{}", text(&out));
    golden("traefik-stdout", &host.proposal());
}

#[test]
fn nginx_and_sshd_on_debian() {
    let host = Host::new();
    host.file(
        "/etc/nginx/nginx.conf",
        "http {\n  access_log /var/log/nginx/access.log;\n  include /etc/nginx/sites-enabled/*;\n}\n",
    );
    host.file("/etc/nginx/sites-enabled/shop", "server {\n  access_log /srv/shop/visits.log combined;\n}\n");
    host.log("/var/log/nginx/access.log", &combined(CLIENT, 404), 5);
    host.file("/var/log/nginx/error.log", "x\n");
    host.log("/srv/shop/visits.log", &combined(CLIENT, 404), 5);
    host.file("/usr/sbin/sshd", "");
    host.file("/usr/lib/systemd/system/ssh.service", "[Unit]\n");
    host.file("/var/log/journal/0123456789abcdef0123456789abcdef/system.journal", "");
    host.log("/var/log/auth.log", &sshd(CLIENT), 2);
    let proposal = host.proposal();
    // In the file, and not in the journal too.
    assert!(!proposal.contains("journal:"), "{proposal}");
    golden("debian-nginx-sshd", &proposal);
}

#[test]
fn apache_with_its_names_on_debian_and_on_fedora() {
    let host = Host::new();
    host.log("/var/log/apache2/access.log", &combined(CLIENT, 404), 5);
    host.log(
        "/var/log/apache2/other_vhosts_access.log",
        &format!("one.example:443 {}", combined(CLIENT, 200)),
        5,
    );
    host.log("/var/log/httpd/ssl_access_log", &combined(CLIENT, 404), 5);
    host.file("/etc/apache2/conf-enabled/remoteip.conf", "RemoteIPHeader CF-Connecting-IP\n");
    golden("apache", &host.proposal());
}

#[test]
fn haproxy_on_debian() {
    let host = Host::new();
    host.file("/usr/lib/systemd/system/haproxy.service", "[Unit]\n");
    host.log("/var/log/haproxy.log", &haproxy(CLIENT, 404), 20);
    golden("haproxy", &host.proposal());
    // What is proposed finds offenders, of either family, and only those.
    let config = host.config();
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, host.setup(&[]).stdout).unwrap();
    let lines = [
        haproxy(CLIENT, 404),
        haproxy("2001:db8::7", 403),
        haproxy(CLIENT, 200),
        haproxy(CLIENT, 404).replace("/abc", "/favicon.ico"),
        haproxy(CLIENT, 200).replace("/abc", "/x www~ app/s1 10/0/30/69/109 404 "),
        haproxy(CLIENT, 404).split_once("haproxy[812]: ").unwrap().1.to_owned(),
    ];
    let log = host.file("/lines", &(lines.join("\n") + "\n"));
    let args = ["test", "haproxy-forceful-browsing", log.to_str().unwrap(), "--json"];
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_stockade"))
        .args(args)
        .env("STOCKADE_CONFIG", &config)
        .output()
        .unwrap();
    let told = text(&out);
    let outcomes: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &str)> = outcomes[..6]
        .iter()
        .map(|line| (line["outcome"].as_str().unwrap(), line["offender"].as_str().unwrap_or_default()))
        .collect();
    let missed = ("missed", "");
    let wanted = [
        ("matched", CLIENT),
        ("matched", "2001:db8::7"),
        missed,
        ("ignored", ""),
        missed,
        ("matched", CLIENT),
    ];
    assert_eq!(told, wanted);
}

#[test]
fn a_tunnel_of_cloudflares_needs_no_ranges() {
    let host = Host::new();
    host.container(
        'd',
        "tunnel",
        "cloudflare/cloudflared:2026.1",
        &["cloudflared", "tunnel", "run", "--token", "hunter2"],
        &[],
    );
    host.log("/var/log/nginx/access.log", &combined("127.0.0.1", 404), 30);
    let out = host.setup(&[]);
    assert!(!text(&out).contains("hunter2"), "{}", text(&out));
    golden("cloudflare-tunnel", &host.proposal());
}

#[test]
fn where_nothing_is_found_nothing_is_proposed_and_why_is_told() {
    let host = Host::new();
    let out = host.setup(&["--yes"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(out.stdout.is_empty() && !host.config().exists(), "{}", text(&out));
    let told = stderr(&out);
    for words in
        ["nothing to watch", "nothing was written", "sshd is not installed", "/var/log/nginx", "logpath:"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn the_address_that_setup_is_run_from_is_named() {
    let host = Host::new();
    host.log("/var/log/nginx/access.log", &combined(CLIENT, 404), 5);
    let said = |address: &str| String::from_utf8(host.setup_from(address).stdout).unwrap();
    for (address, written) in [("198.51.100.9", "198.51.100.9"), ("2001:db8::9", "'2001:db8::9'")] {
        let public = said(address);
        assert!(public.contains(&format!("\n# {address}: you are logged in from there. ")), "{public}");
        let line = format!("ignoreip: [loopback, self, private, {written}]");
        assert!(public.contains(&format!("\n#{line}\n")), "{public}");
        let uncommented = public
            .replace("\nignoreip: [loopback, self, private]\n", "\n")
            .replace(&format!("#{line}"), &line);
        host.is_read(&uncommented);
    }
    let private = said("192.168.1.5");
    assert!(
        private.contains("\n# 192.168.1.5: you are logged in from there; `private` holds it.\n"),
        "{private}"
    );
    assert!(!private.contains("#ignoreip"), "{private}");
    // Whatever stands there instead of an address is nobody's.
    let odd = said("x\ny");
    assert!(!odd.contains("logged in from there"), "{odd}");
}

#[test]
fn a_container_whose_logs_cannot_be_seen_from_here_is_told() {
    let host = Host::new();
    host.container('a', "npm", NPM, &["/init"], &[("/opt/elsewhere", "/data")]);
    host.log("/logs/shop/access.log", &combined(CLIENT, 404), 5);
    host.log("/logs/traefik/access.log", &traefik(CLIENT, 404), 5);
    // Where the compose files mount the host's own.
    host.log("/var/log/npm/proxy-host-1_access.log", &npm(CLIENT, 404), 5);
    host.log("/var/log/host/auth.log", &sshd(CLIENT), 5);
    let out = host.setup(&[]);
    let told = stderr(&out);
    assert!(told.contains("the container npm has its logs in /opt/elsewhere/logs of the host, which cannot be seen from here"), "{told}");
    golden("mounted-logs", &host.proposal());
}
