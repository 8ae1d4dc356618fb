//! A real HTTP/1.1 server, for far sides that behave as their documentation says, and for those that do not.
#![expect(dead_code, reason = "each test crate uses another part of it")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// Name and value, decoded, in their order.
    pub(crate) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What comes back.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// An answer: status, headers besides the length, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection is closed without a byte.
    Close,
    /// The head and half of the body, then the connection is closed.
    Half(u16, Vec<u8>),
    /// Nothing for so long, then the connection is closed.
    Stall(Duration),
}

impl Reply {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        let body = body.to_string().into_bytes();
        Self::Answer(status, vec![("content-type", "application/json".to_owned())], body)
    }

    /// Another header.
    pub(crate) fn with(self, name: &'static str, value: impl ToString) -> Self {
        match self {
            Self::Answer(status, mut headers, body) => {
                headers.push((name, value.to_string()));
                Self::Answer(status, headers, body)
            }
            other => other,
        }
    }
}

/// A running server; it ends with the test's process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Listens on a free port of loopback.
    pub(crate) fn start(handle: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), None, handle)
    }

    /// The same in a network namespace.
    pub(crate) fn start_in(namespace: &str, handle: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let namespace = std::fs::File::open(Path::new("/run/netns").join(namespace)).unwrap();
        // A socket stays where it was made.
        let listener = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap()
        });
        Self::on(listener.join().unwrap(), None, handle)
    }

    /// The same over TLS, with a certificate for `localhost` and `127.0.0.1` that is written to `ca` in PEM.
    pub(crate) fn start_tls(ca: &Path, handle: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), Some(tls(ca)), handle)
    }

    fn on(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        handle: impl FnMut(&Request) -> Reply + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let handle = Arc::new(Mutex::new(handle));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                // Head and body are two writes: the second would wait 40 ms for the first to be acknowledged.
                stream.set_nodelay(true).unwrap();
                let (handle, seen, tls) = (Arc::clone(&handle), Arc::clone(&seen), tls.clone());
                std::thread::spawn(move || {
                    // A client that goes away in the middle is none of the server's business.
                    let _gone = match tls {
                        None => serve(stream, &handle, &seen),
                        Some(tls) => {
                            let connection = ServerConnection::new(tls).unwrap();
                            serve(StreamOwned::new(connection, stream), &handle, &seen)
                        }
                    };
                });
            }
        });
        Self { address, requests }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// A certificate for `localhost` and `127.0.0.1`, written to `ca` in PEM, and what serves with it.
pub(crate) fn tls(ca: &Path) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(ca, made.cert.pem()).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

fn serve<S: Read + Write>(
    stream: S,
    handle: &Mutex<impl FnMut(&Request) -> Reply>,
    seen: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(request) = read(&mut stream)? else { return Ok(()) };
        seen.lock().unwrap().push(request.clone());
        let reply = (handle.lock().unwrap())(&request);
        let to = stream.get_mut();
        match reply {
            Reply::Answer(status, headers, body) => {
                let headers: String =
                    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                write!(to, "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n", body.len())?;
                to.write_all(&body)?;
                to.flush()?;
            }
            Reply::Close => return Ok(()),
            Reply::Half(status, body) => {
                write!(to, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len())?;
                to.write_all(&body[..body.len() / 2])?;
                return to.flush();
            }
            Reply::Stall(time) => {
                std::thread::sleep(time);
                return Ok(());
            }
        }
    }
}

fn read<S: Read>(stream: &mut BufReader<S>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let url = reqwest::Url::parse(&format!("http://x/?{query}")).unwrap();
    let query = url.query_pairs().map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
    let path = path.to_owned();
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().unwrap();
        }
        assert!(name != "transfer-encoding", "this server reads no chunks");
        headers.push((name, value));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request { method, path, query, headers, body, at: Instant::now() }))
}
