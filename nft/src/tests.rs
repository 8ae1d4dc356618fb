//! Objects to bytes and back, without a kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

use crate::element::{self, Listed};
use crate::encode::{Mode, encode};
use crate::fake::Fake;
use crate::value::Raw;
use crate::wire::{Ack, Writer, attributes, messages};
use crate::*;

fn table() -> Table {
    Table::new(Family::Inet, "t")
}

fn nets4() -> Set {
    Set::new(&table(), "n", KeyType::Ipv4Addr).interval().timeout()
}

/// A batch with every kind of message.
fn everything() -> Batch {
    let t = table().owner().persist();
    let hashed =
        Set::new(&t, "h", KeyType::Ipv6Addr).default_timeout(Duration::from_secs(60)).counter().size(9);
    let pairs = Set::new(&t, "p", [KeyType::Ipv4Addr, KeyType::InetService]).interval();
    let chain = Chain::new(&t, "c").base(ChainType::Filter, Hook::Forward, -5).policy(Policy::Drop);
    let mut b = Batch::new();
    b.add(&t).add(&hashed).add(nets4()).add(&pairs).create(&chain);
    b.add_elements(
        &nets4(),
        [Element::new(Ipv4Addr::BROADCAST).comment("last").timeout(Duration::from_secs(5))],
    );
    b.add_elements(&pairs, [(Ipv4Addr::LOCALHOST, 80u16)]);
    b.add(
        Rule::new(&chain)
            .ip6_saddr_masked_in(64, &hashed)
            .meta_l4proto(6)
            .payload(PayloadBase::Inner, 0, b"GET ")
            .counter()
            .expr(Expr::Match { name: "string".into(), rev: 1, info: [1; 16].into() })
            .reject(Reject::TcpReset)
            .comment("rule"),
    );
    b.delete_elements(&pairs, [(Ipv4Addr::LOCALHOST, 80u16)]).flush(&hashed).delete(&chain).destroy(&t);
    b
}

/// Reads bytes as everything they might be.
fn read_as_anything(bytes: &[u8]) {
    for m in messages(bytes) {
        let _ = Ack::parse(&m);
        let _ = Table::read(&m).map(|t| t.to_string());
        let _ = Chain::read(&m).map(|c| c.to_string());
        let set = Set::read(&m);
        let _ = set.as_ref().map(ToString::to_string);
        if let Some(rule) = ListedRule::read(&m) {
            let _: Vec<String> = rule.exprs.iter().map(ToString::to_string).collect();
        }
        let _ = event::read(&m);
        let elements = m.attributes().nested(sys::NFTA_SET_ELEM_LIST_ELEMENTS).into_iter().flatten();
        for set in
            [Some(nets4()), set, Some(Set::new(&table(), "p", [KeyType::Ipv4Addr, KeyType::InetProto]))]
        {
            let Some(set) = set else { continue };
            let listed = elements.clone().filter_map(|(_, e)| Listed::read(&set, attributes(e))).collect();
            let _ = element::assemble(&set, listed).map(|all| all.iter().map(ToString::to_string).count());
        }
    }
}

