//! The same ruleset four ways: through this crate, through nft(8) from our text, from the fake, and as a file.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use nft::fake::Fake;
use nft::{
    Batch, Chain, ChainType, Connection, Element, Family, Field, Hook, KeyType, PayloadBase, Policy, Reject,
    Rule, Set, Table, priority,
};

use crate::namespace::{enter, nft, nft_script, without_expiry};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Everything the agent uses.
fn stockade() -> Batch {
    let t = Table::new(Family::Inet, "stockade");
    let banned4 = Set::new(&t, "banned4", KeyType::Ipv4Addr).timeout().counter();
    let banned6 = Set::new(&t, "banned6", KeyType::Ipv6Addr).timeout();
    let prefix6 = Set::new(&t, "banned6_prefix", KeyType::Ipv6Addr)
        .default_timeout(Duration::from_secs(600))
        .counter()
        .size(1000);
    let nets4 = Set::new(&t, "nets4", KeyType::Ipv4Addr).interval().timeout();
    let nets6 = Set::new(&t, "nets6", KeyType::Ipv6Addr).interval();
    let pairs = Set::new(&t, "pairs", [KeyType::Ipv4Addr, KeyType::InetService]).timeout();
    let triples = Set::new(&t, "triples", [KeyType::InetProto, KeyType::InetService, KeyType::Ipv6Addr]);
    let ranges = Set::new(&t, "ranges", [KeyType::Ipv4Addr, KeyType::InetService]).interval();
    let ports = Set::new(&t, "ports", KeyType::InetService);
    let spans = Set::new(&t, "spans", KeyType::InetService).interval();
    let protos = Set::new(&t, "protos", KeyType::InetProto);
    let jailed = Chain::new(&t, "jailed");
    let pre = Chain::new(&t, "pre").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
    let input = Chain::new(&t, "in").base(ChainType::Filter, Hook::Input, -10).policy(Policy::Drop);
    let out = Chain::new(&t, "out").base(ChainType::Route, Hook::Output, priority::MANGLE + 5);
    let mut b = Batch::new();
    b.add(&t);
    for set in
        [&banned4, &banned6, &prefix6, &nets4, &nets6, &pairs, &triples, &ranges, &ports, &spans, &protos]
    {
        b.add(set);
    }
    b.add(&pre).add(&jailed).add(&input).add(&out);
    let hour = Duration::from_secs(3600);
    b.add_elements(
        &banned4,
        [
            Element::new(addr("203.0.113.7")).timeout(hour).comment("seen on \"80\""),
            Element::new(addr("1.2.3.4")).timeout(Duration::from_secs(86_400 + 61)),
            Element::new(addr("9.9.9.9")),
        ],
    );
    b.add_elements(
        &banned6,
        ["2001:db8::1", "::1", "::ffff:1.2.3.4", "::1.2.3.4", "fe80::1:0:0:1"].map(addr),
    );
    b.add_elements(&prefix6, [addr("2001:db8:1:2::"), addr("2001:db8:1::")]);
    b.add_elements(
        &nets4,
        [
            Element::new(net("10.0.0.0/8")),
            Element::new(net("11.0.0.0/8")).timeout(hour),
            Element::new(net("203.0.113.9/32")).comment("one"),
            Element::new(net("255.255.255.255/32")).timeout(hour).comment("last"),
        ],
    );
    b.add_elements(&nets6, [net("ff00::/8"), net("2001:db8::/32"), net("::/128")]);
    b.add_elements(&pairs, [Element::new((addr("203.0.113.7"), 443u16)).timeout(hour).comment("pair")]);
    b.add_elements(&ports, [443u16, 80, 22, 1, 2, 65535]);
    b.add_elements(
        &triples,
        [nft::Key::Concat(
            [nft::Value::Proto(6), nft::Value::Service(443), addr("2001:db8::1").into()].into(),
        )],
    );
    // One only: nft 1.0.6 sorts concatenations of ranges by bytes it did not set.
    let ports_range = nft::Value::between(80u16.into(), 90u16.into());
    b.add_elements(&ranges, [nft::Key::Concat([net("1.0.0.0/24").into(), ports_range].into())]);
    b.add_elements(&spans, [nft::Value::between(80u16.into(), 90u16.into()), 65535u16.into(), 443u16.into()]);
    b.add_elements(&protos, [6u8, 17, 200, 132].map(nft::Value::Proto));
    for rule in [
        Rule::new(&jailed).counter().drop(),
        Rule::new(&jailed).tcp_dport(443).reject(Reject::TcpReset),
        Rule::new(&jailed).saddr(addr("1.2.3.4")).reject(Reject::TcpReset),
        Rule::new(&jailed).reject(Reject::AdminProhibited),
        Rule::new(&jailed).reject(Reject::PortUnreachable),
        Rule::new(&pre).ip_saddr_in(&banned4).counter().drop(),
        Rule::new(&pre).ip6_saddr_in(&banned6).counter().drop(),
        Rule::new(&pre).ip6_saddr_masked_in(64, &prefix6).counter().drop(),
        Rule::new(&pre).meta_nfproto(Family::Ip).ip_saddr_in(&nets4).drop(),
        Rule::new(&pre).ip6_saddr_in(&nets6).drop().comment("networks"),
        Rule::new(&pre).fields_in(&[Field::IpSaddr, Field::TcpDport], &pairs).drop(),
        Rule::new(&pre).fields_in(&[Field::L4proto, Field::ThDport, Field::Ip6Saddr], &triples).drop(),
        Rule::new(&pre).tcp_dport_in(&ports).jump(&jailed),
        Rule::new(&pre).th_dport_in(&ports).goto(&jailed),
        Rule::new(&pre).meta_l4proto(17).th_dport_in(&ports).accept(),
        Rule::new(&pre).field_in(Field::L4proto, &protos).return_(),
        Rule::new(&pre).meta_l4proto(6).payload(PayloadBase::Inner, 0, b"GET ").counter().return_(),
        Rule::new(&pre)
            .meta_l4proto(6)
            .payload(PayloadBase::Inner, 0, b"\r\n\r\n\0\r\nQUIT\n")
            .payload(PayloadBase::Inner, 13, &[0x11])
            .drop(),
        Rule::new(&pre)
            .meta_l4proto(6)
            .field_between(Field::Raw { base: PayloadBase::Inner, offset: 0, len: 1 }, &[0x0d], &[0x7e])
            .drop(),
        Rule::new(&pre).before(1_893_553_445).accept(),
        Rule::new(&pre).before(951_782_399).accept(),
        Rule::new(&pre).before(951_868_800).accept(),
        Rule::new(&pre).before(4_107_542_399).accept(),
        Rule::new(&pre).field_not_in(Field::IpDaddr, &nets4).return_(),
        Rule::new(&pre).iifname("lo").accept(),
        Rule::new(&pre).field_is_not(Field::Iifname, b"veth0\0\0\0\0\0\0\0\0\0\0\0").return_(),
        Rule::new(&pre).saddr(net("10.0.0.0/9")).accept(),
        Rule::new(&pre).saddr(net("10.0.0.0/8")).udp_dport(53).accept(),
        Rule::new(&pre).saddr(net("2001:db8::/61")).daddr(addr("::1")).accept(),
        Rule::new(&pre).meta_nfproto(Family::Ip6).meta_l4proto(6).counter(),
    ] {
        b.add(rule);
    }
    b
}

