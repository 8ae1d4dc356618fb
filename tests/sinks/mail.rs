//! Mail, against a real server.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use stockade::config::{Config, Shipped};
use stockade::daemon::jails::{Jails, Registry};
use stockade::sinks::event::{Banned, Event, Fault, Leaked, Started, Stopped};
use stockade::sinks::{Context, Sinks};
use stockade::types::Timestamp;

use crate::smtp::{Act, Mail, Manner, Smtp, tls};
use crate::support::{self, banned, net, secret, start, status, tell, until};

const PASSWORD: &str = "s3cret-Pa55/word";
const USER: &str = "agent@example.org";

/// The usual settings for `server`, which needs no password; `more` in flow style.
fn plain(server: &Smtp, more: &str) -> String {
    format!("  mail: {{ to: admin@example.org, server: '{}', encryption: none, {more} }}", server.address)
}

/// The settings for a server that encrypts and wants a password.
fn safe(server: &Smtp, dir: &Path, more: &str) -> String {
    secret(&dir.join("password"), PASSWORD);
    format!(
        "  mail: {{ to: admin@example.org, server: 'localhost:{}', user: {USER}, password_file: {}, ca_file: {}, {more} }}",
        server.address.port(),
        dir.join("password").display(),
        dir.join("ca").display()
    )
}

fn manner(dir: &Path) -> Manner {
    Manner { tls: tls(&dir.join("ca")), login: Some((USER, PASSWORD)), ..Manner::default() }
}

fn mails(server: &Smtp, sinks: &Sinks, wanted: usize) -> Vec<Mail> {
    let told =
        || format!("{} mails, {}\n{:#?}", server.mails().len(), status(sinks, "mail"), server.commands());
    until(told, || server.mails().len() >= wanted && status(sinks, "mail")["queue"] == 0);
    let mails = server.mails();
    assert_eq!(mails.len(), wanted, "{mails:#?}");
    mails
}

fn ban(jail: &str, offender: &str, line: &str) -> Event {
    let Event::Ban(ban) = banned(offender) else { unreachable!() };
    Event::Ban(Banned { jail: jail.to_owned(), line: line.to_owned(), ..ban })
}

fn at() -> Timestamp {
    Timestamp::from_secs(1_795_000_000)
}

#[test]
fn a_digest_is_one_mail_over_starttls() {
    let dir = tempfile::tempdir().unwrap();
    let server = Smtp::start(manner(dir.path()), |_| Act::Usual);
    let mut sinks = start(&safe(&server, dir.path(), "digest: 1s"), dir.path());
    tell(
        &mut sinks,
        Event::Start(Started {
            at: at(),
            version: "0.1.0".to_owned(),
            jails: 3,
            bans: 7,
            backend: "nft".to_owned(),
        }),
    );
    tell(&mut sinks, banned("203.0.113.1"));
    tell(&mut sinks, ban("sshd", "203.0.113.2", "Failed password for root"));
    tell(&mut sinks, banned("203.0.113.1"));
    tell(&mut sinks, banned("2001:db8:1::/64"));
    tell(
        &mut sinks,
        Event::Leak(Leaked {
            at: at(),
            jail: "npm".to_owned(),
            offender: net("203.0.113.1"),
            advice: "over a proxy".to_owned(),
        }),
    );
    tell(&mut sinks, Event::Error(Fault { at: at(), message: "the kernel said no".to_owned() }));
    let mail = mails(&server, &sinks, 1).remove(0);
    assert_eq!((mail.from.as_str(), &mail.to[..]), (USER, &["admin@example.org".to_owned()][..]));
    assert_eq!(mail.header("From"), USER);
    assert_eq!(mail.header("To"), "admin@example.org");
    assert_eq!(mail.header("Subject"), "stockade web1: 4 bans (npm 3, sshd 1), 1 leak, 1 error, started");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert_eq!(mail.header("Content-Type"), "text/plain; charset=utf-8");
    assert!(mail.header("Message-ID").ends_with(".stockade@example.org>"), "{mail:?}");
    assert!(!mail.header("Date").is_empty());
    let body = mail.body();
    let wanted = "stockade on web1, 2026-11-18T11:06:40Z: 4 bans (npm 3, sshd 1), 1 leak, 1 error, started

2026-11-18T11:06:40Z  stockade 0.1.0 enforces 3 jails with nft (7 bans restored)
2026-11-18T11:06:40Z  npm: 203.0.113.1 is banned and comes through: over a proxy
2026-11-18T11:06:40Z  error: the kernel said no

203.0.113.1
  2026-11-18T11:06:40Z  npm: banned 203.0.113.1 for 10m after 5 offenses, ban number 2
  2026-11-18T11:06:40Z  npm: banned 203.0.113.1 for 10m after 5 offenses, ban number 2
  host: shop.example
  sent_to: app:8080
  uri: /wp-login.php?<script>&\"
  user_agent: evil <b>\"agent\"</b> & co
  lines:
  | [21/Nov/2026] GET /wp-login.php <b>\"x\"</b>

203.0.113.2
";
    assert!(body.starts_with(wanted), "{body}");
    assert!(body.contains("\n2001:db8:1::/64\n"), "{body}");
    let commands = server.commands();
    let verbs: Vec<&str> = commands.iter().filter_map(|c| c.split([':', '(']).next()).collect();
    let first = ["EHLO [127.0.0.1]", "STARTTLS", "tls EHLO [127.0.0.1]"];
    assert_eq!(verbs[..3], first, "{commands:?}");
    assert!(commands[3].starts_with("tls AUTH PLAIN "), "{commands:?}");
    assert_eq!(verbs[4..], ["tls MAIL FROM", "tls RCPT TO", "tls DATA", "", "tls QUIT"], "{commands:?}");
}

