//! A directory that stands for a host, and `stockade setup` looking at it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// An address nobody knows, one that is a neighbour's, one of Cloudflare's, and Docker's gateway.
pub(crate) const CLIENT: &str = "203.0.113.7";
pub(crate) const CLOUDFLARE: &str = "172.68.10.20";
pub(crate) const GATEWAY: &str = "172.18.0.1";

pub(crate) struct Host(tempfile::TempDir);

/// Now, as access logs write it.
pub(crate) fn clf() -> String {
    jiff::Zoned::now().strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
}

pub(crate) fn npm(client: &str, status: u16) -> String {
    format!(
        "[{}] - {status} {status} - GET https one.example \"/abc\" [Client {client}] [Length 111] [Gzip -] [Sent-to app] \"curl/8\" \"-\"",
        clf()
    )
}

pub(crate) fn combined(client: &str, status: u16) -> String {
    format!("{client} - - [{}] \"GET /abc HTTP/1.1\" {status} 5 \"-\" \"curl/8\"", clf())
}

pub(crate) fn traefik(client: &str, status: u16) -> String {
    format!(
        "{{\"ClientAddr\":\"{client}:4711\",\"ClientHost\":\"{client}\",\"DownstreamStatus\":{status},\"OriginStatus\":{status},\
         \"RequestMethod\":\"GET\",\"RequestPath\":\"/abc\",\"StartUTC\":\"{}\",\"level\":\"info\",\"msg\":\"\",\"time\":\"{}\"}}",
        jiff::Timestamp::now(),
        jiff::Timestamp::now()
    )
}

pub(crate) fn haproxy(client: &str, status: u16) -> String {
    let now = jiff::Zoned::now();
    format!(
        "{} web haproxy[812]: {client}:51234 [{}.655] www~ app/s1 10/0/30/69/109 {status} 2750 - - ---- 1/1/1/1/0 0/0 \"GET /abc HTTP/1.1\"",
        now.strftime("%b %e %H:%M:%S"),
        now.strftime("%d/%b/%Y:%H:%M:%S")
    )
}

pub(crate) fn sshd(client: &str) -> String {
    format!(
        "{} web sshd[99]: Failed password for root from {client} port 4711 ssh2",
        jiff::Zoned::now().strftime("%b %e %H:%M:%S")
    )
}

