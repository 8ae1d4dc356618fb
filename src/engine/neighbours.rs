//! From many banned offenders of one prefix to a ban of the prefix.

use super::Engine;
use super::escalation::Neighbours;
use super::net::Key;
use crate::types::{Ban, EVIDENCE_CAP, JailId, Timestamp};

use ipnet::IpNet;

impl Engine {
    /// After `net` was banned at `at` for `line`: bans the first prefix above it of which enough is banned. One at most,
    /// so that one offense never covers more than one step; the next offense from there may take the next.
    ///
    /// Prefixes with somebody who is never banned are passed over, and so are those whose last ban covers `at`: they are
    /// banned, or were when the line was written.
    pub(super) fn widen(&mut self, jail: JailId, net: IpNet, at: Timestamp, line: &[u8], now: Timestamp) {
        let escalation = self.jail(jail).and_then(|jail| jail.policy.escalation.clone());
        let Some(escalation) = escalation else { return };
        let Some(neighbours) = &escalation.neighbours else { return };
        let Some((prefix, count)) = self.ripe(jail, net, at, neighbours) else { return };
        let until = self.lasts(jail, prefix, at).0.until(at);
        let over = until.is_some_and(|end| end <= now);
        if let Some(jail) = self.jails.get_mut(usize::from(jail.0)).and_then(Option::as_mut) {
            jail.stats.prefix_bans += 1;
            if over {
                jail.stats.bans_total += 1;
                jail.stats.too_old += 1;
                jail.stats.last_ban = Some(at);
            }
        }
        if over {
            self.note(jail, prefix, at, until);
            return;
        }
        if !self.make_room(now) {
            self.crowded_out(jail);
            return;
        }
        let mut evidence = format!("{count} neighbours banned, last: ").into_bytes();
        evidence.extend_from_slice(line);
        evidence.truncate(EVIDENCE_CAP);
        let evidence = evidence.into();
        self.begin(Ban {
            jail,
            offender: prefix,
            since: at,
            until,
            offenses: count,
            evidence,
            forced: false,
        });
    }

    /// The first prefix above `net` that is to be banned, and how many networks of it were.
    fn ripe(&self, jail: JailId, net: IpNet, at: Timestamp, neighbours: &Neighbours) -> Option<(IpNet, u32)> {
        let from = at.saturating_sub(neighbours.within);
        let mut steps = std::iter::successors(neighbours.parent(net), |net| neighbours.parent(*net));
        steps.find_map(|prefix| {
            let key = Key::of(jail, prefix);
            let count = self.history.within(key, from, at, neighbours.after);
            let ripe = count >= neighbours.after
                && !self.history.covers(key, at)
                && self.bans.get(jail, prefix).is_none()
                && !self.forbidden(jail, prefix);
            ripe.then_some((prefix, count))
        })
    }

    /// Whether somebody in `net` is never banned by `jail`.
    fn forbidden(&self, jail: JailId, net: IpNet) -> bool {
        self.allowed_by(jail, net).is_some()
    }
}
