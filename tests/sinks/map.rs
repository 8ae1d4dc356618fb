//! Files for real web servers, with the snippets of `docs/web-servers.md`.

mod apache;
mod haproxy;
mod manners;
mod nginx;
mod server;

use std::time::Duration;

use stockade::sinks::{Checked, Context, Sinks};

/// The block of the documentation that is tested under this name, with this directory in place of the server's own.
fn snippet(name: &str, own: &str, dir: &std::path::Path) -> String {
    let doc = include_str!("../../docs/web-servers.md");
    let marker = format!("<!-- tested: {name} -->\n```");
    let block = doc.split(&marker).nth(1).unwrap_or_else(|| panic!("the documentation has no {name}"));
    let (_language, block) = block.split_once('\n').unwrap();
    let block = block.split("\n```").next().unwrap();
    assert!(
        name.ends_with("server") || name.ends_with("global") || block.contains(own),
        "{name} has no {own}"
    );
    block.replace(own, dir.to_str().unwrap())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What `stockade check` is told of the first sink.
fn check(text: &str) -> Vec<Checked> {
    let config = crate::support::config(text);
    runtime().block_on(stockade::sinks::check(&config.sinks[0], &Context::default()))
}

/// Ends all sinks, which take back what they show; the names of those that could not.
fn end(sinks: &mut Sinks) -> Vec<String> {
    runtime().block_on(sinks.end(Duration::from_secs(20), true))
}
