//! How fast lines are judged, format by format.
//!
//! `cargo bench --bench filter`. Nine of ten lines are harmless, as in the log of a host under a steady trickle of
//! probes; the lines are different, so that branches are not learnt by heart.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use jiff::tz::TimeZone;
use stockade::filter::definition::Definition;
use stockade::filter::{Filter, Matcher, Trust, builtin};
use stockade::types::{JailId, Timestamp};

const LINES: usize = 20_000;

const NOW: Timestamp = Timestamp::from_secs(1_735_862_400);

const UA: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";

fn main() {
    let mut c = Criterion::default()
        .configure_from_args()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (name, filter, line) in [
        ("npm", "npm-forceful-browsing", npm as fn(&mut Dice) -> String),
        ("npm_error", "npm-forbidden", npm_error),
        ("combined", "nginx-forceful-browsing", combined),
        ("traefik_json", "traefik-forceful-browsing", traefik_json),
        ("traefik_clf", "traefik-forceful-browsing", traefik_clf),
        ("sshd", "sshd", sshd),
    ] {
        run(&mut c, name, &[shipped(filter)], line);
    }
    let jails = ["npm-forceful-browsing", "npm-404", "npm-403"].map(shipped);
    run(&mut c, "npm_three_jails", &jails, npm);
    run(&mut c, "regex_one", &[regexes(1)], sshd);
    run(&mut c, "regex_many", &[regexes(32)], sshd);
    c.final_summary();
}

fn run(c: &mut Criterion, name: &str, filters: &[Arc<Filter>], line: fn(&mut Dice) -> String) {
    let mut dice = Dice(7);
    let lines: Vec<String> = (0..LINES).map(|_| line(&mut dice)).collect();
    let trust =
        Arc::new(Trust::new(["10.0.0.0/8", "172.16.0.0/12"].map(|n| n.parse().expect("a network")).into()));
    let jails = filters.iter().map(|f| (JailId(0), Arc::clone(f), Arc::clone(&trust)));
    let mut matcher = Matcher::new(jails.collect());
    let mut group = c.benchmark_group("filter");
    group.throughput(Throughput::Elements(LINES as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            for line in &lines {
                matcher.line(black_box(line.as_bytes()), NOW, |hit| {
                    black_box(hit);
                });
            }
        });
    });
    group.finish();
    // A format that judges nothing would be the fastest. (Nothing was judged if the bench was not asked for.)
    let counts = matcher.counts();
    assert!(
        counts.lines == 0 || counts.matched * 20 > counts.lines && counts.matched * 5 < counts.lines,
        "{name}: {counts:?}"
    );
}

fn shipped(name: &str) -> Arc<Filter> {
    let text = builtin::text(name).expect("shipped");
    let definition = stockade::config::filter::definition(text, name).expect("readable");
    Arc::new(Filter::compile(name, &definition, &TimeZone::UTC).expect("compiles"))
}

fn regexes(n: usize) -> Arc<Filter> {
    let mut failregex: Vec<String> = (1..n)
        .map(|n| format!(r"app{n}\[\d+\]: login failure for <F-USER>\S+</F-USER> from <HOST>$"))
        .collect();
    failregex.push(
        r"sshd\[\d+\]: Failed password for (?:invalid user )?<F-USER>.*</F-USER> from <HOST> port \d+ ssh2$"
            .into(),
    );
    let definition = Definition { failregex, ..Definition::default() };
    Arc::new(Filter::compile("regex", &definition, &TimeZone::UTC).expect("compiles"))
}

fn npm(d: &mut Dice) -> String {
    let (status, path, ip, clock) = (d.status(), d.path(), d.ip(), d.clock());
    let length = d.below(60_000);
    format!(
        "[02/Jan/2025:{clock} +0000] - {status} {status} - GET https cloud.example.org \"{path}\" [Client {ip}] [Length {length}] [Gzip -] [Sent-to ct-nextcloud] \"{UA}\" \"https://cloud.example.org/\""
    )
}

fn npm_error(d: &mut Dice) -> String {
    let (path, ip, clock, n) = (d.path(), d.ip(), d.clock(), d.below(99_999));
    let message = if d.below(10) == 0 {
        "access forbidden by rule".to_owned()
    } else {
        format!("a client request body is buffered to a temporary file /tmp/nginx/body/{n:010}")
    };
    format!(
        "2025/01/02 {clock} [error] 254#254: *{n} {message}, client: {ip}, server: cloud.example.org, request: \"GET {path} HTTP/2.0\", host: \"cloud.example.org\""
    )
}

