use super::super::event::{Banned, Fault, Merged, Unbanned};
use super::*;

fn ban(jail: &str, n: u32, observed: bool) -> Arc<Event> {
    let at = Timestamp::from_secs(1_795_000_000 + i64::from(n));
    Arc::new(Event::Ban(Banned {
        at,
        jail: jail.to_owned(),
        offender: std::net::IpAddr::from(std::net::Ipv4Addr::from(0xc633_6400 + n)).into(),
        since: at,
        until: None,
        offenses: 5,
        count: 1,
        prolonged: false,
        observed,
        problem: None,
        line: String::new(),
        fields: BTreeMap::new(),
    }))
}

fn unban(jail: &str, n: u32) -> Arc<Event> {
    let Event::Ban(ban) = &*ban(jail, n, false) else { unreachable!() };
    Arc::new(Event::Unban(Unbanned {
        at: ban.at,
        jail: ban.jail.clone(),
        offender: ban.offender,
        since: ban.since,
        reason: "expired".to_owned(),
        observed: false,
    }))
}

fn merged(jail: &str, bans: u64, others: u64) -> Arc<Event> {
    let bans = BTreeMap::from([(jail.to_owned(), bans)]);
    Arc::new(Event::Merged(Merged { bans, others, ..Merged::default() }))
}

fn fault(message: &str) -> Arc<Event> {
    Arc::new(Event::Error(Fault { at: Timestamp::from_secs(1_795_000_000), message: message.to_owned() }))
}

#[test]
fn every_event_is_counted_and_the_first_are_named() {
    let mut events: Vec<_> = (0..20).map(|n| ban("npm", n, false)).collect();
    events.extend([ban("sshd", 1, false), ban("try", 2, true), unban("npm", 3), fault("disk full")]);
    assert_eq!(
        text(&events, "web1", Escape::Html, 3500),
        "<b>web1</b>: 24 events from 2026-11-18T11:06:40Z to 2026-11-18T11:06:59Z\n\
         <b>21 bans</b>\n\
         npm 20: 198.51.100.0, 198.51.100.1, 198.51.100.2, 198.51.100.3, 198.51.100.4, 198.51.100.5, 198.51.100.6, \
         198.51.100.7 and 12 more\n\
         sshd 1: 198.51.100.1\n\
         <b>1 ban that was only observed</b>\n\
         try 1: 198.51.100.2\n\
         <b>1 ended ban</b>\n\
         npm 1: 198.51.100.3\n\
         disk full"
    );
    let mut events = vec![merged("npm", 500, 7), ban("npm", 1, false)];
    events.extend((0..9).map(|_| fault("x")));
    let told = text(&events, "h", Escape::Plain, 3500);
    assert!(told.contains("\n501 bans\nnpm 501: 198.51.100.1 and 500 more\n"), "{told}");
    assert!(
        told.starts_with("h: 517 events from 1970-01-01T00:00:00Z to ") && told.contains("\n10 other events"),
        "{told}"
    );
}

/// The number a line about other jails, or about one, begins or goes on with.
fn counted(told: &str) -> u64 {
    let bans = told.lines().skip_while(|line| !line.ends_with(" bans")).skip(1);
    bans.map(|line| {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        first.parse::<u64>().unwrap_or_else(|_| words.next().unwrap().trim_end_matches(':').parse().unwrap())
    })
    .sum()
}

#[test]
fn it_stays_within_its_bounds_and_still_counts_all() {
    for (jails, each) in [(1, 1000), (30, 30), (500, 3), (1, 1)] {
        let jail = |n: u32| format!("{n}{}", "&".repeat(60));
        let events: Vec<_> = (0..jails)
            .flat_map(|j| (0..each).map(move |n| ban(&jail(j), n, false)))
            .chain([ban("x", 1, false)])
            .collect();
        for budget in [1000, 1900, 3500] {
            for escape in [Escape::Plain, Escape::Html, Escape::Markdown, Escape::Slack] {
                let told = text(&events, "web1", escape, budget);
                assert!(told.len() <= budget, "{} of {budget}: {told}", told.len());
                if escape == Escape::Plain {
                    assert_eq!(counted(&told), u64::from(jails * each) + 1, "{told}");
                }
            }
        }
    }
}
