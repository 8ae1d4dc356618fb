//! The whole look at a host: usual places, containers, sshd, and what the proxies' configuration says of Cloudflare.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};

use super::dialect::Kind;
use super::finding::Findings;
use super::logs::{USUAL, below};
use super::sample::Sampler;
use super::tree::Tree;
use super::{conf, containers, haproxy, sshd};

/// Looks at a host.
pub(super) struct Look {
    pub(super) host: Rc<Tree>,
    pub(super) sampler: Sampler,
    pub(super) findings: Findings,
    /// Files that were looked at, by device and inode.
    pub(super) seen: HashSet<(u64, u64)>,
}

/// Where journald keeps the journal.
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

/// Looks at the host below `root`.
pub(super) fn look(root: &Path) -> Result<Findings> {
    let host = Tree::host(root).with_context(|| format!("failed to look at {}", root.display()))?;
    let mut look = Look {
        host: Rc::new(host),
        sampler: Sampler::new()?,
        findings: Findings::default(),
        seen: HashSet::new(),
    };
    let host = Rc::clone(&look.host);
    conf::tunnel(&mut look);
    // Containers first: what a container can write is not looked at as the host's own.
    containers::look(&mut look);
    for (directory, hint) in USUAL {
        look.own_directory(Path::new(directory), hint);
    }
    for directory in below(&host, "/logs") {
        look.own_directory(&directory, hint(&directory));
    }
    for volume in below(&host, "/var/lib/containers/storage/volumes") {
        look.volume(&volume.join("_data"));
    }
    for (path, kind) in conf::logs(&mut look) {
        if host.find(&path).is_ok() {
            look.file(&host, &path, kind);
        }
    }
    haproxy::look(&mut look);
    sshd::look(&mut look);
    conf::cloudflare(&mut look);
    Ok(look.findings)
}

impl Look {
    /// A directory of the host's, if it is there.
    fn own_directory(&mut self, path: &Path, hint: Kind) {
        let host = Rc::clone(&self.host);
        self.directory(&host, path, hint);
    }

    /// A volume of Podman's: only what it holds says whose it is.
    fn volume(&mut self, path: &Path) {
        let Ok(tree) = self.host.shared(path).map(Rc::new) else { return };
        for directory in ["logs", "nginx", "."] {
            if tree.list(Path::new(directory)).is_ok() {
                self.directory(
                    &tree,
                    Path::new(directory),
                    if directory == "logs" { Kind::Npm } else { Kind::Nginx },
                );
            }
        }
    }

    /// Where the journal is, as far as it has files there.
    pub(super) fn journal(&self) -> Option<PathBuf> {
        JOURNALS.iter().find_map(|place| {
            let names = self.host.list(Path::new(place)).ok().filter(|names| !names.is_empty())?;
            drop(names);
            self.host.find(Path::new(place)).ok()
        })
    }

    /// A source that is the journal's entries of a unit of systemd's.
    pub(super) fn unit(&mut self, kind: Kind, unit: &str, how: String) {
        let Some(journal) = self.journal() else { return };
        if self.host.path() != Path::new("/") {
            self.findings.journal = Some(journal);
        }
        let sources = self.findings.jails.entry(kind).or_default();
        sources.journal.push(super::finding::Found { text: format!("_SYSTEMD_UNIT={unit}"), how });
    }

    /// Which of these units of systemd's is installed, and where.
    pub(super) fn installed(&self, units: &[&str]) -> Option<(String, String)> {
        const PLACES: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
        units.iter().find_map(|unit| {
            let place = PLACES.iter().find(|place| self.host.has(&format!("{place}/{unit}")))?;
            Some(((*unit).to_owned(), format!("{place}/{unit}")))
        })
    }

    /// A small text file of the host's; `None` if it is not there or cannot be read, which is told.
    pub(super) fn text(&mut self, tree: &Tree, path: &Path, most: u64) -> Option<String> {
        use std::io::Read as _;
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            tree.open(path)?.0.take(most).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(e) => {
                self.findings.failed(&tree.path().join(path.strip_prefix("/").unwrap_or(path)), &e);
                None
            }
        }
    }
}

/// Whose logs a directory of that name holds.
fn hint(directory: &Path) -> Kind {
    let name =
        directory.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    match name.as_str() {
        name if name.contains("npm") || name.contains("proxy-manager") => Kind::Npm,
        name if name.contains("traefik") => Kind::Traefik,
        name if name.contains("apache") || name.contains("httpd") => Kind::Apache,
        _ => Kind::Nginx,
    }
}
