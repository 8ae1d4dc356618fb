//! What a mirror is to show: every ban of the jails that use it, kept up to date by the agent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;

use crate::types::{JailId, Timestamp};

/// One jail's ban of an offender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The jail.
    pub id: JailId,
    /// Its name.
    pub jail: Arc<str>,
    /// When it began.
    pub since: Timestamp,
    /// When it ends; `None` for never.
    pub until: Option<Timestamp>,
    /// Offenses that led to it; 0 by hand.
    pub offenses: u32,
    /// Bans of this offender by this jail so far, with this one; 0: not known.
    pub count: u32,
}

/// Whom to ban, and why: never without a [`Want`].
pub type Wants = HashMap<IpNet, Vec<Want>>;

/// Shared by the agent, which changes it and never waits, and a mirror, which looks.
#[derive(Debug, Default)]
pub struct Desired {
    wants: Mutex<Wants>,
    /// Whether it was ever said what all bans are: until then nobody may conclude from an absent one.
    known: AtomicBool,
    changed: Notify,
}

impl Desired {
    /// A ban, or a new end of one.
    pub fn ban(&self, offender: IpNet, want: Want) {
        let mut wants = self.lock();
        let of = wants.entry(offender).or_default();
        match of.iter_mut().find(|w| w.id == want.id) {
            Some(own) => *own = want,
            None => of.push(want),
        }
        drop(wants);
        self.changed.notify_one();
    }

    /// The end of a jail's ban; the offender stays while another jail bans it.
    pub fn unban(&self, offender: IpNet, jail: JailId) {
        let mut wants = self.lock();
        if let Some(of) = wants.get_mut(&offender) {
            of.retain(|want| want.id != jail);
            if of.is_empty() {
                wants.remove(&offender);
            }
            drop(wants);
            self.changed.notify_one();
        }
    }

    /// Puts all bans in the place of those before.
    pub fn replace(&self, all: impl IntoIterator<Item = (IpNet, Want)>) {
        let mut wants = self.lock();
        wants.clear();
        for (offender, want) in all {
            wants.entry(offender).or_default().push(want);
        }
        drop(wants);
        self.known.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Waits until all bans are known. Cancel-safe.
    pub async fn known(&self) {
        while !self.known.load(Ordering::Acquire) {
            self.changed.notified().await;
        }
    }

    /// Looks at everything. The agent waits as long: copy what is needed, and do nothing slow.
    pub fn look<T>(&self, look: impl FnOnce(&Wants) -> T) -> T {
        look(&self.lock())
    }

    /// Offenders that are to be banned.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody is to be banned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Waits until something has changed since the last call. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What has changed so far is about to be looked at: [`changed`](Self::changed) waits for later changes.
    pub fn seen(&self) {
        std::pin::pin!(self.changed.notified()).enable();
    }

    fn lock(&self) -> MutexGuard<'_, Wants> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the last of these bans ends; `None` for never. As one rule they are one ban.
#[must_use]
pub fn end(wants: &[Want]) -> Option<Timestamp> {
    wants.iter().map(|want| want.until).reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_concluded_before_all_bans_are_known() {
        let desired = Desired::default();
        desired.ban("192.0.2.1/32".parse().unwrap(), want(1, None));
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, desired.known()).await.is_err());
        desired.replace([]);
        desired.known().await;
    }

    fn want(jail: u16, until: Option<i64>) -> Want {
        Want {
            id: JailId(jail),
            jail: format!("j{jail}").into(),
            since: Timestamp::default(),
            until: until.map(Timestamp::from_secs),
            offenses: 3,
            count: 1,
        }
    }

    #[test]
    fn an_offender_stays_until_its_last_ban_ends() {
        let desired = Desired::default();
        let who: IpNet = "192.0.2.1/32".parse().unwrap();
        desired.ban(who, want(1, Some(10)));
        desired.ban(who, want(2, Some(20)));
        desired.ban(who, want(1, Some(30)));
        assert_eq!(desired.look(|all| end(&all[&who])), Some(Timestamp::from_secs(30)));
        desired.unban(who, JailId(1));
        assert_eq!(desired.look(|all| end(&all[&who])), Some(Timestamp::from_secs(20)));
        desired.ban(who, want(3, None));
        assert_eq!(desired.look(|all| end(&all[&who])), None, "without an end");
        desired.unban(who, JailId(2));
        desired.unban(who, JailId(2));
        desired.unban(who, JailId(3));
        assert!(desired.is_empty());
        desired.unban(who, JailId(3));
        desired.replace([(who, want(1, None)), (who, want(2, None))]);
        assert_eq!((desired.len(), desired.look(|all| all[&who].len())), (1, 2));
    }
}
