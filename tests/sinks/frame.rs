//! What all sinks have in common.

use std::time::Duration;

use stockade::sinks::http::{Answer, Http, HttpOptions};
use stockade::sinks::secret::{Secret, SecretSource};
use stockade::sinks::trouble::{Trouble, TroubleKind};

use crate::http::{Reply, Server};
use crate::support::secret;

const TOKEN: &str = "123456:very-secret-token";

fn token() -> Secret {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    secret(&path, TOKEN);
    SecretSource::File(path).read().unwrap()
}

fn get(http: &Http, url: &str) -> Result<Answer, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // As Telegram has it: the token is a part of the URL.
    runtime.block_on(http.send(http.client.get(format!("{url}/bot{TOKEN}/getMe"))))
}

fn client(options: &HttpOptions) -> Http {
    Http::new(options, vec![token()]).unwrap()
}

#[test]
fn whatever_goes_wrong_is_told_without_the_secret() {
    let quick = HttpOptions { timeout: Duration::from_millis(500), ..HttpOptions::default() };
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let close = Server::start(|_| Reply::Close);
    let half = Server::start(|_| Reply::Half(200, vec![b'x'; 1000]));
    let stall = Server::start(|_| Reply::Stall(Duration::from_secs(5)));
    let huge = Server::start(|_| Reply::Answer(200, Vec::new(), vec![b'x'; 9 << 20]));
    let garbled =
        Server::start(|_| Reply::Answer(200, vec![("bad header name", "x".to_owned())], Vec::new()));
    let dir = tempfile::tempdir().unwrap();
    let tls = Server::start_tls(&dir.path().join("ca.pem"), |_| Reply::json(200, &true.into()));
    let untrusted = format!("https://localhost:{}", tls.address.port());
    let cases = [
        (nobody, "refused"),
        (close.url(), "closed"),
        (half.url(), "body"),
        (stall.url(), "timed out"),
        (huge.url(), "longer than 8 MiB"),
        (garbled.url(), "header"),
        (untrusted, "certificate"),
    ];
    for (url, says) in cases {
        let trouble = get(&client(&quick), &url).unwrap_err();
        assert!(matches!(trouble.kind, TroubleKind::Later(None)), "{trouble:?}");
        assert!(trouble.message.contains(says), "{url} ({says}): {trouble}");
        let told = format!("{trouble} {trouble:?}");
        assert!(!told.contains("secret-token") && trouble.message.contains(&url), "{told}");
    }
}

#[test]
fn a_certificate_of_ones_own_is_trusted_when_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let tls = Server::start_tls(&ca, |_| Reply::json(200, &true.into()));
    let options = HttpOptions { ca_file: Some(ca.clone()), ..HttpOptions::default() };
    let answer = get(&client(&options), &format!("https://localhost:{}", tls.address.port())).unwrap();
    assert!(answer.is_success() && answer.body == b"true");
    std::fs::write(&ca, "nothing").unwrap();
    let trouble = Http::new(&options, Vec::new()).unwrap_err();
    assert_eq!(trouble.kind, TroubleKind::Refused);
    assert!(trouble.message.contains("ca.pem"), "{trouble}");
}

#[test]
fn a_redirect_is_not_followed_with_the_credentials() {
    let elsewhere = Server::start(|_| Reply::json(200, &true.into()));
    let to = elsewhere.url();
    let server = Server::start(move |_| Reply::json(302, &true.into()).with("location", &to));
    let answer = get(&client(&HttpOptions::default()), &server.url()).unwrap();
    assert_eq!((answer.status, elsewhere.requests().len()), (302, 0));
}

#[test]
fn a_far_side_says_when_it_is_to_be_asked_again() {
    let in_a_while = jiff::Zoned::now().saturating_add(jiff::SignedDuration::from_secs(90));
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&in_a_while.timestamp())
        .unwrap();
    for (text, least, most) in [("7", 7, 7), (date.as_str(), 80, 91), ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0)]
    {
        let value = text.to_owned();
        let server = Server::start(move |_| Reply::json(429, &true.into()).with("Retry-After", &value));
        let answer = get(&client(&HttpOptions::default()), &server.url()).unwrap();
        let wait = answer.retry_after().unwrap();
        assert!((least..=most).contains(&wait.as_secs()), "{text}: {wait:?}");
        assert!(matches!(answer.trouble("slow").kind, TroubleKind::Later(Some(later)) if later <= wait));
    }
    let server = Server::start(|_| Reply::json(403, &true.into()).with("Retry-After", "soon"));
    let answer = get(&client(&HttpOptions::default()), &server.url()).unwrap();
    assert_eq!((answer.retry_after(), answer.trouble("").kind), (None, TroubleKind::Refused));
}

#[test]
fn the_server_of_these_tests_speaks_http() {
    let server = Server::start(|_| Reply::json(200, &serde_json::json!({ "a": 1 })));
    let url = format!("{}/x?y=%20", server.url());
    let text = std::process::Command::new("curl").args(["-s", &url]).output().unwrap();
    assert_eq!(text.stdout, b"{\"a\":1}");
    assert_eq!(server.requests()[0].query("y"), Some(" "));
}
