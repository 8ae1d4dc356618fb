//! Where this is: whose network, what the process may do, Docker, and others who filter packets.

use std::path::Path;

use super::finding::{Finding, Mark, Section};
use crate::kernel::capability::docker::Docker;
use crate::kernel::capability::namespace::{Network, Place};
use crate::kernel::capability::others::View;
use crate::kernel::capability::privilege::{Capability, Privileges};
use crate::kernel::capability::saved;

/// Whose network it is.
pub(super) fn network(place: &Place) -> Finding {
    let container = place.container.map(|kind| format!(" (in a {kind} container)")).unwrap_or_default();
    let (mark, told) = match place.network {
        Network::Host => {
            (Mark::Ok, format!("the host's own{container}: bans hold for it and for what it forwards"))
        }
        Network::Own => (
            Mark::Heed,
            format!("not the host's{container}: bans hold for the packets of this network namespace alone"),
        ),
        Network::Unknown => {
            (Mark::Unknown, format!("it could not be told whether it is the host's{container}"))
        }
    };
    let finding = Finding::new(Section::Host, mark, "network", told);
    match (place.network, place.container) {
        (Network::Own, Some(_)) => finding.advice(
            "to guard the host and its other containers, run the agent in the host's network (docker run --network host; \
             compose: network_mode: host)",
        ),
        (Network::Own, None) => finding.advice("to guard the host, run the agent outside of it"),
        _ => finding,
    }
}

/// What decides whether a capability is called for.
pub(super) struct Calls {
    /// A log could not be read for want of permission.
    pub(super) logs: bool,
    /// The header matcher would be, or could have been, the BPF program.
    pub(super) bpf: bool,
}

/// Which capabilities are held.
pub(super) fn capabilities(held: &Privileges, calls: &Calls) -> Vec<Finding> {
    let each = [
        (Capability::NetAdmin, "changing nf_tables", true, Mark::No),
        (Capability::Bpf, "loading the program of header bans", calls.bpf, Mark::Heed),
        (Capability::Perfmon, "the same program, which computes with addresses", calls.bpf, Mark::Heed),
        (Capability::DacReadSearch, "reading logs of others", calls.logs, Mark::Heed),
    ];
    let finding = |(capability, used_for, needed, missing): (Capability, &str, bool, Mark)| {
        let stands_in = matches!(capability, Capability::Bpf | Capability::Perfmon)
            && held.holds(Capability::SysAdmin) == Some(true);
        let name = capability.name();
        let of = |mark, told: String| Finding::new(Section::Process, mark, name, told);
        match held.holds(capability) {
            Some(true) => of(Mark::Ok, used_for.to_owned()),
            Some(false) if stands_in => of(Mark::Ok, format!("{used_for} (CAP_SYS_ADMIN stands for it)")),
            Some(false) if needed => of(missing, format!("not held (for {used_for})")).advice(format!(
                "run it as root, or grant it (docker: --cap-add {}; systemd: AmbientCapabilities={name})",
                name.trim_start_matches("CAP_")
            )),
            Some(false) => of(Mark::Unneeded, format!("not held, and not needed (for {used_for})")),
            None => of(Mark::Unknown, format!("it could not be told whether it is held (for {used_for})")),
        }
    };
    each.into_iter().map(finding).collect()
}

/// Docker's firewall backend.
pub(super) fn docker(docker: &Docker, view: &Result<View, String>) -> Finding {
    let names: Vec<&str> = docker.found.iter().map(|backend| backend.name()).collect();
    let configured = match (&docker.configured, docker.off) {
        (_, true) => " (daemon.json has Docker write no rules: iptables is false)".to_owned(),
        (Some(backend), false) => format!(" (daemon.json asks for {backend})"),
        (None, false) => String::new(),
    };
    let here = |mark, told: String| Finding::new(Section::Host, mark, "docker", told);
    match (names.as_slice(), view) {
        ([], Err(_)) => here(Mark::Unknown, format!("its rules cannot be seen{configured}")),
        ([], Ok(_)) if docker.runs => {
            here(Mark::Ok, format!("it runs, and has no rules in this network namespace{configured}"))
        }
        ([], Ok(_)) => {
            here(Mark::Unneeded, format!("no rules of Docker in this network namespace{configured}"))
        }
        ([one], _) => {
            here(Mark::Ok, format!("firewall backend {one}{configured}; bans come before its rules"))
        }
        (several, _) => here(
            Mark::Ok,
            format!(
                "rules of several firewall backends: {}{configured}; bans come before all of them",
                several.join(", ")
            ),
        ),
    }
}

