//! What all sinks have in common.

use crate::http::{Reply, Server};

#[test]
fn the_server_of_these_tests_speaks_http() {
    let server = Server::start(|_| Reply::json(200, &serde_json::json!({ "a": 1 })));
    let text = std::process::Command::new("curl")
        .args(["-s", &format!("{}/x?y=%20", server.url())])
        .output()
        .unwrap();
    assert_eq!(text.stdout, b"{\"a\":1}");
    assert_eq!(server.requests()[0].query("y"), Some(" "));
}