/// The bridge family has other priorities and other checks.
fn bridge() -> Batch {
    let t = Table::new(Family::Bridge, "stockade");
    let banned = Set::new(&t, "banned4", KeyType::Ipv4Addr);
    let pre = Chain::new(&t, "pre").base(ChainType::Filter, Hook::Prerouting, -301);
    let fwd = Chain::new(&t, "thru").base(ChainType::Filter, Hook::Forward, priority::BRIDGE_FILTER);
    let mut b = Batch::new();
    b.add(&t).add(&banned).add(&pre).add(&fwd);
    b.add(Rule::new(&pre).ip_saddr_in(&banned).drop());
    b.add(Rule::new(&pre).saddr(addr("2001:db8::1")).drop());
    b.add(Rule::new(&fwd).tcp_dport(80).drop());
    b
}

/// One family: no checks which family it is. And a table that does nothing.
fn single_families() -> Batch {
    let mut b = Batch::new();
    for (family, source) in [(Family::Ip, "192.0.2.1"), (Family::Ip6, "2001:db8::1")] {
        let t = Table::new(family, "one").dormant();
        let c = Chain::new(&t, "c").base(ChainType::Nat, Hook::Prerouting, priority::DSTNAT);
        b.add(&t).add(&c);
        b.add(Rule::new(&c).saddr(addr(source)).tcp_dport(443).accept());
        b.add(Rule::new(&c).saddr(addr(source)).counter().accept());
    }
    b
}

/// The ruleset made through this crate, the one nft(8) makes of our text, the one in the fake, and the file an
/// administrator can read, are the same.
async fn golden(name: &str, batch: &Batch) {
    let path = format!("{}/tests/golden/{name}.nft", env!("CARGO_MANIFEST_DIR"));
    Connection::open().unwrap().commit(batch).await.unwrap();
    let ours = without_expiry(&nft(&["list", "ruleset"]));
    // `BLESS=1 cargo nextest run golden` writes the files anew; read what changed before committing it.
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &ours).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(ours, golden, "{path} is not what nft lists");
    nft(&["flush", "ruleset"]);
    nft_script(&batch.to_string());
    assert_eq!(without_expiry(&nft(&["list", "ruleset"])), golden, "nft reads our text otherwise");
    let mut fake = Fake::new();
    fake.apply(batch).unwrap();
    assert_eq!(without_expiry(&fake.to_string()), golden, "we print it otherwise than nft");
}

#[test]
fn stockade_is_golden() {
    enter(golden("stockade", &stockade()));
}

#[test]
fn bridge_is_golden() {
    enter(golden("bridge", &bridge()));
}

#[test]
fn single_families_are_golden() {
    enter(golden("single", &single_families()));
}