#[test]
fn without_a_digest_each_event_has_its_own() {
    let server = Smtp::start(Manner::default(), |_| Act::Usual);
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: off, subject: '[f2b] Wärter'"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    tell(&mut sinks, banned("203.0.113.2"));
    let all = mails(&server, &sinks, 2);
    assert_eq!((all[0].from.as_str(), all[0].header("From").as_str()), ("stockade@web1", "stockade@web1"));
    assert_eq!(all[0].header("Subject"), "[f2b] =?utf-8?b?V8OkcnRlcjo=?= npm banned 203.0.113.1");
    assert_ne!(all[0].header("Message-ID"), all[1].header("Message-ID"));
}

#[test]
fn tls_from_the_first_byte_and_login_as_some_want_it() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Smtp::start(Manner { implicit: true, only_login: true, ..manner(dir.path()) }, |_| Act::Usual);
    let mut sinks = start(&safe(&server, dir.path(), "digest: off, encryption: tls"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    mails(&server, &sinks, 1);
    assert!(
        server.commands().iter().all(|c| c.starts_with("tls ") || c.starts_with('(')),
        "{:?}",
        server.commands()
    );
}

/// What `status` says when the server is refused, or refuses; nothing has gone out.
fn refused(server: &Smtp, settings: &str, dir: &Path) -> String {
    let mut sinks = start(settings, dir);
    tell(&mut sinks, banned("203.0.113.1"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["state"] == "refused");
    assert!(server.mails().is_empty());
    let commands = server.commands().join("\n");
    assert!(!commands.contains("MAIL"), "{commands}");
    let text = status(&sinks, "mail").to_string();
    for shown in [PASSWORD, "c3VyZQ", "d3Jvbmc", "AGFnZW50"] {
        assert!(!text.contains(shown), "{text}");
    }
    assert_eq!(status(&sinks, "mail")["queue"], 1);
    status(&sinks, "mail")["last_error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    for only_login in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let login = Some((USER, "another"));
        let server = Smtp::start(Manner { login, only_login, ..manner(dir.path()) }, |_| Act::Usual);
        let said = refused(&server, &safe(&server, dir.path(), "digest: off"), dir.path());
        assert!(said.contains("logging in: 535 5.7.8 wrong") && said.contains("[secret]"), "{said}");
        // The server repeated what it was given, as it was sent.
        let sent = server.commands();
        let encoded =
            sent.iter().filter_map(|c| c.rsplit(' ').next()).filter(|c| c.len() > 15 && !c.contains('.'));
        for encoded in encoded {
            assert!(!said.contains(encoded), "{encoded} in {said}");
        }
    }
}

#[test]
fn without_starttls_nothing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    drop(tls(&dir.path().join("ca")));
    let server = Smtp::start(Manner { tls: None, ..manner(dir.path()) }, |_| Act::Usual);
    let said = refused(&server, &safe(&server, dir.path(), "digest: off"), dir.path());
    assert!(said.contains("offers no STARTTLS"), "{said}");
    assert_eq!(server.commands()[0], "EHLO [127.0.0.1]");
    assert!(!server.commands().iter().any(|c| c.contains("AUTH")), "{:?}", server.commands());
}

#[test]
fn an_unknown_certificate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Smtp::start(manner(dir.path()), |_| Act::Usual);
    // Another authority's.
    drop(tls(&dir.path().join("ca")));
    let said = refused(&server, &safe(&server, dir.path(), "digest: off"), dir.path());
    assert!(said.contains("ca_file"), "{said}");
}

