//! nf_tables is asked what it would take: one batch, never committed, in which every feature has changes of its own.
//!
//! The tables are dormant, so that not even for an instant a hook of ours is called. A refused change says by its
//! number what is missing; what else was built on it is refused as well, and says nothing of its own.

use std::collections::BTreeMap;

use nft::{
    Batch, Chain, ChainType, CommitError, Connection, Expr, Family, Field, Hook, KeyType, PayloadBase,
    Reject, Rejection, Rule, Set, Table, priority,
};

use nix::libc;

use super::{Answer, Feature};

/// Nobody else's, so that it does not matter what is there.
const TABLE: &str = "stockade-check";
const OWNED: &str = "stockade-check-owner";
const PERSISTENT: &str = "stockade-check-persist";
const TCP: u8 = 6;

/// Asks about every feature of nf_tables.
pub(super) async fn probe(connection: &mut Connection) -> BTreeMap<Feature, Answer> {
    let questions = Questions::all();
    classify(&questions.about, connection.probe(&questions.batch).await)
}

/// A batch, and for each of its changes the feature it asks about.
struct Questions {
    batch: Batch,
    about: Vec<Feature>,
}

impl Questions {
    fn all() -> Self {
        let mut q = Self { batch: Batch::new(), about: Vec::new() };
        q.inet();
        q.family(Family::Ip, Feature::IpTable, Feature::StringIp, Feature::BpfIp);
        let bridge =
            q.family(Family::Bridge, Feature::BridgeTable, Feature::StringBridge, Feature::BpfBridge);
        q.ask(Feature::RejectBridge, |b| {
            b.add(Rule::new(&bridge).meta_l4proto(TCP).reject(Reject::TcpReset));
        });
        q.ask(Feature::Owner, |b| {
            b.add(Table::new(Family::Inet, OWNED).owner());
        });
        q.ask(Feature::Persist, |b| {
            b.add(Table::new(Family::Inet, PERSISTENT).owner().persist());
        });
        q.ask(Feature::Destroy, |b| {
            b.destroy(Table::new(Family::Inet, "stockade-check-none"));
        });
        q
    }

    fn inet(&mut self) {
        let table = Table::new(Family::Inet, TABLE).dormant();
        let prerouting =
            Chain::new(&table, "prerouting").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
        let output = Chain::new(&table, "output").base(ChainType::Filter, Hook::Output, priority::RAW);
        let timeout = Set::new(&table, "timeout", KeyType::Ipv4Addr).timeout().counter();
        let interval = Set::new(&table, "interval", KeyType::Ipv6Addr).timeout().interval();
        let concat = Set::new(&table, "concatenation", [KeyType::Ipv4Addr, KeyType::InetService]).timeout();
        self.ask(Feature::InetTable, |b| {
            b.add(&table).add(&prerouting).add(&output);
        });
        self.ask(Feature::Timeout, |b| {
            b.add(&timeout).add(Rule::new(&prerouting).ip_saddr_in(&timeout).drop());
        });
        self.ask(Feature::Interval, |b| {
            b.add(&interval).add(Rule::new(&prerouting).ip6_saddr_in(&interval).drop());
        });
        self.ask(Feature::Concatenation, |b| {
            let fields = [Field::IpSaddr, Field::TcpDport];
            b.add(&concat).add(Rule::new(&prerouting).fields_in(&fields, &concat).drop());
        });
        self.ask(Feature::RejectInet, |b| {
            for chain in [&prerouting, &output] {
                b.add(Rule::new(chain).meta_l4proto(TCP).reject(Reject::TcpReset));
            }
        });
        self.ask(Feature::InnerHeader, |b| {
            let rule = Rule::new(&prerouting).meta_l4proto(TCP).payload(PayloadBase::Inner, 0, b"GET ");
            b.add(rule.drop());
        });
        self.matches(&prerouting, Feature::StringInet, Feature::BpfInet);
    }

