//! The file itself: made private, opened, set aside when it is damaged.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::schema;
use crate::confine;

/// The file's name in the state directory.
pub(super) const NAME: &str = "stockade.db";
/// So many damaged files are kept, the newest, for whoever wants to know what happened.
const ASIDE: usize = 2;

/// Why the ledger cannot be used. The agent bans without it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or the file cannot be made.
    #[error("failed to make {}: {source}; let the agent write there, or move it with paths.state{}", path.display(), confine::hint(path, source))]
    Make {
        /// What could not be made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else has its name.
    #[error("{} is not a regular file: take it away", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A later version wrote it.
    #[error(
        "{} was written by a later version of stockade (its schema is {found}, this one knows {known}): install that \
         version again, or take the file away",
        path.display(), known = schema::version()
    )]
    Newer {
        /// The path.
        path: PathBuf,
        /// Its schema's version.
        found: usize,
    },
    /// SQLite says no.
    #[error("failed to {what} {}: {source}{}", path.display(), hint(source))]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// Whether the file's content is to blame, so that it should be set aside.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if is_damage(source))
    }
}

/// Whether the error means that the file's content cannot be relied on.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            // A plain "error": our statements are in order, so tables are missing, or lack columns.
            let missing = failure.extended_code == rusqlite::ffi::SQLITE_ERROR;
            missing || matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        rusqlite::Error::SqlInputError { .. } => true,
        // A value of another type than the schema says.
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

fn hint(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => " (free some space)",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            " (let the agent write to the file and its directory)"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            " (another program uses it: a second agent with the same paths.state?)"
        }
        _ => "",
    }
}

/// Opens the file in the directory `state`, making both where they are missing.
pub(super) fn open(state: &Path) -> Result<Connection, OpenError> {
    let path = state.join(NAME);
    private(state, &path)?;
    // The directory may be a link to where there is room, as it is in a container; the file may not be one.
    let path = fs::canonicalize(state).map_or(path, |state| state.join(NAME));
    let failed = |what| {
        let path = path.clone();
        move |source| OpenError::Sqlite { what, path, source }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = Connection::open_with_flags(&path, flags).map_err(failed("open"))?;
    settings(&connection).map_err(failed("open"))?;
    let found = schema::migrate(&mut connection).map_err(failed("prepare"))?;
    if found > schema::version() {
        return Err(OpenError::Newer { path, found });
    }
    Ok(connection)
}

fn settings(connection: &Connection) -> rusqlite::Result<()> {
    // Who else uses it will not be done with it soon.
    connection.busy_timeout(std::time::Duration::ZERO)?;
    // Before the first access: then the index of the write-ahead log is kept in memory, and not in a third file that is
    // mapped. Nobody else has business in the file while the agent runs.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // Answers with the mode that holds; some file systems know none but `delete`, which will do.
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.query_row("PRAGMA journal_size_limit=4194304", [], |_| Ok(()))?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The file is not trusted more than it must be.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

/// Makes directory and file for us alone.
fn private(state: &Path, path: &Path) -> Result<(), OpenError> {
    let make = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Make { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(make(state))?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Err(OpenError::NotAFile { path: path.to_owned() }),
        // It tells who visited what: evidence is for the administrator alone.
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(make(path))?;
        }
        Ok(_) => {}
        // SQLite would make it readable by others, and gives its side files the mode of the file.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(make(path))?;
        }
        Err(e) => return Err(make(path)(e)),
    }
    Ok(())
}

/// Gives a damaged file another name, with its write-ahead log; that name.
pub(super) fn set_aside(state: &Path, now: i64) -> io::Result<PathBuf> {
    let aside = |n: i64| state.join(format!("{NAME}.damaged-{n}"));
    let to = aside(now);
    fs::rename(state.join(NAME), &to)?;
    for suffix in ["-wal", "-shm", "-journal"] {
        let side = state.join(format!("{NAME}{suffix}"));
        match fs::rename(&side, format!("{}{suffix}", to.display())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    let prefix = format!("{NAME}.damaged-");
    let numbers = fs::read_dir(state)?.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_prefix(&prefix)?.parse::<i64>().ok()
    });
    let mut numbers: Vec<i64> = numbers.collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    for old in numbers.into_iter().skip(ASIDE).map(aside) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // Tidying up is no duty.
            drop(fs::remove_file(format!("{}{suffix}", old.display())));
        }
    }
    Ok(to)
}
