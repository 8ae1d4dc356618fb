//! A machine that is booted from a copy of the root: systemd as its first process, its own network and firewall.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::dist::text;
use crate::root;

/// What the service's capabilities come from, and what systemd itself needs besides nspawn's usual ones.
const RIGHTS: [&str; 2] =
    ["--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON,CAP_SYS_ADMIN", "--system-call-filter=bpf"];

/// Lays a copy of the root that is gone afterwards, in a control group of its own, and boots it. In a mount namespace:
/// nothing of it is seen outside, and nothing has to be unmounted.
const BOOT: &str = r#"
set -eu
mount -t tmpfs tmpfs "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
umount -R /sys/fs/cgroup 2>/dev/null || :
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$GROUP"
echo $$ >"/sys/fs/cgroup/$GROUP/cgroup.procs"
exec systemd-nspawn --quiet --boot --directory="$WORK/root" --machine="$GROUP" --private-network --register=no --keep-unit \
    --resolv-conf=off --timezone=off --link-journal=no --console=pipe --bind-ro="$FILES:/packages" "$@"
"#;

pub(crate) struct Machine {
    nspawn: Child,
    /// Its first process, as this host numbers it.
    first: u32,
    group: String,
    _work: tempfile::TempDir,
}

impl Machine {
    /// Boots it, with the directory `files` as /packages.
    pub(crate) fn boot(name: &str, files: &Path) -> Self {
        let base = root::debian();
        let work = tempfile::tempdir().unwrap();
        let group = format!("stockade-{name}-{}", std::process::id());
        let console = fs::File::create(work.path().with_extension("console")).unwrap();
        let nspawn = Command::new("unshare")
            .args(["--mount", "--propagation=private", "sh", "-c", BOOT, "boot", RIGHTS[0], RIGHTS[1]])
            .env("WORK", work.path())
            .env("BASE", base)
            .env("FILES", files)
            .env("GROUP", &group)
            // The host's layout of control groups is none of its business.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap_or_else(|e| panic!("unshare cannot be run: {e}"));
        let mut machine = Self { nspawn, first: 0, group, _work: work };
        machine.wait();
        machine
    }

    /// Until systemd has started everything.
    fn wait(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        let mut state = "not there".to_owned();
        while Instant::now() < end {
            if let Some(status) = self.nspawn.try_wait().unwrap() {
                panic!(
                    "systemd-nspawn ended with {status} (tests/run installs systemd-container):\n{}",
                    self.console()
                );
            }
            let pid = self.nspawn.id();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            if let Some(first) = children.split_whitespace().next() {
                self.first = first.parse().unwrap();
                state = text(&self.try_run("systemctl is-system-running")).trim().to_owned();
                if ["running", "degraded"].contains(&state.as_str()) {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the machine did not boot: {state}\n{}", self.console());
    }

    fn console(&self) -> String {
        fs::read_to_string(self._work.path().with_extension("console")).unwrap_or_default()
    }

    /// Runs a script in the machine.
    pub(crate) fn try_run(&self, script: &str) -> Output {
        Command::new("nsenter")
            .args(["--target", &self.first.to_string(), "--all", "--root", "--wd", "env", "-i"])
            .args([
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME=/root",
                "TERM=dumb",
            ])
            .args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "sh", "-eu", "-c", script])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same, which must succeed; what was written to the standard output.
    pub(crate) fn run(&self, script: &str) -> String {
        let out = self.try_run(script);
        assert!(out.status.success(), "{script}\n{}\n{}", text(&out), self.journal());
        String::from_utf8(out.stdout).unwrap()
    }

    /// Whether a script succeeds.
    pub(crate) fn is(&self, script: &str) -> bool {
        self.try_run(script).status.success()
    }

    /// Waits until a script succeeds.
    pub(crate) fn await_that(&self, script: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.is(script) {
            assert!(
                Instant::now() < end,
                "never: {script}\n{}\n{}",
                text(&self.try_run(script)),
                self.journal()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the service said.
    fn journal(&self) -> String {
        text(&self.try_run("journalctl --no-pager --output=cat --unit=stockade | tail -n 40"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.first != 0 {
            // To systemd: power off at once.
            drop(self.try_run("systemctl poweroff --force --force"));
        }
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && matches!(self.nspawn.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(self.nspawn.kill());
        drop(self.nspawn.wait());
        drop(fs::remove_file(self._work.path().with_extension("console")));
        // Its control group is seen through any mount of the hierarchy.
        let script = "mount -t cgroup2 cgroup2 /sys/fs/cgroup && find \"/sys/fs/cgroup/$0\" -depth -type d -exec rmdir {} +";
        drop(
            Command::new("unshare")
                .args(["--mount", "--propagation=private", "sh", "-c", script, &self.group])
                .stderr(Stdio::null())
                .status(),
        );
    }
}