#[test]
fn what_is_put_behind_starttls_is_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let injected =
        "250-mail.example\r\n250 AUTH PLAIN\r\n235 welcome\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued";
    let server = Smtp::start(Manner { injected, ..manner(dir.path()) }, |_| Act::Usual);
    let mut sinks = start(&safe(&server, dir.path(), "digest: off"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["state"] == "failing");
    assert_eq!(server.commands()[..2], ["EHLO [127.0.0.1]", "STARTTLS"], "{:?}", server.commands());
    assert!(
        !server.commands().iter().any(|c| c.contains("AUTH") || c.contains("MAIL")),
        "{:?}",
        server.commands()
    );
}

#[test]
fn nothing_of_a_log_becomes_a_header_or_a_command() {
    let server = Smtp::start(Manner::default(), |_| Act::Usual);
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: 1s"), dir.path());
    let hostile = "x\r\n.\r\nMAIL FROM:<evil@example.com>\r\nBcc: evil@example.com\r\n\r\n\0\u{1b}[2J\u{202e}é😀\u{7f}\u{85}\n.";
    let Event::Ban(ban) = banned("203.0.113.1") else { unreachable!() };
    tell(
        &mut sinks,
        Event::Ban(Banned {
            jail: format!("npm{hostile}"),
            line: format!("{hostile}{}", "é".repeat(900)),
            fields: [
                ("uri".to_owned(), hostile.to_owned()),
                (hostile.to_owned(), ".".to_owned()),
                ("host".to_owned(), "x".repeat(3000)),
            ]
            .into(),
            problem: Some(hostile.to_owned()),
            ..ban
        }),
    );
    tell(&mut sinks, ban_with_line("203.0.113.2", "."));
    tell(&mut sinks, ban_with_line("203.0.113.3", "..From x"));
    tell(&mut sinks, Event::Error(Fault { at: at(), message: hostile.to_owned() }));
    let mail = mails(&server, &sinks, 1).remove(0);
    let names: HashSet<String> = mail.headers().into_iter().map(|(name, _)| name).collect();
    let wanted = [
        "From",
        "To",
        "Message-ID",
        "Date",
        "Subject",
        "Auto-Submitted",
        "Content-Type",
        "Content-Transfer-Encoding",
        "MIME-Version",
    ];
    assert_eq!(names, wanted.map(str::to_owned).into());
    assert_eq!(mail.to, ["admin@example.org"]);
    assert!(mail.headers().iter().all(|(_, value)| !value.contains("evil@") && value.is_ascii()), "{mail:?}");
    let body = mail.body();
    assert!(body.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}')), "{body:?}");
    assert!(body.contains("\n  | .\n") && body.contains("\n  | ..From x\n"), "{body}");
    assert!(body.contains("\\r\\n.\\r\\nMAIL FROM:<evil@example.com>") && body.contains("😀"), "{body}");
    // Only we begin lines.
    let ours = |line: &str| {
        line.is_empty() || line.starts_with(' ') || line.starts_with("20") || line.starts_with("stockade on")
    };
    assert!(body.lines().all(ours), "{body}");
}

fn ban_with_line(offender: &str, line: &str) -> Event {
    ban("npm", offender, line)
}

