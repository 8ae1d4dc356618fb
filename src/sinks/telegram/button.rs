//! The Unban button: presses come by long polling, and are honoured from the configured chat and users only.

mod order;
mod poller;

use ipnet::IpNet;
use serde_json::{Value, json};

pub(super) use self::poller::Poller;
use super::super::event::Event;
use crate::daemon::shown;

/// Another kind of button would begin otherwise. With the host and the longest network that is 55 bytes; Telegram takes 64.
const PREFIX: &str = "u1:";

/// The button under a message about `event`, if there is anything to unban.
pub(super) fn keyboard(event: &Event, host: &str) -> Option<Value> {
    match event {
        Event::Ban(ban) if !ban.observed => {
            let data = data(ban.offender, host);
            let text = format!("Unban {}", shown(ban.offender));
            Some(json!({ "inline_keyboard": [[{ "text": text, "callback_data": data }]] }))
        }
        _ => None,
    }
}

fn data(offender: IpNet, host: &str) -> String {
    format!("{PREFIX}{}:{offender}", tag(host))
}

/// What tells this host's messages from those of others that share a bot.
fn tag(host: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, host.as_bytes());
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Whom a press is about, if what it carries is exactly what we wrote. It comes from the client of whoever presses.
fn offender(text: &str, host: &str) -> Option<IpNet> {
    let net = text.strip_prefix(PREFIX)?.strip_prefix(&tag(host))?.strip_prefix(':')?;
    let offender: IpNet = net.parse().ok()?;
    (data(offender, host) == text && offender.trunc() == offender).then_some(offender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_press_carries_fits_and_is_read_back() {
        for net in
            ["192.0.2.1/32", "2001:db8:1111:2222:3333:4444:5555:6666/128", "2001:db8::/64", "10.0.0.0/8"]
        {
            let net: IpNet = net.parse().unwrap();
            let text = data(net, "web1");
            assert!(text.len() <= 64, "{text}");
            assert_eq!(offender(&text, "web1"), Some(net));
            assert_eq!(offender(&text, "web2"), None, "another host's");
        }
    }

    #[test]
    fn what_we_did_not_write_is_not_read() {
        let good = data("192.0.2.0/24".parse().unwrap(), "h");
        assert!(offender(&good, "h").is_some());
        for text in [
            "",
            "u1:",
            "unban",
            &good.replace("192.0.2.0/24", "192.0.2.1/24"),
            &good.replace("192.0.2.0/24", "0/0"),
            &good.replace("192.0.2.0/24", "all"),
            &good.replace("192.0.2.0/24", "192.0.2.0"),
            &format!("{good} "),
            &format!("{good}\n"),
            &good.replace("/24", "/024"),
            &good.replace("u1", "u2"),
        ] {
            assert_eq!(offender(text, "h"), None, "{text:?}");
        }
    }
}
