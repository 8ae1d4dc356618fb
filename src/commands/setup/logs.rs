//! Logs in a directory: which programs write there, and what a jail would name.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use super::dialect::{Dialect, Kind};
use super::finding::{LogFile, age, shown};
use super::look::Look;
use super::sample::Sample;
use super::tree::Tree;
use super::yaml::literal;

/// So many logs are looked at on the whole host.
const FILES: usize = 500;

/// Nginx Proxy Manager's logs of its proxy hosts.
const NPM: &str = "proxy-host-*_access.log";

/// A log that was looked at.
struct Log {
    name: String,
    kind: Option<Kind>,
    sample: Sample,
    modified: SystemTime,
}

impl Look {
    /// Looks at the logs in a directory whose web server is likely `hint`.
    pub(super) fn directory(&mut self, tree: &Rc<Tree>, directory: &Path, hint: Kind) {
        let names = match tree.list(directory) {
            Ok(names) => names,
            Err(e) => return self.findings.failed(&tree.path().join(relative(directory)), &e),
        };
        let mut logs = Vec::new();
        for name in names {
            let Some(name) = name.to_str() else {
                let place = tree.path().join(relative(directory)).join(&name);
                self.findings
                    .note(format!("{}: its name is no UTF-8, so no jail can name it", shown(&place)));
                continue;
            };
            if is_log(name) {
                logs.extend(self.log(tree, &directory.join(name), hint));
            }
        }
        for kind in [Kind::Npm, Kind::NpmFallback, Kind::Traefik, Kind::Nginx, Kind::Apache, Kind::Haproxy] {
            self.propose(tree, directory, kind, &logs);
        }
        for log in logs.iter().filter(|log| log.kind.is_none()) {
            let path = tree.path().join(relative(directory)).join(&log.name);
            self.findings.note(format!(
                "{}: none of its last {} lines is of a format that is known (a filter of your own can read it: \
                 stockade.yaml(5), FILTERS)",
                shown(&path),
                log.sample.lines
            ));
        }
    }

    /// Looks at a single log that something names.
    pub(super) fn file(&mut self, tree: &Rc<Tree>, path: &Path, hint: Kind) {
        let (Some(directory), Some(log)) = (path.parent(), self.log(tree, path, hint)) else { return };
        match log.kind {
            Some(kind) => self.propose(tree, directory, kind, std::slice::from_ref(&log)),
            None => self.findings.note(format!(
                "{}: none of its last {} lines is of a format that is known",
                shown(&tree.path().join(relative(path))),
                log.sample.lines
            )),
        }
    }

    /// Reads the end of a log; `None` if it cannot be, or was.
    fn log(&mut self, tree: &Rc<Tree>, path: &Path, hint: Kind) -> Option<Log> {
        let mut file = match self.open(tree, path) {
            Ok(file) => file?,
            Err(e) => {
                self.findings.failed(&tree.path().join(relative(path)), &e);
                return None;
            }
        };
        let name = path.file_name()?.to_str()?.to_owned();
        let modified = file.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let sample = self.sampler.read(&mut file, false).unwrap_or_default();
        let kind = match sample.dialect {
            Some(Dialect::Npm) if name.starts_with("fallback") => Some(Kind::NpmFallback),
            Some(Dialect::Npm) => Some(Kind::Npm),
            Some(Dialect::Traefik) => Some(Kind::Traefik),
            Some(Dialect::Haproxy) => Some(Kind::Haproxy),
            Some(Dialect::Combined) => Some(match hint {
                Kind::Apache | Kind::Traefik => hint,
                _ => Kind::Nginx,
            }),
            Some(Dialect::Sshd) => None,
            None if sample.lines > 0 => None,
            // Nothing is logged yet: it is what its place and name say.
            None if name.starts_with("fallback") && hint == Kind::Npm => Some(Kind::NpmFallback),
            None => Some(hint),
        };
        Some(Log { name, kind, sample, modified })
    }

