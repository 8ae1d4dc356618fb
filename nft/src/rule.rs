//! Rules, written as one reads them in nft: `Rule::new(&chain).ip_saddr_in(&banned4).counter().drop()`.

use std::sync::Arc;

use ipnet::IpNet;

use crate::chain::Chain;
use crate::compile;
use crate::element::{clean_comment, comment_userdata, read_comment};
use crate::expr::{Expr, PayloadBase, Reject, Verdict};
use crate::set::Set;
use crate::statement::{Field, Operand, Statement};
use crate::sys;
use crate::table::Family;
use crate::wire::{Message, Writer, attributes};

/// A rule. Conditions are tried in order, statements done in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(crate) family: Family,
    pub(crate) table: Arc<str>,
    pub(crate) chain: Arc<str>,
    pub(crate) handle: Option<u64>,
    pub(crate) statements: Vec<Statement>,
    pub(crate) comment: Option<Box<str>>,
}

impl Rule {
    /// A rule that does nothing yet.
    #[must_use]
    pub fn new(chain: &Chain) -> Self {
        Self {
            family: chain.family,
            table: Arc::clone(&chain.table),
            chain: Arc::clone(&chain.name),
            handle: None,
            statements: Vec::new(),
            comment: None,
        }
    }

    /// `ip saddr @set`
    #[must_use]
    pub fn ip_saddr_in(self, set: &Set) -> Self {
        self.field_in(Field::IpSaddr, set)
    }

    /// `ip6 saddr @set`
    #[must_use]
    pub fn ip6_saddr_in(self, set: &Set) -> Self {
        self.field_in(Field::Ip6Saddr, set)
    }

    /// `ip6 saddr & ffff:ffff:ffff:ffff:: == @set`, for a prefix of 64: the set holds the networks' first addresses.
    #[must_use]
    pub fn ip6_saddr_masked_in(self, prefix: u8, set: &Set) -> Self {
        self.field_masked_in(Field::Ip6Saddr, prefix, set)
    }

    /// `ip saddr 192.0.2.0/24`, or `ip6 saddr 2001:db8::/32`
    #[must_use]
    pub fn saddr(self, net: impl Into<IpNet>) -> Self {
        let net = net.into();
        let field = if matches!(net, IpNet::V4(_)) { Field::IpSaddr } else { Field::Ip6Saddr };
        self.matches(field, false, Operand::Net(net.trunc()))
    }

    /// `ip daddr 192.0.2.0/24`, or `ip6 daddr 2001:db8::/32`
    #[must_use]
    pub fn daddr(self, net: impl Into<IpNet>) -> Self {
        let net = net.into();
        let field = if matches!(net, IpNet::V4(_)) { Field::IpDaddr } else { Field::Ip6Daddr };
        self.matches(field, false, Operand::Net(net.trunc()))
    }

    /// `th dport @set`
    #[must_use]
    pub fn th_dport_in(self, set: &Set) -> Self {
        self.field_in(Field::ThDport, set)
    }

    /// `tcp dport @set`
    #[must_use]
    pub fn tcp_dport_in(self, set: &Set) -> Self {
        self.field_in(Field::TcpDport, set)
    }

    /// `tcp dport 443`
    #[must_use]
    pub fn tcp_dport(self, port: u16) -> Self {
        self.field_is(Field::TcpDport, &port.to_be_bytes())
    }

    /// `udp dport 443`
    #[must_use]
    pub fn udp_dport(self, port: u16) -> Self {
        self.field_is(Field::UdpDport, &port.to_be_bytes())
    }

    /// `meta nfproto ipv4` or `meta nfproto ipv6`
    #[must_use]
    pub fn meta_nfproto(self, family: Family) -> Self {
        self.field_is(Field::Nfproto, &[family.number()])
    }

    /// `meta l4proto tcp`, for 6
    #[must_use]
    pub fn meta_l4proto(self, protocol: u8) -> Self {
        self.field_is(Field::L4proto, &[protocol])
    }

    /// `iifname "eth0"`. Names have at most 15 bytes; what is longer is cut and matches nothing.
    #[must_use]
    pub fn iifname(self, device: &str) -> Self {
        self.field_is(Field::Iifname, &device_name(device))
    }

