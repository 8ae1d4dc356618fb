//! Whether a jail's logs are there and can be read.

use std::fs::File;

use super::finding::{Finding, Mark, Section};
use crate::daemon::jails::Ready;
use crate::follow::matching_files;

/// What became of the jail's `logpath`.
pub(super) fn look(ready: &Ready, section: &Section) -> Finding {
    let mut mark = Mark::Ok;
    let mut told = Vec::new();
    let mut found = 0;
    let mut finding_advice = None;
    for pattern in &ready.jail.logpath {
        let (files, mut failed) = matching_files(pattern);
        if files.is_empty() && failed.is_empty() {
            // No mistake: a log that does not exist yet is waited for.
            told.push(format!("{pattern}: no such file yet, will be waited for"));
        }
        failed.extend(files.iter().filter_map(|file| Some((file.clone(), File::open(file).err()?))));
        for (path, e) in failed {
            mark = Mark::No;
            if e.kind() == std::io::ErrorKind::PermissionDenied {
                finding_advice = Some(
                    "let the agent read it: run it as root, grant CAP_DAC_READ_SEARCH, or change the file's group or ACL",
                );
            }
            told.push(format!("{}: {e}", path.display()));
        }
        found += files.len();
        if files.len() == 1 {
            told.push(files[0].display().to_string());
        } else if files.len() > 1 {
            told.push(format!("{pattern}: {} files", files.len()));
        }
    }
    // One of two paths is often another distribution's; none at all may be a slip.
    if found == 0 && mark == Mark::Ok {
        mark = Mark::Heed;
    }
    let mut finding = Finding::new(section.clone(), mark, "logs", told.join("; "));
    finding.advice.extend(finding_advice.map(str::to_owned));
    finding
}