    /// A regular file that was not looked at before; `None` for another.
    pub(super) fn open(&mut self, tree: &Rc<Tree>, path: &Path) -> io::Result<Option<File>> {
        use std::os::unix::fs::MetadataExt as _;
        let (file, _) = tree.open(path)?;
        let meta = file.metadata()?;
        if self.seen.len() >= FILES {
            self.findings.note(format!("more than {FILES} logs: the rest were not looked at"));
            return Ok(None);
        }
        Ok(self.seen.insert((meta.dev(), meta.ino())).then_some(file))
    }

    /// Proposes a jail's logs of a directory: by a glob where that means no other file, else by their names.
    fn propose(&mut self, tree: &Rc<Tree>, directory: &Path, kind: Kind, all: &[Log]) {
        let logs: Vec<&Log> =
            all.iter().filter(|log| log.kind == Some(kind) && fits_name(kind, &log.name)).collect();
        if logs.is_empty() {
            return;
        }
        let Ok(place) = tree.find(directory) else { return };
        let Some(place) = place.to_str() else {
            let told = format!("{}: its name is no UTF-8, so no jail can name it", shown(&place));
            return self.findings.note(told);
        };
        let base = literal(place.trim_end_matches('/'));
        let ours = |log: &&Log| logs.iter().any(|l| l.name == log.name);
        let glob = glob(kind, &logs).filter(|glob| {
            let pattern = format!("/{glob}");
            let fits = |log: &&Log| crate::follow::pattern_matches(&pattern, &Path::new("/").join(&log.name));
            all.iter().filter(fits).all(|log| ours(&log)) && logs.iter().all(fits)
        });
        let file =
            |log: &Log| LogFile { tree: Rc::clone(tree), path: directory.join(&log.name), docker: false };
        match glob {
            Some(glob) => {
                let last = logs.iter().map(|log| log.modified).max().unwrap_or(SystemTime::UNIX_EPOCH);
                let files =
                    if logs.len() == 1 { "1 file".to_owned() } else { format!("{} files", logs.len()) };
                let how = format!("{place}/{glob}: {files}, last written {}{}", age(last), said(&logs));
                let files = logs.iter().map(|log| file(log)).collect();
                self.findings.path(kind, format!("{base}/{glob}"), how, files);
            }
            None => {
                for log in &logs {
                    let how =
                        format!("{place}/{}: last written {}{}", log.name, age(log.modified), said(&[log]));
                    self.findings.path(kind, format!("{base}/{}", literal(&log.name)), how, vec![file(log)]);
                }
            }
        }
        for log in &logs {
            self.judge(kind, &format!("{place}/{}", log.name), &log.name, &log.sample);
        }
    }

    /// What a log says about who is in front of it. Its place may be long, and is told where lines may be.
    pub(super) fn judge(&mut self, kind: Kind, place: &str, name: &str, sample: &Sample) {
        if sample.behind_cloudflare() {
            self.findings.cloudflare.push(format!("requests in {place} come from Cloudflare's addresses"));
            if !sample.tells_clients() {
                self.findings.heed(kind, untold(kind));
            }
        } else if let Some(gateway) = sample.gateway() {
            let tunnel = !self.findings.tunnel.is_empty();
            self.findings.heed(kind, nobody(kind, name, gateway, tunnel));
        }
    }
}

/// Within a tree.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Whether a name is that of an access log that is written now, and was not rotated.
fn is_log(name: &str) -> bool {
    name.ends_with("access.log")
        || name.ends_with("access_log")
        || (name.ends_with(".log") && name.contains("access"))
}

/// Of Nginx Proxy Manager's own logs only those are followed whose lines say what they are about.
fn fits_name(kind: Kind, name: &str) -> bool {
    match kind {
        Kind::Npm => name.starts_with("proxy-host-"),
        Kind::NpmFallback => name.starts_with("fallback_http") || name == "fallback_access.log",
        _ => true,
    }
}

/// The glob that a directory's logs of one kind usually fit, so that those of later sites are followed too.
fn glob(kind: Kind, logs: &[&Log]) -> Option<&'static str> {
    match kind {
        Kind::Npm => Some(NPM),
        Kind::Nginx | Kind::Apache => ["*access.log", "*access_log"]
            .into_iter()
            .find(|glob| logs.iter().all(|log| log.name.ends_with(&glob[1..]))),
        _ => None,
    }
}

