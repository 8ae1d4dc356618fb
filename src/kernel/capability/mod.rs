//! What this kernel can do, and what this process may do: answers as data, for `stockade check` and for the agent.
//!
//! ```text
//! nftables    asks nf_tables, in one transaction that is never committed
//! bpf         whether BPF programs may be loaded
//! privilege   which capabilities are held (/proc/self/status)
//! bridge      whether packets between ports of a bridge reach the inet hooks
//! legacy      iptables-legacy and ipset: programs and kernel modules
//! modules     which kernel modules are there, or could be
//! namespace   whose network this is: the host's, a container's
//! docker      which firewall backend Docker uses
//! others      what others have hooked in before us
//! saved       copies of our table in files that are loaded at boot
//! ```
//! Nothing here changes anything. Asking may have the kernel load the modules it is asked about, as any use of nft does.

pub mod bpf;
mod bridge;
pub mod choice;
pub mod connections;
pub mod docker;
mod feature;
mod legacy;
pub mod modules;
pub mod namespace;
mod nftables;
pub mod others;
pub mod privilege;
pub mod saved;

use std::collections::BTreeMap;

use nft::Connection;

use self::bpf::Heads;
pub use self::feature::Feature;
use self::modules::Modules;
use self::privilege::Privileges;

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is.
    Yes,
    /// It is not; why.
    No(String),
    /// Nobody could be asked; why.
    Unknown(String),
}

impl Answer {
    /// Whether it certainly is there.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        *self == Self::Yes
    }

    /// Whether it certainly is not there.
    #[must_use]
    pub fn is_no(&self) -> bool {
        matches!(self, Self::No(_))
    }

    /// Why not, or why it is not known.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Yes => None,
            Self::No(reason) | Self::Unknown(reason) => Some(reason),
        }
    }

    /// Both: the first that is not a yes, and a no before what is not known.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Yes, _) | (Self::Unknown(_), Self::No(_)) => other,
            _ => self,
        }
    }
}

/// One answer per feature.
#[derive(Clone, Debug)]
pub struct Capabilities {
    answers: BTreeMap<Feature, Answer>,
    /// What this process may do.
    pub privileges: Privileges,
    /// The kernel's modules.
    pub modules: Modules,
}

impl Capabilities {
    /// Asks the system about everything. What nf_tables says is about the network namespace of the connection; `None`
    /// where there is no connection, with the reason.
    pub async fn probe(connection: Result<&mut Connection, String>, heads: &Heads<'_>) -> Self {
        let privileges = Privileges::of_this_process();
        let modules = Modules::read();
        let mut answers = BTreeMap::new();
        match connection {
            Ok(connection) => {
                answers.extend(nftables::probe(connection).await);
                answers.insert(Feature::Ipset, legacy::ipset(Some(connection), &modules).await);
            }
            Err(why) => {
                let asked = Feature::ALL.into_iter().filter(|feature| feature.is_asked_by_netlink());
                answers.extend(asked.map(|feature| (feature, Answer::No(why.clone()))));
                answers.insert(Feature::Ipset, legacy::ipset(None, &modules).await);
            }
        }
        answers.insert(Feature::BpfLoad, bpf::may_load(heads, &privileges));
        answers.extend(bridge::answers());
        answers.extend(legacy::answers(&modules).await);
        let mut able = Self { answers, privileges, modules };
        able.conclude();
        able
    }

    /// Those of somebody's choice, for tests and for what was asked elsewhere; a feature that is left out is unknown.
    #[must_use]
    pub fn from_answers(
        answers: impl IntoIterator<Item = (Feature, Answer)>,
        privileges: Privileges,
        modules: Modules,
    ) -> Self {
        Self { answers: answers.into_iter().collect(), privileges, modules }
    }

    /// The answer.
    #[must_use]
    pub fn of(&self, feature: Feature) -> Answer {
        let unasked = || Answer::Unknown("not asked".to_owned());
        self.answers.get(&feature).cloned().unwrap_or_else(unasked)
    }

    /// Whether all of these are there: the first that is not, or not certainly.
    #[must_use]
    pub fn all(&self, features: &[Feature]) -> Answer {
        features.iter().fold(Answer::Yes, |so_far, feature| so_far.and(self.of(*feature)))
    }

    /// Whether nf_tables did not let itself be asked, for want of `CAP_NET_ADMIN` in this network namespace.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.of(Feature::InetTable), Answer::Unknown(_))
    }

    /// Asks nf_tables and ipset again, elsewhere: in a network namespace made for the purpose, in which even an ordinary
    /// user may ask. The kernel is the same one.
    pub async fn ask_again(&mut self, connection: &mut Connection) {
        self.answers.extend(nftables::probe(connection).await);
        self.answers.insert(Feature::Ipset, legacy::ipset(Some(connection), &self.modules).await);
        self.conclude();
    }

    /// What one answer says about another feature.
    fn conclude(&mut self) {
        // xtables' match is one module for both of its callers.
        let unknown = matches!(self.of(Feature::StringLegacy), Answer::Unknown(_));
        if unknown && self.of(Feature::StringInet).is_yes() {
            self.answers.insert(Feature::StringLegacy, Answer::Yes);
        }
        // The kernel looks at the hooks of `reject` when a batch is committed, so that a probe does not show it.
        if self.of(Feature::RejectInet).is_yes() && modules::is_older_than(5, 9) {
            let reason = format!("Linux {} has it at other hooks only", self.modules.release);
            self.answers.insert(Feature::RejectInet, Answer::No(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_goes_before_what_is_not_known_and_both_before_a_yes() {
        let (no, unknown) = (Answer::No("n".into()), Answer::Unknown("u".into()));
        assert_eq!(Answer::Yes.and(Answer::Yes), Answer::Yes);
        for other in [&no, &unknown] {
            assert_eq!(&Answer::Yes.and(other.clone()), other);
            assert_eq!(&other.clone().and(Answer::Yes), other);
        }
        assert_eq!(unknown.clone().and(no.clone()), no);
        assert_eq!(no.clone().and(unknown), no);
    }
}