proptest! {
    #[test]
    fn damaged_messages_do_no_harm(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let batch = everything();
        let mut bytes = encode(&batch, 1, Mode::Commit).unwrap().bytes;
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_as_anything(&bytes);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_as_anything(&bytes);
        // ... and as the payload of a message that is one.
        let mut w = Writer::new();
        w.nft_message(sys::NFT_MSG_NEWSETELEM, 0, 1, 1, |w| w.nest(sys::NFTA_SET_ELEM_LIST_ELEMENTS, |w| w.bytes(&bytes)));
        read_as_anything(w.as_bytes());
    }

    /// What was written for the kernel, read as if it came from there.
    #[test]
    fn elements_round_trip(
        nets in prop::collection::vec((any::<u32>(), 0..=32u8, prop::option::of(1..100_000u64), prop::option::of("[a-z \u{e4}]{1,80}")), 1..40)
    ) {
        let nets: Vec<(Ipv4Net, _, _)> =
            nets.into_iter().map(|(a, p, t, c)| (Ipv4Net::new(Ipv4Addr::from_bits(a), p).unwrap().trunc(), t, c)).collect();
        let mut elements: Vec<Element> = Vec::new();
        for (net, timeout, comment) in nets {
            let apart = |e: &Element| {
                let IpNet::V4(other) = e.key.net().unwrap() else { unreachable!() };
                !other.contains(&net) && !net.contains(&other)
            };
            if elements.iter().all(apart) {
                let mut element = Element::new(IpNet::from(net)).comment(comment.as_deref().unwrap_or(""));
                element.timeout = timeout.map(Duration::from_millis);
                elements.push(element);
            }
        }
        let mut batch = Batch::new();
        batch.add_elements(&nets4(), elements.iter().cloned());
        let encoded = encode(&batch, 1, Mode::Commit).unwrap();
        let mut listed = Vec::new();
        for m in messages(&encoded.bytes).filter(|m| m.nft_kind() == Some(sys::NFT_MSG_NEWSETELEM)) {
            let list = m.attributes().nested(sys::NFTA_SET_ELEM_LIST_ELEMENTS).unwrap();
            listed.extend(list.filter_map(|(_, e)| Listed::read(&nets4(), attributes(e))));
        }
        elements.sort_by_key(|e| e.key.net().unwrap().network());
        prop_assert_eq!(element::assemble(&nets4(), listed).unwrap(), elements);
    }

    /// Keys count like numbers of 128 bits.
    #[test]
    fn successor_and_predecessor_count(n in prop_oneof![any::<u128>(), Just(u128::MAX), Just(0), Just(0xff), Just(0xffff_ffff)]) {
        let raw = Raw::new(&n.to_be_bytes());
        let next = raw.successor().map(|r| u128::from_be_bytes(r.as_bytes().try_into().unwrap()));
        prop_assert_eq!(next, n.checked_add(1));
        let before = u128::from_be_bytes(raw.predecessor().as_bytes().try_into().unwrap());
        prop_assert_eq!(before, n.wrapping_sub(1));
    }

    /// A range is a network exactly when a network has those ends.
    #[test]
    fn ranges_are_networks_when_they_can_be(a in any::<u32>(), bits in 0..=32u32, off in 0..2u32) {
        let size = 1u64 << (32 - bits);
        let first = (u64::from(a) / size * size) as u32;
        let last = (u64::from(first) + size - 1).saturating_sub(u64::from(off)).max(u64::from(first)) as u32;
        let value = Value::between(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into());
        let naive = (0..=32u8).map(|p| Ipv4Net::new(Ipv4Addr::from_bits(first), p).unwrap())
            .find(|n| n.network().to_bits() == first && n.broadcast().to_bits() == last);
        prop_assert_eq!(value.net(), naive.map(IpNet::from));
        let (x, y) = value.bounds();
        prop_assert_eq!((x.as_bytes(), y.as_bytes()), (&first.to_be_bytes()[..], &last.to_be_bytes()[..]));
    }

    /// Messages stay below what a netlink attribute can hold, and every element is in one, once, in order.
    #[test]
    fn elements_are_spread_over_messages(n in 1..4000usize, comment in 0..200usize) {
        let set = Set::new(&table(), "h", KeyType::Ipv4Addr).timeout();
        let keys: Vec<Ipv4Addr> = (0..n as u32).map(Ipv4Addr::from_bits).collect();
        let text = "x".repeat(comment);
        let mut batch = Batch::new();
        batch.add_elements(&set, keys.iter().map(|k| Element::new(*k).comment(&text)));
        let encoded = encode(&batch, 1, Mode::Commit).unwrap();
        let mut found = Vec::new();
        for m in messages(&encoded.bytes).filter(|m| m.nft_kind() == Some(sys::NFT_MSG_NEWSETELEM)) {
            prop_assert!(m.payload.len() < 60_000);
            let list = m.attributes().nested(sys::NFTA_SET_ELEM_LIST_ELEMENTS).unwrap();
            found.extend(list.filter_map(|(_, e)| Listed::read(&set, attributes(e))));
        }
        let found = element::assemble(&set, found).unwrap();
        prop_assert!(found.into_iter().map(|e| e.key).eq(keys.into_iter().map(Key::from)));
    }
}

