//! The tables, and how older ones become them.

use rusqlite::Connection;

/// One step from each version to the next; the version is kept in `PRAGMA user_version`. A released step is never
/// changed: add another one.
const STEPS: [&str; 2] = [
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    -- Jails by name: numbers are given anew at each start.
    CREATE TABLE jails (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    -- An offender is the bytes of its network, 4 or 16, and its prefix length. Times are milliseconds since 1970, UTC.
    CREATE TABLE bans (
        jail INTEGER NOT NULL, offender BLOB NOT NULL, since INTEGER NOT NULL, until INTEGER, offenses INTEGER NOT NULL,
        evidence BLOB NOT NULL, forced INTEGER NOT NULL, PRIMARY KEY (jail, offender)) WITHOUT ROWID;
    -- Who is being counted: when last heard from, where the last ban ended, and the offenses' times, 8 bytes each,
    -- little-endian, in the order they were read.
    CREATE TABLE windows (
        jail INTEGER NOT NULL, offender BLOB NOT NULL, heard INTEGER NOT NULL, floor INTEGER, times BLOB NOT NULL,
        PRIMARY KEY (jail, offender)) WITHOUT ROWID;
    -- Repeaters: bans so far, when the last one began, and when it ended or will. Jail 0 stands for all jails.
    CREATE TABLE history (
        jail INTEGER NOT NULL, offender BLOB NOT NULL, count INTEGER NOT NULL, last INTEGER NOT NULL, last_end INTEGER,
        PRIMARY KEY (jail, offender)) WITHOUT ROWID;
    -- How far files were read. dev, inode and offset are the bits of unsigned numbers.
    CREATE TABLE files (
        dev INTEGER NOT NULL, inode INTEGER NOT NULL, path BLOB NOT NULL, offset INTEGER NOT NULL, head BLOB NOT NULL,
        inside INTEGER NOT NULL, tail BLOB NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (dev, inode)) WITHOUT ROWID;
    -- How far other sources were read, as they say it themselves.
    CREATE TABLE cursors (source TEXT PRIMARY KEY, cursor TEXT NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
",
    "
    -- What notifiers have to tell yet: the sink's name and the event as JSON, in the order of the numbers.
    CREATE TABLE outbox (id INTEGER PRIMARY KEY, sink TEXT NOT NULL, event TEXT NOT NULL);
",
];

/// The version this program writes.
pub(super) fn version() -> usize {
    STEPS.len()
}

/// Brings the file to this program's version, all steps or none; the version it had.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<usize> {
    let had: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let had = usize::try_from(had).unwrap_or(usize::MAX);
    if had >= version() {
        return Ok(had);
    }
    let transaction = connection.transaction()?;
    for step in STEPS.iter().skip(had) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(version()).unwrap_or(i64::MAX))?;
    transaction.commit()?;
    Ok(had)
}
