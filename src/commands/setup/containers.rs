//! Docker's containers: logs that they write into mounts of the host, and those that dockerd keeps.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::conf;
use super::dialect::{Dialect, Kind};
use super::finding::{LogFile, age, shown};
use super::look::Look;
use super::traefik;
use super::tree::Tree;
use crate::daemon::printable;
use crate::source::docker::{Catalogue, Container, Driver, Selector};

/// So many containers are looked at.
const CONTAINERS: usize = 200;
/// Where dockerd keeps its files: its default, and Ubuntu's snap.
const ROOTS: [&str; 2] = ["/var/lib/docker", "/var/snap/docker/common/var-lib-docker"];
/// Where programs in containers write their logs.
const LOGS: [&str; 7] = [
    "/data/logs",
    "/var/log/nginx",
    "/var/log/apache2",
    "/usr/local/apache2/logs",
    "/var/log/httpd",
    "/var/log/traefik",
    "/config/log/nginx",
];

/// What a container's image says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Web(Kind),
    Tunnel,
    Other,
}

/// Looks at all containers.
pub(super) fn look(look: &mut Look) {
    let configured = data_root(look);
    let roots = configured.iter().map(PathBuf::as_path).chain(ROOTS.iter().map(Path::new));
    let host = Rc::clone(&look.host);
    let Some(root) =
        roots.filter_map(|root| host.find(root).ok()).find(|root| root.join("containers").exists())
    else {
        return;
    };
    let mut all = match Catalogue::default().look(&root) {
        Ok(all) => all,
        Err(e) => return look.findings.failed(&root.join("containers"), &e),
    };
    if root != Path::new(ROOTS[0]) {
        look.findings.docker = Some(root);
    }
    if all.len() > CONTAINERS {
        look.findings.note(format!("{} containers: only the first {CONTAINERS} were looked at", all.len()));
        all.truncate(CONTAINERS);
    }
    // All of them before anything is looked at: one container's logs may be another's to write.
    let mounts = all.iter().flat_map(|container| &container.mounts);
    for mount in mounts.filter(|mount| mount.writable) {
        look.host.share(&inside(&look.host, &mount.source));
    }
    for container in &all {
        container_of(look, container);
    }
}

/// `data-root` of Docker's own configuration.
fn data_root(look: &mut Look) -> Option<PathBuf> {
    let host = Rc::clone(&look.host);
    let text = look.text(&host, Path::new("/etc/docker/daemon.json"), 1 << 20)?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(PathBuf::from(value["data-root"].as_str()?))
}

fn container_of(look: &mut Look, container: &Container) {
    let name = printable(container.name.as_bytes());
    let program = program(container);
    if program == Program::Tunnel {
        look.findings.tunnel.push(format!("the container {name} is cloudflared"));
        return;
    }
    let whole = Mounts { container, host: Rc::clone(&look.host) };
    let mut stdout = true;
    if program == Program::Web(Kind::Traefik) {
        match traefik::access_log(look, &whole) {
            traefik::AccessLog::File(path) => {
                stdout = false;
                let told = format!("Traefik in the container {name} writes its access log to {}", shown(&path));
                whole.log(look, &path, Kind::Traefik, &told);
            }
            traefik::AccessLog::Off => look.findings.note(format!(
                "Traefik in the container {name} writes no access log, as far as can be seen: switch it on (`--accesslog=true \
                 --accesslog.format=json`) and run setup again"
            )),
            traefik::AccessLog::Stdout => {}
        }
    }
    for directory in LOGS {
        let hint = match (directory, program) {
            ("/data/logs", _) => Kind::Npm,
            (_, Program::Web(kind)) => kind,
            _ if directory.contains("apache") || directory.contains("httpd") => Kind::Apache,
            _ if directory.contains("traefik") => Kind::Traefik,
            _ => Kind::Nginx,
        };
        whole.directory(look, Path::new(directory), hint, program != Program::Other);
    }
    if hint_of(program) == Some(Kind::Npm) {
        if let Some((tree, path)) = whole.find(look, Path::new("/data/nginx")) {
            conf::search(look, &tree, &path);
        }
    } else if stdout {
        logged(look, container, program);
    }
}

