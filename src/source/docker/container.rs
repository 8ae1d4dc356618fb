//! The containers that are, as dockerd keeps them: a directory for each, `containers/ID`, in it `config.v2.json` and
//! `hostconfig.json` (moby's daemon/container, written anew under another name and renamed).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// What is larger is no such file.
const SIZE_MAX: u64 = 4 << 20;

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, without the slash in front.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What writes its log.
    pub driver: Driver,
    /// Whether it runs.
    pub running: bool,
    /// What it was made of, as it was asked for: `traefik:v3`.
    pub image: String,
    /// Its command line. It may hold secrets, and is for looking at, not for showing.
    pub command: Vec<String>,
    /// What of its environment says where Traefik writes its access log; nothing else of it is kept, because it holds secrets.
    pub access_log: Vec<String>,
    /// What of the host it sees.
    pub mounts: Vec<Mount>,
}

/// A directory or file of the host, mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where on the host; absolute.
    pub source: PathBuf,
    /// Where in the container; absolute.
    pub destination: PathBuf,
    /// Whether the container can write there.
    pub writable: bool,
}

/// What writes a container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A file of JSON records.
    File(PathBuf),
    /// systemd's journal.
    Journal,
    /// One that keeps nothing we can read.
    Other(String),
}

impl Driver {
    /// Docker's word for it.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::File(_) => "json-file",
            Self::Journal => "journald",
            Self::Other(name) => name,
        }
    }

    /// Why its log cannot be followed, if so, and what to do.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let Self::Other(name) = self else { return None };
        Some(format!(
            "its logging driver is {name}, whose logs cannot be followed: create it anew with `--log-driver json-file` or \
             `journald` (in compose, `logging: {{ driver: json-file }}`)"
        ))
    }
}

/// All containers, and what is known of their files: what did not change is not read again.
#[derive(Debug, Default)]
pub struct Catalogue {
    known: HashMap<String, (Stamp, Option<Container>)>,
}

