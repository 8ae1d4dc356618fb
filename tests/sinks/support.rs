//! A set of sinks as an agent has it, from a configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;
use stockade::clock;
use stockade::config::{Config, Shipped};
use stockade::sinks::desired::Want;
use stockade::sinks::event::{Banned, Event};
use stockade::sinks::{Context, Sinks};
use stockade::types::{JailId, Timestamp};

/// So long is waited for what happens soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

const SHIPPED: Shipped<'static> =
    Shipped { names: &["any"], text: |name| (name == "any").then_some("failregex: '^x <HOST>$'") };

/// The configuration with these `sinks:` (a YAML map, flow or block with two spaces), all of them used by the jail `any`.
pub(crate) fn config(sinks: &str) -> Config {
    let text = format!("sinks:\n{sinks}\n");
    let names: Vec<String> = match Config::parse(&text, "f", &SHIPPED) {
        Ok(config) => config.sinks.iter().map(|sink| sink.name.clone()).collect(),
        Err(e) => panic!("{e}\n{text}"),
    };
    let text = format!("{text}jails: {{ any: {{ logpath: /a, sinks: [{}] }} }}\n", names.join(", "));
    Config::parse(&text, "f", &SHIPPED).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The sinks of [`config`], running, with `state` as the agent's directory.
pub(crate) fn start(sinks: &str, state: &Path) -> Sinks {
    let context = Context { host: "web1".to_owned(), state: state.to_owned(), ..Context::default() };
    let sinks = Sinks::start(&config(sinks).sinks, context, Vec::new()).unwrap();
    sinks.show(|_| Vec::new());
    sinks
}

/// A file of mode 600 with a secret in it.
pub(crate) fn secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Names of sinks, as a jail has them.
pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A ban by the jail number `jail`, called `jailN`, that began just now and lasts an hour.
pub(crate) fn want(jail: u16) -> Want {
    let since = clock::now();
    Want {
        id: JailId(jail),
        jail: Arc::from(format!("jail{jail}")),
        since,
        until: Some(since.saturating_add(Duration::from_secs(3600))),
        offenses: 5,
        count: 1,
    }
}

/// A ban to be told.
pub(crate) fn banned(offender: &str) -> Event {
    let at = Timestamp::from_secs(1_795_000_000);
    let field = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Event::Ban(Banned {
        at,
        jail: "npm".to_owned(),
        offender: net(offender),
        since: at,
        until: Some(at.saturating_add(Duration::from_secs(600))),
        offenses: 5,
        count: 2,
        prolonged: false,
        observed: false,
        problem: None,
        line: "[21/Nov/2026] GET /wp-login.php <b>\"x\"</b>".to_owned(),
        fields: [
            field(("host", "shop.example")),
            field(("uri", "/wp-login.php?<script>&\"")),
            field(("user_agent", "evil <b>\"agent\"</b> & co")),
            field(("sent_to", "app:8080")),
        ]
        .into(),
    })
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|_| IpNet::from(text.parse::<std::net::IpAddr>().unwrap()))
}

/// Has an event told to all sinks.
pub(crate) fn tell(sinks: &mut Sinks, event: Event) {
    sinks.tell(event, None);
    // Without a ledger everything may be told at once.
    drop(sinks.to_write(false));
    sinks.release();
}

/// What `status` shows of a sink.
pub(crate) fn status(sinks: &Sinks, name: &str) -> Value {
    let all = sinks.value();
    all.as_array()
        .unwrap()
        .iter()
        .find(|sink| sink["sink"] == name)
        .unwrap_or_else(|| panic!("{all}"))
        .clone()
}

/// Waits until `what` is true; panics with what `else_told` says when it does not become true [soon](SOON).
pub(crate) fn until(else_told: impl Fn() -> String, mut what: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < end, "{}", else_told());
        std::thread::sleep(Duration::from_millis(10));
    }
}