/// What others have in front of our hook.
pub(super) fn before_ours(view: &Result<View, String>) -> Vec<Finding> {
    let what = "before our hook";
    let view = match view {
        Ok(view) => view,
        Err(why) => {
            let told = format!("what others have there cannot be seen: {why}");
            return vec![Finding::new(Section::Host, Mark::Unknown, what, told)];
        }
    };
    let (matter, harmless): (Vec<_>, Vec<_>) =
        view.before_ours().into_iter().partition(|e| e.matters.is_some());
    let mut findings: Vec<Finding> = matter
        .iter()
        .filter_map(|early| {
            let matter = early.matters.as_ref()?;
            let told = format!("{}: {}", early.what, matter.effect);
            Some(Finding::new(Section::Host, Mark::Heed, what, told).advice(matter.advice))
        })
        .collect();
    if !harmless.is_empty() {
        let names: Vec<&str> = harmless.iter().map(|early| early.what.as_str()).collect();
        let told =
            format!("{}: no matter, a ban's drop is final whatever accepts before it", names.join(", "));
        findings.push(Finding::new(Section::Host, Mark::Ok, what, told));
    }
    if findings.is_empty() {
        findings.push(Finding::new(Section::Host, Mark::Ok, what, "nothing of others in nf_tables"));
    }
    findings
}

/// Copies of our table in what is loaded at boot.
pub(super) fn saved(root: &Path) -> Vec<Finding> {
    let (copies, hidden) = saved::copies(root);
    let copy = |copy: &saved::Copy| {
        let told = format!("{} has a copy of our table, at line {}", copy.file.display(), copy.line);
        let finding = Finding::new(Section::Host, Mark::Heed, "saved ruleset", told);
        let finding = if copy.unreadable {
            finding.advice(
                "nft prints `xt match` for header bans and cannot read it: loading this file fails, and at the next boot \
                 the host has no firewall",
            )
        } else {
            finding.advice("loading it brings bans back that are over, until the agent repairs it")
        };
        finding.advice(
            "take our tables (inet stockade, bridge stockade) out of the file, and save without them: \
             nft list tables | grep -v ' stockade$' | while read -r t; do nft list $t; done",
        )
    };
    let unread = |file: &std::path::PathBuf| {
        let told = format!("{} cannot be read: it may have a copy of our table", file.display());
        Finding::new(Section::Host, Mark::Unknown, "saved ruleset", told)
    };
    copies.iter().map(copy).chain(hidden.iter().map(unread)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_nft_cannot_read_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        assert!(saved(root.path()).is_empty());
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let file = root.path().join("etc/nftables.conf");
        std::fs::write(&file, "table inet stockade {\n}\n").unwrap();
        let told = |text: &str| saved(root.path())[0].advice.iter().any(|advice| advice.contains(text));
        assert!(told("bans back that are over") && told("grep -v ' stockade$'"));
        std::fs::write(&file, "table inet stockade {\n chain c {\n xt match \"string\" drop\n }\n}\n")
            .unwrap();
        assert!(told("at the next boot the host has no firewall"));
    }

    #[test]
    fn a_capability_that_is_missing_matters_where_it_is_called_for() {
        let marks = |held: &[Capability], bpf| -> Vec<Mark> {
            let found = capabilities(&Privileges::of(held), &Calls { logs: false, bpf });
            found.iter().map(|finding| finding.mark).collect()
        };
        use Mark::{Heed, No, Ok, Unneeded};
        assert_eq!(marks(&[], false), [No, Unneeded, Unneeded, Unneeded]);
        assert_eq!(marks(&[Capability::NetAdmin], true), [Ok, Heed, Heed, Unneeded]);
        assert_eq!(marks(&[Capability::NetAdmin, Capability::SysAdmin], true), [Ok, Ok, Ok, Unneeded]);
    }
}
