//! How the header bans fare, for `status`.

use ipnet::IpNet;

/// So many bans that are left out are named.
const EXAMPLES: usize = 3;

/// How the header bans fare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What looks into heads: `bpf`, `string`, `legacy` or `off`; empty while that is not known.
    pub matcher: &'static str,
    /// Why it is that one, in a sentence without a full stop.
    pub why: String,
    /// What this kernel cannot do, and what is done instead.
    pub notes: Vec<String>,
    /// Bans in force.
    pub installed: usize,
    /// Bans that are not.
    pub left_out: LeftOut,
    /// What was refused last, until it succeeds.
    pub error: Option<String>,
}

/// Bans that are by source alone, though they should hold for heads too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// More than `headers.max_rules`.
    pub too_many: usize,
    /// Their addresses cannot be told from others by their text.
    pub unsayable: usize,
    /// Some of them.
    pub examples: Vec<IpNet>,
}

impl LeftOut {
    /// All of them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.too_many + self.unsayable
    }

    pub(super) fn add(&mut self, net: IpNet, can_be_said: bool) {
        if can_be_said {
            self.too_many += 1;
        } else {
            self.unsayable += 1;
        }
        if self.examples.len() < EXAMPLES {
            self.examples.push(net);
        }
    }

    /// How many for each reason, and the reason with what to do about it, to be read after "bans hold by source alone: ".
    pub fn reasons(&self) -> impl Iterator<Item = (usize, &'static str)> + use<> {
        let too_many = "they are more than headers.max_rules; raise it, or let the agent use the matcher bpf";
        let unsayable = "they are of networks whose addresses cannot be told from others by their text; let the agent use the \
                         matcher bpf, or ban networks of whole parts (IPv6 /64 or /48, IPv4 /24)";
        [(self.too_many, too_many), (self.unsayable, unsayable)].into_iter().filter(|(count, _)| *count > 0)
    }
}
