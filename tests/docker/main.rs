//! A real Docker host: an engine in a network namespace of its own, stockade in the container of the compose file, installed,
//! used and removed by the very commands that the documentation shows.
#![expect(clippy::unwrap_used, reason = "what a test relies on and does not find fails the test")]

#[path = "../support/docs.rs"]
mod docs;
mod image;
mod machine;
mod web;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use machine::{Machine, eventually};

const SOON: Duration = Duration::from_secs(20);
const HEALTH: &str = "docker inspect --format '{{.State.Health.Status}}'";

/// The commands of one document, block after block, in a checkout.
struct Told {
    blocks: std::vec::IntoIter<docs::Block>,
}

impl Told {
    fn of(document: &str) -> Self {
        let blocks: Vec<_> =
            docs::run_by("container").into_iter().filter(|block| block.file.ends_with(document)).collect();
        assert!(!blocks.is_empty(), "{document} shows no command for containers");
        Self { blocks: blocks.into_iter() }
    }

    /// Runs the next block, which must be the one that has `part`; what it prints.
    fn run(&mut self, machine: &Machine, part: &str) -> String {
        let block = self.blocks.next().unwrap();
        assert!(
            block.text.contains(part),
            "{}:{}: not the commands with {part:?}: {block:?}",
            block.file.display(),
            block.line
        );
        machine.sh(&format!("cd /src\n{}", block.text))
    }

    fn assert_done(mut self) {
        assert!(self.blocks.next().is_none(), "commands that nothing runs");
    }
}

/// The agent in the container answers, and enforces.
#[track_caller]
fn assert_up(machine: &Machine) {
    let up = eventually(SOON, || machine.tried("docker exec stockade stockade ping").status.success());
    assert!(up, "{}", machine.state());
}

fn bans(machine: &Machine) -> Vec<serde_json::Value> {
    serde_json::from_str(&machine.sh("docker exec stockade stockade bans --json")).unwrap()
}

fn tables(machine: &Machine) -> Vec<String> {
    let all = machine.sh("nft list tables");
    all.lines().filter(|line| line.contains("stockade")).map(str::to_owned).collect()
}

#[test]
fn a_docker_host_is_guarded() {
    let machine = Machine::boot();
    machine.start_engine();
    web::start(&machine);

    // As the README says, then as the page on containers does.
    let mut readme = Told::of("README.md");
    readme.run(&machine, "docker compose up");
    readme.assert_done();
    let mut told = Told::of("container.md");
    told.run(&machine, "docker compose up");
    assert_up(&machine);
    let looked = told.run(&machine, "stockade check");
    for wanted in ["matcher bpf", "CAP_DAC_READ_SEARCH", "nobody is banned", "proxy-host-*_access.log"] {
        assert!(looked.contains(wanted), "no {wanted:?} in\n{looked}");
    }
    told.run(&machine, "stockade ban");
    told.run(&machine, "docker cp");
    assert_up(&machine);
    told.run(&machine, "stockade reload");

    lockout(&machine);

    // Nobody is stopped who did nothing.
    for (source, client) in web::OFFENDERS.iter().zip(web::HIDDEN) {
        assert_eq!(web::visit(&machine, source, "/"), Some(200), "{source}\n{}", machine.state());
        assert_eq!(web::visit_for(&machine, client, "/"), Some(200), "{client}\n{}", machine.state());
    }
    web::offend(&machine);
    let all = eventually(SOON, || bans(&machine).len() == 4);
    assert!(all, "not the four who offend: {}", machine.state());
    web::assert_guarded(&machine, "when they are banned");
    // Each by the way that can stop it: the packets of the hidden ones come from the CDN, and from the proxy.
    for ban in bans(&machine) {
        let offender = ban["offender"].as_str().unwrap();
        let hidden = web::HIDDEN.iter().any(|hidden| same(hidden, offender));
        let by = if hidden { "header_packets" } else { "packets" };
        assert!(ban[by].as_u64() > Some(0), "{by} of {ban:#}\n{}", machine.state());
    }

    // Docker has switched on that family inet sees what passes on a bridge, where the kernel can; without it the table for
    // bridges is alone.
    bridged(&machine, 0);
    web::assert_guarded(&machine, "without br_netfilter");
    bridged(&machine, 1);

    machine.sh("docker restart --time 5 stockade");
    web::assert_guarded(&machine, "after docker restart stockade");
    assert_up(&machine);
    machine.sh("docker restart --time 2 web proxy app");
    web::assert_guarded(&machine, "after docker restart of the web servers");
    told.run(&machine, "--force-recreate");
    web::assert_guarded(&machine, "after an upgrade");
    assert_up(&machine);
    assert_eq!(bans(&machine).len(), 4);

    machine.sh("cd /opt/stockade && docker compose down --timeout 5");
    web::assert_guarded(&machine, "without the agent");
    machine.sh("cd /opt/npm && docker compose down --timeout 2 && docker compose up --detach");
    web::assert_guarded(&machine, "with new containers and no agent");
    machine.sh("cd /opt/stockade && docker compose up --detach");
    assert_up(&machine);
    web::assert_guarded(&machine, "after docker compose down and up");
    assert_eq!(bans(&machine).len(), 4, "the ledger's volume has stayed");

    machine.stop_engine();
    machine.start_engine();
    web::assert_guarded(&machine, "after a restart of the engine");
    assert_up(&machine);

    // Docker's own rules are gone, too, and come back with it; meanwhile nobody who is banned may come in.
    machine.sh("nft flush ruleset");
    web::assert_stopped(&machine, "right after nft flush ruleset");
    machine.stop_engine();
    machine.start_engine();
    web::assert_guarded(&machine, "after nft flush ruleset and a restart of the engine");
    assert_up(&machine);
    assert_eq!(bans(&machine).len(), 4);
    let healthy = || machine.sh(&format!("{HEALTH} stockade")).trim() == "healthy";
    assert!(eventually(Duration::from_secs(40), healthy), "{}", machine.state());

    let removed = told.run(&machine, "stop --flush");
    assert!(removed.contains("4 bans lifted"), "{removed}");
    assert_eq!(tables(&machine), [""; 0], "something is left behind");
    for (source, client) in web::OFFENDERS.iter().zip(web::HIDDEN) {
        assert_eq!(web::visit(&machine, source, "/"), Some(200), "{source}");
        assert_eq!(web::visit_for(&machine, client, "/"), Some(200), "{client}");
    }

    traefik(&machine, &mut told);
    told.assert_done();
    nothing_configured(&machine);
    certificates(&machine);
    legacy(&machine);
}

