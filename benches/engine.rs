//! How fast the engine counts, and what it costs to remember.
//!
//! `cargo bench --bench engine`. Memory is the resident set before and after, on Linux.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use ipnet::IpNet;
use stockade::config::names::{CLOUDFLARE, LOOPBACK, PRIVATE};
use stockade::engine::{Allowlist, Engine, Limits, Policy, Verdict};
use stockade::types::{Ban, BanTime, EVIDENCE_CAP, JailId, Offense, Timestamp};

const JAIL: JailId = JailId(0);
const LINE: &[u8] =
    b"[20/Nov/2026:10:15:01 +0000] - 404 404 - GET https example.org \"/wp-login.php\" [Client 203.0.113.7]";

/// Set in a process that measures memory: of what.
const MEASURE: &str = "STOCKADE_BENCH_MEASURE";

fn main() -> std::io::Result<()> {
    if let Ok(what) = std::env::var(MEASURE) {
        measure(&what);
        return Ok(());
    }
    memory()?;
    let mut c = Criterion::default().configure_from_args().sample_size(20);
    repeaters(&mut c);
    backwards(&mut c);
    flood(&mut c);
    bans(&mut c);
    c.final_summary();
    Ok(())
}

fn start() -> Timestamp {
    Timestamp::from_secs(1_800_000_000)
}

fn policy() -> Policy {
    Policy {
        maxretry: 15,
        findtime: Duration::from_secs(60),
        bantime: BanTime::For(Duration::from_secs(600)),
        ..Policy::default()
    }
}

/// What the shipped names `loopback`, `private` and `cloudflare` amount to, and a few hosts.
fn allowlist() -> Allowlist {
    let hosts = ["198.51.100.7/32", "2001:db8:ffff::1/128"];
    let nets = LOOPBACK.iter().chain(&PRIVATE).chain(&CLOUDFLARE).chain(&hosts);
    nets.filter_map(|s| s.parse::<IpNet>().ok()).collect()
}

fn engine(policy: Policy) -> Engine {
    let mut e = Engine::new(Limits::default());
    e.set_jail(JAIL, policy, start());
    e.set_allowlist(allowlist(), start());
    e
}

/// Distinct and scattered, outside the allowlist; every tenth is IPv6 where `six`.
fn address(n: u32, six: bool) -> IpAddr {
    let scattered = n.wrapping_mul(2_654_435_761);
    if six && n.is_multiple_of(10) {
        return Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(scattered) << 64 | 1).into();
    }
    Ipv4Addr::from_bits(0x2000_0000 | scattered >> 4).into()
}

fn offense(offender: IpAddr, at: Timestamp) -> Offense<'static> {
    Offense { jail: JAIL, offender, at, line: LINE }
}

fn drain(e: &mut Engine) -> usize {
    std::iter::from_fn(|| e.poll_decision()).count()
}

fn later(t: Timestamp, ms: u64) -> Timestamp {
    t.saturating_add(Duration::from_millis(ms))
}

/// 500 offenders in turn, ten offenses a millisecond: each is banned at its fifteenth, then goes on for the time of its
/// ban, so most offenses are of banned ones. And again with a limit that nobody reaches: all are counted.
fn repeaters(c: &mut Criterion) {
    let who: Vec<IpAddr> = (0..500).map(|n| address(n, true)).collect();
    let mut group = c.benchmark_group("500 repeat offenders");
    const N: u32 = 100_000;
    group.throughput(Throughput::Elements(N.into()));
    for (name, policy) in [
        ("banned at the 15th", policy()),
        ("never banned, maxretry 15", Policy { findtime: Duration::from_millis(600), ..policy() }),
        (
            "never banned, maxretry 10000",
            Policy { maxretry: 10_000, findtime: Duration::from_secs(60), ..policy() },
        ),
    ] {
        let mut e = engine(policy);
        let mut now = start();
        group.bench_function(name, |b| {
            b.iter(|| {
                for (n, who) in (0..N).zip(who.iter().cycle()) {
                    now = later(now, u64::from(n.is_multiple_of(10)));
                    black_box(e.offense(offense(*who, now), now));
                    while e.poll_decision().is_some() {}
                }
            });
        });
    }
    group.finish();
}