fn said(logs: &[&Log]) -> String {
    let lines: usize = logs.iter().map(|log| log.sample.lines).sum();
    match logs.iter().find_map(|log| log.sample.dialect) {
        Some(dialect) => format!(", written by {}", dialect.word()),
        None if lines == 0 => ", empty so far".to_owned(),
        None => String::new(),
    }
}

/// Behind Cloudflare, and the log does not say who is there.
fn untold(kind: Kind) -> String {
    let how = match kind {
        Kind::Npm | Kind::NpmFallback => {
            "put `real_ip_header CF-Connecting-IP;` into /data/nginx/custom/server_proxy.conf of Nginx Proxy Manager (it trusts \
             Cloudflare's ranges already)"
        }
        Kind::Traefik => "name Cloudflare's ranges in forwardedHeaders.trustedIPs of Traefik's entry points",
        Kind::Apache => {
            "use mod_remoteip: `RemoteIPHeader CF-Connecting-IP`, and RemoteIPTrustedProxy with Cloudflare's ranges"
        }
        Kind::Haproxy => {
            "use `http-request set-src req.hdr(CF-Connecting-IP)` for requests from Cloudflare's ranges"
        }
        Kind::Nginx | Kind::Sshd => {
            "use `set_real_ip_from` with each of Cloudflare's ranges, and `real_ip_header CF-Connecting-IP;`"
        }
    };
    format!(
        "TO DO: the log shows Cloudflare's addresses and not the clients', so nobody can be banned. In the web server {how}."
    )
}

/// All come from one address of this network.
fn nobody(kind: Kind, whose: &str, gateway: IpAddr, tunnel: bool) -> String {
    let how = match kind {
        Kind::Nginx | Kind::Npm | Kind::NpmFallback if tunnel => {
            "They come through Cloudflare's tunnel: in nginx use `real_ip_header CF-Connecting-IP;` and `set_real_ip_from` with \
             that address (in Nginx Proxy Manager, in /data/nginx/custom/server_proxy.conf)."
        }
        _ if tunnel => {
            "They come through Cloudflare's tunnel: have the web server take the client's address from the header \
             CF-Connecting-IP when that address connects."
        }
        Kind::Traefik | Kind::Npm | Kind::NpmFallback => {
            "If that is Docker's gateway, clients come through its userland proxy or a NAT: publish the ports without them (IPv6 \
             needs `ip6tables` in Docker's daemon.json and an IPv6 network), or run the proxy with `network_mode: host`."
        }
        _ => "If that is a proxy, let it pass the client's address on, and the web server believe it.",
    };
    format!(
        "TO DO: all clients in {whose} appear as {gateway}, so nobody can be banned until the log names them. {how}"
    )
}

/// The directories of the host where logs usually are.
pub(super) const USUAL: [(&str, Kind); 13] = [
    ("/var/log/nginx", Kind::Nginx),
    ("/var/log/apache2", Kind::Apache),
    ("/var/log/httpd", Kind::Apache),
    ("/var/log/traefik", Kind::Traefik),
    ("/var/log/npm", Kind::Npm),
    // Nginx Proxy Manager without Docker, and where its image's /data is often mounted from.
    ("/data/logs", Kind::Npm),
    ("/opt/npm/data/logs", Kind::Npm),
    ("/opt/nginx-proxy-manager/data/logs", Kind::Npm),
    ("/logs", Kind::Nginx),
    // The host's own logs, where our container's compose files mount them.
    ("/var/log/host/nginx", Kind::Nginx),
    ("/var/log/host/apache2", Kind::Apache),
    ("/var/log/host/httpd", Kind::Apache),
    ("/var/log/host/traefik", Kind::Traefik),
];

/// A directory's subdirectories, for where each holds another program's logs.
pub(super) fn below(tree: &Tree, directory: &str) -> Vec<PathBuf> {
    let names = tree.list(Path::new(directory)).unwrap_or_default();
    names
        .into_iter()
        .map(|name| Path::new(directory).join(name))
        .filter(|path| tree.list(path).is_ok())
        .collect()
}
