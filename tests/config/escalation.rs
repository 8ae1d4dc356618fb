//! What `escalation` means, wherever it stands.

use std::time::Duration;

use stockade::engine::{Escalation, Formula, Growth, Neighbours};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Of the jails `a`, `b`, ... with this in them, under this in the document.
fn escalations(top: &str, jails: &[&str]) -> Vec<Option<Escalation>> {
    let mut text = format!("{top}\njails:\n");
    for (name, jail) in ('a'..).zip(jails) {
        text += &format!("  {name}: {{ filter: npm-404, logpath: /a, {jail} }}\n");
    }
    parse(&text).jails.into_iter().map(|jail| jail.escalation.map(|e| (*e).clone())).collect()
}

fn one(text: &str) -> Escalation {
    escalations("", &[text]).remove(0).unwrap()
}

#[test]
fn nothing_escalates_unless_it_is_said() {
    assert_eq!(escalations("", &[""]), [None]);
    assert_eq!(escalations("escalation: off", &["", "escalation: on"]), [None, Some(Escalation::default())]);
    for top in ["escalation:", "escalation: {}", "escalation: on", "defaults: { escalation: {} }"] {
        assert_eq!(escalations(top, &["", "escalation: off"]), [Some(Escalation::default()), None], "{top}");
    }
}

#[test]
fn every_key_of_it_means_what_it_says() {
    let text = "escalation: { multipliers: [1, 2.5, 30], factor: 0.5, max: 90d, jitter: 34m, across: yes, memory: 30d, \
                decay: 7d, neighbours: { after: 9, within: 2d, ipv6: [48, 60, 48], ipv4: 24 } }";
    let wanted = Escalation {
        growth: Growth::Multipliers([1.0, 2.5, 30.0].into()),
        factor: 0.5,
        max: Some(90 * DAY),
        jitter: Duration::from_secs(34 * 60),
        across: true,
        memory: 30 * DAY,
        decay: Some(7 * DAY),
        neighbours: Some(Neighbours { after: 9, within: 2 * DAY, ipv6: [60, 48].into(), ipv4: Some(24) }),
    };
    assert_eq!(one(text), wanted);
    let text =
        "escalation: { multipliers: '1 2 4', max: none, decay: off, neighbours: { ipv6: off, ipv4: off } }";
    let got = one(text);
    assert_eq!(got.growth, Growth::Multipliers([1.0, 2.0, 4.0].into()));
    assert_eq!((got.max, got.decay), (None, None));
    let got = got.neighbours.unwrap();
    assert_eq!((got.ipv6.len(), got.ipv4), (0, None));
    assert_eq!(one("escalation: { neighbours: off }").neighbours, None);
    assert_eq!(one("escalation: { neighbours: on }"), Escalation::default());
    // The neighbours are remembered no longer than anybody.
    assert_eq!(one("escalation: { memory: 1h }").neighbours.unwrap().within, Duration::from_secs(3600));
}

#[test]
fn fail2bans_formulas_may_be_copied() {
    for formula in [
        "ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor",
        "ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)",
    ] {
        let growth = one(&format!("escalation: {{ formula: '{formula}' }}")).growth;
        assert_eq!(growth, Growth::Formula(Formula::parse(formula).unwrap()));
    }
}

#[test]
fn each_key_goes_by_the_innermost_that_has_it() {
    let top = "escalation: { factor: 2, max: 1d, jitter: 1m, formula: time, neighbours: { after: 7, ipv4: 24 } }\n\
               defaults: { escalation: { max: 2d, neighbours: { after: 8 } } }";
    let got = escalations(
        top,
        &["", "escalation: { factor: 3, multipliers: [1, 2], max: none, neighbours: { ipv4: off } }"],
    );
    let [Some(outer), Some(inner)] = &got[..] else { panic!("{got:?}") };
    assert_eq!((outer.factor, outer.max, outer.jitter), (2.0, Some(2 * DAY), Duration::from_secs(60)));
    assert!(matches!(outer.growth, Growth::Formula(_)));
    assert_eq!((inner.factor, inner.max, inner.jitter), (3.0, None, Duration::from_secs(60)));
    assert!(matches!(inner.growth, Growth::Multipliers(_)), "one takes the place of the other");
    let of = |e: &Escalation| e.neighbours.as_ref().map(|n| (n.after, n.ipv4));
    assert_eq!((of(outer), of(inner)), (Some((8, Some(24))), Some((8, None))));
}

#[test]
fn a_limit_below_the_first_ban_is_doubtful() {
    let text =
        "escalation: { max: 5m }\njails: { npm-404: { logpath: /a }, sshd: { logpath: /a, bantime: 1m } }";
    assert_eq!(
        told(text),
        ["#? 1:20: escalation.max: is shorter than a jail's bantime, so repeaters are banned for less"]
    );
}
