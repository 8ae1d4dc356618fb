//! Which firewall backend Docker uses, as far as it matters to somebody who looks for it: bans hold with either.

use std::fs;
use std::path::Path;

use nft::Family;
use serde_json::Value;

use super::others::View;
use crate::kernel::legacy;

/// What Docker writes its rules to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Tables `docker-bridges` in nf_tables (Docker 29, `firewall-backend`).
    Nftables,
    /// The iptables that writes to nf_tables.
    IptablesNft,
    /// The iptables of old.
    IptablesLegacy,
}

impl Backend {
    /// In a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables (tables ip and ip6 docker-bridges)",
            Self::IptablesNft => "iptables, over nf_tables (table ip filter)",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// What is known of Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Docker {
    /// What is in the kernel: more than one where the backend was changed and the old rules stayed.
    pub found: Vec<Backend>,
    /// What `daemon.json` asks for.
    pub configured: Option<String>,
    /// `daemon.json` has Docker write no rules.
    pub off: bool,
    /// Its socket is here.
    pub runs: bool,
}

impl Docker {
    /// Looks for its tables, chains and files.
    pub async fn look(view: Option<&View>) -> Self {
        let mut docker = Self { runs: Path::new("/run/docker.sock").exists(), ..Self::default() };
        if let Ok(text) = fs::read_to_string("/etc/docker/daemon.json") {
            (docker.configured, docker.off) = configured(&text);
        }
        docker.found = view.map(found).unwrap_or_default();
        if legacy::has_filter_chain(&CHAINS).await {
            docker.found.push(Backend::IptablesLegacy);
        }
        docker
    }
}

/// Chains that Docker makes in the table filter.
const CHAINS: [&str; 2] = ["DOCKER-USER", "DOCKER"];

fn found(view: &View) -> Vec<Backend> {
    let mut found = Vec::new();
    if [Family::Ip, Family::Ip6].iter().any(|family| view.has_table(*family, "docker-bridges")) {
        found.push(Backend::Nftables);
    }
    if CHAINS.iter().any(|chain| view.has_chain(Family::Ip, "filter", chain)) {
        found.push(Backend::IptablesNft);
    }
    found
}

/// `firewall-backend`, and whether `iptables` is false, which goes for both backends.
fn configured(text: &str) -> (Option<String>, bool) {
    let Ok(json) = serde_json::from_str::<Value>(text) else { return (None, false) };
    let backend = json["firewall-backend"].as_str().map(str::to_owned);
    (backend, json["iptables"] == Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use nft::{Chain, Table};

    use super::*;

    #[test]
    fn its_tables_tell_the_backend() {
        let nft = Table::new(Family::Ip, "docker-bridges");
        let filter = Table::new(Family::Ip, "filter");
        let old = Chain::new(&filter, "DOCKER-USER");
        let other = Table::new(Family::Inet, "docker-bridges");
        let view = |tables: Vec<Table>, chains: Vec<Chain>| View { tables, chains, ..View::default() };
        assert_eq!(found(&view(vec![nft.clone()], vec![])), [Backend::Nftables]);
        assert_eq!(found(&view(vec![filter.clone()], vec![old.clone()])), [Backend::IptablesNft]);
        assert_eq!(
            found(&view(vec![nft, filter.clone()], vec![old])),
            [Backend::Nftables, Backend::IptablesNft]
        );
        assert_eq!(found(&view(vec![other, filter], vec![])), []);
    }

    #[test]
    fn its_configuration_may_name_one() {
        assert_eq!(configured(r#"{"firewall-backend": "nftables"}"#), (Some("nftables".into()), false));
        assert_eq!(configured(r#"{"iptables": false}"#), (None, true));
        assert_eq!(configured("{"), (None, false));
        assert_eq!(configured("{}"), (None, false));
    }
}
