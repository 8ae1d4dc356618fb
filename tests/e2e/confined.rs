//! The agent is run as `stockade.service` runs it: with no more capabilities, and under the filter of system calls that stands
//! in the unit. What the filter refuses with an error there, kills here: nothing can go on without what it asked for.
//!
//! The unit is read for it, with the drop-ins a test names, so the whole suite judges what is shipped. What systemd does with
//! mounts is left out: logs and state of a test lie in a directory of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd");
/// What is to be run, and by which drop-ins: between the words stands a separator of ASCII.
const RUN: &str = "STOCKADE_TEST_RUN";
const WITH: &str = "STOCKADE_TEST_WITH";
const SEPARATOR: &str = "\x1f";

/// The words that run `command` confined when they stand in its place. `with` are drop-ins of `packaging/systemd/examples`, and
/// capabilities.
pub(crate) fn command(command: &[&str], with: &[String]) -> Vec<String> {
    let this = std::env::current_exe().unwrap();
    let run = format!("{RUN}={}", command.join(SEPARATOR));
    let with = format!("{WITH}={}", with.join(SEPARATOR));
    let this = this.to_str().unwrap();
    ["env", &run, &with, this, "--exact", "confined::launch", "--ignored", "--nocapture"]
        .map(str::to_owned)
        .to_vec()
}

/// Becomes the program that is to be run: this process is nothing else any more.
#[test]
#[ignore = "no test: `command` has this program run so, to become another one"]
fn launch() {
    let words = std::env::var(RUN).unwrap();
    let with = std::env::var(WITH).unwrap();
    let unit = Unit::read(with.split(SEPARATOR).filter(|word| !word.is_empty()));
    // What the test harness has said is not the agent's log.
    nix::unistd::ftruncate(std::io::stdout(), 0).unwrap();
    nix::unistd::lseek(std::io::stdout(), 0, nix::unistd::Whence::SeekSet).unwrap();
    let words: Vec<&str> = words.split(SEPARATOR).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_remove(RUN).env_remove(WITH);
    // Without no_new_privs systemd alone can install a filter, for it may do everything.
    let filters = if unit.last("NoNewPrivileges") == "no" { Vec::new() } else { unit.filters() };
    drop_capabilities(unit.capabilities(), unit.last("SecureBits") == "noroot-locked");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    for filter in &filters {
        apply_filter(filter).unwrap();
    }
    panic!("{}: {}", words[0], command.exec());
}

/// As the unit's User=, AmbientCapabilities=, CapabilityBoundingSet= and SecureBits= do, but for the user.
fn drop_capabilities(keep: CapabilitySet, as_any_other: bool) {
    let known = (0..63).map(|n| CapabilitySet::from_bits_retain(1 << n));
    for one in known.filter(|one| capability_is_in_bounding_set(*one) == Ok(true)) {
        if !keep.contains(one) {
            remove_capability_from_bounding_set(one).unwrap();
        }
    }
    if !as_any_other {
        return;
    }
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    set_capabilities_secure_bits(bits).unwrap();
    set_capabilities(None, CapabilitySets { effective: keep, permitted: keep, inheritable: keep }).unwrap();
    for one in keep.iter() {
        configure_capability_in_ambient_set(one, true).unwrap();
    }
}

/// The directives of the unit and of drop-ins, in their order.
struct Unit(Vec<(String, String)>);