/// From within the container it is seen whom a ban must not hit.
fn lockout(machine: &Machine) {
    let refused = |address: &str, why: &str| {
        let out =
            machine.tried(&format!("docker exec stockade stockade ban npm-forceful-browsing {address}"));
        let said = machine::text(&out);
        assert!(!out.status.success() && said.contains(why), "{address}: {said}\n{}", machine.state());
    };
    machine.write(
        "/run/systemd/sessions/4",
        "UID=0\nUSER=root\nSTATE=active\nREMOTE=1\nTTY=pts/0\nREMOTE_HOST=203.0.113.200\nLEADER=4711\n",
    );
    refused("203.0.113.200", "root on pts/0");
    // The containers' networks, which the engine has made, and the host.
    refused("172.30.0.4", "");
    refused("fd00:30::4", "");
    refused("203.0.113.1", "");
}

fn bridged(machine: &Machine, value: u8) {
    machine.sh(&format!(
        "for family in ip ip6; do file=/proc/sys/net/bridge/bridge-nf-call-${{family}}tables; [ ! -e $file ] || echo {value} > $file; done"
    ));
}

/// Whether a ban is one of this address: IPv6 addresses are banned by their /64.
fn same(address: &str, offender: &str) -> bool {
    let net = offender.parse::<IpNet>().or_else(|_| offender.parse::<IpAddr>().map(IpNet::from)).unwrap();
    net.contains(&address.parse::<IpAddr>().unwrap())
}

/// A log that Docker keeps, of a container that is made anew; Docker's real files.
fn traefik(machine: &Machine, told: &mut Told) {
    // Stands for Traefik: the same log on the same way.
    machine.write(
        "/opt/traefik/nginx.conf",
        r#"daemon off; pid /tmp/nginx.pid; events {} http {
        map $remote_addr $peer { ~: "[$remote_addr]:$remote_port"; default $remote_addr:$remote_port; }
        log_format traefik escape=json '{"ClientHost":"$remote_addr","ClientAddr":"$peer","DownstreamStatus":$status,'
            '"OriginStatus":$status,"RequestHost":"$host","RequestMethod":"$request_method","RequestPath":"$request_uri",'
            '"RequestProtocol":"$server_protocol","RouterName":"web@docker","StartUTC":"$time_iso8601","level":"info",'
            '"msg":"","time":"$time_iso8601"}';
        access_log /dev/stdout traefik; error_log stderr;
        server { listen 80; listen [::]:80; location / { return 200 "web\n"; } location /wp { return 404; } } }"#,
    );
    let start = "docker rm --force web traefik >/dev/null 2>&1 || true
        docker run --detach --name traefik --network npm_default --publish 8080:80 \
            --volume /opt/traefik/nginx.conf:/etc/nginx/nginx.conf:ro nginx >/dev/null";
    machine.sh(start);
    told.run(machine, "compose.traefik.yaml");
    assert_up(machine);
    let offend = |n: u32| {
        for offender in web::OFFENDERS {
            web::visit_many(machine, offender, n);
        }
    };
    offend(8);
    let offenses = || -> u64 {
        let status = machine.sh("docker exec stockade stockade status --json");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["jails"].as_array().unwrap().iter().filter_map(|jail| jail["offenses"].as_u64()).sum()
    };
    assert!(eventually(SOON, || offenses() == 16), "{}", machine.state());
    // Made anew: another directory, another file. What was counted still counts.
    machine.sh(start);
    let innocent = eventually(SOON, || web::visit(machine, web::INNOCENT[0], "/") == Some(200));
    assert!(innocent, "{}", machine.state());
    offend(8);
    let blocked = || web::OFFENDERS.iter().all(|offender| web::visit(machine, offender, "/").is_none());
    assert!(eventually(SOON, blocked), "{}", machine.state());
    for innocent in web::INNOCENT {
        assert_eq!(web::visit(machine, innocent, "/"), Some(200), "{innocent}");
    }
    machine.sh("docker update --restart=no stockade; docker exec stockade stockade stop --flush; docker rm --force stockade traefik");
    assert_eq!(tables(machine), [""; 0]);
}

