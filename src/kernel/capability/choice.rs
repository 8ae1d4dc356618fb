//! What `backend: auto` and `headers.matcher: auto` come to, given what there is.

use super::{Answer, Capabilities, Feature};
use crate::config::{self, HeaderAction, Headers, MatcherChoice};
use crate::kernel::backend::BackendKind;

/// A choice, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<T> {
    /// `None`: nothing will do, or it is not [known](Self::known).
    pub what: Option<T>,
    /// Why it is that one, or why there is none; a sentence without a full stop.
    pub why: String,
    /// Whether all that the choice hangs on could be seen.
    pub known: bool,
}

impl<T> Chosen<T> {
    fn one(what: T, why: impl Into<String>) -> Self {
        Self { what: Some(what), why: why.into(), known: true }
    }

    fn none(why: impl Into<String>) -> Self {
        Self { what: None, why: why.into(), known: true }
    }

    fn unknown(why: &str) -> Self {
        Self { what: None, why: format!("it could not be told: {why}"), known: false }
    }

    /// The same, called otherwise.
    #[must_use]
    pub fn map<U>(self, name: impl FnOnce(T) -> U) -> Chosen<U> {
        Chosen { what: self.what.map(name), why: self.why, known: self.known }
    }
}

/// What legacy bans by source need.
pub const LEGACY: [Feature; 4] = [Feature::IptablesLegacy, Feature::IpTables, Feature::Ipset, Feature::XtSet];
const BPF: [Feature; 3] = [Feature::InetTable, Feature::BpfInet, Feature::BpfLoad];
const STRING: [Feature; 2] = [Feature::InetTable, Feature::StringInet];
const LEGACY_HEADERS: [Feature; 3] = [Feature::IptablesLegacy, Feature::IpTables, Feature::StringLegacy];

/// What enforces bans by source; `nft` is whether nf_tables would take our table.
#[must_use]
pub fn backend(asked: config::Backend, nft: &Answer, able: &Capabilities) -> Chosen<BackendKind> {
    use config::Backend::{Auto, Legacy, Nft};
    let as_configured = "the configuration says so";
    match (asked, nft, able.all(&LEGACY)) {
        (Nft, Answer::Yes, _) => Chosen::one(BackendKind::Nft, as_configured),
        (Nft | Auto, Answer::Unknown(reason), _) => Chosen::unknown(reason),
        (Nft, Answer::No(reason), _) => Chosen::none(format!("`backend: nft` cannot be: {reason}")),
        (Legacy, _, Answer::No(reason)) => Chosen::none(format!("`backend: legacy` cannot be: {reason}")),
        (Legacy, ..) => Chosen::one(BackendKind::Legacy, as_configured),
        (Auto, Answer::Yes, _) => {
            Chosen::one(BackendKind::Nft, "the kernel has all of nf_tables that is needed")
        }
        (Auto, Answer::No(reason), Answer::No(legacy)) => Chosen::none(format!(
            "nothing here can enforce bans. nf_tables: {reason}. iptables-legacy: {legacy}"
        )),
        (Auto, Answer::No(reason), _) => Chosen::one(
            BackendKind::Legacy,
            format!("nf_tables cannot be used ({reason}), iptables-legacy and ipset can"),
        ),
    }
}

/// What looks into request heads: one of `bpf`, `string` and `legacy`, never `auto`. Where bans by source are not in
/// nf_tables, neither are these, unless the configuration says so.
#[must_use]
pub fn matcher(
    headers: &Headers,
    backend: Option<BackendKind>,
    able: &Capabilities,
) -> Chosen<MatcherChoice> {
    match headers.matcher {
        MatcherChoice::Off => Chosen::none("the configuration says off"),
        MatcherChoice::Auto if backend == Some(BackendKind::Legacy) => {
            match able.all(needs(MatcherChoice::Legacy)) {
                Answer::Yes => {
                    Chosen::one(MatcherChoice::Legacy, "bans by source are in iptables-legacy, too")
                }
                Answer::No(reason) => {
                    Chosen::none(format!("nothing here can look into request heads: {reason}"))
                }
                Answer::Unknown(reason) => Chosen::unknown(&reason),
            }
        }
        MatcherChoice::Auto => first_matcher(able),
        asked => match able.all(needs(asked)) {
            Answer::Yes => Chosen::one(asked, "the configuration says so"),
            Answer::No(reason) => Chosen::none(format!("`matcher: {}` cannot be: {reason}", asked.word())),
            Answer::Unknown(reason) => Chosen::unknown(&reason),
        },
    }
}

fn first_matcher(able: &Capabilities) -> Chosen<MatcherChoice> {
    let mut passed_over = Vec::new();
    for candidate in [MatcherChoice::Bpf, MatcherChoice::String, MatcherChoice::Legacy] {
        match able.all(needs(candidate)) {
            Answer::Yes if passed_over.is_empty() => {
                return Chosen::one(candidate, "any number of bans at the same cost");
            }
            Answer::Yes => return Chosen::one(candidate, passed_over.join("; ")),
            Answer::No(reason) => passed_over.push(format!("not {}: {reason}", candidate.word())),
            // What comes after it would be a guess.
            Answer::Unknown(reason) => return Chosen::unknown(&reason),
        }
    }
    Chosen::none(format!("nothing here can look into request heads: {}", passed_over.join("; ")))
}

