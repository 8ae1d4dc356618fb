//! What is listed is what was put in, whoever put it in.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use nft::{
    Batch, Chain, ChainType, Connection, Counter, Element, Expr, Family, Field, Hook, Key, KeyType, Policy,
    Reject, Rule, Set, Table, Value, priority,
};

use crate::namespace::{enter, nft, nft_script};

fn net(text: &str) -> Key {
    text.parse::<IpNet>().unwrap().into()
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn table() -> Table {
    Table::new(Family::Inet, "t")
}

/// What an interval set lists after these keys were added.
async fn round_trip(key: KeyType, keys: &[Key]) -> Vec<Key> {
    let set = Set::new(&table(), "s", key).interval();
    let mut conn = Connection::open().unwrap();
    let mut batch = Batch::new();
    batch.destroy(table()).add(table()).add(&set).add_elements(&set, keys.iter().cloned());
    conn.commit(&batch).await.unwrap();
    let listed: Vec<Key> = conn.elements(&set).await.unwrap().into_iter().map(|e| e.key).collect();
    // They can be removed by what was listed.
    let mut batch = Batch::new();
    batch.delete_elements(&set, listed.iter().cloned());
    conn.commit(&batch).await.unwrap();
    assert!(conn.elements(&set).await.unwrap().is_empty());
    listed
}

#[test]
fn intervals_come_back_at_both_ends_of_the_address_space() {
    enter(intervals_come_back());
}

async fn intervals_come_back() {
    let ordered = [
        (
            KeyType::Ipv4Addr,
            vec!["0.0.0.0/32", "0.0.0.1/32", "10.0.0.0/8", "11.0.0.0/8", "255.255.255.255/32"],
        ),
        (KeyType::Ipv4Addr, vec!["0.0.0.0/0"]),
        (KeyType::Ipv4Addr, vec!["0.0.0.0/1", "128.0.0.0/1"]),
        (KeyType::Ipv4Addr, vec!["255.255.255.254/32", "255.255.255.255/32"]),
        (KeyType::Ipv6Addr, vec!["::/128", "2001:db8::/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"]),
        (KeyType::Ipv6Addr, vec!["::/0"]),
        (KeyType::Ipv6Addr, vec!["fe00::/8", "ff00::/8"]),
    ];
    for (key, nets) in ordered {
        let keys: Vec<Key> = nets.into_iter().map(net).collect();
        assert_eq!(round_trip(key, &keys).await, keys);
    }
    let odd: Vec<Key> = vec![
        Value::between(addr("10.0.0.1").into(), addr("10.0.0.9").into()).into(),
        Value::between(addr("10.0.0.10").into(), addr("255.255.255.255").into()).into(),
    ];
    assert_eq!(round_trip(KeyType::Ipv4Addr, &odd).await, odd);
    let ports: Vec<Key> = vec![
        0u16.into(),
        Value::between(1u16.into(), 9u16.into()).into(),
        Value::between(9000u16.into(), 65535u16.into()).into(),
    ];
    assert_eq!(round_trip(KeyType::InetService, &ports).await, ports);
}

/// Why [`Set::interval`] asks the caller to keep networks apart. When a kernel refuses this, its documentation can say
/// so.
#[test]
fn overlapping_networks_with_a_common_end_are_taken() {
    enter(async {
        let set = Set::new(&table(), "s", KeyType::Ipv4Addr).interval();
        let mut conn = Connection::open().unwrap();
        let mut batch = Batch::new();
        batch.add(table()).add(&set).add_elements(&set, [net("10.255.0.0/16")]);
        batch.add_elements(&set, [net("10.0.0.0/8")]);
        conn.commit(&batch).await.unwrap();
        let listed: Vec<Key> = conn.elements(&set).await.unwrap().into_iter().map(|e| e.key).collect();
        assert!(!listed.contains(&net("10.0.0.0/8")), "{listed:?}");
    });
}

#[test]
fn what_nft_made_is_listed() {
    enter(async {
        nft_script(
            "table inet t {
                set hashed { type ipv4_addr; flags timeout; counter;
                    elements = { 192.0.2.1 timeout 1h comment \"first\", 192.0.2.2, 192.0.2.3 timeout 10s } }
                set nets { type ipv4_addr; flags interval,timeout; size 99;
                    elements = { 0.0.0.0/8, 10.0.0.0/8 timeout 1d comment \"ten\", 192.0.2.1-192.0.2.9, 255.255.255.255 } }
                set pairs { type ipv4_addr . inet_service; flags timeout; timeout 90s;
                    elements = { 192.0.2.1 . 80, 192.0.2.2 . 443 timeout 1h } }
                set spans { type inet_proto . ipv6_addr . inet_service; flags interval;
                    elements = { tcp . 2001:db8::/32 . 80-90 } }
                set names { type ifname; elements = { \"lo\" } }
                map chosen { type ipv4_addr : inet_service; elements = { 192.0.2.1 : 80 } }
                chain plain { tcp dport { 80, 443 } accept comment \"web\"; }
                chain pre { type filter hook prerouting priority raw; policy drop; ct state new jump plain; }
            }
            table netdev other { }",
        );
        let mut conn = Connection::open().unwrap();
        let t = table();
        let names: Vec<String> =
            conn.tables().await.unwrap().iter().map(|t| format!("{} {}", t.family(), t.name())).collect();
        assert_eq!(names, ["inet t", "netdev other"]);

        let sets = conn.sets(&t).await.unwrap();
        let set = |name: &str| sets.iter().find(|s| s.name() == name).unwrap();
        assert_eq!(sets.len(), 5, "neither the map nor the rule's own set is listed");
        let same = |found: &Set, wanted: Set| assert_eq!(found.to_string(), wanted.to_string());
        same(set("hashed"), Set::new(&t, "hashed", KeyType::Ipv4Addr).timeout().counter());
        same(set("nets"), Set::new(&t, "nets", KeyType::Ipv4Addr).interval().timeout().size(99));
        let ninety = Duration::from_secs(90);
        same(
            set("pairs"),
            Set::new(&t, "pairs", [KeyType::Ipv4Addr, KeyType::InetService]).default_timeout(ninety),
        );
        same(
            set("spans"),
            Set::new(&t, "spans", [KeyType::InetProto, KeyType::Ipv6Addr, KeyType::InetService]).interval(),
        );

        let mut hashed = conn.elements(set("hashed")).await.unwrap();
        hashed.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(
            hashed.iter().map(|e| e.key.clone()).collect::<Vec<_>>(),
            ["1", "2", "3"].map(|n| addr(&format!("192.0.2.{n}")).into())
        );
        assert_eq!(hashed[0].comment.as_deref(), Some("first"));
        assert_eq!(hashed[0].timeout, Some(Duration::from_secs(3600)));
        assert!(hashed[0].expires.is_some_and(|left| left > Duration::from_secs(3500)));
        assert_eq!((hashed[1].timeout, hashed[1].expires), (None, None));
        assert!(hashed.iter().all(|e| e.counter == Some(Counter::default())));

        let nets = conn.elements(set("nets")).await.unwrap();
        let keys: Vec<Key> = nets.iter().map(|e| e.key.clone()).collect();
        let range = Value::between(addr("192.0.2.1").into(), addr("192.0.2.9").into());
        assert_eq!(keys, [net("0.0.0.0/8"), net("10.0.0.0/8"), range.into(), addr("255.255.255.255").into()]);
        assert_eq!(nets[1].comment.as_deref(), Some("ten"));
        assert_eq!(nets[1].timeout, Some(Duration::from_secs(86_400)));

        let mut pairs = conn.elements(set("pairs")).await.unwrap();
        pairs.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(pairs[0].key, (addr("192.0.2.1"), 80u16).into());
        assert_eq!(pairs[0].timeout, None);
        assert!(pairs[0].expires.is_some_and(|left| left <= ninety));
        assert_eq!(pairs[1].timeout, Some(Duration::from_secs(3600)));

        let spans = conn.elements(set("spans")).await.unwrap();
        let span = [
            Value::Proto(6),
            Value::Net("2001:db8::/32".parse().unwrap()),
            Value::between(80u16.into(), 90u16.into()),
        ];
        assert_eq!(spans, [Element::new(Key::Concat(span.into()))]);
        let names = conn.elements(set("names")).await.unwrap();
        assert!(matches!(&names[0].key, Key::One(Value::Bytes(b)) if b.starts_with(b"lo\0")), "{names:?}");

        let chains = conn.chains(&t).await.unwrap();
        assert_eq!(chains.iter().map(Chain::name).collect::<Vec<_>>(), ["plain", "pre"]);
        assert!(chains[0].hooked().is_none());
        let wanted = Chain::new(&t, "pre").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
        assert_eq!(chains[1].hooked(), wanted.policy(Policy::Drop).hooked());

        let rules = conn.rules(&t).await.unwrap();
        assert_eq!(rules[0].comment.as_deref(), Some("web"));
        assert!(rules[0].exprs.iter().any(|e| matches!(e, Expr::Lookup { .. })));
        assert_eq!(rules[1].exprs[0].name(), "ct");
        assert!(rules.iter().all(|r| r.handle > 0));
    });
}

#[test]
fn our_rules_are_recognised_in_a_listing() {
    enter(async {
        let t = table();
        let set = Set::new(&t, "s", [KeyType::Ipv6Addr, KeyType::InetService]);
        let prefixes = Set::new(&t, "p", KeyType::Ipv6Addr);
        let (pre, sub) = (Chain::new(&t, "pre"), Chain::new(&t, "sub"));
        let raw = Field::Raw { base: nft::PayloadBase::Inner, offset: 16, len: 16 };
        let rules = [
            Rule::new(&pre)
                .fields_in(&[Field::Ip6Saddr, Field::TcpDport], &set)
                .counter()
                .reject(Reject::TcpReset),
            Rule::new(&pre).ip6_saddr_masked_in(56, &prefixes).counter().jump(&sub).comment("prefix"),
            Rule::new(&pre).saddr("192.0.2.0/25".parse::<IpNet>().unwrap()).goto(&sub),
            Rule::new(&pre).iifname("lo").field_not_in(Field::Ip6Daddr, &prefixes).return_(),
            Rule::new(&sub).meta_l4proto(6).payload(nft::PayloadBase::Inner, 3, b"xyz").accept(),
            Rule::new(&sub).before(4_102_444_800).drop(),
            Rule::new(&sub)
                .field_masked_in(raw, 60, &prefixes)
                .field_between(raw, &[1; 16], &[2; 16])
                .accept(),
        ];
        let mut batch = Batch::new();
        batch.add(&t).add(&set).add(&prefixes).add(&pre).add(&sub);
        for rule in &rules {
            batch.add(rule);
        }
        let mut conn = Connection::open().unwrap();
        conn.commit(&batch).await.unwrap();
        let listed = conn.rules(&t).await.unwrap();
        assert_eq!(listed.len(), rules.len());
        for (i, found) in listed.iter().enumerate() {
            for (j, rule) in rules.iter().enumerate() {
                assert_eq!(
                    found.is(rule),
                    i == j,
                    "listed {i}, rule {j}:\n{:?}\n{:?}",
                    found.exprs,
                    rule.exprs()
                );
            }
        }
        // nft cannot read such a rule back, whose set has a type: it compares what both print.
        let printed = nft(&["list", "chain", "inet", "t", "sub"]);
        for rule in rules.iter().filter(|rule| rule.chain() == "sub") {
            assert!(printed.contains(&rule.to_string()), "{rule}\n{printed}");
        }
        // By its handle one rule goes, and no other.
        let mut batch = Batch::new();
        batch.delete(rules[1].clone().handle(listed[1].handle));
        conn.commit(&batch).await.unwrap();
        let left = conn.rules(&t).await.unwrap();
        assert_eq!(left.len(), rules.len() - 1);
        assert!(!left.iter().any(|r| r.is(&rules[1])));
    });
}

#[test]
fn xtables_matches_are_written_and_read() {
    enter(async {
        let t = Table::new(Family::Ip, "t");
        let c = Chain::new(&t, "c").base(ChainType::Filter, Hook::Input, 0);
        // struct xt_string_info of revision 1: from, to, algorithm, pattern, length, flags, padding, a pointer.
        let mut info = vec![0u8; 160];
        info[2..4].copy_from_slice(&u16::MAX.to_ne_bytes());
        info[4..6].copy_from_slice(b"bm");
        info[20..23].copy_from_slice(b"abc");
        info[148] = 3;
        let expr = Expr::Match { name: "string".into(), rev: 1, info: info.into() };
        let rule = Rule::new(&c).expr(expr).counter().drop();
        assert_eq!(rule.to_string(), "xt match string counter packets 0 bytes 0 drop");
        let mut batch = Batch::new();
        batch.add(&t).add(&c).add(&rule);
        let mut conn = Connection::open().unwrap();
        conn.commit(&batch).await.unwrap();
        let listed = conn.rules(&t).await.unwrap();
        let Expr::Match { name, rev: 1, info } = &listed[0].exprs[0] else { panic!("{:?}", listed[0]) };
        assert_eq!(&**name, "string");
        assert_eq!(&info[20..23], b"abc");
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        let error = conn.elements(&Set::new(&table(), "s", KeyType::Ipv4Addr)).await.unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "failed to list elements of set inet t s: No such file or directory (os error 2)"
        );
        assert!(conn.sets(&table()).await.unwrap_err().is_not_found());
        assert!(conn.chains(&table()).await.unwrap().is_empty());
        assert!(conn.rules(&table()).await.unwrap().is_empty());
        assert!(conn.tables().await.unwrap().is_empty());
    });
}

#[test]
fn a_listed_rule_is_added_again() {
    enter(added_again());
}

async fn added_again() {
    nft_script(
        "table inet t {
            set s { type ipv4_addr; flags timeout; }
            chain c { counter comment \"jumped to\"; }
            chain pre {
                type filter hook prerouting priority raw; policy accept;
                ip saddr @s counter packets 7 bytes 700 drop
                ip6 saddr & ffff:: == 2001:: tcp dport 22 reject with tcp reset
                meta l4proto tcp jump c
                ct state new limit rate 5/second log prefix \"x\" accept
            }
        }",
    );
    let mut conn = Connection::open().unwrap();
    let before = conn.rules(&table()).await.unwrap();
    assert_eq!(before.len(), 5);
    let mut batch = Batch::new();
    batch.flush(table());
    for rule in &before {
        batch.add(rule.rule());
    }
    conn.commit(&batch).await.unwrap();
    let after = conn.rules(&table()).await.unwrap();
    assert_eq!(after.len(), 5);
    for (before, after) in before.iter().zip(&after) {
        assert!(after.is(&before.rule()), "{before:?} became {after:?}");
    }
    assert!(after.iter().flat_map(|rule| &rule.exprs).any(|expr| *expr == Expr::COUNTER), "counts from zero");
}

/// ipset is a part of netfilter of its own, asked over the same socket: what comes after is answered as before.
#[test]
fn ipset_tells_its_types() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        for family in [Family::Ip, Family::Ip6] {
            assert!(conn.ipset_type("hash:net", family).await.unwrap() > 0, "{family}");
        }
        assert!(conn.ipset_type("hash:nothing", Family::Ip).await.unwrap_err().raw_os_error().is_some());
        assert_eq!(conn.flowtables().await.unwrap(), []);
        assert_eq!(conn.tables().await.unwrap(), []);
    });
}

/// Where `reject` may stand is looked at when a batch is committed: who asks whether a table could be made is not told.
#[test]
fn a_probe_does_not_look_at_the_hook_of_a_reject() {
    enter(async {
        let mut conn = Connection::open().unwrap();
        let chain = Chain::new(&table(), "c").base(ChainType::Filter, Hook::Postrouting, priority::FILTER);
        let mut batch = Batch::new();
        batch.add(table()).add(&chain).add(Rule::new(&chain).reject(Reject::TcpReset));
        assert!(conn.probe(&batch).await.unwrap().iter().all(Result::is_ok));
        assert!(conn.commit(&batch).await.unwrap_err().is_not_supported());
    });
}
