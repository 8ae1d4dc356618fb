//! The configuration that is proposed, as text with a reason for each choice, read back to be sure of it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::dialect::Kind;
use super::finding::{Findings, Sources, shown};
use super::person::Person;
use super::yaml::{comment, remark, scalar};
use crate::commands::SHIPPED;
use crate::config::Config;
use crate::daemon::jails::{Jails, Registry};

/// So many people who are logged in are named.
const PEOPLE: usize = 5;

/// A configuration, and the text it was read from.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) text: String,
    pub(super) config: Config,
}

impl Proposal {
    /// Writes it, and reads it as the agent will.
    ///
    /// # Errors
    /// When what was written does not say what was found: a mistake of this program, or a name that YAML cannot hold.
    pub(super) fn new(findings: &Findings, people: &[Person]) -> Result<Self> {
        let mut places = findings.docker.iter().chain(&findings.journal);
        if let Some(place) = places.find(|place| place.to_str().is_none()) {
            anyhow::bail!("{}: its name is no UTF-8, so no configuration can name it", shown(place));
        }
        let text = text(findings, people);
        let config =
            Config::parse(&text, "the proposal", &SHIPPED).context("failed to read the proposal back")?;
        Jails::new(&config, &mut Registry::default()).context("failed to read the proposal back")?;
        let mut jails = config.jails.iter();
        for (kind, sources) in written(findings) {
            let Some(jail) = jails.next() else {
                anyhow::bail!("failed to read the proposal back: a jail is missing")
            };
            let wanted: Vec<&str> = sources.logpath.iter().map(|found| found.text.as_str()).collect();
            let docker: Vec<String> = jail.docker.iter().map(ToString::to_string).collect();
            let containers: Vec<&str> = sources.docker.iter().map(|found| found.text.as_str()).collect();
            let same = jail.name == kind.jail() && jail.logpath == wanted && docker == containers;
            ensure!(same, "failed to read the proposal back: the jail {} reads differently", kind.jail());
        }
        ensure!(jails.next().is_none(), "failed to read the proposal back: there is one jail too many");
        Ok(Self { text, config })
    }
}

/// The jails that have something to follow.
fn written(findings: &Findings) -> impl Iterator<Item = (Kind, &Sources)> {
    let has = |sources: &Sources| {
        !(sources.logpath.is_empty() && sources.docker.is_empty() && sources.journal.is_empty())
    };
    findings.jails.iter().filter(move |(_, sources)| has(sources)).map(|(kind, sources)| (*kind, sources))
}

/// Whether there is anything to propose.
pub(super) fn is_worth_it(findings: &Findings) -> bool {
    written(findings).next().is_some()
}

fn text(findings: &Findings, people: &[Person]) -> String {
    let mut out = String::new();
    let cloudflare = !findings.cloudflare.is_empty();
    comment(
        &mut out,
        0,
        "The configuration of stockade, proposed by `stockade setup` from what it found on this host; each choice says why. `man 5 \
         stockade.yaml` explains every key, `stockade check` says what is wrong, `stockade reload` has a running agent read it \
         again. What is commented out without a space behind the # is an example to uncomment.",
    );
    out.push('\n');
    addresses(&mut out, people, findings, cloudflare);
    out.push('\n');
    defaults(&mut out, cloudflare || !findings.tunnel.is_empty());
    out.push_str("\njails:\n");
    for (n, (kind, sources)) in written(findings).enumerate() {
        if n > 0 {
            out.push('\n');
        }
        jail(&mut out, kind, sources);
    }
    places(&mut out, findings);
    if cloudflare || !findings.tunnel.is_empty() {
        mirror(&mut out, cloudflare);
    }
    out
}

/// `ignoreip` and `trusted_proxies`.
fn addresses(out: &mut String, people: &[Person], findings: &Findings, cloudflare: bool) {
    comment(
        out,
        0,
        "Never banned: this host itself (loopback; self: its addresses, gateways and Docker networks), and private networks, where \
         your own people, monitoring and proxies are. If strangers share a private network with this host, take `private` out and \
         name what is yours.",
    );
    if cloudflare {
        comment(
            out,
            0,
            "Nor Cloudflare, which connects for every visitor: banning it would lock all of them out.",
        );
    }
    let mut own = Vec::new();
    for person in people.iter().take(PEOPLE) {
        if person.is_private() {
            comment(out, 0, &format!("{}: {}; `private` holds it.", person.address, person.how));
        } else {
            own.push(person);
        }
    }
    let last = if cloudflare { ", cloudflare" } else { "" };
    let _ = writeln!(out, "ignoreip: [loopback, self, private{last}]");
    for person in own {
        // An IPv6 address has colons, which YAML may take for a map.
        let address = match person.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("'{address}'"),
        };
        comment(
            out,
            0,
            &format!(
                "{}: {}. An address that somebody is logged in from is not banned as long as that lasts. If it is yours for good, \
                 and will not be somebody else's tomorrow, write this instead of the line above:",
                person.address, person.how
            ),
        );
        let _ = writeln!(out, "#ignoreip: [loopback, self, private{last}, {address}]");
    }
    out.push('\n');
    comment(
        out,
        0,
        "Proxies whose word about the client's address is believed: those on this host and in private networks, as containers are.",
    );
    for why in &findings.cloudflare {
        remark(out, 0, &format!("found: {why}; so Cloudflare's word is believed, too."));
    }
    for why in &findings.tunnel {
        remark(out, 0, &format!("found: {why}."));
    }
    if !findings.tunnel.is_empty() {
        comment(
            out,
            0,
            "Cloudflare's tunnel connects from this host or a private network, and needs no entry of its own.",
        );
    }
    let _ = writeln!(out, "trusted_proxies: [loopback, private{last}]");
}