impl Host {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.path().join("host")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.path().join("etc/stockade/config.yaml")
    }

    /// A file of the host's.
    pub(crate) fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A log of so many lines.
    pub(crate) fn log(&self, path: &str, line: &str, count: usize) {
        self.file(path, &format!("{line}\n").repeat(count));
    }

    /// A container as dockerd 27 keeps it; mounts are pairs of what is on the host (a path, or a volume's name) and where.
    pub(crate) fn container(
        &self,
        digit: char,
        name: &str,
        image: &str,
        args: &[&str],
        mounts: &[(&str, &str)],
    ) -> String {
        let id: String = std::iter::repeat_n(digit, 64).collect();
        let points: serde_json::Map<String, Value> = mounts
            .iter()
            .map(|(source, destination)| {
                let point = if source.starts_with('/') {
                    json!({"Source": source, "Destination": destination, "RW": true, "Name": "", "Driver": "", "Type": "bind"})
                } else {
                    json!({"Source": "", "Destination": destination, "RW": true, "Name": source, "Driver": "local", "Type": "volume"})
                };
                ((*destination).to_owned(), point)
            })
            .collect();
        let config = json!({
            "State": {"Running": true, "Pid": 4711}, "ID": id, "Path": args[0], "Args": &args[1..],
            "Config": {"Image": image, "Env": ["PATH=/bin", "SECRET=hunter2"], "Labels": {"com.docker.compose.service": name}},
            "Name": format!("/{name}"), "MountPoints": points,
        });
        let own = format!("/var/lib/docker/containers/{id}");
        self.file(&format!("{own}/config.v2.json"), &config.to_string());
        self.file(&format!("{own}/hostconfig.json"), r#"{"LogConfig":{"Type":"json-file","Config":{}}}"#);
        id
    }

    /// What a container wrote to its standard output.
    pub(crate) fn stdout(&self, id: &str, line: &str, count: usize) {
        let record = json!({"log": format!("{line}\n"), "stream": "stdout", "time": jiff::Timestamp::now().to_string()});
        self.log(&format!("/var/lib/docker/containers/{id}/{id}-json.log"), &record.to_string(), count);
    }

    /// sshd, with systemd's journal and no syslog, as Debian 12 is.
    pub(crate) fn sshd_in_journal(&self) {
        self.file("/usr/sbin/sshd", "");
        self.file("/usr/lib/systemd/system/ssh.service", "[Unit]\n");
        self.file("/var/log/journal/0123456789abcdef0123456789abcdef/system.journal", "");
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_remove("SSH_CONNECTION")
            .env("STOCKADE_CONFIG", self.config())
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    /// `setup` with nobody to ask.
    pub(crate) fn setup(&self, args: &[&str]) -> Output {
        let root = self.root();
        fs::create_dir_all(&root).unwrap();
        let args = [&["setup", "--root", root.to_str().unwrap()], args].concat();
        self.command(env!("CARGO_BIN_EXE_stockade"), &args).output().unwrap()
    }

    /// The same from an address, as sshd tells it.
    pub(crate) fn setup_from(&self, address: &str) -> Output {
        let root = self.root();
        let args = ["setup", "--root", root.to_str().unwrap()];
        let mut command = self.command(env!("CARGO_BIN_EXE_stockade"), &args);
        command.env("SSH_CONNECTION", format!("{address} 4711 203.0.113.1 22")).output().unwrap()
    }

    /// With `check` behind it, which asks the kernel: in a network namespace of its own.
    pub(crate) fn setup_apart(&self, args: &[&str]) -> Output {
        let root = self.root();
        let own = [
            "--map-root-user",
            "--net",
            env!("CARGO_BIN_EXE_stockade"),
            "setup",
            "--root",
            root.to_str().unwrap(),
        ];
        self.command("unshare", &[&own, args].concat()).output().unwrap()
    }

    /// At a terminal, with this answer typed in.
    pub(crate) fn setup_at_terminal(&self, answer: &str) -> Output {
        use std::io::Write as _;
        let line = format!(
            "unshare --map-root-user --net {} setup --root {}",
            env!("CARGO_BIN_EXE_stockade"),
            self.root().display()
        );
        let mut child = self
            .command("script", &["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`script` of bsdutils makes the terminal: tests/run installs it");
        child.stdin.take().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What setup proposes, with the host's own place written as `ROOT`. It must be read by the agent as it is.
    pub(crate) fn proposal(&self) -> String {
        let out = self.setup(&[]);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out));
        let proposed = String::from_utf8(out.stdout).unwrap();
        self.is_read(&proposed);
        self.placeless(&proposed)
    }

    pub(crate) fn is_read(&self, proposed: &str) {
        let file = self.0.path().join("proposed.yaml");
        fs::write(&file, proposed).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let config = stockade::commands::load(&file).unwrap();
        assert!(config.warnings.is_empty(), "{:?}\n{proposed}", config.warnings);
        assert!(!config.jails.is_empty(), "{proposed}");
    }

    pub(crate) fn placeless(&self, text: &str) -> String {
        text.replace(self.root().canonicalize().unwrap().to_str().unwrap(), "ROOT")
    }
}

pub(crate) fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

pub(crate) fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Compares with a file that an admin can read. `STOCKADE_GOLDEN=write` writes it anew, to be read over in the diff.
pub(crate) fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/golden").join(format!("{name}.yaml"));
    let found = found.trim_start();
    if std::env::var_os("STOCKADE_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&path, found).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} says otherwise (STOCKADE_GOLDEN=write writes it anew); found:\n{found}",
        path.display()
    );
}
