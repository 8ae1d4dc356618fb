//! `stockade setup`: looks at the host, proposes a configuration, and writes it when told to.

use std::path::Path;

use anyhow::Result;

use super::Failure;
use crate::cli::exit;

/// Proposes a configuration for the host below `root`, and writes it to `path` after confirmation or with `yes`.
pub(super) fn run(path: &Path, root: &Path, yes: bool, observe: bool) -> Result<()> {
    let _ = (path, root, yes, observe);
    Err(Failure::new(exit::REFUSED, "setup is not there yet").into())
}
