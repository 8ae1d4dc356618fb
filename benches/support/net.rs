//! Three hosts on a line, for benchmarks: a client, a host with a firewall and a proxy on it, and an application. And
//! a client that asks as fast as it is answered.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Result;

/// The host's address towards the client.
pub(crate) const HOST: &str = "10.77.0.1";
/// The application's address, behind the host.
pub(crate) const APP: &str = "10.78.0.2";
/// What the proxy is told that the client is. Nobody bans it.
const VISITOR: &str = "192.0.2.77";

pub(crate) struct Net {
    id: u32,
    children: Vec<Child>,
}

impl Net {
    pub(crate) fn new() -> Result<Self> {
        let net = Self { id: std::process::id(), children: Vec::new() };
        let [client, host, app] = net.names();
        for name in [&client, &host, &app] {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        for (left, wire, address, right, peer, other) in [
            (&client, "c0", "10.77.0.2/24", &host, "h0", "10.77.0.1/24"),
            (&host, "h1", "10.78.0.1/24", &app, "a0", "10.78.0.2/24"),
        ] {
            ip(&["-n", left, "link", "add", wire, "type", "veth", "peer", "name", peer, "netns", right])?;
            for (name, wire, address) in [(left, wire, address), (right, peer, other)] {
                ip(&["-n", name, "addr", "add", address, "dev", wire])?;
                ip(&["-n", name, "link", "set", wire, "up"])?;
            }
        }
        ip(&["-n", &client, "route", "add", "default", "via", "10.77.0.1"])?;
        ip(&["-n", &app, "route", "add", "default", "via", "10.78.0.1"])?;
        let forward = net.on_host("sysctl", &["-qw", "net.ipv4.ip_forward=1"]).status()?;
        if !forward.success() {
            return Err("failed to switch forwarding on".into());
        }
        Ok(net)
    }

    fn names(&self) -> [String; 3] {
        ["c", "h", "a"].map(|part| format!("stockade-b{part}{}", self.id))
    }

    pub(crate) fn on_host(&self, program: &str, args: &[&str]) -> Command {
        let [_, host, _] = self.names();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host, program]).args(args);
        command
    }

    pub(crate) fn start(&mut self, mut command: Command) -> Result<()> {
        self.children.push(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        Ok(())
    }

    /// nginx as a proxy on the host, and nginx as the application behind it. The proxy passes the client's address on as
    /// Nginx Proxy Manager does.
    pub(crate) fn start_web(&mut self, dir: &Path) -> Result<()> {
        let common =
            "worker_processes 1; user root; error_log /dev/null crit; events { worker_connections 512; }";
        let dir = dir.display();
        let temp = |name: &str| {
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {dir}/{name}-{kind};"))
                .concat()
        };
        let [_, host, app] = self.names();
        for (name, netns, server) in [
            (
                "proxy",
                host,
                format!(
                    "upstream app {{ server {APP}:80; keepalive 64; }} server {{ listen 80; location / {{ proxy_pass http://app; \
                     proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header X-Real-IP {VISITOR}; \
                     proxy_set_header X-Forwarded-For \"{VISITOR}, $remote_addr\"; }} }}"
                ),
            ),
            ("app", app, "server { listen 80; location / { return 200 hello; } }".to_owned()),
        ] {
            let path = format!("{dir}/{name}.conf");
            let text = format!(
                "pid {dir}/{name}.pid; {common} http {{ access_log off; keepalive_requests 1000000000; {} {server} }}",
                temp(name)
            );
            fs::write(&path, text)?;
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &netns, "nginx", "-c", &path, "-g", "daemon off;"]);
            self.start(command)?;
        }
        Ok(())
    }

    /// Does something as the client: on a thread of its own, which moves there.
    pub(crate) fn as_client<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let [client, ..] = self.names();
        within(client, work)
    }

    /// Listens as the application and reads whatever comes, until the process ends.
    pub(crate) fn swallow(&self, port: u16) -> Result<()> {
        let [.., app] = self.names();
        let listener = within(app, move || Ok(TcpListener::bind((APP.parse::<IpAddr>()?, port))?))?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 18];
                    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
                });
            }
        });
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Ok(pid) = i32::try_from(child.id()) {
                let _gone = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGTERM,
                );
            }
            drop(child.wait());
        }
        for name in self.names() {
            drop(ip(&["netns", "del", &name]));
        }
    }
}

/// Runs `work` on a thread in that network namespace. Sockets made there stay there.
fn within<T: Send + 'static>(netns: String, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    std::thread::spawn(move || -> Result<T> {
        let file = fs::File::open(format!("/run/netns/{netns}"))?;
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
        work()
    })
    .join()
    .map_err(|_| "a thread of the benchmark failed")?
}

fn ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip").args(args).output()?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into()) }
}

/// Requests per second over so many connections that are kept.
pub(crate) fn requests(net: &Net, connections: usize, time: Duration) -> Result<f64> {
    net.as_client(move || {
        let to: SocketAddr = format!("{HOST}:80").parse()?;
        let request = format!(
            "GET /api/v1/status?from=2024-11-01 HTTP/1.1\r\nHost: app.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; \
             rv:133.0) Gecko/20100101 Firefox/133.0\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\n\
             Accept-Encoding: gzip, deflate\r\nReferer: http://app.example.org/{}\r\n\r\n",
            "a".repeat(40)
        );
        let done = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Instant::now();
        let workers: Vec<_> = (0..connections)
            .map(|_| {
                let (done, stop, request) = (Arc::clone(&done), Arc::clone(&stop), request.clone());
                let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                Ok(std::thread::spawn(move || -> std::io::Result<()> {
                    let mut buffer = [0; 2048];
                    while !stop.load(Ordering::Relaxed) {
                        stream.write_all(request.as_bytes())?;
                        let mut length = 0;
                        // The answer is short and ends in its body.
                        while !buffer[..length].ends_with(b"hello") {
                            match stream.read(&mut buffer[length..])? {
                                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                                n => length += n,
                            }
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                }))
            })
            .collect::<Result<_>>()?;
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| "a client failed")??;
        }
        Ok(done.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64())
    })
}

/// Bytes per second of one upload of text through the host to the application.
pub(crate) fn upload(net: &Net, port: u16, bytes: usize) -> Result<f64> {
    net.as_client(move || {
        let mut stream =
            TcpStream::connect_timeout(&format!("{APP}:{port}").parse()?, Duration::from_secs(2))?;
        let block = "the quick brown fox jumps over the lazy dog and ".repeat(4096);
        let head =
            format!("POST /upload HTTP/1.1\r\nHost: app.example.org\r\nContent-Length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let begin = Instant::now();
        for _ in 0..bytes / block.len() {
            stream.write_all(block.as_bytes())?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        // The other side closes when it has read everything.
        let _end = stream.read(&mut [0]);
        Ok(bytes as f64 / begin.elapsed().as_secs_f64())
    })
}
