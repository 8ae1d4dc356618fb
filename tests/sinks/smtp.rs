//! A real mail server, as RFC 5321 and its extensions say, and with faults at any step.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the server is like.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// With what it encrypts.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// From the first byte; otherwise STARTTLS is offered.
    pub(crate) implicit: bool,
    /// Who must log in, and with what.
    pub(crate) login: Option<(&'static str, &'static str)>,
    /// Only LOGIN, as some do.
    pub(crate) only_login: bool,
    /// What stands in the same packet behind the answer to STARTTLS.
    pub(crate) injected: &'static str,
}

/// What it does at a step instead of the usual.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Usual,
    /// This answer; after 421 it hangs up.
    Say(&'static str),
    HangUp,
    /// Takes the message, and hangs up before it says so.
    TakeAndHangUp,
    Stall(Duration),
}

/// What it was given.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// As it came, without the dots that were stuffed.
    pub(crate) raw: Vec<u8>,
}

impl Mail {
    fn parts(&self) -> (String, String) {
        let text = String::from_utf8(self.raw.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.replace("\r\n ", " "), body.to_owned())
    }

    /// Headers as they stand, unfolded.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let head = self.parts().0;
        let split = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            (name.to_owned(), value.to_owned())
        };
        head.split("\r\n").map(split).collect()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let all = self.headers();
        let found: Vec<_> = all.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).collect();
        assert_eq!(found.len(), 1, "{name} in {all:?}");
        found[0].1.clone()
    }

    /// The body, decoded, with `\n`.
    pub(crate) fn body(&self) -> String {
        assert_eq!(self.header("Content-Transfer-Encoding"), "quoted-printable");
        let text = self.parts().1.replace("=\r\n", "");
        let bytes = text.as_bytes();
        let (mut out, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            if bytes[at] == b'=' {
                out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
                at += 3;
            } else {
                out.push(bytes[at]);
                at += 1;
            }
        }
        String::from_utf8(out).unwrap().replace("\r\n", "\n")
    }
}

#[derive(Default)]
struct Seen {
    commands: Vec<String>,
    mails: Vec<Mail>,
    faults: Vec<String>,
    connections: usize,
}

/// A running server; it ends with the test's process.
#[derive(Clone)]
pub(crate) struct Smtp {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

type Acts = Arc<Mutex<dyn FnMut(&str) -> Act + Send>>;

impl Smtp {
    /// `act` is asked at each step: `CONNECT`, a command line in capitals as far as its verb goes, `.` for the end of a message.
    pub(crate) fn start(manner: Manner, act: impl FnMut(&str) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, manner, act)
    }

    pub(crate) fn on(
        listener: TcpListener,
        manner: Manner,
        act: impl FnMut(&str) -> Act + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let act: Acts = Arc::new(Mutex::new(act));
        let server = Self { address, seen: Arc::clone(&seen) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (manner, act, seen) = (manner.clone(), Arc::clone(&act), Arc::clone(&seen));
                seen.lock().unwrap().connections += 1;
                std::thread::spawn(move || {
                    drop(Talk::begin(stream, manner, act, seen).and_then(|mut t| t.talk()));
                });
            }
        });
        server
    }

    pub(crate) fn mails(&self) -> Vec<Mail> {
        let seen = self.seen.lock().unwrap();
        assert!(seen.faults.is_empty(), "{:?}", seen.faults);
        seen.mails.clone()
    }

    /// What was said to it, each with `tls ` in front if nobody could read along.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.seen.lock().unwrap().commands.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

enum Way {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Read for Way {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(s) => s.read(to),
            Self::Tls(s) => s.read(to),
        }
    }
}

impl Write for Way {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(s) => s.write(bytes),
            Self::Tls(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(s) => s.flush(),
            Self::Tls(s) => s.flush(),
        }
    }
}

struct Talk {
    way: Option<BufReader<Way>>,
    manner: Manner,
    act: Acts,
    seen: Arc<Mutex<Seen>>,
    encrypted: bool,
    known: bool,
    from: Option<String>,
    to: Vec<String>,
}

fn gone() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