fn hint_of(program: Program) -> Option<Kind> {
    match program {
        Program::Web(kind) => Some(kind),
        Program::Tunnel | Program::Other => None,
    }
}

/// By the last part of its image's name, or what it runs.
fn program(container: &Container) -> Program {
    let image = container.image.to_ascii_lowercase();
    let image = image.split('@').next().unwrap_or_default();
    let last = image.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
    let runs = container.command.first().and_then(|command| command.rsplit('/').next()).unwrap_or_default();
    match last {
        "nginx-proxy-manager" | "nginxproxymanager" | "npmplus" => Program::Web(Kind::Npm),
        "cloudflared" => Program::Tunnel,
        "traefik" => Program::Web(Kind::Traefik),
        "nginx" | "openresty" | "swag" | "nginx-unprivileged" => Program::Web(Kind::Nginx),
        "httpd" | "apache" => Program::Web(Kind::Apache),
        "haproxy" => Program::Web(Kind::Haproxy),
        _ if runs == "cloudflared" => Program::Tunnel,
        _ if runs == "traefik" => Program::Web(Kind::Traefik),
        _ => Program::Other,
    }
}

/// What a container writes to its standard output.
fn logged(look: &mut Look, container: &Container, program: Program) {
    let name = printable(container.name.as_bytes());
    let path = match &container.driver {
        Driver::File(path) => path,
        Driver::Journal => {
            if let Program::Web(kind) = program {
                propose(look, container, kind, "logs to systemd's journal", None);
            }
            return;
        }
        Driver::Other(_) => {
            if let (Program::Web(_), Some(problem)) = (program, container.driver.problem()) {
                look.findings.note(format!("container {name}: {}", printable(problem.as_bytes())));
            }
            return;
        }
    };
    let host = Rc::clone(&look.host);
    let inner = path.strip_prefix(host.path()).unwrap_or(path).to_owned();
    let mut file = match look.open(&host, &inner) {
        Ok(Some(file)) => file,
        Ok(None) => return,
        Err(e) => return look.findings.failed(path, &e),
    };
    let sample = look.sampler.read(&mut file, true).unwrap_or_default();
    let kind = match (sample.dialect, program) {
        (Some(Dialect::Npm), _) => Kind::Npm,
        (Some(Dialect::Traefik), _) | (Some(Dialect::Combined), Program::Web(Kind::Traefik)) => Kind::Traefik,
        (Some(Dialect::Combined), Program::Web(Kind::Apache)) => Kind::Apache,
        (Some(Dialect::Combined), _) => Kind::Nginx,
        (Some(Dialect::Haproxy), _) => Kind::Haproxy,
        // The program's own messages, and no requests yet.
        (None, Program::Web(Kind::Traefik)) => Kind::Traefik,
        (Some(Dialect::Sshd) | None, _) => return,
    };
    if sample.dialect.is_some() && program == Program::Other && !sample.has_clients() {
        return look.findings.note(format!(
            "container {name}: the {} requests in its log name no client from elsewhere, so it is behind a proxy that is to be \
             watched instead",
            sample.named
        ));
    }
    let said = match sample.dialect {
        Some(_) => {
            let modified = file.metadata().and_then(|meta| meta.modified());
            format!(
                "logs requests to its standard output, last {}",
                modified.map_or_else(|_| String::new(), age)
            )
        }
        None => "logs to its standard output, with no request so far".to_owned(),
    };
    let file = LogFile { tree: Rc::clone(&look.host), path: inner, docker: true };
    if propose(look, container, kind, &said, Some(file)) {
        let whose = format!("the log of the container {name}");
        look.judge(kind, &whose, &whose, &sample);
    }
}