/// Only the message before the end asks for an acknowledgement: with many, answers overflow the socket while the batch
/// is committed.
#[test]
fn one_message_is_acknowledged() {
    let batch = everything();
    let encoded = encode(&batch, 100, Mode::Commit).unwrap();
    let all: Vec<_> = messages(&encoded.bytes).collect();
    let acked: Vec<u32> = all.iter().filter(|m| m.flags & sys::NLM_F_ACK != 0).map(|m| m.seq).collect();
    assert_eq!(acked, [encoded.last_seq]);
    assert_eq!(all[all.len() - 2].seq, encoded.last_seq);
    assert_eq!(all.first().map(|m| (m.kind, m.seq)), Some((sys::NFNL_MSG_BATCH_BEGIN, 100)));
    assert_eq!(all.last().map(|m| m.kind), Some(sys::NFNL_MSG_BATCH_END));
    let probe = encode(&batch, 100, Mode::Probe).unwrap();
    let all: Vec<_> = messages(&probe.bytes).collect();
    assert!(all.iter().all(|m| m.kind != sys::NFNL_MSG_BATCH_END));
    assert!(all.iter().skip(1).all(|m| m.flags & sys::NLM_F_ACK != 0));
}

/// Sequence numbers wrap; an answer is still found.
#[test]
fn errors_are_mapped_across_the_wrap_of_sequence_numbers() {
    let batch = everything();
    let first = u32::MAX - 1;
    let encoded = encode(&batch, first, Mode::Commit).unwrap();
    let ack = |seq| Ack { seq, errno: libc::EEXIST, text: None, offset: None };
    let (i, rejection) = encoded.rejection(&ack(first.wrapping_add(2))).unwrap();
    assert_eq!((i, rejection.object.as_str()), (1, "set inet t h"));
    assert!(encoded.has(first) && encoded.has(encoded.last_seq));
    assert!(!encoded.has(first - 1));
    assert!(encoded.rejection(&ack(first)).is_none(), "that is about the batch");
}

/// The bytes of one ban, read with `nft --debug=mnl` in mind.
#[cfg(target_endian = "little")]
#[test]
fn the_bytes_of_a_ban() {
    let set = Set::new(&table(), "b4", KeyType::Ipv4Addr).timeout();
    let mut batch = Batch::new();
    let ban = Element::new(Ipv4Addr::new(203, 0, 113, 7)).timeout(Duration::from_secs(60)).comment("x");
    batch.add_elements(&set, [ban]);
    let bytes = encode(&batch, 5, Mode::Commit).unwrap().bytes;
    // message length 76, type 0x0a0c, flags REQUEST ACK CREATE, sequence 6, port 0
    let expected: &[&[u8]] = &[
        &[76, 0, 0, 0, 0x0c, 0x0a, 0x05, 0x04, 6, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0],                                 // nfgenmsg: inet, version 0
        &[6, 0, 1, 0, b't', 0, 0, 0],                  // NFTA_SET_ELEM_LIST_TABLE
        &[7, 0, 2, 0, b'b', b'4', 0, 0],               // NFTA_SET_ELEM_LIST_SET
        &[40, 0, 3, 0x80],                             // NFTA_SET_ELEM_LIST_ELEMENTS
        &[36, 0, 1, 0x80],                             //   NFTA_LIST_ELEM
        &[12, 0, 1, 0x80, 8, 0, 1, 0, 203, 0, 113, 7], //     NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE }
        &[12, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0xea, 0x60],  //     NFTA_SET_ELEM_TIMEOUT 60,000 ms
        &[8, 0, 6, 0, 0, 2, b'x', 0],                  //     NFTA_SET_ELEM_USERDATA 00 len comment NUL
    ];
    let expected = expected.concat();
    assert_eq!(bytes[20..bytes.len() - 20], expected, "between BATCH_BEGIN and BATCH_END");
}

