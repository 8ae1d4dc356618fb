//! Where Traefik writes its access log: its arguments, its environment and its static configuration say so.
//!
//! The file is read by lines and not as YAML or TOML: a few keys of one section are all that matters, and a file that is not
//! understood is no worse than one that is not there.

use std::path::{Path, PathBuf};

use super::conf;
use super::containers::Mounts;
use super::look::Look;

/// Where its access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AccessLog {
    Off,
    Stdout,
    /// A path in the container.
    File(PathBuf),
}

/// Where Traefik looks for its static configuration, but for what `--configfile` says.
pub(super) const STATIC: [&str; 4] =
    ["/etc/traefik/traefik.yml", "/etc/traefik/traefik.yaml", "/etc/traefik/traefik.toml", "/traefik.yml"];
/// A larger one is none.
const SIZE: u64 = 1 << 20;

/// The access log of a Traefik in a container.
pub(super) fn access_log(look: &mut Look, mounts: &Mounts<'_>) -> AccessLog {
    let container = mounts.container;
    let mut found = AccessLog::Off;
    let option = |name: &str| {
        container.command.iter().find_map(|word| {
            let (key, value) = word.strip_prefix("--")?.split_once('=')?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let named = option("configfile").map(PathBuf::from);
    for path in named.iter().map(PathBuf::as_path).chain(STATIC.iter().map(Path::new)) {
        let Some((tree, place)) = mounts.find(look, path) else { continue };
        if let Some(text) = look.text(&tree, &place, SIZE) {
            conf::mentioned(look, &tree.path().join(place.strip_prefix("/").unwrap_or(&place)), &text);
            found = of_text(&text).unwrap_or(found);
        }
    }
    let environment = container.access_log.iter().filter_map(|entry| {
        let (key, value) = entry.split_once('=')?;
        Some((key.strip_prefix("TRAEFIK_").unwrap_or(key).replace('_', "."), value.to_owned()))
    });
    let arguments = container.command.iter().filter_map(|word| {
        let word = word.strip_prefix("--")?;
        let (key, value) = word.split_once('=').unwrap_or((word, "true"));
        Some((key.to_owned(), value.to_owned()))
    });
    for (key, value) in environment.chain(arguments) {
        match key.to_ascii_lowercase().as_str() {
            "accesslog.filepath" if !value.is_empty() => found = AccessLog::File(PathBuf::from(value)),
            "accesslog" if value.eq_ignore_ascii_case("false") => found = AccessLog::Off,
            key if key.starts_with("accesslog") && found == AccessLog::Off => found = AccessLog::Stdout,
            _ => {}
        }
    }
    let text = container.command.join("\n");
    conf::mentioned(look, Path::new("the arguments of Traefik's container"), &text);
    found
}

/// What a static configuration says, in YAML or TOML; `None` if nothing.
pub(super) fn of_text(text: &str) -> Option<AccessLog> {
    let mut found = None;
    // How far the section is indented, while its lines are read.
    let mut section: Option<usize> = None;
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let lower = bare.to_ascii_lowercase();
        if lower.starts_with("accesslog:") || lower.starts_with("[accesslog]") {
            section = Some(if lower.starts_with('[') { usize::MAX } else { indent });
            found = Some(AccessLog::Stdout);
        } else if section.is_some_and(|begun| begun != usize::MAX && indent <= begun) || bare.starts_with('[')
        {
            section = None;
        }
        if section.is_some()
            && let Some(at) = lower.find("filepath")
            && let Some(path) = value(&bare[at + "filepath".len()..])
        {
            found = Some(AccessLog::File(PathBuf::from(path)));
        }
    }
    found
}

/// Behind a key: `: value`, `= "value"`, in a flow map perhaps.
fn value(rest: &str) -> Option<String> {
    let rest = rest.trim_start().strip_prefix([':', '='])?.trim();
    let text = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].split(quote).next()?,
        _ => rest.split([',', '}', '#']).next()?.trim(),
    };
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_configuration_says_where_the_log_goes() {
        let file = |path: &str| Some(AccessLog::File(PathBuf::from(path)));
        for (text, wanted) in [
            ("log:\n  filePath: /x\n", None),
            ("accessLog: {}\n", Some(AccessLog::Stdout)),
            ("accessLog:\n  format: json\n", Some(AccessLog::Stdout)),
            ("# accessLog:\n", None),
            (
                "accessLog:\n  filePath: \"/logs/access.log\"\n  format: json\nlog:\n  filePath: /x\n",
                file("/logs/access.log"),
            ),
            ("accessLog: { filePath: /a.log, format: json }\n", file("/a.log")),
            ("[accessLog]\n  filePath = '/b.log' # where\n[log]\n  filePath = \"/x\"\n", file("/b.log")),
            ("log:\n  filePath: /x\naccessLog:\n\n  filePath: /c.log\n", file("/c.log")),
        ] {
            assert_eq!(of_text(text), wanted, "{text}");
        }
    }
}
