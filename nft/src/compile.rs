//! From a rule's statements to the kernel's expressions.
//!
//! Bytes at an offset mean nothing before it is known which protocol's header they are in. As nft(8) does, the check
//! is put in front of the first condition that needs it: `ip saddr @x` in an inet chain asks for `meta nfproto ipv4`.

use crate::expr::{CmpOp, Expr, MetaKey, PayloadBase, Register, Reject};
use crate::statement::{Field, Operand, Statement};
use crate::table::Family;

pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;

pub(crate) fn exprs(family: Family, statements: &[Statement]) -> Vec<Expr> {
    let mut out = Vec::new();
    let mut known = Known::new(family);
    for statement in statements {
        match statement {
            Statement::Match { fields, prefix, inverted, with } => {
                for need in fields.iter().filter_map(|f| f.needs()) {
                    known.require(need, &mut out);
                }
                let len = load(fields, &mut out);
                if let (Some(prefix), Operand::Set(_)) = (prefix, with) {
                    mask(*prefix, len, &mut out);
                }
                compare(*inverted, with, len, &mut out);
                known.learn(statement);
            }
            Statement::Before(end) => {
                let (from, to) = (Register::FIRST, Register::FIRST);
                out.push(Expr::Meta { to, key: MetaKey::Time });
                // The kernel compares byte by byte, and gives the time in the host's order.
                out.push(Expr::ToNetworkOrder { from, to, len: 8, size: 8 });
                out.push(Expr::Cmp { from, op: CmpOp::Lt, value: end.to_be_bytes().into() });
            }
            Statement::Counter => out.push(Expr::COUNTER),
            Statement::Verdict(verdict) => out.push(Expr::Verdict(verdict.clone())),
            Statement::Reject(reject) => {
                if *reject == Reject::TcpReset {
                    known.require(Need::L4(IPPROTO_TCP), &mut out);
                }
                out.push(Expr::Reject(*reject));
            }
            Statement::Expr(expr) => out.push(expr.clone()),
        }
    }
    out
}

/// What must be known of a packet before a field is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Ip,
    Ip6,
    L4(u8),
}

impl Field {
    pub(crate) fn needs(self) -> Option<Need> {
        match self {
            Self::IpSaddr | Self::IpDaddr => Some(Need::Ip),
            Self::Ip6Saddr | Self::Ip6Daddr => Some(Need::Ip6),
            Self::TcpSport | Self::TcpDport => Some(Need::L4(IPPROTO_TCP)),
            Self::UdpSport | Self::UdpDport => Some(Need::L4(IPPROTO_UDP)),
            _ => None,
        }
    }

    fn load(self, to: Register) -> Expr {
        let payload = |base, offset, len| Expr::Payload { to, base, offset, len };
        let meta = |key| Expr::Meta { to, key };
        match self {
            Self::IpSaddr => payload(PayloadBase::Network, 12, 4),
            Self::IpDaddr => payload(PayloadBase::Network, 16, 4),
            Self::Ip6Saddr => payload(PayloadBase::Network, 8, 16),
            Self::Ip6Daddr => payload(PayloadBase::Network, 24, 16),
            Self::ThSport | Self::TcpSport | Self::UdpSport => payload(PayloadBase::Transport, 0, 2),
            Self::ThDport | Self::TcpDport | Self::UdpDport => payload(PayloadBase::Transport, 2, 2),
            Self::Nfproto => meta(MetaKey::Nfproto),
            Self::L4proto => meta(MetaKey::L4proto),
            Self::Iifname => meta(MetaKey::Iifname),
            Self::Oifname => meta(MetaKey::Oifname),
            Self::Raw { base, offset, len } => payload(base, u32::from(offset), u32::from(len)),
        }
    }

    fn byte_len(self) -> u8 {
        match self {
            Self::IpSaddr | Self::IpDaddr => 4,
            Self::Ip6Saddr | Self::Ip6Daddr | Self::Iifname | Self::Oifname => 16,
            Self::Nfproto | Self::L4proto => 1,
            Self::Raw { len, .. } => len,
            _ => 2,
        }
    }
}

/// What the conditions so far have made sure of.
pub(crate) struct Known {
    family: Family,
    l3: Option<Need>,
    l4: Option<u8>,
}