/// A first start with an empty directory in the place of the configuration.
fn nothing_configured(machine: &Machine) {
    machine.sh(
        "mkdir -p /opt/empty && docker run --detach --name first --restart unless-stopped --read-only --cap-drop ALL \
         --cap-add NET_ADMIN --tmpfs /run/stockade --volume /opt/empty:/etc/stockade:ro --health-interval 1s \
         --health-retries 2 --health-start-period 1s stockade:latest",
    );
    let unhealthy = || machine.sh(&format!("{HEALTH} first")).trim() == "unhealthy";
    assert!(eventually(SOON, unhealthy), "{}", machine.sh("docker logs first 2>&1"));
    let ping = machine.tried("docker exec first stockade ping");
    assert_eq!(ping.status.code(), Some(1), "{}", machine::text(&ping));
    let wrong = "jails: { npm-404: { logpath: relative } }";
    machine.sh(&format!("echo '{wrong}' > /opt/empty/config.yaml"));
    let said = || machine.sh("docker logs first 2>&1");
    assert!(eventually(SOON, || said().contains("to be corrected")), "{}", said());
    machine.sh("echo 'jails: { npm-404: { logpath: /var/log/npm/proxy-host-1_access.log } }' > /opt/empty/config.yaml");
    let healthy = || machine.sh(&format!("{HEALTH} first")).trim() == "healthy";
    assert!(eventually(SOON, healthy), "{}", said());
    let said = said();
    for wanted in
        ["nobody is banned: waiting for /etc/stockade/config.yaml", "stockade setup", "1:30", "is up"]
    {
        assert!(said.contains(wanted), "no {wanted:?} in\n{said}");
    }
    let restarts = machine.sh("docker inspect --format '{{.RestartCount}}' first");
    assert_eq!(restarts.trim(), "0", "it ended and was started over");
    // Process 1 of a container is not ended by a signal that it does not handle.
    machine.sh("timeout 5 docker stop --time 9 first && docker rm first");
}

/// Servers are believed that an authority vouches for: those that the image brings, or others that are named.
fn certificates(machine: &Machine) {
    let hook = r#"{ kind: webhook, url: "https://203.0.113.1/" }"#;
    machine.write(
        "/opt/empty/config.yaml",
        &format!(
            "sinks: {{ hook: {hook} }}\njails: {{ npm-404: {{ logpath: /var/log/x, sinks: [hook] }} }}\n"
        ),
    );
    let check = |more: &str| {
        machine::text(&machine.tried(&format!(
            "docker run --rm --network host --volume /opt/empty:/etc/stockade:ro --volume /opt/npm/tls:/tls:ro {more} \
             stockade:latest check"
        )))
    };
    let stranger = check("");
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    let known = check("--env SSL_CERT_FILE=/tls/cert.pem");
    assert!(known.contains("https://203.0.113.1 answers"), "{known}");
}

/// The other image has all that the legacy backend runs.
fn legacy(machine: &Machine) {
    machine.sh("docker load --input /src/target/dist/stockade-*-container-legacy.tar.gz");
    let run = |capabilities: &str, command: &str| {
        machine.tried(&format!(
            "echo 'backend: legacy' > /opt/empty/config.yaml
            docker run --rm --read-only --cap-drop ALL --cap-add NET_ADMIN {capabilities} --tmpfs /run \
                --volume /opt/empty:/etc/stockade:ro $(docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep legacy) {command}"
        ))
    };
    let checked = machine::text(&run("--cap-add NET_RAW", "check"));
    assert!(checked.contains("ok  bans by source         legacy"), "{checked}");
}