    /// `oifname "eth0"`
    #[must_use]
    pub fn oifname(self, device: &str) -> Self {
        self.field_is(Field::Oifname, &device_name(device))
    }

    /// `@ih,0,32 0x47455420`: these bytes, `offset` bytes from the base. At most 16 of them are compared.
    #[must_use]
    pub fn payload(self, base: PayloadBase, offset: u16, bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(16)];
        self.field_is(Field::Raw { base, offset, len: bytes.len() as u8 }, bytes)
    }

    /// `@ih,0,8 0xd-0x7e`: a value from the first to the last, which have the field's length, in the packet's byte order.
    #[must_use]
    pub fn field_between(self, field: Field, first: &[u8], last: &[u8]) -> Self {
        self.matches(field, false, Operand::Range(first.into(), last.into()))
    }

    /// `meta time < "2030-01-02 03:04:05"`, given in seconds since the Unix epoch. Since Linux 5.4.
    #[must_use]
    pub fn before(self, end: u64) -> Self {
        self.push(Statement::Before(end.saturating_mul(1_000_000_000)))
    }

    /// `field & mask == @set`, for a mask of so many leading bits: the set holds networks' first addresses.
    #[must_use]
    pub fn field_masked_in(self, field: Field, prefix: u8, set: &Set) -> Self {
        let with = Operand::Set(Arc::clone(&set.name));
        self.push(Statement::Match {
            fields: vec![field],
            prefix: Some(prefix.min(128)),
            inverted: false,
            with,
        })
    }

    /// `field @set`
    #[must_use]
    pub fn field_in(self, field: Field, set: &Set) -> Self {
        self.matches(field, false, Operand::Set(Arc::clone(&set.name)))
    }

    /// `field != @set`
    #[must_use]
    pub fn field_not_in(self, field: Field, set: &Set) -> Self {
        self.matches(field, true, Operand::Set(Arc::clone(&set.name)))
    }

    /// `field . field @set`, for a set of concatenations
    #[must_use]
    pub fn fields_in(self, fields: &[Field], set: &Set) -> Self {
        let with = Operand::Set(Arc::clone(&set.name));
        self.push(Statement::Match { fields: fields.to_vec(), prefix: None, inverted: false, with })
    }

    /// `field value`. The value has the field's length, in the packet's byte order.
    #[must_use]
    pub fn field_is(self, field: Field, value: &[u8]) -> Self {
        self.matches(field, false, Operand::Bytes(value.into()))
    }

    /// `field != value`
    #[must_use]
    pub fn field_is_not(self, field: Field, value: &[u8]) -> Self {
        self.matches(field, true, Operand::Bytes(value.into()))
    }

    /// `counter`
    #[must_use]
    pub fn counter(self) -> Self {
        self.push(Statement::Counter)
    }

    /// `accept`
    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    /// `drop`
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    /// `return`
    #[must_use]
    pub fn return_(self) -> Self {
        self.verdict(Verdict::Return)
    }

    /// `jump chain`
    #[must_use]
    pub fn jump(self, chain: &Chain) -> Self {
        self.verdict(Verdict::Jump(Arc::clone(&chain.name)))
    }

    /// `goto chain`
    #[must_use]
    pub fn goto(self, chain: &Chain) -> Self {
        self.verdict(Verdict::Goto(Arc::clone(&chain.name)))
    }

    /// Any verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.push(Statement::Verdict(verdict))
    }

    /// `reject with tcp reset`, which needs a TCP packet: the condition is added when the rule does not have it. The
    /// other rejects need the inet or bridge family.
    #[must_use]
    pub fn reject(self, reject: Reject) -> Self {
        self.push(Statement::Reject(reject))
    }

    /// Any expression. It works on the registers as the conditions before left them.
    #[must_use]
    pub fn expr(self, expr: Expr) -> Self {
        self.push(Statement::Expr(expr))
    }

    /// Sets the comment, cleaned as [`Element::comment`](crate::Element::comment) does.
    #[must_use]
    pub fn comment(mut self, comment: &str) -> Self {
        let clean = clean_comment(comment);
        self.comment = (!clean.is_empty()).then(|| clean.into());
        self
    }

    /// Names the one rule of the chain with this handle, to delete it. Handles are in [`ListedRule`].
    #[must_use]
    pub fn handle(mut self, handle: u64) -> Self {
        self.handle = Some(handle);
        self
    }

    /// Its chain's name.
    #[must_use]
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// What the kernel is told: the conditions with the protocol checks they imply.
    #[must_use]
    pub fn exprs(&self) -> Vec<Expr> {
        compile::exprs(self.family, &self.statements)
    }

    fn matches(self, field: Field, inverted: bool, with: Operand) -> Self {
        self.push(Statement::Match { fields: vec![field], prefix: None, inverted, with })
    }

    fn push(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// ```text
    /// NFTA_RULE_TABLE       { string }
    /// NFTA_RULE_CHAIN       { string }
    /// NFTA_RULE_HANDLE      { be64 }                        when deleting
    /// NFTA_RULE_EXPRESSIONS | NLA_F_NESTED { expressions }  when adding
    /// NFTA_RULE_USERDATA    { 00 len comment NUL }
    /// ```
    pub(crate) fn write(&self, w: &mut Writer, whole: bool) {
        w.str(sys::NFTA_RULE_TABLE, &self.table);
        w.str(sys::NFTA_RULE_CHAIN, &self.chain);
        if !whole {
            // Without a handle the kernel would delete every rule of the chain; no rule has the handle 0.
            w.be64(sys::NFTA_RULE_HANDLE, self.handle.unwrap_or(0));
            return;
        }
        w.nest(sys::NFTA_RULE_EXPRESSIONS, |w| {
            for expr in self.exprs() {
                w.nest(sys::NFTA_LIST_ELEM, |w| expr.write(w));
            }
        });
        if let Some(comment) = &self.comment {
            w.attr(sys::NFTA_RULE_USERDATA, &comment_userdata(comment));
        }
    }
}

