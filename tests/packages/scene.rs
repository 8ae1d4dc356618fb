//! What both packages must do: the steps that are the same on every machine.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::docs;
use crate::machine::Machine;

/// Who is banned by hand, and who attacks.
pub(crate) const BANNED: &str = "203.0.113.9";
pub(crate) const ATTACKER: &str = "203.0.113.66";

/// Whether the kernel has a ban of BANNED.
pub(crate) const IN_KERNEL: &str = "nft get element inet stockade banned4 { 203.0.113.9 }";

/// A piece of a block, and what must hold when that block was run.
pub(crate) type Check<'a> = (&'a str, &'a dyn Fn(&Machine));

/// The blocks of the documents for `runner`, each with what is to be looked at after it. What a check is for is found by a
/// piece of the block's text; each must find its block, and blocks without one are only run.
pub(crate) fn walk(machine: &Machine, runner: &str, checks: &[Check<'_>]) {
    let mut checks = checks.iter();
    let mut next = checks.next();
    for block in docs::run_by(runner) {
        // As the page says, where the packages were downloaded to. Line by line: the first that fails is named.
        for line in block.text.lines().filter(|line| !line.trim().is_empty()) {
            println!("{}:{}: {line}", block.file.display(), block.line);
            machine.run(&format!("cd /root/packages\n{line}"));
        }
        while let Some((piece, check)) = next
            && block.text.contains(piece)
        {
            check(machine);
            next = checks.next();
        }
    }
    assert!(
        next.is_none(),
        "no block says `{}` where it should",
        next.map(|(piece, _)| *piece).unwrap_or_default()
    );
}

/// The service is up, as its own user, and looks into heads with BPF.
pub(crate) fn is_up(machine: &Machine) {
    assert_eq!(machine.run("systemctl is-active stockade.service"), "active\n");
    assert_eq!(machine.run("systemctl show --value --property=Type stockade"), "notify\n");
    let user = machine.run("ps -o user= -p $(systemctl show --value --property=MainPID stockade)");
    assert_eq!(user.trim(), "stockade");
    machine.run("stockade ping");
    let status = json(machine, "stockade status --json");
    assert_eq!(
        status["headers"]["matcher"], "bpf",
        "the unit's rights must do for a BPF program: {}",
        status["headers"]
    );
}

/// Completions are where the shells look for them, and bash takes its own.
pub(crate) fn completes(machine: &Machine) {
    machine.run("test -s /usr/share/fish/vendor_completions.d/stockade.fish");
    machine.run(
        "test -s /usr/share/zsh/vendor-completions/_stockade -o -s /usr/share/zsh/site-functions/_stockade",
    );
    let script = "source /usr/share/bash-completion/completions/stockade
        COMP_WORDS=(stockade st) COMP_CWORD=1; _stockade stockade st stockade; echo ${COMPREPLY[@]}";
    assert_eq!(machine.run(&format!("bash -c '{script}'")), "status stop\n");
}

/// A ban by hand, and one of an attacker in a log; both are in the kernel.
pub(crate) fn bans(machine: &Machine, log: &str) {
    machine.run(&format!("stockade ban sshd {BANNED} --for 1h --reason test"));
    machine.run(IN_KERNEL);
    let lines = "for n in 1 2 3 4 5 6; do
            echo \"$(date '+%b %e %H:%M:%S') host sshd[71]: Failed password for root from 203.0.113.66 port 4000$n ssh2\"
        done";
    machine.run(&format!("{lines} >>{log}"));
    machine.await_that(&format!("nft list ruleset | grep -F {ATTACKER}"));
}

/// Who is banned, by which jail, since when and until when.
pub(crate) fn banned(machine: &Machine) -> Vec<(String, String, String, String)> {
    let bans = json(machine, "stockade bans --json");
    let mut bans: Vec<_> = bans
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| {
            let word = |key: &str| ban[key].as_str().unwrap().to_owned();
            (word("offender"), word("jail"), word("since"), word("until"))
        })
        .collect();
    bans.sort();
    bans
}

/// The same bans as before, and never without: `upgrade` is run while somebody looks into the kernel all the time.
pub(crate) fn keeps_bans(machine: &Machine, upgrade: &str) {
    let before = (banned(machine), machine.run("systemctl show --value --property=MainPID stockade"));
    machine.run(&format!(
        "( while [ ! -e /run/looked ]; do {IN_KERNEL} >/dev/null 2>&1 || echo gone >>/run/gone; sleep 0.02; done ) & \
         {upgrade}; touch /run/looked; wait; rm /run/looked"
    ));
    assert!(!machine.is("test -e /run/gone"), "for a moment the kernel had no ban");
    is_up(machine);
    let after = (banned(machine), machine.run("systemctl show --value --property=MainPID stockade"));
    assert_eq!(before.0, after.0);
    assert_eq!(before.0.len(), 2, "{before:?}");
    assert_ne!(before.1, after.1, "an upgrade restarts the agent");
}

/// Nothing of ours is in the kernel.
pub(crate) fn no_table(machine: &Machine) {
    assert_eq!(machine.run("nft list ruleset"), "");
}

pub(crate) fn json(machine: &Machine, command: &str) -> Value {
    serde_json::from_str(&machine.run(command)).unwrap()
}

/// Puts the files there where the page has a reader put them.
pub(crate) fn download(machine: &Machine) {
    machine.run("mkdir /root/packages && cp /packages/* /root/packages");
}

/// A directory with copies of `files`.
pub(crate) fn shelf(files: &[&Path]) -> tempfile::TempDir {
    let shelf = tempfile::tempdir().unwrap();
    for file in files {
        fs::copy(file, shelf.path().join(file.file_name().unwrap())).unwrap();
    }
    shelf
}