    /// A table of this family with a base chain at prerouting, and xtables' matches in it.
    fn family(&mut self, family: Family, itself: Feature, string: Feature, bpf: Feature) -> Chain {
        let table = Table::new(family, TABLE).dormant();
        let chain = Chain::new(&table, "prerouting").base(ChainType::Filter, Hook::Prerouting, priority::RAW);
        self.ask(itself, |b| {
            b.add(&table).add(&chain);
            if family == Family::Bridge {
                // What it is for: looking addresses up in packets that only cross a bridge.
                let set = Set::new(&table, "timeout", KeyType::Ipv4Addr).timeout();
                b.add(&set).add(Rule::new(&chain).ip_saddr_in(&set).drop());
            }
        });
        self.matches(&chain, string, bpf);
        chain
    }

    fn matches(&mut self, chain: &Chain, string: Feature, bpf: Feature) {
        // A pattern as header bans have it; only an empty one would be none.
        if let Some(looked_for) = Expr::xt_string(b"X-Real-IP: 192.0.2.1\r", true, u16::MAX) {
            self.ask(string, |b| {
                b.add(Rule::new(chain).meta_l4proto(TCP).expr(looked_for).drop());
            });
        }
        self.ask(bpf, |b| {
            b.add(Rule::new(chain).meta_l4proto(TCP).expr(match_bpf_never()).drop());
        });
    }

    fn ask(&mut self, feature: Feature, write: impl FnOnce(&mut Batch)) {
        write(&mut self.batch);
        self.about.resize(self.batch.changes().len(), feature);
    }
}

/// What the answers to the changes say about the features.
fn classify(
    about: &[Feature],
    answered: Result<Vec<Result<(), Rejection>>, CommitError>,
) -> BTreeMap<Feature, Answer> {
    let results = match answered {
        Ok(results) => results,
        Err(e) => {
            let all = whole(&e);
            return about.iter().map(|feature| (*feature, all.clone())).collect();
        }
    };
    let mut answers: BTreeMap<Feature, Answer> = BTreeMap::new();
    for (feature, result) in about.iter().zip(results) {
        let answer = answers.entry(*feature).or_insert(Answer::Yes);
        // The first refusal is the cause.
        if let (Answer::Yes, Err(rejection)) = (&*answer, result) {
            *answer = refused(*feature, rejection.errno);
        }
    }
    // What was built on a refused table was refused for that alone.
    let causes: Vec<(Feature, Feature)> = about
        .iter()
        .filter_map(|feature| Some((*feature, feature.needs()?)))
        .filter(|(feature, needed)| {
            answers.get(feature).is_some_and(Answer::is_no) && answers.get(needed).is_some_and(Answer::is_no)
        })
        .collect();
    for (feature, needed) in causes {
        answers.insert(feature, Answer::No(format!("it needs {}, which is not available", needed.name())));
    }
    answers
}

/// When the batch as a whole was refused, before any change was looked at.
fn whole(error: &CommitError) -> Answer {
    match error.errno() {
        _ if error.is_permission() => {
            Answer::Unknown("nf_tables may not be asked without CAP_NET_ADMIN".to_owned())
        }
        // nfnetlink(nfnetlink.c) answers so for a subsystem that is neither built in nor to be loaded.
        Some(libc::EOPNOTSUPP) => Answer::No("this kernel has no nf_tables".to_owned()),
        _ => Answer::Unknown(error.to_string()),
    }
}

/// What a refusal of this number means.
fn refused(feature: Feature, errno: i32) -> Answer {
    let modules = feature.modules().join(" and ");
    let no = |text: String| Answer::No(text);
    match errno {
        libc::EPERM | libc::EACCES => Answer::Unknown("the kernel does not permit it here".to_owned()),
        // nf_tables_api.c looks the expression, nft_compat.c the match up, and loads its module where it can.
        libc::ENOENT if !modules.is_empty() => no(format!("this kernel has no {modules}")),
        libc::EAFNOSUPPORT => no("this kernel has no tables of this family".to_owned()),
        libc::EOPNOTSUPP => no("this kernel does not have it in this family or at this hook".to_owned()),
        libc::EINVAL => no("this kernel does not know it (too old?)".to_owned()),
        libc::ENOMEM | libc::ENOBUFS | libc::EMFILE | libc::ENFILE => {
            Answer::Unknown(std::io::Error::from_raw_os_error(errno).to_string())
        }
        _ => no(format!("the kernel refuses it: {}", std::io::Error::from_raw_os_error(errno))),
    }
}

