//! An agent whose socket may not grow.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::world::{World, eventually};
use crate::{NPM_JAIL, SOON};

fn status(world: &World) -> Value {
    serde_json::from_slice(&world.stockade(&["status", "--json"]).stdout).unwrap()
}

/// Without CAP_NET_ADMIN in the host's user namespace (a rootless container) the socket keeps its small buffer: a large batch
/// is sent in parts.
#[test]
fn batches_larger_than_the_socket_may_be_are_sent_in_parts() {
    // The kernel lets everybody have twice this limit, and an element with so long a name in its comment takes 130 bytes.
    let jail = "a-long-name-".repeat(5);
    let limit: u32 = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap().trim().parse().unwrap();
    let bans = 2 * limit / 100;
    let mut world = World::new();
    let dir = world.dir().to_str().unwrap().to_owned();
    let config = format!(
        "paths: {{ state: {dir}/state, control: {dir}/control.sock }}\nignoreip: [loopback]\nlog: {{ level: debug }}\n{}",
        NPM_JAIL.replace("DIR", &dir).replace("  npm:", &format!("  {jail}:"))
    );
    world.write("config.yaml", &config);
    // The agent in a user and network namespace of its own, within the server's.
    let program = env!("CARGO_BIN_EXE_stockade");
    let arguments = ["--map-root-user", "--net", program, "run", "--config", &format!("{dir}/config.yaml")];
    world.start("unshare", &arguments, "agent.log");
    assert!(
        eventually(Duration::from_secs(10), || world.stockade(&["ping"]).status.success()),
        "{}",
        world.agent_log()
    );
    let agent = status(&world)["pid"].to_string();
    let nft = |script: &str| {
        let mut child = Command::new("nsenter")
            .args(["--target", &agent, "--user", "--net", "--preserve-credentials", "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{script}");
        String::from_utf8(out.stdout).unwrap()
    };
    // As many as fit a command line, a few times.
    let offenders: Vec<String> =
        (0..bans).map(|n| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string()).collect();
    for some in offenders.chunks(10_000) {
        let mut args = vec!["ban", jail.as_str()];
        args.extend(some.iter().map(String::as_str));
        let out = world.stockade(&args);
        assert!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stderr), world.agent_log());
    }
    let listed = |table: &str| table.matches("-, 0 offenses").count();
    assert_eq!(listed(&nft("list table inet stockade\n")), bans as usize);
    // All at once.
    nft("flush ruleset\n");
    let mut table = String::new();
    let restored = eventually(SOON, || {
        table = nft("list ruleset\n");
        listed(&table) == bans as usize
    });
    assert!(restored, "{} of {bans}\n{}", listed(&table), world.agent_log());
    assert!(
        world.agent_log().contains("a batch is larger than the socket may be"),
        "the test proves nothing: {}",
        world.agent_log()
    );
    assert!(
        eventually(SOON, || status(&world)["kernel"]["repairs"].as_u64() > Some(0)),
        "{}",
        world.agent_log()
    );
    assert_eq!(status(&world)["state"], "enforcing");
}
