//! The codec alone: what is written is read, and whatever is read does no harm.

use proptest::prelude::*;

use super::{Ack, Attributes, Message, Writer, attributes, messages};
use crate::sys;

/// A tree of attributes.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Leaf(u16, Vec<u8>),
    Nest(u16, Vec<Self>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let kind = 0..0x3fffu16;
    let leaf = (kind.clone(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(k, d)| Tree::Leaf(k, d));
    leaf.prop_recursive(4, 40, 5, move |inner| {
        (kind.clone(), prop::collection::vec(inner, 0..5)).prop_map(|(k, t)| Tree::Nest(k, t))
    })
}

fn write(w: &mut Writer, tree: &Tree) {
    match tree {
        Tree::Leaf(kind, data) => w.attr(*kind, data),
        Tree::Nest(kind, trees) => w.nest(*kind, |w| trees.iter().for_each(|t| write(w, t))),
    }
}

/// Reads a tree of the same shape.
fn read_like(shape: &[Tree], mut a: Attributes<'_>) -> Vec<Tree> {
    let found = shape.iter().map_while(|t| {
        let (kind, data) = a.next()?;
        Some(match t {
            Tree::Leaf(..) => Tree::Leaf(kind, data.to_vec()),
            Tree::Nest(_, shape) => Tree::Nest(kind, read_like(shape, attributes(data))),
        })
    });
    let found: Vec<Tree> = found.collect();
    assert_eq!(a.next(), None, "nothing more");
    found
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        sent in prop::collection::vec((0..300u16, any::<u16>(), any::<u32>(), any::<u8>(), prop::collection::vec(tree(), 0..4)), 1..4)
    ) {
        let mut w = Writer::new();
        for (kind, flags, seq, family, trees) in &sent {
            w.message(*kind, *flags, *seq, *family, 10, |w| trees.iter().for_each(|t| write(w, t)));
        }
        prop_assert!(!w.unwritable());
        let read: Vec<Message<'_>> = messages(w.as_bytes()).collect();
        prop_assert_eq!(read.len(), sent.len());
        for (m, (kind, flags, seq, family, trees)) in read.iter().zip(&sent) {
            prop_assert_eq!((m.kind, m.flags, m.seq, m.family()), (*kind, *flags | 1, *seq, *family));
            prop_assert_eq!(&read_like(trees, m.attributes()), trees);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_run_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let found: Vec<_> = messages(&bytes).map(|m| Ack::parse(&m)).collect();
        prop_assert!(found.len() <= bytes.len() / sys::NLMSG_HDRLEN);
        prop_assert!(attributes(&bytes).count() <= bytes.len() / sys::NLA_HDRLEN);
    }

    /// Small lengths are where lengths lie: bytes made of them reach further than random ones.
    #[test]
    fn no_lying_lengths_do_harm(words in prop::collection::vec(0..40u16, 0..60)) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        for m in messages(&bytes) {
            let _ = Ack::parse(&m);
            let _ = m.attributes().data(1);
        }
        for (_, data) in attributes(&bytes) {
            prop_assert!(attributes(data).count() <= data.len());
        }
    }
}

#[test]
fn an_attribute_that_does_not_fit_is_noticed() {
    let mut w = Writer::new();
    w.attr(1, &vec![0; 65_531]);
    assert!(!w.unwritable(), "65,535 bytes with the header are the most");
    w.attr(1, &vec![0; 65_532]);
    assert!(w.unwritable());
    assert!(!w.unwritable(), "asked once, forgotten");
    w.nest(1, |w| (0..9000).for_each(|_| w.be32(1, 0)));
    assert!(w.unwritable());
    w.str(1, "a\0b");
    assert!(w.unwritable());
}

/// An error as the kernel sends it with NETLINK_CAP_ACK and NETLINK_EXT_ACK.
fn error(flags: u16, errno: i32, request: &[u8], tlvs: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(0u32.to_ne_bytes());
    out.extend(sys::NLMSG_ERROR.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(7u32.to_ne_bytes()); // sequence number
    out.extend(99u32.to_ne_bytes()); // port
    out.extend((-errno).to_ne_bytes());
    out.extend(request);
    out.extend(tlvs);
    let len = out.len() as u32;
    out[..4].copy_from_slice(&len.to_ne_bytes());
    out
}

fn tlvs() -> Vec<u8> {
    let mut w = Writer::new();
    w.str(sys::NLMSGERR_ATTR_MSG, "no such thing");
    w.attr(sys::NLMSGERR_ATTR_OFFS, &180u32.to_ne_bytes());
    w.into_bytes()
}

#[test]
fn an_error_is_read_with_and_without_the_request() {
    let mut request = Writer::new();
    request.nft_message(sys::NFT_MSG_NEWTABLE, 0, 7, 1, |w| w.str(sys::NFTA_TABLE_NAME, "t"));
    let request = request.into_bytes();
    let wanted = Ack { seq: 7, errno: 17, text: Some("no such thing".to_owned()), offset: Some(180) };
    let capped = error(sys::NLM_F_CAPPED | sys::NLM_F_ACK_TLVS, 17, &request[..16], &tlvs());
    let whole = error(sys::NLM_F_ACK_TLVS, 17, &request, &tlvs());
    for bytes in [capped, whole] {
        let read: Vec<_> = messages(&bytes).filter_map(|m| Ack::parse(&m)).collect();
        assert_eq!(read, std::slice::from_ref(&wanted));
    }
    let plain = error(sys::NLM_F_CAPPED, 0, &request[..16], &[]);
    let read: Vec<_> = messages(&plain).filter_map(|m| Ack::parse(&m)).collect();
    assert_eq!(read, [Ack { seq: 7, errno: 0, text: None, offset: None }]);
}

#[test]
fn an_error_with_a_lying_request_length_is_read_without_details() {
    let mut request = [0u8; 16];
    request[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    let bytes = error(sys::NLM_F_ACK_TLVS, 1, &request, &tlvs());
    let ack = Ack::parse(&messages(&bytes).next().unwrap()).unwrap();
    assert_eq!((ack.errno, ack.text, ack.offset), (1, None, None));
}