/// A rule as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// Its family.
    pub family: Family,
    /// Its table.
    pub table: Arc<str>,
    /// Its chain.
    pub chain: Arc<str>,
    /// The kernel's number for it.
    pub handle: u64,
    /// What it does.
    pub exprs: Vec<Expr>,
    /// Its comment.
    pub comment: Option<Box<str>>,
}

impl ListedRule {
    /// Whether it is what `rule` would make, whatever its counters have counted.
    #[must_use]
    pub fn is(&self, rule: &Rule) -> bool {
        let wanted = rule.exprs();
        (self.family, &self.table, &self.chain, &self.comment)
            == (rule.family, &rule.table, &rule.chain, &rule.comment)
            && self.exprs.len() == wanted.len()
            && self.exprs.iter().zip(&wanted).all(|(a, b)| a.does_the_same(b))
    }

    /// A rule that does this, to be added to a chain of the same name, in another network namespace perhaps. Counters
    /// begin at zero.
    ///
    /// What the kernel does not list cannot be in it: the program of a [`match bpf`](crate::bpf::Program::expr) must be
    /// put in again, in place of that expression, and sets without names are not there.
    #[must_use]
    pub fn rule(&self) -> Rule {
        let again = |expr: &Expr| match expr {
            Expr::Counter { .. } => Expr::COUNTER,
            expr => expr.clone(),
        };
        Rule {
            family: self.family,
            table: Arc::clone(&self.table),
            chain: Arc::clone(&self.chain),
            handle: None,
            statements: self.exprs.iter().map(|expr| Statement::Expr(again(expr))).collect(),
            comment: self.comment.clone(),
        }
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Self> {
        let a = message.attributes();
        let exprs = a.nested(sys::NFTA_RULE_EXPRESSIONS).into_iter().flatten();
        Some(Self {
            family: Family::from_number(message.family()),
            table: a.str(sys::NFTA_RULE_TABLE)?.into(),
            chain: a.str(sys::NFTA_RULE_CHAIN)?.into(),
            handle: a.be64(sys::NFTA_RULE_HANDLE)?,
            exprs: exprs.filter_map(|(_, e)| Expr::read(attributes(e))).collect(),
            comment: a.get(sys::NFTA_RULE_USERDATA).and_then(read_comment),
        })
    }
}

/// `IFNAMSIZ` bytes, the last one always NUL.
fn device_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    let n = name.len().min(15);
    out[..n].copy_from_slice(&name.as_bytes()[..n]);
    out
}
