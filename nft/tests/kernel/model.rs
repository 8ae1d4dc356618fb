//! The fake is held against the kernel: the same random batches over a tiny world, the same answers, the same
//! listing by nft(8).
//!
//! It does not promise the same error where several changes of one batch are wrong in ways the kernel notices in
//! another order; so every batch here has one change that may be wrong, behind changes that are not.

use std::time::Duration;

use ipnet::IpNet;
use nft::fake::Fake;
use nft::{
    Batch, Chain, ChainType, Connection, Element, Family, Hook, Key, KeyType, Policy, Rule, Set, Table, Value,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use crate::namespace::{enter_with, nft, without_expiry};

#[derive(Clone, Debug)]
enum Action {
    Table(Do, u8),
    Chain(Do, u8, u8),
    Set(Do, u8, u8),
    AddRule(u8, u8),
    Elements(Do, u8, Vec<(u8, u8)>),
    FlushRuleset,
}

#[derive(Clone, Copy, Debug)]
enum Do {
    Add,
    Create,
    Delete,
    Destroy,
    Flush,
}

fn verb() -> impl Strategy<Value = Do> {
    prop_oneof![
        5 => Just(Do::Add),
        1 => Just(Do::Create),
        2 => Just(Do::Delete),
        1 => Just(Do::Destroy),
        1 => Just(Do::Flush),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => (verb(), 0..2u8).prop_map(|(v, t)| Action::Table(v, t)),
        2 => (verb(), 0..3u8, 0..2u8).prop_map(|(v, c, p)| Action::Chain(v, c, p)),
        3 => (verb(), 0..4u8, 0..2u8).prop_map(|(v, s, k)| Action::Set(v, s, k)),
        2 => (0..3u8, 0..5u8).prop_map(|(c, r)| Action::AddRule(c, r)),
        8 => (verb(), 0..4u8, prop::collection::vec((0..10u8, 0..3u8), 1..3))
            .prop_map(|(v, s, e)| Action::Elements(v, s, e)),
        1 => Just(Action::FlushRuleset),
    ]
}

fn table(n: u8) -> Table {
    Table::new(Family::Inet, ["a", "b"][usize::from(n)])
}

fn chain(n: u8, policy: u8) -> Chain {
    let t = table(0);
    let policy = [Policy::Accept, Policy::Drop][usize::from(policy)];
    match n {
        0 => Chain::new(&t, "plain"),
        1 => Chain::new(&t, "pre").base(ChainType::Filter, Hook::Prerouting, -300).policy(policy),
        _ => Chain::new(&t, "sub"),
    }
}

/// Four names; `odd` makes the second one of another type.
fn set(n: u8, odd: u8) -> Set {
    let t = table(0);
    match (n, odd) {
        (0, _) => Set::new(&t, "hashed", KeyType::Ipv4Addr).timeout().counter(),
        (1, 0) => Set::new(&t, "small", KeyType::Ipv4Addr).size(2),
        (1, _) => Set::new(&t, "small", KeyType::Ipv4Addr).timeout(),
        (2, _) => Set::new(&t, "nets", KeyType::Ipv4Addr).interval().timeout(),
        _ => Set::new(&t, "pairs", [KeyType::Ipv4Addr, KeyType::InetService])
            .default_timeout(Duration::from_secs(600)),
    }
}

fn element(set: u8, n: u8, timeout: u8) -> Element {
    let addr = std::net::Ipv4Addr::new(192, 0, 2, n);
    let key: Key = match set {
        2 => {
            let nets = [
                "0.0.0.0/8",
                "10.0.0.0/8",
                "11.0.0.0/8",
                "192.0.2.7/32",
                "224.0.0.0/4",
                "255.255.255.255/32",
                // No network here has an end in common with one that it overlaps: those the kernel takes, see
                // `overlapping_networks_with_a_common_end_are_taken`.
                "10.7.0.0/16",
                "224.7.0.0/16",
                "12.0.0.0/8",
                "0.7.0.0/16",
            ];
            Value::from(nets[usize::from(n)].parse::<IpNet>().unwrap()).into()
        }
        3 => (addr, 80u16).into(),
        _ => addr.into(),
    };
    match timeout {
        0 => Element::new(key),
        1 => Element::new(key).timeout(Duration::from_secs(3600)),
        _ => Element::new(key).timeout(Duration::from_secs(7200)).comment("two"),
    }
}

fn rule(c: u8, r: u8) -> Rule {
    let rule = Rule::new(&chain(c, 0));
    match r {
        0 => rule.ip_saddr_in(&set(0, 0)).counter().drop(),
        1 => rule.ip_saddr_in(&set(2, 0)).drop(),
        2 => rule.counter(),
        // Only downwards: the fake knows nothing of circles, nor that a base chain is not jumped to.
        3 if c < 2 => rule.jump(&chain(2, 0)),
        _ => rule.drop().comment("last"),
    }
}

fn put(batch: &mut Batch, verb: Do, object: impl Into<nft::Object>) {
    match verb {
        Do::Add => batch.add(object),
        Do::Create => batch.create(object),
        Do::Delete => batch.delete(object),
        Do::Destroy => batch.destroy(object),
        Do::Flush => batch.flush(object),
    };
}

fn batch(action: &Action) -> Batch {
    let mut b = Batch::new();
    match action {
        Action::Table(verb, t) => put(&mut b, *verb, table(*t)),
        Action::Chain(verb, c, policy) => put(&mut b, *verb, chain(*c, *policy)),
        Action::Set(verb, s, odd) => put(&mut b, *verb, set(*s, *odd)),
        Action::AddRule(c, r) => put(&mut b, Do::Add, rule(*c, *r)),
        Action::Elements(verb, s, elements) => {
            let set = set(*s, 0);
            let elements = elements.iter().map(|(n, timeout)| element(*s, *n, *timeout));
            match verb {
                Do::Add => b.add_elements(&set, elements),
                Do::Create => b.create_elements(&set, elements),
                Do::Delete => b.delete_elements(&set, elements),
                Do::Destroy | Do::Flush => b.destroy_elements(&set, elements),
            };
        }
        Action::FlushRuleset => {}
    }
    b
}

/// Which of the two errors an overlap is depends on the kernel's version and on which end it notices first.
fn overlap(error: String) -> String {
    error.replace("Directory not empty (os error 39)", "File exists (os error 17)")
}

#[test]
fn the_fake_is_like_the_kernel() {
    enter_with(model);
}

fn model(runtime: &Runtime) {
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let worlds = prop::collection::vec(action(), 1..30);
    let run = TestRunner::new(config).run(&worlds, |actions| {
        nft(&["flush", "ruleset"]);
        let mut conn = runtime.block_on(async { Connection::open().unwrap() });
        let mut fake = Fake::new();
        // Without this most worlds would have no table to do anything in.
        let mut first = Batch::new();
        first.add(table(0)).add(set(0, 0)).add(set(2, 0)).add(chain(2, 0));
        runtime.block_on(conn.commit(&first)).unwrap();
        fake.apply(&first).unwrap();
        for action in &actions {
            if matches!(action, Action::FlushRuleset) {
                nft(&["flush", "ruleset"]);
                fake.flush_ruleset();
                continue;
            }
            let batch = batch(action);
            let real = runtime.block_on(conn.commit(&batch)).map_err(|e| e.to_string());
            let told = fake.apply(&batch).map_err(|e| e.to_string());
            prop_assert_eq!(told.map_err(overlap), real.map_err(overlap), "{}", batch);
        }
        prop_assert_eq!(without_expiry(&fake.to_string()), without_expiry(&nft(&["list", "ruleset"])));
        Ok(())
    });
    if let Err(e) = run {
        panic!("{e}");
    }
}