fn combined(d: &mut Dice) -> String {
    let (status, path, ip, clock) = (d.status(), d.path(), d.ip(), d.clock());
    format!("{ip} - - [02/Jan/2025:{clock} +0000] \"GET {path} HTTP/1.1\" {status} 5123 \"-\" \"{UA}\"")
}

fn traefik_json(d: &mut Dice) -> String {
    let (status, path, ip, clock, n) = (d.status(), d.path(), d.ip(), d.clock(), d.below(99_999));
    format!(
        "{{\"ClientAddr\":\"{ip}:{n}\",\"ClientHost\":\"{ip}\",\"ClientPort\":\"{n}\",\"ClientUsername\":\"-\",\"DownstreamContentSize\":{n},\"DownstreamStatus\":{status},\"Duration\":{n},\"OriginContentSize\":{n},\"OriginDuration\":{n},\"OriginStatus\":{status},\"Overhead\":5000,\"RequestAddr\":\"cloud.example.org\",\"RequestContentSize\":0,\"RequestCount\":{n},\"RequestHost\":\"cloud.example.org\",\"RequestMethod\":\"GET\",\"RequestPath\":\"{path}\",\"RequestPort\":\"-\",\"RequestProtocol\":\"HTTP/2.0\",\"RequestScheme\":\"https\",\"RetryAttempts\":0,\"RouterName\":\"cloud@docker\",\"ServiceAddr\":\"172.18.0.7:80\",\"ServiceName\":\"cloud@docker\",\"ServiceURL\":\"http://172.18.0.7:80\",\"StartLocal\":\"2025-01-02T{clock}Z\",\"StartUTC\":\"2025-01-02T{clock}Z\",\"TLSCipher\":\"TLS_AES_128_GCM_SHA256\",\"TLSVersion\":\"1.3\",\"entryPointName\":\"websecure\",\"level\":\"info\",\"msg\":\"\",\"request_User-Agent\":\"{UA}\",\"time\":\"2025-01-02T{clock}Z\"}}"
    )
}

fn traefik_clf(d: &mut Dice) -> String {
    let (status, path, ip, clock, n) = (d.status(), d.path(), d.ip(), d.clock(), d.below(99_999));
    format!(
        "{ip} - - [02/Jan/2025:{clock} +0000] \"GET {path} HTTP/2.0\" {status} {n} \"-\" \"{UA}\" {n} \"cloud@docker\" \"http://172.18.0.7:80\" 12ms"
    )
}

fn sshd(d: &mut Dice) -> String {
    let (ip, clock, n) = (d.ip(), d.clock(), d.below(60_000));
    match d.below(10) {
        0 => format!("Jan  2 {clock} web1 sshd[{n}]: Failed password for root from {ip} port {n} ssh2"),
        1..4 => format!(
            "Jan  2 {clock} web1 sshd[{n}]: Accepted publickey for alice from {ip} port {n} ssh2: ED25519 SHA256:7YzX0p1m3o8cQk2uJ9bTnV5dRf4sLhWgEaKiPqMxN6A"
        ),
        _ => format!(
            "Jan  2 {clock} web1 CRON[{n}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)"
        ),
    }
}

/// A small generator of numbers, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn status(&mut self) -> u16 {
        match self.below(10) {
            0 => [404, 401, 403][self.below(3) as usize],
            n => [200, 304, 302, 206, 500][n as usize % 5],
        }
    }

    fn path(&mut self) -> &'static str {
        [
            "/wp-login.php",
            "/.env",
            "/api/v1/status",
            "/photos/timeline?from=2024-11-01&to=2024-12-01",
            "/actuator/health",
            "/login",
            "/",
        ][self.below(7) as usize]
    }

    fn ip(&mut self) -> String {
        let n = self.below(1 << 32);
        if n.is_multiple_of(5) {
            format!("2001:db8:{:x}::{:x}", n & 0xffff, n >> 20)
        } else {
            format!("203.{}.{}.{}", n & 255, n >> 8 & 255, n >> 16 & 255)
        }
    }

    fn clock(&mut self) -> String {
        format!("{:02}:{:02}:{:02}", self.below(24), self.below(60), self.below(60))
    }
}
