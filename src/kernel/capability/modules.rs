//! Kernel modules: loaded, to be had, or not there.

use std::path::Path;
use std::{fs, io};

/// What is known about this kernel's modules.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// `uname -r`.
    pub release: String,
    /// `modules.dep` and `modules.builtin`; `None`: the directory of this release is not here, as in most containers.
    index: Option<String>,
    /// Kernels that cannot load modules have no `/proc/modules`.
    loadable: bool,
}

/// Where a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Loaded or built in.
    Here,
    /// Installed; it is loaded when it is asked for.
    Installed,
    /// Not installed.
    Absent,
    /// Not known.
    Unknown,
}

impl Modules {
    /// Reads what is known.
    #[must_use]
    pub fn read() -> Self {
        let release = release();
        let index = ["/lib/modules", "/usr/lib/modules"]
            .iter()
            .find_map(|root| index(&Path::new(root).join(&release)).ok());
        Self { release, index, loadable: Path::new("/proc/modules").exists() }
    }

    /// Where the module is.
    #[must_use]
    pub fn presence(&self, name: &str) -> Presence {
        // A module that is built in has a directory there only if it has parameters.
        if Path::new("/sys/module").join(name).exists() {
            return Presence::Here;
        }
        self.installed(name)
    }

    fn installed(&self, name: &str) -> Presence {
        match &self.index {
            Some(index) if !lists(index, name) => Presence::Absent,
            Some(_) => Presence::Installed,
            None => Presence::Unknown,
        }
    }

    /// How to come by modules that the kernel says it does not have.
    #[must_use]
    pub fn advice(&self, names: &[&str]) -> String {
        let release = &self.release;
        let missing: Vec<&str> =
            names.iter().copied().filter(|name| self.presence(name) != Presence::Here).collect();
        let list = if missing.is_empty() { names.join(" ") } else { missing.join(" ") };
        let package = format!(
            "install linux-modules-extra-{release} (Ubuntu) or kernel-modules-extra (Fedora, RHEL), or another kernel"
        );
        if !self.loadable {
            return format!("this kernel loads no modules: take one with {list}");
        }
        match missing.iter().map(|name| self.installed(name)).max_by_key(|presence| match presence {
            Presence::Absent => 2,
            Presence::Unknown => 1,
            Presence::Here | Presence::Installed => 0,
        }) {
            Some(Presence::Absent) => format!("{list} is not installed: {package}"),
            Some(Presence::Unknown) => {
                format!("on the host: modprobe -a {list}; where that fails, {package}")
            }
            _ => format!("modprobe -a {list}, and see that no file in /etc/modprobe.d forbids it"),
        }
    }
}

/// Whether the running kernel is certainly older than this version.
#[must_use]
pub fn is_older_than(major: u32, minor: u32) -> bool {
    older(&release(), major, minor)
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

fn older(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    matches!((numbers.next(), numbers.next()), (Some(Ok(a)), Some(Ok(b))) if (a, b) < (major, minor))
}

/// The lines of both lists of a release (depmod(8)).
fn index(directory: &Path) -> io::Result<String> {
    let mut text = fs::read_to_string(directory.join("modules.dep"))?;
    text.push('\n');
    text.push_str(&fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default());
    Ok(text)
}

/// Whether a line is about the module: `kernel/net/netfilter/xt_string.ko.zst: …`. Names in files may have `-` for `_`.
fn lists(index: &str, name: &str) -> bool {
    index.lines().any(|line| {
        let path = line.split(':').next().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/net/netfilter/xt_string.ko.zst: kernel/lib/ts_bm.ko.zst\n\
                         kernel/net/bridge/br-netfilter.ko:\n\
                         kernel/net/netfilter/nf_tables.ko\n";

    fn modules(index: Option<&str>, loadable: bool) -> Modules {
        Modules { release: "6.1.0-9".into(), index: index.map(str::to_owned), loadable }
    }

    #[test]
    fn a_module_is_found_by_its_file() {
        for (name, there) in [
            ("xt_string", true),
            ("br_netfilter", true),
            ("nf_tables", true),
            ("ts_bm", false),
            ("xt_strin", false),
            ("string", false),
        ] {
            assert_eq!(lists(INDEX, name), there, "{name}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let older = |release: &str| older(release, 5, 9);
        assert!(older("4.18.0-553.el8_10.x86_64") && older("5.4.0-42-generic") && older("5.8.18"));
        assert!(
            !older("5.9.0") && !older("5.15.0-1") && !older("6.1.0-9-amd64") && !older("") && !older("x.y")
        );
    }

    #[test]
    fn advice_fits_what_is_known() {
        let advice = |index, loadable| modules(index, loadable).advice(&["no_such", "xt_string"]);
        assert!(advice(Some(INDEX), true).contains("linux-modules-extra-6.1.0-9"));
        assert!(advice(Some(""), false).starts_with("this kernel loads no modules"));
        assert!(advice(None, true).starts_with("on the host: modprobe -a no_such xt_string"));
        assert!(modules(Some(INDEX), true).advice(&["xt_string"]).starts_with("modprobe -a xt_string"));
    }
}
