//! The older means: iptables-legacy and ipset, as programs and as kernel modules.
//!
//! iptables-legacy cannot be asked without a trace: whoever looks at one of its tables makes it. So this looks whether the
//! programs are installed and the modules are there.

use std::fs;
use std::path::Path;

use nft::{Connection, Family};

use super::modules::{Modules, Presence};
use super::{Answer, Feature};
use crate::kernel::legacy;

/// What can be told without netlink.
pub(super) async fn answers(modules: &Modules) -> [(Feature, Answer); 4] {
    let programs = match legacy::find_programs().await {
        Ok(()) => Answer::Yes,
        Err(e) => Answer::No(e.to_string()),
    };
    let tables = ["ip_tables", "ip6_tables"].map(|name| {
        // The file is there when the module is (net/netfilter/x_tables.c), in every network namespace.
        let used = Path::new(&format!("/proc/thread-self/net/{name}_names")).exists();
        if used { Answer::Yes } else { module(modules, name) }
    });
    let [four, six] = tables;
    [
        (Feature::IptablesLegacy, programs),
        (Feature::IpTables, four.and(six)),
        (Feature::StringLegacy, matches(modules, "string", "xt_string")),
        (Feature::XtSet, matches(modules, "set", "xt_set")),
    ]
}

/// A match is registered under its name for as long as its module is loaded; the list is for root alone.
fn matches(modules: &Modules, name: &str, of_module: &str) -> Answer {
    let listed = fs::read_to_string("/proc/thread-self/net/ip_tables_matches");
    match listed {
        Ok(text) if text.lines().any(|line| line == name) => Answer::Yes,
        _ => module(modules, of_module),
    }
}

fn module(modules: &Modules, name: &str) -> Answer {
    match modules.presence(name) {
        Presence::Here | Presence::Installed => Answer::Yes,
        Presence::Absent => Answer::No(format!("this kernel has no {name}")),
        Presence::Unknown => Answer::Unknown(format!(
            "{name} is not loaded, and the kernel's modules cannot be seen from here"
        )),
    }
}

/// Asks the kernel for the types of set that are used, and looks for the program.
pub(super) async fn ipset(connection: Option<&mut Connection>, modules: &Modules) -> Answer {
    let program = match legacy::find_ipset() {
        Ok(()) => Answer::Yes,
        Err(e) => Answer::No(e.to_string()),
    };
    let Some(connection) = connection else { return program.and(module(modules, "ip_set")) };
    let mut kernel = Answer::Yes;
    for family in [Family::Ip, Family::Ip6] {
        for name in ["hash:ip", "hash:net"] {
            kernel = kernel.and(of_type(connection, name, family).await);
        }
    }
    kernel.and(program)
}

async fn of_type(connection: &mut Connection, name: &str, family: Family) -> Answer {
    use nix::libc;
    match connection.ipset_type(name, family).await {
        Ok(_) => Answer::Yes,
        Err(e) => match e.raw_os_error() {
            Some(libc::EPERM) => Answer::Unknown("ipset may not be asked without CAP_NET_ADMIN".to_owned()),
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Answer::No("this kernel has no ip_set".to_owned()),
            _ => Answer::No(format!("this kernel has no sets of type {name} for {family}")),
        },
    }
}