/// When the two files were last changed, as far as the file system tells.
type Stamp = [Option<(u64, i64, i64, u64)>; 2];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawContainer {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    state: RawState,
    #[serde(default)]
    config: RawConfig,
    #[serde(default)]
    path: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    mount_points: Option<BTreeMap<String, RawMount>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawMount {
    /// Empty for a volume.
    #[serde(default)]
    source: String,
    #[serde(default)]
    destination: String,
    /// The volume's.
    #[serde(default)]
    name: String,
    #[serde(default)]
    driver: String,
    #[serde(rename = "RW", default)]
    writable: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    #[serde(default)]
    running: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    env: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHost {
    #[serde(default)]
    log_config: RawLog,
}

#[derive(Default, Deserialize)]
struct RawLog {
    #[serde(rename = "Type", default)]
    kind: String,
}

impl Catalogue {
    /// The containers under `root` (`/var/lib/docker`), sorted by name. A container whose files cannot be read yet, because it
    /// is just being made, is not among them.
    ///
    /// # Errors
    /// When there is no such directory, or it may not be read.
    pub fn look(&mut self, root: &Path) -> io::Result<Vec<Container>> {
        let directory = root.join("containers");
        let mut seen = HashMap::new();
        for entry in fs::read_dir(&directory)? {
            let Ok(id) = entry?.file_name().into_string() else { continue };
            if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
                continue;
            }
            let own = directory.join(&id);
            let files = [own.join("config.v2.json"), own.join("hostconfig.json")];
            let stamp = files.each_ref().map(|file| stamp(file));
            let container = match self.known.remove(&id) {
                Some((known, container)) if known == stamp && container.is_some() => container,
                _ => read(&id, &own, &files),
            };
            seen.insert(id, (stamp, container));
        }
        self.known = seen;
        let mut all: Vec<_> = self.known.values().filter_map(|(_, container)| container.clone()).collect();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(all)
    }
}

fn stamp(file: &Path) -> Option<(u64, i64, i64, u64)> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

fn read(id: &str, own: &Path, [config, host]: &[PathBuf; 2]) -> Option<Container> {
    let raw: RawContainer = serde_json::from_slice(&bounded(config)?).ok()?;
    let host: RawHost = serde_json::from_slice(&bounded(host)?).ok()?;
    if raw.id != id {
        return None;
    }
    let driver = match host.log_config.kind.as_str() {
        // As dockerd names it. Its `LogPath` says the same, as seen from the host: here it may be mounted elsewhere.
        "json-file" | "" => Driver::File(own.join(format!("{id}-json.log"))),
        "journald" => Driver::Journal,
        other => Driver::Other(other.to_owned()),
    };
    let volumes = own.parent().and_then(Path::parent).map(|root| root.join("volumes"))?;
    let command = std::iter::once(raw.path).chain(raw.args.unwrap_or_default()).collect();
    let access_log = |entry: &String| entry.to_ascii_uppercase().starts_with("TRAEFIK_ACCESSLOG");
    Some(Container {
        id: raw.id,
        image: raw.config.image,
        command,
        access_log: raw.config.env.unwrap_or_default().into_iter().filter(access_log).collect(),
        mounts: raw.mount_points.unwrap_or_default().into_values().filter_map(|m| m.read(&volumes)).collect(),
        name: raw.name.strip_prefix('/').unwrap_or(&raw.name).to_owned(),
        labels: raw.config.labels.unwrap_or_default(),
        driver,
        running: raw.state.running,
    })
}

impl RawMount {
    /// `None` for what is not on this host, or is no path.
    fn read(self, volumes: &Path) -> Option<Mount> {
        let source = match (self.source.as_str(), self.name.as_str()) {
            // As dockerd's own driver has it.
            ("", name)
                if self.driver == "local" && !matches!(name, "" | "." | "..") && !name.contains('/') =>
            {
                volumes.join(name).join("_data")
            }
            (source, _) => PathBuf::from(source),
        };
        let destination = PathBuf::from(self.destination);
        (source.is_absolute() && destination.is_absolute()).then_some(Mount {
            source,
            destination,
            writable: self.writable,
        })
    }
}

fn bounded(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(SIZE_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts that matter of what dockerd 27 writes for `docker run --name web --label a=b nginx`.
    fn write(root: &Path, id: &str, name: &str, driver: &str) {
        let own = root.join("containers").join(id);
        fs::create_dir_all(&own).unwrap();
        let config = format!(
            r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Paused":false,"Pid":4711}},"ID":"{id}","Created":"2026-11-21T07:00:00Z","Managed":false,"Path":"/x","Args":[],"Config":{{"Hostname":"{}","Tty":false,"Labels":{{"a":"b"}}}},"LogPath":"/var/lib/docker/containers/{id}/{id}-json.log","Name":"/{name}","Driver":"overlay2"}}"#,
            &id[..12]
        );
        fs::write(own.join("config.v2.json"), config).unwrap();
        fs::write(
            own.join("hostconfig.json"),
            format!(r#"{{"LogConfig":{{"Type":"{driver}","Config":{{}}}}}}"#),
        )
        .unwrap();
    }

    #[test]
    fn containers_are_found_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let mut catalogue = Catalogue::default();
        assert_eq!(catalogue.look(dir.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        write(dir.path(), &a, "web", "json-file");
        write(dir.path(), &b, "db", "journald");
        write(dir.path(), &c, "old", "local");
        fs::create_dir(dir.path().join("containers/tmp")).unwrap();
        let found = catalogue.look(dir.path()).unwrap();
        let told: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.driver.word(), c.running)).collect();
        assert_eq!(told, [("db", "journald", true), ("old", "local", true), ("web", "json-file", true)]);
        let log = dir.path().join(format!("containers/{a}/{a}-json.log"));
        assert_eq!(found[2].driver, Driver::File(log));
        assert!(found[1].driver.problem().unwrap().contains("--log-driver json-file"));
        assert_eq!(found[2].labels["a"], "b");
        assert_eq!(catalogue.look(dir.path()).unwrap(), found);
        fs::remove_dir_all(dir.path().join("containers").join(&b)).unwrap();
        assert_eq!(catalogue.look(dir.path()).unwrap(), [found[1].clone(), found[2].clone()]);
    }

    #[test]
    fn what_is_being_made_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let id = "d".repeat(64);
        write(dir.path(), &id, "web", "json-file");
        let file = dir.path().join(format!("containers/{id}/config.v2.json"));
        let whole = fs::read(&file).unwrap();
        let mut catalogue = Catalogue::default();
        for broken in [&whole[..whole.len() / 2], b"", b"[]", b"null", b"{}"] {
            fs::write(&file, broken).unwrap();
            assert_eq!(catalogue.look(dir.path()).unwrap(), []);
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(catalogue.look(dir.path()).unwrap().len(), 1);
    }
}
