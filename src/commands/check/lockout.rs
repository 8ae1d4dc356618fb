//! Whom a ban must not hit: what of it can be seen from here.

use std::fs;

use super::finding::{Finding, Mark, Section};
use crate::engine::Why;
use crate::host::{Look, Places, Surroundings};
use crate::kernel::capability::namespace::{FIRST_PID_NAMESPACE, Network, Place};

const WHAT: &str = "lockout";

/// Looks around as the agent would.
pub(super) fn look() -> Look {
    let mut surroundings = Surroundings::new(Places::default());
    surroundings.scan();
    surroundings.look()
}

/// Who is protected, and who might not be.
pub(super) fn findings(look: &Look, place: &Place) -> Vec<Finding> {
    let of = |mark, told: String| Finding::new(Section::Host, mark, WHAT, told);
    let mut findings = vec![of(Mark::Ok, told(look))];
    findings.extend(look.problems.iter().map(|problem| {
        of(Mark::Heed, format!("who is logged in cannot all be seen: {problem}")).advice(
            "run it as root, or grant CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; put the address you log in from into ignoreip",
        )
    }));
    let processes = fs::read_link("/proc/self/ns/pid").ok();
    if place.network == Network::Host
        && !Places::default().sessions.is_dir()
        && processes.is_some_and(|link| link.to_str() != Some(FIRST_PID_NAMESPACE))
    {
        findings.push(of(Mark::Heed, "who is logged in to the host cannot be seen from this container".to_owned()).advice(
            "mount the host's /run/systemd/sessions, read-only; where there is no systemd, run it among the host's processes \
             (docker run --pid host; compose: pid: host) with /run/utmp mounted; put the address you log in from into ignoreip",
        ));
    }
    findings
}

fn told(look: &Look) -> String {
    let count = |is: fn(&Why) -> bool| look.protected.entries().iter().filter(|(_, why)| is(why)).count();
    let sessions: Vec<String> = look.sessions.iter().map(ToString::to_string).collect();
    let logged_in = match sessions.as_slice() {
        [] => "nobody who is logged in from elsewhere".to_owned(),
        sessions => sessions.join(", "),
    };
    format!(
        "not banned unless forced: own addresses ({}), gateways ({}), DNS servers ({}), networks of bridges ({}); {logged_in}",
        count(|why| matches!(why, Why::Own)),
        count(|why| matches!(why, Why::Gateway)),
        count(|why| matches!(why, Why::Resolver { .. })),
        count(|why| matches!(why, Why::Bridge { .. })),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_protected_is_counted_and_what_is_not_seen_is_told() {
        let place = Place { network: Network::Own, container: None };
        let mut look = Look {
            protected: [
                ("192.0.2.1/32".parse().unwrap(), Why::Own),
                ("192.0.2.254/32".parse().unwrap(), Why::Gateway),
            ]
            .into_iter()
            .collect(),
            ..Look::default()
        };
        let found = findings(&look, &place);
        assert_eq!(
            found[0].told,
            "not banned unless forced: own addresses (1), gateways (1), DNS servers (0), networks of bridges (0); nobody who is \
             logged in from elsewhere"
        );
        assert_eq!(found.len(), 1);
        look.problems.push("process 7 of sshd: Permission denied".to_owned());
        assert_eq!(findings(&look, &place)[1].mark, Mark::Heed);
    }
}