/// xtables' match "bpf", revision 1 (`struct xt_bpf_info_v1` of `linux/netfilter/xt_bpf.h`), with a classic program of
/// one instruction, `return 0`; so asking takes no right to load BPF.
///
/// ```text
/// u16 mode                          0: the program is here, 2: it is behind the descriptor
/// u16 instructions, s32 descriptor
/// { struct sock_filter[64] or char path[512] }
/// the kernel's own pointer
/// ```
fn match_bpf_never() -> Expr {
    /// `BPF_RET | BPF_K` of `linux/bpf_common.h`.
    const RETURN: u16 = 0x06;
    let mut info = [0; 528];
    info[2..4].copy_from_slice(&1_u16.to_ne_bytes());
    info[8..10].copy_from_slice(&RETURN.to_ne_bytes());
    Expr::Match { name: "bpf".into(), rev: 1, info: info.into() }
}

#[cfg(test)]
mod tests {
    use nft::Verb;

    use super::*;

    /// What the features are said to be when the kernel answers these numbers to the changes about them, 0 to all others.
    fn answers(errnos: &[(Feature, i32)]) -> BTreeMap<Feature, Answer> {
        let questions = Questions::all();
        let answer = |feature: &Feature| match errnos.iter().find(|(of, _)| of == feature) {
            Some((_, errno)) => {
                Err(Rejection { verb: Verb::Add, object: String::new(), errno: *errno, detail: None })
            }
            None => Ok(()),
        };
        classify(&questions.about, Ok(questions.about.iter().map(answer).collect()))
    }

    #[test]
    fn every_feature_of_nf_tables_is_asked_about() {
        let asked = answers(&[]);
        let expected = Feature::ALL.into_iter().filter(|f| f.is_asked_by_netlink() && *f != Feature::Ipset);
        assert!(asked.keys().copied().eq(expected.collect::<std::collections::BTreeSet<_>>()));
        assert!(asked.values().all(Answer::is_yes));
    }

    #[test]
    fn the_number_says_what_is_missing() {
        for (feature, errno, expected) in [
            (Feature::StringInet, libc::ENOENT, "this kernel has no nft_compat and xt_string"),
            (Feature::BpfBridge, libc::ENOENT, "this kernel has no nft_compat and xt_bpf"),
            (Feature::RejectBridge, libc::ENOENT, "this kernel has no nft_reject_bridge"),
            (Feature::BridgeTable, libc::EAFNOSUPPORT, "this kernel has no tables of this family"),
            (
                Feature::InnerHeader,
                libc::EOPNOTSUPP,
                "this kernel does not have it in this family or at this hook",
            ),
            (Feature::Destroy, libc::EINVAL, "this kernel does not know it (too old?)"),
            (Feature::Interval, libc::EBUSY, "the kernel refuses it: Device or resource busy (os error 16)"),
        ] {
            let found = answers(&[(feature, errno)]);
            assert_eq!(found[&feature], Answer::No(expected.into()), "{feature:?}");
        }
        for errno in [libc::EPERM, libc::ENOMEM] {
            assert!(matches!(answers(&[(Feature::Owner, errno)])[&Feature::Owner], Answer::Unknown(_)));
        }
    }

    #[test]
    fn what_is_built_on_something_missing_says_so() {
        let found =
            answers(&[(Feature::BridgeTable, libc::EAFNOSUPPORT), (Feature::StringBridge, libc::ENOENT)]);
        let reason = found[&Feature::StringBridge].reason().unwrap();
        assert_eq!(reason, "it needs table-bridge, which is not available");
        assert!(found[&Feature::StringInet].is_yes(), "the other families are not concerned");
    }

    #[test]
    fn a_refusal_of_the_whole_is_no_answer_about_any() {
        let whole = |errno| {
            classify(&[Feature::Timeout], Err(CommitError::Refused { errno }))[&Feature::Timeout].clone()
        };
        assert!(matches!(whole(libc::EPERM), Answer::Unknown(reason) if reason.contains("CAP_NET_ADMIN")));
        assert_eq!(whole(libc::EOPNOTSUPP), Answer::No("this kernel has no nf_tables".into()));
        assert!(matches!(whole(libc::ENOMEM), Answer::Unknown(_)));
    }
}