#[test]
fn comments_are_cleaned_and_cut() {
    let comment = |text: &str| Element::new(Ipv4Addr::LOCALHOST).comment(text).comment;
    assert_eq!(comment("GET \"/\"\n\0x").as_deref(), Some("GET '/'  x"));
    assert_eq!(comment(""), None);
    let long = "\u{e4}".repeat(100);
    assert_eq!(comment(&long).map(|c| c.len()), Some(COMMENT_MAX));
    assert_eq!(comment(&format!("x{long}")).map(|c| c.len()), Some(COMMENT_MAX - 1));
}

#[test]
fn values_print_as_nft_prints_them() {
    let text = |v: Value| v.to_string();
    let addr = |s: &str| Value::from(s.parse::<IpAddr>().unwrap());
    assert_eq!(text(addr("::1.2.3.4")), "::1.2.3.4");
    assert_eq!(text(addr("::ffff:1.2.3.4")), "::ffff:1.2.3.4");
    assert_eq!(text(addr("::1")), "::1");
    assert_eq!(text(addr("::")), "::");
    assert_eq!(text(Value::from("10.1.2.3/8".parse::<IpNet>().unwrap())), "10.0.0.0/8");
    assert_eq!(text(Value::from("10.1.2.3/32".parse::<IpNet>().unwrap())), "10.1.2.3");
    assert_eq!(text(Value::Proto(6)), "tcp");
    assert_eq!(text(Value::Proto(200)), "200");
    assert_eq!(text(Value::Bytes([1, 0xab].into())), "0x01ab");
    let element = Element::new(Ipv4Addr::LOCALHOST).timeout(Duration::from_millis(90_061_001));
    assert_eq!(element.to_string(), "127.0.0.1 timeout 1d1h1m1s1ms");
}

#[test]
fn the_fake_expires_and_prolongs_as_told() {
    let set = Set::new(&table(), "h", KeyType::Ipv4Addr).timeout();
    let ban = |secs| Element::new(Ipv4Addr::LOCALHOST).timeout(Duration::from_secs(secs));
    for old in [false, true] {
        let mut fake = if old { Fake::new().old_timeouts() } else { Fake::new() };
        let mut batch = Batch::new();
        batch.add(table()).add(&set).add_elements(&set, [ban(60)]);
        fake.apply(&batch).unwrap();
        fake.advance(Duration::from_secs(59));
        assert_eq!(fake.elements_of(&set).unwrap()[0].expires, Some(Duration::from_secs(1)));
        let mut again = Batch::new();
        again.add_elements(&set, [ban(60)]);
        fake.apply(&again).unwrap();
        fake.advance(Duration::from_secs(1));
        assert_eq!(
            fake.elements_of(&set).unwrap().len(),
            usize::from(!old),
            "old kernels ignore the new timeout"
        );
        fake.advance(Duration::from_secs(59));
        assert!(fake.elements_of(&set).unwrap().is_empty());
        let mut delete = Batch::new();
        delete.delete_elements(&set, [ban(60)]);
        assert!(fake.apply(&delete).unwrap_err().is_not_found(), "what expired is not there");
    }
}

#[test]
fn the_fake_refuses_as_told_and_keeps_what_it_had() {
    let mut fake = Fake::new();
    let mut batch = Batch::new();
    batch.add(table());
    fake.fail_next(libc::EPERM);
    assert!(fake.apply(&batch).unwrap_err().is_permission());
    fake.apply(&batch).unwrap();
    let before = fake.to_string();
    let mut batch = Batch::new();
    batch.add(Chain::new(&table(), "c")).create(table());
    assert!(fake.apply(&batch).unwrap_err().is_already_exists());
    assert_eq!(fake.to_string(), before);
    let mut stale = Batch::new();
    stale.only_on(0).add(Chain::new(&table(), "c"));
    assert!(fake.apply(&stale).unwrap_err().is_stale());
    assert_eq!(fake.commits(), 1);
}