impl Talk {
    fn begin(stream: TcpStream, manner: Manner, act: Acts, seen: Arc<Mutex<Seen>>) -> std::io::Result<Self> {
        let encrypted = manner.implicit;
        let way = match (&manner.tls, encrypted) {
            (Some(tls), true) => {
                let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                Way::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
            _ => Way::Plain(stream),
        };
        let way = Some(BufReader::new(way));
        Ok(Self { way, manner, act, seen, encrypted, known: false, from: None, to: Vec::new() })
    }

    fn fault(&self, text: String) {
        self.seen.lock().unwrap().faults.push(text);
    }

    fn say(&mut self, text: &str) -> std::io::Result<()> {
        // Nobody was told that commands may come before they are answered (RFC 2920).
        if !self.way.as_ref().unwrap().buffer().is_empty() {
            self.fault(format!("said before {text:?} was answered"));
        }
        let to = self.way.as_mut().unwrap().get_mut();
        to.write_all(text.as_bytes())?;
        to.write_all(b"\r\n")?;
        to.flush()
    }

    /// The usual answer to a step, or what the test wants; whether it was the usual.
    fn answer(&mut self, step: &str, usual: &str) -> std::io::Result<bool> {
        let act = (self.act.lock().unwrap())(step);
        match act {
            Act::Usual => {
                self.say(usual)?;
                Ok(true)
            }
            Act::Say(text) => {
                self.say(text)?;
                if text.starts_with("421") { Err(gone()) } else { Ok(false) }
            }
            // There is nothing to take but at a message's end.
            Act::HangUp | Act::TakeAndHangUp => Err(gone()),
            Act::Stall(time) => {
                std::thread::sleep(time);
                Err(gone())
            }
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        self.way.as_mut().unwrap().read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\r\n") else {
            if !line.is_empty() {
                self.fault(format!("a line without CRLF: {line:?}"));
            }
            return Err(gone());
        };
        let bad = |b: &u8| !(*b == b' ' || b.is_ascii_graphic());
        if text.iter().any(bad) || text.len() > 510 {
            self.fault(format!("no command: {text:?}"));
        }
        let text = String::from_utf8_lossy(text).into_owned();
        let tls = if self.encrypted { "tls " } else { "" };
        self.seen.lock().unwrap().commands.push(format!("{tls}{text}"));
        Ok(text)
    }

    fn talk(&mut self) -> std::io::Result<()> {
        self.answer("CONNECT", "220 mail.example ESMTP")?;
        loop {
            let line = self.line()?;
            let verb = line.split([' ', ':']).next().unwrap().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    let mut lines = vec!["mail.example"];
                    if self.manner.tls.is_some() && !self.encrypted {
                        lines.push("STARTTLS");
                    }
                    if self.manner.login.is_some() {
                        lines.push(if self.manner.only_login { "AUTH LOGIN" } else { "AUTH PLAIN LOGIN" });
                    }
                    lines.push("SIZE 10000000");
                    let last = lines.len() - 1;
                    let text: Vec<String> = lines
                        .iter()
                        .enumerate()
                        .map(|(n, line)| format!("250{}{line}", if n == last { ' ' } else { '-' }))
                        .collect();
                    self.answer(&line, &text.join("\r\n"))?;
                }
                "STARTTLS" => {
                    let usual = match self.manner.injected {
                        "" => "220 go ahead".to_owned(),
                        more => format!("220 go ahead\r\n{more}"),
                    };
                    if self.answer(&line, &usual)? {
                        self.starttls()?;
                    }
                }
                "AUTH" => self.auth(&line)?,
                "MAIL" if self.manner.login.is_some() && !self.known => {
                    self.say("530 5.7.0 authentication required")?;
                }
                "MAIL" => {
                    if self.answer(&line, "250 ok")? {
                        self.from = Some(path(&line));
                        self.to.clear();
                    }
                }
                "RCPT" if self.from.is_none() => self.say("503 MAIL first")?,
                "RCPT" => {
                    if self.answer(&line, "250 ok")? {
                        self.to.push(path(&line));
                    }
                }
                "DATA" if self.to.is_empty() => self.say("554 no valid recipients")?,
                "DATA" => {
                    if self.answer(&line, "354 end with a dot")? {
                        let raw = self.data()?;
                        self.seen.lock().unwrap().commands.push(format!("({} bytes)", raw.len()));
                        // What is asked for the message sees its text.
                        let act = (self.act.lock().unwrap())(&format!(". {}", String::from_utf8_lossy(&raw)));
                        match act {
                            Act::Usual => {
                                self.take(raw);
                                self.say("250 queued")?;
                            }
                            Act::TakeAndHangUp => {
                                self.take(raw);
                                return Err(gone());
                            }
                            Act::Say(text) => self.say(text)?,
                            Act::HangUp => return Err(gone()),
                            Act::Stall(time) => {
                                std::thread::sleep(time);
                                return Err(gone());
                            }
                        }
                    }
                }
                "RSET" => {
                    self.from = None;
                    self.to.clear();
                    self.answer(&line, "250 ok")?;
                }
                "NOOP" => self.say("250 ok")?,
                "QUIT" => {
                    self.answer(&line, "221 bye")?;
                    return Ok(());
                }
                _ => {
                    self.fault(format!("no command of ours: {line:?}"));
                    self.say("500 what?")?;
                }
            }
        }
    }

    fn take(&mut self, raw: Vec<u8>) {
        let mail = Mail { from: self.from.take().unwrap(), to: std::mem::take(&mut self.to), raw };
        self.seen.lock().unwrap().mails.push(mail);
    }

    fn starttls(&mut self) -> std::io::Result<()> {
        let Some(Way::Plain(stream)) = self.way.take().map(BufReader::into_inner) else { return Err(gone()) };
        let connection = ServerConnection::new(Arc::clone(self.manner.tls.as_ref().unwrap())).unwrap();
        self.way = Some(BufReader::new(Way::Tls(Box::new(StreamOwned::new(connection, stream)))));
        self.encrypted = true;
        Ok(())
    }

    fn auth(&mut self, line: &str) -> std::io::Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let (user, password) = match words[1..] {
            ["PLAIN", initial] => {
                let text = unbase64(initial);
                let mut parts = text.split('\0').skip(1).map(str::to_owned);
                (parts.next().unwrap(), parts.next().unwrap())
            }
            ["LOGIN"] => {
                self.say("334 VXNlcm5hbWU6")?;
                let user = unbase64(&self.line()?);
                self.say("334 UGFzc3dvcmQ6")?;
                (user, unbase64(&self.line()?))
            }
            _ => return self.say("504 what?"),
        };
        if self.manner.login == Some((user.as_str(), password.as_str())) {
            self.known = self.answer(line, "235 welcome")?;
        } else {
            // As badly behaved as can be: it repeats what it was given.
            let text = format!("535 5.7.8 wrong: {line} {user} {password}");
            self.say(&text)?;
        }
        Ok(())
    }

    fn data(&mut self) -> std::io::Result<Vec<u8>> {
        let mut raw = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.way.as_mut().unwrap().read_until(b'\n', &mut line)? == 0 {
                return Err(gone());
            }
            let Some(text) = line.strip_suffix(b"\r\n") else {
                self.fault(format!("a line of a message without CRLF: {:?}", String::from_utf8_lossy(&line)));
                return Err(gone());
            };
            if text == b"." {
                return Ok(raw);
            }
            // RFC 5321, section 4.5.3.1.6; RFC 5322, section 2.1.1.
            if text.len() > 998 || text.iter().any(|b| matches!(b, 0 | b'\r' | 0x80..)) {
                self.fault(format!("unfit in a message: {:?}", String::from_utf8_lossy(text)));
            }
            let text = text.strip_prefix(b".").unwrap_or(text);
            raw.extend_from_slice(text);
            raw.extend_from_slice(b"\r\n");
        }
    }
}

/// `a@b` of `MAIL FROM:<a@b> SIZE=5`.
fn path(line: &str) -> String {
    line.split_once('<').unwrap().1.split_once('>').unwrap().0.to_owned()
}

fn unbase64(text: &str) -> String {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut n, mut out) = (0_u32, 0, Vec::new());
    for c in text.trim_end_matches('=').chars() {
        bits = bits << 6 | u32::try_from(digits.find(c).unwrap()).unwrap();
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push(u8::try_from(bits >> n & 255).unwrap());
        }
    }
    String::from_utf8(out).unwrap()
}

/// A certificate, and what serves with it.
pub(crate) fn tls(ca: &Path) -> Option<Arc<ServerConfig>> {
    Some(crate::http::tls(ca))
}