#[test]
fn sendmail_gets_arguments_and_the_message() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("sendmail");
    let text = format!(
        "#!/bin/sh\nfor a in \"$@\"; do echo \"$a\"; done > {0}/args.new\ncat > {0}/mail\necho \"$(env | sort | cut -d= -f1)\" > {0}/env\nmv {0}/args.new {0}/args\n",
        dir.path().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = format!(
        "  mail: {{ to: [a@example.org, b@example.org], from: me@example.org, sendmail: {}, digest: off }}",
        script.display()
    );
    let mut sinks = start(&settings, dir.path());
    tell(&mut sinks, ban_with_line("203.0.113.1", "a\n.\nb"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["done"] == 1);
    let args = std::fs::read_to_string(dir.path().join("args")).unwrap();
    assert_eq!(args, "-i\n-f\nme@example.org\n--\na@example.org\nb@example.org\n");
    let raw = std::fs::read(dir.path().join("mail")).unwrap();
    let mail = Mail { from: String::new(), to: Vec::new(), raw };
    assert_eq!(mail.header("Subject"), "stockade web1: npm banned 203.0.113.1");
    assert!(mail.body().contains("\n  | a\\n.\\nb\n"), "{}", mail.body());
    let env = std::fs::read_to_string(dir.path().join("env")).unwrap();
    assert!(!env.contains("HOME") && !env.contains("CARGO"), "{env}");
}

#[test]
fn a_sendmail_that_fails_is_tried_again_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("sendmail");
    // Fails at first; and leaves something running that keeps its standard error.
    let text = format!(
        "#!/bin/sh\nif [ ! -e {0}/once ]; then touch {0}/once; echo 'queue is \u{1b}[2J full' >&2; exit 75; fi\ncat > /dev/null\nsleep 600 &\necho x >> {0}/sent\n",
        dir.path().display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = format!("  mail: {{ to: a@example.org, sendmail: {}, digest: off }}", script.display());
    let mut sinks = start(&settings, dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["done"] == 1);
    let said = status(&sinks, "mail")["last_error"]["message"].to_string();
    assert!(said.contains("exit status: 75: queue is") && !said.contains('\u{1b}'), "{said}");
    assert_eq!(std::fs::read_to_string(dir.path().join("sent")).unwrap(), "x\n");
}

#[test]
fn a_sendmail_that_does_not_end_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("sendmail");
    std::fs::write(&script, format!("#!/bin/sh\necho $$ > {}/pid\nexec sleep 600\n", dir.path().display()))
        .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings =
        format!("  mail: {{ to: a@example.org, sendmail: {}, digest: off, timeout: 1s }}", script.display());
    let mut sinks = start(&settings, dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["state"] == "failing");
    let said = status(&sinks, "mail")["last_error"]["message"].to_string();
    assert!(said.contains("was killed"), "{said}");
    drop(sinks);
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    let path = format!("/proc/{}/cmdline", pid.trim());
    until(
        || format!("{pid} runs"),
        || !std::fs::read_to_string(&path).is_ok_and(|line| line.contains("sleep")),
    );
}

#[test]
fn last_words_go_out_at_once() {
    let server = Smtp::start(Manner::default(), |_| Act::Usual);
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: 1d"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    tell(&mut sinks, Event::Stop(Stopped { at: at(), bans: 4, flushed: false }));
    assert!(server.mails().is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let unfinished = runtime.block_on(sinks.end(Duration::from_secs(20), false));
    assert_eq!(unfinished, Vec::<String>::new());
    let all = server.mails();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].header("Subject"), "stockade web1: 1 ban (npm 1), stopped");
    assert!(all[0].body().contains("stockade stopped; 4 bans stay in the kernel"), "{}", all[0].body());
}

