//! A Docker host: a Debian with a Docker Engine, in namespaces of its own (see the script `machine`).

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An engine begins, and ends, within this time on a slow machine.
const ENGINE: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    boot: Child,
    init: String,
    cgroup: String,
    /// What was written, gone with the machine.
    _dir: tempfile::TempDir,
}

impl Machine {
    /// Starts the machine, without its engine. Fails loudly where that is not possible: these tests are never skipped.
    pub(crate) fn boot() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the tests of Docker make namespaces: run tests/run as root"
        );
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let host = target().join("docker-host");
        assert!(
            host.join("usr/sbin/dockerd").exists(),
            "there is no Docker host in {}: run tests/docker/host first (tests/run does)",
            host.display()
        );
        let dir = tempfile::Builder::new().prefix("docker-").tempdir_in(target()).unwrap();
        let log = File::create(dir.path().join("boot.log")).unwrap();
        let boot = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
            .arg(top.join("tests/docker/machine"))
            .args([host.as_path(), dir.path(), top])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let log = dir.path().join("boot.log");
        let told = || fs::read_to_string(&log).unwrap_or_default();
        let children = format!("/proc/{0}/task/{0}/children", boot.id());
        let init = || fs::read_to_string(&children).unwrap_or_default().trim().to_owned();
        assert!(eventually(ENGINE, || !init().is_empty()), "the machine does not start: {}", told());
        let cgroup = format!("/stockade-docker-{}", boot.id());
        let machine = Self { init: init(), cgroup, boot, _dir: dir };
        let up = || machine.command("test", &["-e", "/run/up"]).output().unwrap().status.success();
        assert!(eventually(ENGINE, up), "the machine does not come up: {}", told());
        machine
    }

    /// A command that will run on the machine.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init, "--mount", "--net", "--pid", "--", program]).args(args);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").current_dir("/");
        command
    }

    /// What came of a shell's commands.
    pub(crate) fn tried(&self, commands: &str) -> Output {
        self.command("sh", &["-ec", commands]).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a shell's commands, which must succeed; what they print.
    #[track_caller]
    pub(crate) fn sh(&self, commands: &str) -> String {
        let out = self.tried(commands);
        assert!(out.status.success(), "{commands}\n{}\n{}", text(&out), self.state());
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Writes a file, making its directory.
    pub(crate) fn write(&self, path: &str, content: &str) {
        // Through the kernel's own view of that root, links and all.
        let path = PathBuf::from(format!("/proc/{}/root{path}", self.init));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Starts the engine as a Debian host has it, with IPv6.
    pub(crate) fn start_engine(&self) {
        let settings = format!(
            r#"{{"experimental":true,"ip6tables":true,"ipv6":true,"fixed-cidr-v6":"fd00:d0::/64","cgroup-parent":"{}"}}"#,
            self.cgroup
        );
        self.write("/etc/docker/daemon.json", &settings);
        self.sh("setsid dockerd </dev/null >>/run/dockerd.log 2>&1 &");
        let up = eventually(ENGINE, || self.tried("docker info").status.success());
        assert!(up, "the engine does not start: {}", self.sh("tail -30 /run/dockerd.log"));
    }

    /// Ends the engine, and with it its containers.
    pub(crate) fn stop_engine(&self) {
        self.sh("pkill --exact dockerd");
        let gone = eventually(ENGINE, || !self.tried("pgrep --exact dockerd").status.success());
        assert!(gone, "the engine does not end: {}", self.sh("tail -30 /run/dockerd.log"));
    }

    /// What may tell why a test fails.
    pub(crate) fn state(&self) -> String {
        let all = "docker ps --all; docker logs --tail 40 stockade; docker exec stockade stockade status; \
                   docker exec stockade stockade bans; nft list ruleset | head -150; tail -5 /run/dockerd.log";
        text(&self.command("sh", &["-c", all]).output().unwrap())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process of its namespace: with it go all others, the mounts, the networks and the wires between them.
        drop(Command::new("kill").args(["-KILL", &self.init]).status());
        drop(self.boot.kill());
        drop(self.boot.wait());
        // What is left are the engine's control groups, which belong to no namespace.
        let sweep = format!(
            "find /sys/fs/cgroup -depth -type d -path '/sys/fs/cgroup*{}*' -exec rmdir {{}} +",
            self.cgroup
        );
        eventually(Duration::from_secs(5), || {
            Command::new("sh").args(["-c", &sweep]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        });
    }
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), |dir| top.join(dir))
}

/// Whether it comes true in time.
pub(crate) fn eventually(patience: Duration, mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if is() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// All that a program has said.
pub(crate) fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