impl Known {
    pub(crate) fn new(family: Family) -> Self {
        let l3 = match family {
            Family::Ip => Some(Need::Ip),
            Family::Ip6 => Some(Need::Ip6),
            _ => None,
        };
        Self { family, l3, l4: None }
    }

    pub(crate) fn l4(&self) -> Option<u8> {
        self.l4
    }

    /// The ip and ip6 families.
    pub(crate) fn is_one_family(&self) -> bool {
        matches!(self.family, Family::Ip | Family::Ip6)
    }

    pub(crate) fn has(&self, need: Need) -> bool {
        match need {
            Need::L4(proto) => self.l4 == Some(proto),
            l3 => self.l3 == Some(l3),
        }
    }

    /// What a condition makes sure of.
    pub(crate) fn learn(&mut self, statement: &Statement) {
        let Statement::Match { fields, inverted: false, with, .. } = statement else { return };
        for need in fields.iter().filter_map(|f| f.needs()) {
            self.set(need);
        }
        match (fields.as_slice(), with) {
            ([Field::Nfproto], Operand::Bytes(b)) if **b == [2] => self.set(Need::Ip),
            ([Field::Nfproto], Operand::Bytes(b)) if **b == [10] => self.set(Need::Ip6),
            ([Field::L4proto], Operand::Bytes(b)) => self.l4 = b.first().copied(),
            _ => {}
        }
    }

    fn require(&mut self, need: Need, out: &mut Vec<Expr>) {
        if self.has(need) {
            return;
        }
        let by_nfproto = self.family == Family::Inet;
        let (key, value): (_, Box<[u8]>) = match need {
            Need::Ip if by_nfproto => (MetaKey::Nfproto, [2].into()),
            Need::Ip6 if by_nfproto => (MetaKey::Nfproto, [10].into()),
            Need::Ip => (MetaKey::Protocol, [0x08, 0x00].into()),
            Need::Ip6 => (MetaKey::Protocol, [0x86, 0xdd].into()),
            Need::L4(proto) => (MetaKey::L4proto, [proto].into()),
        };
        out.push(Expr::Meta { to: Register::FIRST, key });
        out.push(Expr::Cmp { from: Register::FIRST, op: CmpOp::Eq, value });
        self.set(need);
    }

    fn set(&mut self, need: Need) {
        match need {
            Need::L4(proto) => self.l4 = Some(proto),
            l3 => self.l3 = Some(l3),
        }
    }
}

/// Loads the fields one after the other, each from a new register on; says how many bytes the last one has.
fn load(fields: &[Field], out: &mut Vec<Expr>) -> u8 {
    let mut slot = 0u8;
    let mut len = 0;
    for field in fields {
        out.push(field.load(Register(slot.min(15))));
        len = field.byte_len();
        slot = slot.saturating_add(len.div_ceil(4));
    }
    len
}

fn mask(prefix: u8, len: u8, out: &mut Vec<Expr>) {
    let mut mask = vec![0u8; usize::from(len)];
    for (i, byte) in mask.iter_mut().enumerate() {
        let bits = usize::from(prefix).saturating_sub(i * 8).min(8) as u32;
        *byte = 0xffu8.checked_shl(8 - bits).unwrap_or(0);
    }
    let xor = vec![0; usize::from(len)].into();
    out.push(Expr::Bitwise { from: Register::FIRST, to: Register::FIRST, mask: mask.into(), xor });
}

fn compare(inverted: bool, with: &Operand, len: u8, out: &mut Vec<Expr>) {
    let op = if inverted { CmpOp::Ne } else { CmpOp::Eq };
    let value: Box<[u8]> = match with {
        Operand::Set(set) => {
            out.push(Expr::Lookup { set: set.clone(), from: Register::FIRST, inverted });
            return;
        }
        Operand::Bytes(bytes) => bytes.clone(),
        Operand::Range(first, last) => {
            out.push(Expr::Cmp { from: Register::FIRST, op: CmpOp::Ge, value: first.clone() });
            out.push(Expr::Cmp { from: Register::FIRST, op: CmpOp::Le, value: last.clone() });
            return;
        }
        Operand::Net(net) => {
            if net.prefix_len() < net.max_prefix_len() {
                mask(net.prefix_len(), len, out);
            }
            crate::value::Raw::addr(net.network()).as_bytes().into()
        }
    };
    out.push(Expr::Cmp { from: Register::FIRST, op, value });
}