#[test]
fn what_fails_at_any_step_is_told_once_later() {
    for step in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        for act in [Act::Say("451 4.7.1 not now"), Act::Say("421 4.3.2 closing"), Act::HangUp] {
            let mut first = Some(act.clone());
            let server =
                Smtp::start(Manner::default(), move |said| match first.take_if(|_| said.starts_with(step)) {
                    Some(act) => act,
                    None => Act::Usual,
                });
            let dir = tempfile::tempdir().unwrap();
            let mut sinks = start(&plain(&server, "digest: off"), dir.path());
            tell(&mut sinks, banned("203.0.113.1"));
            mails(&server, &sinks, 1);
            assert_eq!(server.connections(), 2, "{step} {act:?}: {:?}", server.commands());
            assert!(status(&sinks, "mail")["last_error"]["message"].is_string());
        }
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_for_the_time_being() {
    for step in ["CONNECT", "DATA"] {
        let mut first = true;
        let server = Smtp::start(Manner::default(), move |said| {
            if said.starts_with(step) && std::mem::take(&mut first) {
                return Act::Stall(Duration::from_secs(3600));
            }
            Act::Usual
        });
        let dir = tempfile::tempdir().unwrap();
        let mut sinks = start(&plain(&server, "digest: off, timeout: 1s"), dir.path());
        tell(&mut sinks, banned("203.0.113.1"));
        // Another conversation begins only when the first one is over.
        until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["state"] == "failing");
        let said = status(&sinks, "mail")["last_error"]["message"].to_string();
        assert!(said.contains("no answer within 1 s"), "{said}");
    }
}

#[test]
fn a_mail_after_an_unclear_end_is_the_same_mail() {
    let mut hang_ups = 1;
    let server = Smtp::start(Manner::default(), move |said| {
        if said.starts_with('.') && hang_ups > 0 {
            hang_ups -= 1;
            return Act::TakeAndHangUp;
        }
        Act::Usual
    });
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: 1s"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["state"] == "failing");
    // What comes meanwhile is for the next one.
    tell(&mut sinks, banned("203.0.113.2"));
    let all = mails(&server, &sinks, 3);
    assert_eq!(all[0].header("Message-ID"), all[1].header("Message-ID"));
    assert_eq!(all[0].body(), all[1].body());
    assert_ne!(all[1].header("Message-ID"), all[2].header("Message-ID"));
    assert!(all[2].body().contains("203.0.113.2") && !all[2].body().contains("203.0.113.1"));
}