/// Two logs an hour apart, line by line in turn: every window is out of order.
fn backwards(c: &mut Criterion) {
    let who: Vec<IpAddr> = (0..500).map(|n| address(n, true)).collect();
    let mut group = c.benchmark_group("two clocks");
    const N: u32 = 100_000;
    group.throughput(Throughput::Elements(N.into()));
    let mut e = engine(Policy { findtime: Duration::from_millis(600), ..policy() });
    let mut now = start();
    group.bench_function("never banned, maxretry 15", |b| {
        b.iter(|| {
            for (n, who) in (0..N).zip(who.iter().cycle()) {
                now = later(now, u64::from(n.is_multiple_of(10)));
                let late = Duration::from_secs(if n / 500 % 2 == 0 { 3600 } else { 0 });
                black_box(e.offense(offense(*who, now.saturating_sub(late)), now));
            }
        });
    });
    group.finish();
}

/// Each offense of another address: almost every one makes the engine forget somebody.
fn flood(c: &mut Criterion) {
    let mut group = c.benchmark_group("flood");
    const N: u32 = 1_000_000;
    group.throughput(Throughput::Elements(N.into())).sample_size(10);
    group.bench_function("1 M distinct addresses", |b| {
        b.iter_batched_ref(|| engine(policy()), |e| distinct(e, N), BatchSize::PerIteration);
    });
    group.finish();
}

fn distinct(e: &mut Engine, n: u32) {
    for n in 0..n {
        let now = later(start(), u64::from(n / 17));
        black_box(e.offense(offense(address(n, true), now), now));
    }
}

fn ban(n: u32, evidence: usize) -> Ban {
    Ban {
        jail: JAIL,
        offender: address(n, true).into(),
        since: start(),
        until: Some(later(start(), u64::from(n.wrapping_mul(40_503) % 600_000 + 1))),
        offenses: 15,
        evidence: vec![b'x'; evidence].into(),
        forced: false,
    }
}

fn bans(c: &mut Criterion) {
    const N: u32 = 100_000;
    let mut group = c.benchmark_group("100k bans");
    group.throughput(Throughput::Elements(N.into())).sample_size(10);
    let adopted = || {
        let mut e = engine(policy());
        for n in 0..N {
            e.adopt(ban(n, LINE.len()));
        }
        e
    };
    group.bench_function("adopt", |b| b.iter(adopted));
    group.bench_function("expire, all at once", |b| {
        b.iter_batched_ref(
            adopted,
            |e| {
                e.timeout(later(start(), 600_001));
                drain(e)
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("decide, maxretry 1", |b| {
        b.iter_batched_ref(
            || engine(Policy { maxretry: 1, ..policy() }),
            |e| {
                for n in 0..N {
                    assert_eq!(e.offense(offense(address(n, true), start()), start()), Verdict::Banned);
                    black_box(e.poll_decision());
                }
            },
            BatchSize::PerIteration,
        );
    });
    let mut e = adopted();
    group.bench_function("offenses of others beside them", |b| {
        b.iter(|| {
            for n in 0..N {
                black_box(e.offense(offense(address(N + n % 500, true), start()), start()));
            }
        });
    });
    group.finish();
}

/// Kilobytes in memory, as Linux says.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// What memory is measured of; each in a process of its own, because what one frees the next would use.
const MEASURED: [&str; 6] = [
    "1 M distinct offenders, 200,000 tracked",
    "200,000 offenders with 3 offenses each",
    "200,000 offenders with 14 offenses each",
    "100,000 bans without evidence",
    "100,000 bans with a line as evidence",
    "100,000 bans with all the evidence there may be",
];

fn memory() -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    for what in MEASURED {
        Command::new(&program).env(MEASURE, what).status()?;
    }
    Ok(())
}

fn measure(what: &str) {
    let (before, begun) = (resident(), Instant::now());
    let mut e = engine(policy());
    let mut offend = |addresses: u32, rounds: u64| {
        for round in 0..rounds {
            for n in 0..addresses {
                let now = later(start(), round * 2000 + u64::from(n / 200));
                black_box(e.offense(offense(address(n, true), now), now));
            }
        }
    };
    match MEASURED.iter().position(|m| *m == what) {
        Some(0) => offend(1_000_000, 1),
        Some(1) => offend(200_000, 3),
        Some(2) => offend(200_000, 14),
        which => {
            let evidence = [0, LINE.len(), EVIDENCE_CAP].get(which.unwrap_or(3) - 3).copied().unwrap_or(0);
            for n in 0..100_000 {
                e.adopt(ban(n, evidence));
            }
        }
    }
    let took = begun.elapsed().as_millis();
    let used = resident().saturating_sub(before);
    let each = u64::try_from(e.tracked().max(e.bans().count()).max(1)).unwrap_or(u64::MAX);
    println!("{what}: {:.1} MB, {} B each, in {took} ms", used as f64 / 1024.0, used * 1024 / each);
}
