//! `stockade demo`: the whole thing in a network namespace of its own. Nothing on the host is touched.

mod namespace;
mod web;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{load, print};
use crate::control::{self, Request, Response};
use crate::daemon;
use crate::daemon::jails::{Jails, Registry};
use crate::kernel::{Enforcer, Layout};

/// Addresses for documentation (RFC 5737): they belong to nobody.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLIENTS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));
const VISITOR: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77));

const PROBES: [&str; 8] = [
    "/wp-login.php",
    "/.env",
    "/.git/config",
    "/phpmyadmin/",
    "/xmlrpc.php",
    "/admin/",
    "/shell",
    "/backup.zip",
];
/// The agent is ready in a fraction of this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Plays an attack.
pub(super) fn run() -> Result<()> {
    // Before any thread begins: the kernel demands it.
    namespace::enter()?;
    namespace::prepare(SERVER, CLIENTS)?;
    let dir = std::env::temp_dir().join(format!("stockade-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let played = play(&dir);
    let removed =
        std::fs::remove_dir_all(&dir).with_context(|| format!("failed to remove {}", dir.display()));
    played.and(removed)
}

fn play(dir: &Path) -> Result<()> {
    let config = dir.join("config.yaml");
    let shown = dir.display();
    std::fs::write(
        &config,
        format!(
            "paths: {{ state: {shown}/state, control: {shown}/control.sock }}\n\
             ignoreip: [loopback]\n\
             jails:\n  demo:\n    filter: npm-forceful-browsing\n    logpath: {shown}/access.log\n    \
             maxretry: 5\n    findtime: 1m\n    bantime: 10m\n"
        ),
    )
    .with_context(|| format!("failed to write {}", config.display()))?;
    print(
        "A network namespace of its own, a web server on 192.0.2.1 that logs as Nginx Proxy Manager does,",
    )?;
    print("and an agent with one jail: 5 pages not found within 1 minute are a ban of 10 minutes.\n")?;
    let loaded = load(&config)?;
    let layout = Jails::new(&loaded, &mut Registry::default())?.layout();
    let agent = {
        let path = config.clone();
        std::thread::spawn(move || daemon::run_with(&path, loaded, false))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = dir.join("control.sock");
    let scene = runtime.block_on(async {
        let listener =
            TcpListener::bind(SocketAddr::new(SERVER, 80)).await.context("failed to serve on 192.0.2.1")?;
        let log = dir.join("access.log");
        tokio::select! {
            ended = web::serve(listener, &log) => ended,
            played = attack(&socket, layout) => played,
        }
    });
    // Also after a failure: the agent must not outlive the scene.
    let stopped = runtime.block_on(control::call(&socket, &Request::Stop { flush: true }, PATIENCE));
    scene?;
    stopped?;
    match agent.join() {
        Ok(ended) => ended?,
        Err(_) => bail!("the agent panicked"),
    }
    print("\nThe agent has ended, its table and the namespace are gone. Nothing on this host was touched.")
}

async fn attack(socket: &Path, layout: Layout) -> Result<()> {
    let server = SocketAddr::new(SERVER, 80);
    let begin = Instant::now();
    while !matches!(control::call(socket, &Request::Ping, PATIENCE).await, Ok(Response::Ok(_))) {
        ensure!(begin.elapsed() < PATIENCE, "the agent did not start (is nf_tables in this kernel?)");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    look(VISITOR, server, "/").await?;
    let mut blocked = false;
    for probe in PROBES {
        if look(ATTACKER, server, probe).await?.is_none() {
            blocked = true;
            break;
        }
        // As slow as an attacker over a network.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(blocked, "the attacker was not blocked");
    ensure!(look(VISITOR, server, "/").await? == Some(200), "the visitor was blocked");

    print("\nWhat the kernel holds (nft list table inet stockade would show the same):\n")?;
    let mut kernel = Enforcer::open(layout).context("failed to open nf_tables")?;
    let listing = kernel.listing().await.context("failed to list the table")?;
    print(&listing.to_string())?;
    print("What the agent says (stockade bans --json):\n")?;
    match control::call(socket, &Request::Bans { jail: None }, PATIENCE).await? {
        Response::Ok(Value::Array(bans)) => {
            ensure!(
                bans.len() == 1 && bans[0]["offender"] == ATTACKER.to_string(),
                "not the attacker's ban: {bans:?}"
            );
            print(&serde_json::to_string_pretty(&bans)?)
        }
        other => bail!("not a list of bans: {other:?}"),
    }
}

/// One visit, told as it goes.
async fn look(source: IpAddr, server: SocketAddr, path: &str) -> Result<Option<u16>> {
    let status = web::visit(source, server, path).await?;
    let who = if source == ATTACKER { "attacker" } else { "visitor" };
    let came = status.map_or_else(|| "no answer: BLOCKED".to_owned(), |status| status.to_string());
    print(&format!("  {who:8} {source}  GET {path:16} {came}"))?;
    Ok(status)
}