#[test]
fn each_recipient_gets_it_once() {
    let (mut busy, mut log) = (2, Vec::new());
    let server = Smtp::start(Manner::default(), move |said| {
        log.push(said.to_owned());
        if said.contains("<busy@") && busy > 0 {
            busy -= 1;
            return Act::Say("450 4.2.1 greylisted");
        }
        if said.contains("<gone@") { Act::Say("550 5.1.1 unknown") } else { Act::Usual }
    });
    let dir = tempfile::tempdir().unwrap();
    let settings = plain(&server, "digest: off")
        .replace("admin@example.org", "[gone@example.org, busy@example.org, here@example.org]");
    let mut sinks = start(&settings, dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    let all = mails(&server, &sinks, 2);
    assert_eq!(all[0].to, ["here@example.org"]);
    assert_eq!(all[1].to, ["busy@example.org"]);
    assert_eq!(all[0].header("Message-ID"), all[1].header("Message-ID"));
    assert_eq!(all[0].header("To"), "gone@example.org, busy@example.org, here@example.org");
}

#[test]
fn a_recipient_nobody_knows_is_for_somebody_to_mend() {
    let server = Smtp::start(Manner::default(), |said| {
        if said.starts_with("RCPT") { Act::Say("550 5.1.1 unknown") } else { Act::Usual }
    });
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: off"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["state"] == "refused");
    let said = status(&sinks, "mail")["last_error"]["message"].to_string();
    assert!(said.contains("RCPT TO admin@example.org: 550 5.1.1 unknown"), "{said}");
    assert_eq!(status(&sinks, "mail")["queue"], 1);
}

#[test]
fn a_spam_filter_does_not_keep_a_ban_from_being_told() {
    let server = Smtp::start(Manner::default(), |said| {
        if said.starts_with('.') && said.contains("wp-login") {
            Act::Say("554 5.7.1 spam")
        } else {
            Act::Usual
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: off"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    let mail = mails(&server, &sinks, 1).remove(0);
    assert_eq!(mail.header("Subject"), "stockade web1: npm banned 203.0.113.1");
    assert!(
        mail.body().contains("this one is without them") && mail.body().contains("203.0.113.1"),
        "{}",
        mail.body()
    );
    assert!(!mail.body().contains("shop.example"), "{}", mail.body());
    // One that is refused even so is given up, and the next one is told.
    let mut left = 2;
    let server = Smtp::start(Manner::default(), move |said| {
        if said.starts_with('.') && left > 0 {
            left -= 1;
            return Act::Say("552 5.3.4 too big");
        }
        Act::Usual
    });
    let mut sinks = start(&plain(&server, "digest: off"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    tell(&mut sinks, banned("203.0.113.2"));
    let mail = mails(&server, &sinks, 1).remove(0);
    assert_eq!(mail.header("Subject"), "stockade web1: npm banned 203.0.113.2");
    assert_eq!(status(&sinks, "mail")["lost"], 1);
}

#[test]
fn ten_thousand_bans_while_the_server_is_down_are_a_mail_or_two() {
    for digest in ["1s", "off"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let dir = tempfile::tempdir().unwrap();
        let settings = format!(
            "  mail: {{ to: a@example.org, server: '{address}', encryption: none, digest: {digest}, subject: x }}"
        );
        let mut sinks = start(&settings, dir.path());
        let all = 10_050_u32;
        for n in 0..all {
            let jail = if n % 3 == 0 { "sshd" } else { "npm" };
            let address = std::net::Ipv4Addr::from(0x0500_0000 + n).to_string();
            sinks.tell(ban(jail, &address, "x"), None);
        }
        drop(sinks.to_write(false));
        sinks.release();
        until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["state"] == "failing");
        assert_eq!(status(&sinks, "mail")["queue"], all);
        let server = Smtp::on(TcpListener::bind(address).unwrap(), Manner::default(), |_| Act::Usual);
        until(|| status(&sinks, "mail").to_string(), || status(&sinks, "mail")["queue"] == 0);
        let mails = server.mails();
        assert!(mails.len() <= if digest == "off" { 6 } else { 2 }, "{} mails", mails.len());
        let mut counted = 0;
        for mail in &mails {
            let subject = mail.header("Subject");
            counted += match subject.strip_prefix("x: ").and_then(|s| s.split_once(" ban")) {
                Some((n, _)) => n.parse::<u32>().unwrap_or(1),
                None => panic!("{subject}"),
            };
            assert!(mail.raw.len() < 1 << 20);
        }
        assert_eq!(counted, all);
        let last = mails.last().unwrap().body();
        assert!(last.contains("more offenders, counted above"), "{last}");
    }
}

fn jails(text: &str) -> Jails {
    Jails::new(&Config::parse(text, "f", &Shipped::NONE).unwrap(), &mut Registry::default()).unwrap()
}

#[test]
fn the_offenders_own_lines_are_shown() {
    let server = Smtp::start(Manner::default(), |_| Act::Usual);
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: 1s, lines: 3"), dir.path());
    let log = |name: &str| dir.path().join(name);
    let mut text = String::new();
    for n in 0..50_000 {
        let _ok = writeln!(text, "2026-11-18 10:00:00 good request {n} from 203.0.113.1");
    }
    text.push_str(
        "2026-11-18 10:00:01 BAD <one> from 203.0.113.1\n2026-11-18 10:00:02 BAD <two> from 203.0.113.11\n",
    );
    text.push_str("2026-11-18 10:00:03 BAD <three> from 2001:db8:1:0:0::5\n2026-11-18 10:00:04 BAD <four\u{1b}[2J> from 203.0.113.1\n");
    text.push_str("2026-11-19 10:00:04 BAD <after the ban> from 203.0.113.1\n2026-11-18 10:00:05 BAD <not yet whole> from 203.0.113.1");
    std::fs::write(log("a.log"), text).unwrap();
    std::fs::write(log("a.log.1"), "2026-11-18 09:00:00 BAD <before rotation> from 203.0.113.1\n2026-11-18 08:00:00 BAD <x> from 203.0.113.3\n").unwrap();
    // Where a pipe has taken the place of a log, nobody waits for a writer.
    nix::unistd::mkfifo(&log("b.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(log("other.log"), "2026-11-18 08:00:00 BAD <of another jail> from 203.0.113.1\n").unwrap();
    sinks.set_jails(&jails(&format!(
        "filters: {{ bad: {{ failregex: 'BAD \\S+.* from <HOST>$', timezone: UTC }} }}\njails:\n  npm: {{ filter: bad, logpath: ['{0}/a.log', '{0}/b.log'] }}\n  other: {{ filter: bad, logpath: '{0}/other.log' }}\n",
        dir.path().display()
    )));
    for offender in ["203.0.113.1", "2001:db8:1::/64", "203.0.113.2"] {
        tell(&mut sinks, ban_with_line(offender, "the deciding one"));
    }
    let body = mails(&server, &sinks, 1).remove(0).body();
    let block = |offender: &str| -> Vec<String> {
        let begin = body.find(&format!("\n{offender}\n")).unwrap_or_else(|| panic!("{body}"));
        let rest = &body[begin + 1..];
        let text = rest.split("\n\n").next().unwrap();
        text.lines().filter_map(|line| line.strip_prefix("  | ")).map(str::to_owned).collect()
    };
    assert_eq!(
        block("203.0.113.1"),
        [
            "2026-11-18 09:00:00 BAD <before rotation> from 203.0.113.1",
            "2026-11-18 10:00:01 BAD <one> from 203.0.113.1",
            "2026-11-18 10:00:04 BAD <four\\u{1b}[2J> from 203.0.113.1",
            "the deciding one",
        ]
    );
    assert_eq!(
        block("2001:db8:1::/64"),
        ["2026-11-18 10:00:03 BAD <three> from 2001:db8:1:0:0::5", "the deciding one"]
    );
    assert_eq!(block("203.0.113.2"), ["the deciding one"]);
}

#[test]
fn no_lines_if_none_are_wanted() {
    let server = Smtp::start(Manner::default(), |_| Act::Usual);
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = start(&plain(&server, "digest: off, lines: 0"), dir.path());
    tell(&mut sinks, banned("203.0.113.1"));
    let body = mails(&server, &sinks, 1).remove(0).body();
    assert!(body.contains("shop.example") && !body.contains("lines:") && !body.contains("  | "), "{body}");
}

fn checked(settings: &str) -> Vec<(bool, String)> {
    let config = support::config(settings);
    let context = Context { host: "web1".to_owned(), ..Context::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = runtime.block_on(stockade::sinks::check(&config.sinks[0], &context));
    all.into_iter().map(|c| (c.good, c.text)).collect()
}

#[test]
fn check_tries_everything_and_sends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Smtp::start(manner(dir.path()), |said| {
        if said.contains("<gone@") { Act::Say("550 5.1.1 unknown") } else { Act::Usual }
    });
    let settings = safe(&server, dir.path(), "digest: off");
    let (good, text) = checked(&settings).remove(0);
    assert!(good, "{text}");
    assert!(
        text.ends_with(
            "takes user and password, and takes mail from agent@example.org to 1 recipient; nothing was sent"
        ),
        "{text}"
    );
    assert!(server.mails().is_empty());
    let commands = server.commands();
    assert_eq!(commands[commands.len() - 2..], ["tls RSET", "tls QUIT"], "{commands:?}");
    assert!(!commands.iter().any(|c| c.contains("DATA")), "{commands:?}");
    let (good, text) = checked(&settings.replace("admin@", "gone@")).remove(0);
    assert!(!good && text.contains("does not take mail to gone@example.org: 550 5.1.1 unknown"), "{text}");
    secret(&dir.path().join("password"), "another");
    let config = support::config(&settings);
    std::fs::write(dir.path().join("password"), "another").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let all = runtime.block_on(stockade::sinks::check(&config.sinks[0], &Context::default()));
    assert!(!all[0].good && all[0].text.contains("logging in: 535"), "{all:?}");
    assert!(!all[0].text.contains("another"), "{all:?}");
    let (good, text) = checked("  mail: { to: a@example.org, sendmail: /nonexistent/sendmail }").remove(0);
    assert!(!good && text.contains("/nonexistent/sendmail cannot be run: No such file"), "{text}");
    let (good, text) = checked("  mail: { to: a@example.org, sendmail: /bin/true }").remove(0);
    assert!(good, "{text}");
    let (good, text) = checked("  mail: { to: a@example.org, sendmail: /etc/passwd }").remove(0);
    assert!(!good && text.contains("cannot be run"), "{text}");
}
