//! Configuration files of proxies: which logs they name, and whether Cloudflare is in front.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::dialect::Kind;
use super::finding::shown;
use super::look::Look;
use super::traefik::{self, AccessLog};
use super::tree::Tree;
use crate::config::names::CLOUDFLARE;

/// Where proxies on the host have their configuration, and whose logs it names.
const PLACES: [(&str, Option<Kind>); 6] = [
    ("/etc/nginx", Some(Kind::Nginx)),
    ("/etc/apache2", Some(Kind::Apache)),
    ("/etc/httpd", Some(Kind::Apache)),
    ("/etc/haproxy", None),
    ("/etc/traefik", Some(Kind::Traefik)),
    ("/data/nginx", None),
];
/// So many files are read below one directory, each so far, and directories no deeper than that.
const FILES: usize = 300;
const SIZE: u64 = 256 * 1024;
const DEPTH: usize = 4;

/// The logs that configuration files on the host name, besides those in the usual places.
pub(super) fn logs(look: &mut Look) -> Vec<(PathBuf, Kind)> {
    let host = Rc::clone(&look.host);
    let mut found = Vec::new();
    for (place, kind) in PLACES {
        let Some(kind) = kind else { continue };
        for (_, text) in files(look, &host, Path::new(place)) {
            match kind {
                Kind::Traefik => {
                    if let Some(AccessLog::File(path)) = traefik::of_text(&text) {
                        found.push((path, kind));
                    }
                }
                _ => found.extend(named(&text).into_iter().map(|path| (path, kind))),
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Paths behind nginx' `access_log` and Apache's `CustomLog`.
fn named(text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in bare_lines(text) {
        let words: Vec<&str> = line.split([' ', '\t', ';']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let is_log = pair[0] == "access_log" || pair[0].eq_ignore_ascii_case("CustomLog");
            let path = pair[1].trim_matches(['"', '\'']);
            let path = path.replace("${APACHE_LOG_DIR}", "/var/log/apache2");
            if is_log && path.starts_with('/') && !path.starts_with("/dev/") && !path.contains('$') {
                found.push(PathBuf::from(path));
            }
        }
    }
    found
}

/// Looks for Cloudflare in all of them.
pub(super) fn cloudflare(look: &mut Look) {
    let host = Rc::clone(&look.host);
    for (place, _) in PLACES {
        search(look, &host, Path::new(place));
    }
}

/// Looks for Cloudflare's tunnel on the host.
pub(super) fn tunnel(look: &mut Look) {
    let host = Rc::clone(&look.host);
    for file in [
        "/etc/cloudflared/config.yml",
        "/etc/cloudflared/config.yaml",
        "/etc/systemd/system/cloudflared.service",
    ] {
        if host.has(file) {
            look.findings.tunnel.push(format!("there is {}", shown(&host.path().join(&file[1..]))));
        }
    }
}

/// Looks for Cloudflare in the files below a directory.
pub(super) fn search(look: &mut Look, tree: &Rc<Tree>, directory: &Path) {
    for (path, text) in files(look, tree, directory) {
        mentioned(look, &tree.path().join(path.strip_prefix("/").unwrap_or(&path)), &text);
    }
}

/// Whether a configuration, which `place` names, counts on Cloudflare.
pub(super) fn mentioned(look: &mut Look, place: &Path, text: &str) {
    let (mut header, mut ranges) = (false, 0);
    for line in bare_lines(text) {
        let lower = line.to_ascii_lowercase();
        header |= lower.contains("cf-connecting-ip") || lower.contains("cf_connecting_ip");
        ranges += CLOUDFLARE.iter().filter(|net| lower.contains(*net)).count();
    }
    // One may be anybody's own; Cloudflare's come together.
    let why = match (header, ranges >= 3) {
        (true, _) => "speaks of its header CF-Connecting-IP",
        (false, true) => "names its ranges",
        (false, false) => return,
    };
    let told = format!("{} {why}", shown(place));
    if !look.findings.cloudflare.contains(&told) {
        look.findings.cloudflare.push(told);
    }
}

/// Lines that are no comment.
fn bare_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The text files below a directory.
fn files(look: &mut Look, tree: &Rc<Tree>, directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut ahead = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = ahead.pop() {
        let names = match tree.list(&directory) {
            Ok(names) => names,
            Err(e) => {
                look.findings
                    .failed(&tree.path().join(directory.strip_prefix("/").unwrap_or(&directory)), &e);
                continue;
            }
        };
        for name in names {
            let path = directory.join(&name);
            // Keys are nobody's business, and hold no configuration.
            let is_secret =
                [".key", ".pem", ".crt", ".p12"].iter().any(|end| name.to_string_lossy().ends_with(end));
            if is_secret || name == "acme.json" {
                continue;
            }
            if tree.list(&path).is_ok() {
                if depth < DEPTH {
                    ahead.push((path, depth + 1));
                }
            } else if found.len() < FILES {
                found.extend(look.text(tree, &path, SIZE).map(|text| (path, text)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_named_in_either_servers_words() {
        let nginx = "http {\n  access_log /srv/a.log main; access_log off;\n  # access_log /no;\n server { access_log \"/srv/b.log\"; }\n\
                     access_log /var/log/$host.log; access_log syslog:server=x; access_log /dev/stdout;\n}";
        assert_eq!(named(nginx), [Path::new("/srv/a.log"), Path::new("/srv/b.log")]);
        let apache = "CustomLog ${APACHE_LOG_DIR}/x.log combined\ncustomlog \"/srv/c.log\" common\nCustomLog logs/rel common\n";
        assert_eq!(named(apache), [Path::new("/var/log/apache2/x.log"), Path::new("/srv/c.log")]);
    }
}