fn needs(matcher: MatcherChoice) -> &'static [Feature] {
    match matcher {
        MatcherChoice::Bpf => &BPF,
        MatcherChoice::String => &STRING,
        MatcherChoice::Legacy => &LEGACY_HEADERS,
        MatcherChoice::Auto | MatcherChoice::Off => &[],
    }
}

/// The features that a configuration calls for, given what was chosen: without them something it asks for is not done, or
/// done in another way.
#[must_use]
pub fn called_for(
    backend: Option<BackendKind>,
    matcher: Option<MatcherChoice>,
    headers: &Headers,
    feature: Feature,
) -> bool {
    let nft_heads = matches!(matcher, Some(MatcherChoice::Bpf | MatcherChoice::String));
    let reset = headers.action == HeaderAction::Reset;
    match feature {
        Feature::InetTable | Feature::Timeout | Feature::Interval => backend == Some(BackendKind::Nft),
        Feature::RejectInet | Feature::RejectBridge => nft_heads && reset,
        Feature::BridgeTable => nft_heads,
        Feature::InnerHeader => nft_heads || (headers.proxy_protocol && backend == Some(BackendKind::Nft)),
        Feature::BpfInet | Feature::BpfBridge => matcher == Some(MatcherChoice::Bpf),
        Feature::BpfLoad => {
            matches!(headers.matcher, MatcherChoice::Auto | MatcherChoice::Bpf)
        }
        Feature::StringInet | Feature::StringBridge => matcher == Some(MatcherChoice::String),
        Feature::IptablesLegacy | Feature::IpTables => {
            backend == Some(BackendKind::Legacy) || matcher == Some(MatcherChoice::Legacy)
        }
        Feature::StringLegacy => matcher == Some(MatcherChoice::Legacy),
        Feature::Ipset | Feature::XtSet => backend == Some(BackendKind::Legacy),
        Feature::IpTable
        | Feature::StringIp
        | Feature::BpfIp
        | Feature::Concatenation
        | Feature::Owner
        | Feature::Persist
        | Feature::Destroy
        | Feature::BrNetfilter
        | Feature::BrNetfilterCall
        | Feature::Conntrack => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::modules::Modules;
    use super::super::privilege::Privileges;
    use super::*;

    /// All are there but these.
    fn without(missing: &[Feature]) -> Capabilities {
        let answer = |feature: Feature| {
            if missing.contains(&feature) {
                Answer::No(format!("no {}", feature.name()))
            } else {
                Answer::Yes
            }
        };
        let all = Feature::ALL.map(|feature| (feature, answer(feature)));
        Capabilities::from_answers(all, Privileges::default(), Modules::default())
    }

    fn headers(matcher: MatcherChoice) -> Headers {
        Headers { matcher, ..Headers::default() }
    }

    #[test]
    fn auto_takes_nf_tables_then_the_older_means() {
        let no = Answer::No("x".into());
        let of = |asked, nft: &Answer, able: &Capabilities| backend(asked, nft, able).what;
        use config::Backend::{Auto, Legacy, Nft};
        let all = without(&[]);
        let none = without(&[Feature::Ipset]);
        assert_eq!(of(Auto, &Answer::Yes, &none), Some(BackendKind::Nft));
        assert_eq!(of(Auto, &no, &all), Some(BackendKind::Legacy));
        assert_eq!(of(Auto, &no, &none), None);
        assert_eq!(of(Auto, &Answer::Unknown("x".into()), &all), None, "who may not ask does not guess");
        assert_eq!(of(Nft, &no, &all), None);
        assert_eq!(of(Legacy, &Answer::Yes, &all), Some(BackendKind::Legacy));
        assert_eq!(of(Legacy, &Answer::Yes, &none), None);
        let why = backend(Auto, &no, &none).why;
        assert!(why.contains("nf_tables: x") && why.contains("iptables-legacy: no ipset"), "{why}");
    }

    #[test]
    fn auto_takes_the_first_matcher_that_can_be_and_says_why_not_the_others() {
        use MatcherChoice::{Auto, Bpf, Legacy, Off, String};
        let of = |missing: &[Feature]| matcher(&headers(Auto), Some(BackendKind::Nft), &without(missing));
        assert_eq!(of(&[]).what, Some(Bpf));
        let second = of(&[Feature::BpfLoad]);
        assert_eq!((second.what, second.why.as_str()), (Some(String), "not bpf: no bpf-load"));
        assert_eq!(of(&[Feature::BpfInet, Feature::StringInet]).what, Some(Legacy));
        assert_eq!(of(&[Feature::InetTable]).what, Some(Legacy));
        assert_eq!(of(&[Feature::InetTable, Feature::StringLegacy]).what, None);
        assert_eq!(matcher(&headers(Auto), Some(BackendKind::Legacy), &without(&[])).what, Some(Legacy));
        assert_eq!(matcher(&headers(Off), None, &without(&[])).what, None);
        assert_eq!(matcher(&headers(Bpf), None, &without(&[Feature::BpfLoad])).what, None);
        assert_eq!(matcher(&headers(String), None, &without(&[Feature::BpfLoad])).what, Some(String));
    }
}