/// Proposes the container's own log; whether that is possible.
fn propose(look: &mut Look, container: &Container, kind: Kind, said: &str, file: Option<LogFile>) -> bool {
    let name = printable(container.name.as_bytes());
    if Selector::parse(&container.name) != Ok(Selector::Name(container.name.clone())) {
        look.findings.note(format!("container {name}: Docker gives no such names, so no jail can name it"));
        return false;
    }
    let state = if container.running { "" } else { ", stopped now" };
    let how = format!("the container {name} ({}){state} {said}", printable(container.image.as_bytes()));
    look.findings.container(kind, &container.name, how, file);
    true
}

/// Volumes are named below the root that is looked at, binds as the host's own daemon names them.
fn inside(host: &Tree, source: &Path) -> PathBuf {
    Path::new("/").join(source.strip_prefix(host.path()).unwrap_or(source))
}

/// What a container sees of the host.
pub(super) struct Mounts<'c> {
    pub(super) container: &'c Container,
    host: Rc<Tree>,
}

impl Mounts<'_> {
    /// Where a path of the container is on the host: a tree and a path in it, if it is in a mount that can be seen from here.
    pub(super) fn find(&self, look: &mut Look, path: &Path) -> Option<(Rc<Tree>, PathBuf)> {
        let (source, rest) = self.source(path)?;
        match self.open(&source) {
            Ok((tree, own)) => Some((tree, own.join(rest))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                look.findings.failed(&source, &e);
                None
            }
        }
    }

    /// The mount that holds the path, as the host names it, and the rest of the path.
    fn source(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        // `..` could lead out of the mount.
        if path.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let covers = |mount: &&crate::source::docker::Mount| path.starts_with(&mount.destination);
        let deepest = |mount: &&crate::source::docker::Mount| mount.destination.components().count();
        let mount = self.container.mounts.iter().filter(covers).max_by_key(deepest)?;
        let rest = path.strip_prefix(&mount.destination).ok()?.to_owned();
        Some((inside(&self.host, &mount.source), rest))
    }

    fn open(&self, source: &Path) -> io::Result<(Rc<Tree>, PathBuf)> {
        match self.host.shared(source) {
            Ok(tree) => Ok((Rc::new(tree), PathBuf::new())),
            // A single file, mounted: the directory it is in is the host's.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                Ok((Rc::clone(&self.host), source.to_owned()))
            }
            Err(e) => Err(e),
        }
    }

    /// Looks at a directory of logs, if a mount holds it.
    fn directory(&self, look: &mut Look, path: &Path, hint: Kind, known: bool) {
        let Some((source, rest)) = self.source(path) else { return };
        match self.open(&source) {
            Ok((tree, own)) => look.directory(&tree, &own.join(rest), hint),
            Err(e) if e.kind() == io::ErrorKind::NotFound && known => self.unseen(look, &source.join(rest)),
            Err(e) => look.findings.failed(&source, &e),
        }
    }

    /// Looks at a log that the container's configuration names.
    fn log(&self, look: &mut Look, path: &Path, hint: Kind, told: &str) {
        let Some((source, rest)) = self.source(path) else {
            return look.findings.note(format!(
                "{told}, which is inside of the container alone: mount a directory of the host there, or have it log to its \
                 standard output"
            ));
        };
        match self.open(&source) {
            Ok((tree, own)) => {
                let path = own.join(&rest);
                let path = if rest.as_os_str().is_empty() { own } else { path };
                if tree.open(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                    look.findings.note(format!("{told}, which is not there yet: run setup again when it is"));
                } else {
                    look.file(&tree, &path, hint);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.unseen(look, &source.join(rest)),
            Err(e) => look.findings.failed(&source, &e),
        }
    }

    /// Docker says that it is there, and it is not: this is a container that does not see it.
    fn unseen(&self, look: &mut Look, place: &Path) {
        let name = printable(self.container.name.as_bytes());
        look.findings.note(format!(
            "the container {name} has its logs in {} of the host, which cannot be seen from here: in a container, mount it \
             read-only (to /logs/{name}) and run setup again",
            shown(place)
        ));
    }
}