impl Unit {
    fn read<'a>(with: impl Iterator<Item = &'a str>) -> Self {
        let mut unit = Self(Vec::new());
        unit.add(&Path::new(UNITS).join("stockade.service"));
        for word in with {
            match word.strip_prefix("CAP_") {
                Some(_) => unit.0.push(("CapabilityBoundingSet".to_owned(), word.to_owned())),
                None => unit.add(&Path::new(UNITS).join("examples").join(word)),
            }
        }
        unit
    }

    fn add(&mut self, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        self.0
            .extend(lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    /// The words of a directive that may stand several times; an empty one forgets those before (systemd.exec(5)).
    fn words(&self, directive: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for (_, value) in self.0.iter().filter(|(name, _)| name == directive) {
            if value.is_empty() {
                words.clear();
            }
            words.extend(value.split_whitespace());
        }
        assert!(!words.is_empty(), "the unit has no {directive}=");
        words
    }

    /// What holds of a directive that has one value.
    fn last(&self, directive: &str) -> &str {
        let mut of = self.0.iter().filter(|(name, _)| name == directive);
        of.next_back()
            .map(|(_, value)| value.as_str())
            .unwrap_or_else(|| panic!("the unit has no {directive}="))
    }

    fn capabilities(&self) -> CapabilitySet {
        let name = |word: &str| word.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
        self.words("CapabilityBoundingSet").into_iter().map(|word| name(word).expect(word)).collect()
    }

    /// The filters that systemd would install.
    fn filters(&self) -> Vec<BpfProgram> {
        let numbers = numbers();
        let number = |name: &str| *numbers.get(name).unwrap_or_else(|| panic!("no system call {name}"));
        let allowed = self.allowed().into_iter().filter_map(|name| Some((*numbers.get(&name)?, vec![])));
        let refused = |name: &str, rules: Vec<SeccompRule>| (number(name), rules);
        let families = self.words("RestrictAddressFamilies").into_iter().map(family);
        let families = families.map(|family| condition(0, SeccompCmpOp::Ne, family)).collect();
        for switch in ["MemoryDenyWriteExecute", "RestrictNamespaces"] {
            assert_eq!(self.last(switch), "yes", "{switch}= is what the filters below are made for");
        }
        let (write_exec, exec) = (0x6, 0x4);
        let masked = |argument, mask| rule(vec![condition(argument, SeccompCmpOp::MaskedEq(mask), mask)]);
        let namespaces =
            [0x80, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
        let denied = [
            refused("socket", vec![rule(families)]),
            refused("mmap", vec![masked(2, write_exec)]),
            refused("mprotect", vec![masked(2, exec)]),
            refused("pkey_mprotect", vec![masked(2, exec)]),
            refused("shmat", vec![masked(2, 0o100_000)]),
            refused("clone", namespaces.map(|flag| masked(0, flag)).to_vec()),
            refused("unshare", vec![]),
            refused("setns", vec![]),
        ];
        // Its flags lie in memory, where no filter can look: who asks uses clone(2) then.
        let without_flags = [refused("clone3", vec![])];
        let kill = SeccompAction::KillProcess;
        // The list of what is allowed is the last: seccomp(2) is not on it.
        vec![
            program(denied, SeccompAction::Allow, kill.clone()),
            program(without_flags, SeccompAction::Allow, SeccompAction::Errno(nix::libc::ENOSYS as u32)),
            program(allowed, kill, SeccompAction::Allow),
        ]
    }

    /// The names of system calls, groups resolved as this machine's systemd does.
    fn allowed(&self) -> BTreeSet<String> {
        let out = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output();
        let out = out.expect(
            "systemd-analyze resolves groups of system calls: tests/run installs the package systemd",
        );
        assert!(out.status.success(), "{out:?}");
        let text = String::from_utf8(out.stdout).unwrap();
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut group = "";
        for line in text.lines().filter(|line| !line.trim().starts_with('#')) {
            match line.strip_prefix([' ', '\t']) {
                None => group = line.trim(),
                Some(member) => groups.entry(group).or_default().push(member.trim()),
            }
        }
        let mut names = BTreeSet::new();
        // What is always allowed when something is.
        let mut todo = vec![(true, "@default")];
        for word in self.words("SystemCallFilter").into_iter().rev() {
            todo.push(word.strip_prefix('~').map_or((true, word), |word| (false, word)));
        }
        while let Some((add, word)) = todo.pop() {
            if word.starts_with('@') {
                let members = groups.get(word).unwrap_or_else(|| panic!("systemd knows no group {word}"));
                todo.extend(members.iter().map(|member| (add, *member)));
            } else if add {
                names.insert(word.to_owned());
            } else {
                names.remove(word);
            }
        }
        names
    }
}

/// The numbers of system calls, as the C library's headers have them. What this machine does not have has none.
fn numbers() -> BTreeMap<String, i64> {
    let out =
        Command::new("cc").args(["-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]).output();
    let out = out.expect("cc tells the numbers of system calls: tests/run installs gcc");
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).unwrap();
    let numbers = text.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    });
    let numbers: BTreeMap<_, _> = numbers.collect();
    assert!(numbers.len() > 300, "{text}");
    numbers
}

fn family(name: &str) -> u64 {
    match name {
        "AF_UNIX" => 1,
        "AF_INET" => 2,
        "AF_INET6" => 10,
        "AF_NETLINK" => 16,
        other => panic!("an address family of which this test knows nothing: {other}"),
    }
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).unwrap()
}

fn rule(conditions: Vec<SeccompCondition>) -> SeccompRule {
    SeccompRule::new(conditions).unwrap()
}

fn program(
    rules: impl IntoIterator<Item = (i64, Vec<SeccompRule>)>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> BpfProgram {
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    SeccompFilter::new(rules.into_iter().collect(), otherwise, matched, arch).unwrap().try_into().unwrap()
}

/// Without this nobody would know whether the rest of the suite was run under any filter.
#[test]
fn what_the_unit_does_not_allow_kills() {
    let run = |words: &[&str]| {
        let confined = command(words, &[]);
        // The launcher empties what it writes to: a file, as for an agent.
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new(&confined[0]);
        child.args(&confined[1..]).stdout(file.reopen().unwrap()).stderr(file.reopen().unwrap());
        let status = child.status().unwrap();
        (status, std::fs::read_to_string(file.path()).unwrap())
    };
    let (status, told) = run(&["grep", "-E", "^(Cap|NoNew|Seccomp:)", "/proc/self/status"]);
    assert!(status.success(), "{status}: {told}");
    let four = "000000c000001004";
    for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|set| format!("{set}:\t{four}"))
        .iter()
        .chain(&["NoNewPrivs:\t1".to_owned(), "Seccomp:\t2".to_owned()])
    {
        assert!(told.contains(line), "{line} is missing in {told}");
    }
    for refused in
        [&["unshare", "--user", "true"][..], &["chroot", "/", "true"], &["unshare", "--net", "true"]]
    {
        let (status, told) = run(refused);
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(31),
            "{refused:?}: {status} {told}"
        );
    }
    // A socket of a family that is none of the unit's (AF_PACKET).
    let (status, told) = run(&["perl", "-e", "socket(my $s, 17, 3, 0)"]);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(31), "{status} {told}");
}