fn defaults(out: &mut String, mirrored: bool) {
    out.push_str(
        "# What holds for every jail that does not say otherwise: five offenses within ten minutes are a ban of ten minutes. A first\n\
         # ban is short on purpose: it ends a scan, and does little harm should it meet the wrong one.\n\
         defaults:\n  maxretry: 5\n  findtime: 10m\n  bantime: 10m\n",
    );
    if mirrored {
        out.push_str("  # Bans are shown to Cloudflare, too, once its sink below is filled in.\n  #sinks: [cloudflare]\n");
    }
    out.push_str(
        "\n# Who comes back is banned for longer: the second ban lasts 5 times as long as the first, the third 30 times, up to 90 days;\n\
         # a little more each time, so that nobody can wait for the end. After 14 days without a ban all is forgotten.\n\
         escalation: { multipliers: [1, 5, 30, 60, 300, 720, 1440, 2880], jitter: 34m, max: 90d, memory: 14d }\n",
    );
}

fn jail(out: &mut String, kind: Kind, sources: &Sources) {
    comment(out, 2, kind.purpose());
    for heed in &sources.heed {
        comment(out, 2, heed);
    }
    let _ = writeln!(out, "  {}:\n    filter: {}", kind.jail(), kind.filter());
    for (key, all) in
        [("logpath", &sources.logpath), ("docker", &sources.docker), ("journal", &sources.journal)]
    {
        for found in all {
            remark(out, 4, &format!("found: {}", found.how));
        }
        match all.as_slice() {
            [] => {}
            [one] => {
                let _ = writeln!(out, "    {key}: {}", scalar(&one.text));
            }
            several => {
                let _ = writeln!(out, "    {key}:");
                for found in several {
                    let _ = writeln!(out, "      - {}", scalar(&found.text));
                }
            }
        }
    }
    if let Some((maxretry, findtime, why)) = kind.limits() {
        comment(out, 4, why);
        let _ = writeln!(out, "    maxretry: {maxretry}\n    findtime: {findtime}");
    }
}

/// Where Docker's files and the journal are, if not where they usually are.
fn places(out: &mut String, findings: &Findings) {
    let uses = |of: fn(&Sources) -> bool| findings.jails.values().any(of);
    if let Some(root) = findings.docker.as_ref().filter(|_| uses(|sources| !sources.docker.is_empty())) {
        out.push('\n');
        comment(
            out,
            0,
            "Where Docker keeps its files, with the logs of containers. Its socket is not needed.",
        );
        let _ = writeln!(out, "docker:\n  root: {}", scalar(&root.to_string_lossy()));
    }
    if let Some(journal) = findings.journal.as_ref().filter(|_| uses(|sources| !sources.journal.is_empty())) {
        out.push('\n');
        comment(out, 0, "Where systemd's journal is.");
        let _ = writeln!(out, "journal:\n  directory: {}", scalar(&journal.to_string_lossy()));
    }
}

/// What reaches clients behind Cloudflare.
fn mirror(out: &mut String, cloudflare: bool) {
    out.push('\n');
    comment(
        out,
        0,
        "Packets of clients behind Cloudflare come from Cloudflare, so a ban by the packet's source cannot reach them. Two things can. \
         Header bans: where a proxy on this host passes requests on in plain HTTP, the kernel looks for banned addresses in \
         CF-Connecting-IP, X-Forwarded-For and X-Real-IP; that is on, and `stockade check` says whether this kernel can do it. And \
         Cloudflare itself, which stops them before they come here: make an API token (My Profile, API Tokens) with the permission \
         Zone · Firewall Services · Edit, write it into the file with `chmod 600`, fill in the zone (on its overview page), \
         uncomment this, and `sinks:` in `defaults`.",
    );
    out.push_str(
        "#sinks:\n  #cloudflare:\n    #kind: cloudflare\n    #zone_id: 0123456789abcdef0123456789abcdef\n    \
         #token_file: /etc/stockade/cloudflare.token\n",
    );
    if cloudflare {
        out.push('\n');
        comment(
            out,
            0,
            "`cloudflare` above stands for the ranges that came with this version. They change once in years; this has the agent fetch \
             them from Cloudflare itself.",
        );
        out.push_str("#cloudflare_ranges:\n  #refresh: 1d\n");
    }
}

/// Where a configuration says the same, whatever it looks like.
pub(super) fn says_the_same(path: &Path, proposal: &Proposal) -> bool {
    let Ok(there) = Config::load(path, &SHIPPED) else { return false };
    Config { warnings: Vec::new(), ..there } == Config { warnings: Vec::new(), ..proposal.config.clone() }
}
