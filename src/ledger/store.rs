//! Rows in, rows out.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::checkpoint::{Checkpoint, Loaded};
use super::file::{self, OpenError};
use crate::engine::{Changed, Changes, Open, Record, RecordChange};
use crate::follow::{Inside, Mark, Position};
use crate::sinks::outbox::Row as Outgoing;
use crate::types::{Ban, JailId, Timestamp};

/// Stands for all jails in the history.
const ACROSS: i64 = 0;
/// What is remembered of the repeaters of a jail that is gone is kept for so long after their last ban: 30 days, in
/// milliseconds.
const PATIENCE: i64 = 30 * 86_400_000;
/// The most prepared statements that are kept: all there are.
const STATEMENTS: usize = 32;
/// Free pages that stay in the file; it will want them again. 4 KiB each.
const SPARE_PAGES: i64 = 1024;
/// The most that is given back at once, in pages: a short pause for the writer's thread.
const GIVEN_BACK: i64 = 4096;

/// The open file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// The numbers of jails in the file, by their numbers in this process.
    jails: Vec<i64>,
}

impl Store {
    /// Opens the file in `state`, making it where there is none. Besides the store: what an earlier agent left, of jails
    /// whose numbers `jail` tells.
    ///
    /// # Errors
    /// See [`OpenError`]: nothing of it needs to keep the agent from working.
    pub fn open(state: &Path, jail: &dyn Fn(&str) -> Option<JailId>) -> Result<(Self, Loaded), OpenError> {
        let connection = file::open(state)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let store = Self { connection, jails: Vec::new() };
        let failed = |source| OpenError::Sqlite { what: "read", path: state.join(file::NAME), source };
        let loaded = store.load(jail).map_err(failed)?;
        Ok((store, loaded))
    }

    fn load(&self, jail: &dyn Fn(&str) -> Option<JailId>) -> rusqlite::Result<Loaded> {
        let mut loaded = Loaded { seed: self.seed()?, ..Loaded::default() };
        let mut names = self.connection.prepare("SELECT id, name FROM jails")?;
        let names: Vec<(i64, String)> =
            names.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let known = |row: i64| names.iter().find(|(id, _)| *id == row).and_then(|(_, name)| jail(name));
        let mut strangers = 0;
        let mut keep = |row: &Row<'_>| -> rusqlite::Result<Option<(JailId, IpNet)>> {
            let key = known(row.get(0)?).zip(offender(row.get_ref(1)?.as_blob()?));
            strangers += usize::from(key.is_none());
            Ok(key)
        };
        let mut bans = self
            .connection
            .prepare("SELECT jail, offender, since, until, offenses, evidence, forced FROM bans")?;
        let mut rows = bans.query([])?;
        while let Some(row) = rows.next()? {
            let Some((jail, offender)) = keep(row)? else { continue };
            loaded.bans.push(Ban {
                jail,
                offender,
                since: time(row.get(2)?),
                until: row.get::<_, Option<i64>>(3)?.map(time),
                offenses: row.get(4)?,
                evidence: row.get_ref(5)?.as_blob()?.into(),
                forced: row.get(6)?,
            });
        }
        let mut windows = self
            .connection
            .prepare("SELECT jail, offender, heard, floor, times FROM windows ORDER BY heard")?;
        let mut rows = windows.query([])?;
        while let Some(row) = rows.next()? {
            let Some((jail, offender)) = keep(row)? else { continue };
            let times = row.get_ref(4)?.as_blob()?.as_chunks().0;
            loaded.windows.push(Open {
                jail,
                offender,
                heard: time(row.get(2)?),
                floor: row.get::<_, Option<i64>>(3)?.map(time),
                times: times.iter().map(|bytes| time(i64::from_le_bytes(*bytes))).collect(),
            });
        }
        let mut history =
            self.connection.prepare("SELECT jail, offender, count, last, last_end FROM history")?;
        let mut rows = history.query([])?;
        while let Some(row) = rows.next()? {
            let of: i64 = row.get(0)?;
            let jail = if of == ACROSS { Some(None) } else { known(of).map(Some) };
            // What is remembered of a jail that is gone waits for it to come back, for a while.
            let Some((jail, offender)) = jail.zip(offender(row.get_ref(1)?.as_blob()?)) else { continue };
            loaded.history.push(Record {
                jail,
                offender,
                count: row.get(2)?,
                last: time(row.get(3)?),
                last_end: row.get::<_, Option<i64>>(4)?.map(time),
            });
        }
        let mut files =
            self.connection.prepare("SELECT dev, inode, path, offset, head, inside, tail FROM files")?;
        loaded.files = files.query_map([], mark)?.collect::<Result<_, _>>()?;
        let mut cursors = self.connection.prepare("SELECT source, cursor FROM cursors")?;
        loaded.cursors =
            cursors.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        loaded.outbox = self.outbox()?;
        loaded.strangers = strangers;
        Ok(loaded)
    }

    fn outbox(&self) -> rusqlite::Result<Vec<Outgoing>> {
        let mut rows = self.connection.prepare("SELECT id, sink, event FROM outbox ORDER BY id")?;
        let mut rows = rows.query([])?;
        let mut outbox = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let (sink, event): (String, String) = (row.get(1)?, row.get(2)?);
            // One that a later version wrote, or whose time cannot be told, is not worth losing the others for.
            if let (Ok(id), Ok(event)) = (u64::try_from(id), serde_json::from_str(&event)) {
                outbox.push(Outgoing { id, sink: sink.into(), event: Arc::new(event) });
            }
        }
        Ok(outbox)
    }

    fn seed(&self) -> rusqlite::Result<u64> {
        let known: Option<i64> = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'seed'", [], |row| row.get(0))
            .optional()?;
        if let Some(seed) = known {
            return Ok(seed.cast_unsigned());
        }
        let mut bytes = [0; 8];
        // Where there is no such device the seed can be foreseen, and so can how much longer a repeater is banned.
        drop(File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)));
        let seed = i64::from_le_bytes(bytes);
        self.connection.execute("INSERT INTO meta (key, value) VALUES ('seed', ?1)", [seed])?;
        Ok(seed.cast_unsigned())
    }

    /// Drops what belongs to none of these jails (their repeaters only after a month), and jails that nothing belongs to.
    /// How many rows.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn forget_strangers(&mut self, jails: &[String], now: Timestamp) -> rusqlite::Result<usize> {
        let transaction = self.connection.transaction()?;
        let ids = jail_ids(&transaction, jails)?;
        let list = ids.iter().chain([&ACROSS]).map(i64::to_string).collect::<Vec<_>>().join(",");
        let mut rows = 0;
        for table in ["bans", "windows"] {
            rows += transaction.execute(&format!("DELETE FROM {table} WHERE jail NOT IN ({list})"), [])?;
        }
        rows += transaction.execute(
            &format!("DELETE FROM history WHERE jail NOT IN ({list}) AND coalesce(last_end, last) < ?1"),
            [now.as_millis().saturating_sub(PATIENCE)],
        )?;
        transaction.execute(
            &format!("DELETE FROM jails WHERE id NOT IN ({list}) AND id NOT IN (SELECT jail FROM history)"),
            [],
        )?;
        transaction.commit()?;
        Ok(rows)
    }

    /// Drops every ban; how many there were. For when no agent runs: its checkpoints would bring them back.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn lift_all(&mut self) -> rusqlite::Result<usize> {
        self.connection.execute("DELETE FROM bans", [])
    }

    /// Writes a checkpoint, all of it or nothing.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn write(&mut self, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        if self.jails.len() != checkpoint.jails.len() {
            self.jails = jail_ids(&transaction, &checkpoint.jails)?;
        }
        let writing = Writing { transaction: &transaction, jails: &self.jails };
        writing.bans(&checkpoint.changes.bans)?;
        writing.windows(&checkpoint.changes.windows)?;
        writing.history(&checkpoint.changes)?;
        writing.sources(checkpoint)?;
        writing.outbox(checkpoint)?;
        let committed = transaction.commit();
        if committed.is_err() {
            // Numbers that were given in it may be gone with it.
            self.jails.clear();
        }
        committed
    }

    /// Gives back some of the space that is free in the file, if that is much; its size now, in bytes.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn tidy(&mut self) -> rusqlite::Result<u64> {
        let number =
            |what: &str| self.connection.query_row(&format!("PRAGMA {what}"), [], |row| row.get::<_, i64>(0));
        let (free, pages, size) = (number("freelist_count")?, number("page_count")?, number("page_size")?);
        if free > SPARE_PAGES && free > pages / 4 {
            let give = (free - SPARE_PAGES).min(GIVEN_BACK);
            let mut give = self.connection.prepare(&format!("PRAGMA incremental_vacuum({give})"))?;
            let mut rows = give.query([])?;
            // Each step frees a page.
            while rows.next()?.is_some() {}
        }
        Ok(u64::try_from(pages * size).unwrap_or(0))
    }

    /// As if the disk had no more room than this.
    #[cfg(test)]
    pub(super) fn limit_pages(&mut self, pages: u32) {
        self.connection.query_row(&format!("PRAGMA max_page_count={pages}"), [], |_| Ok(())).unwrap();
    }

    /// Ends in order: the write-ahead log is worked into the file.
    pub fn close(self) {
        if let Err((_, e)) = self.connection.close() {
            tracing::warn!("failed to close the ledger: {e}; the next start makes up for it");
        }
    }
}

/// A transaction under way.
struct Writing<'a> {
    transaction: &'a Transaction<'a>,
    jails: &'a [i64],
}

impl Writing<'_> {
    fn jail(&self, id: JailId) -> Option<i64> {
        self.jails.get(usize::from(id.0)).copied()
    }

    fn begin<T>(&self, table: &str, changed: &Changed<T>) -> rusqlite::Result<()> {
        if changed.all {
            self.transaction.execute(&format!("DELETE FROM {table}"), [])?;
            return Ok(());
        }
        let sql = format!("DELETE FROM {table} WHERE jail = ?1 AND offender = ?2");
        let mut delete = self.transaction.prepare_cached(&sql)?;
        for (jail, net) in &changed.gone {
            if let Some(jail) = self.jail(*jail) {
                delete.execute(params![jail, bytes(*net).as_slice()])?;
            }
        }
        Ok(())
    }

    fn bans(&self, changed: &Changed<Ban>) -> rusqlite::Result<()> {
        self.begin("bans", changed)?;
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO bans (jail, offender, since, until, offenses, evidence, forced) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for ban in &changed.now {
            let Some(jail) = self.jail(ban.jail) else { continue };
            insert.execute(params![
                jail,
                bytes(ban.offender).as_slice(),
                ban.since.as_millis(),
                ban.until.map(Timestamp::as_millis),
                ban.offenses,
                &ban.evidence[..],
                ban.forced,
            ])?;
        }
        Ok(())
    }

    fn windows(&self, changed: &Changed<Open>) -> rusqlite::Result<()> {
        self.begin("windows", changed)?;
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO windows (jail, offender, heard, floor, times) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut times = Vec::new();
        for open in &changed.now {
            let Some(jail) = self.jail(open.jail) else { continue };
            times.clear();
            times.extend(open.times.iter().flat_map(|at| at.as_millis().to_le_bytes()));
            insert.execute(params![
                jail,
                bytes(open.offender).as_slice(),
                open.heard.as_millis(),
                open.floor.map(Timestamp::as_millis),
                &times[..],
            ])?;
        }
        Ok(())
    }

    fn history(&self, changes: &Changes) -> rusqlite::Result<()> {
        if changes.all_history {
            self.transaction.execute("DELETE FROM history", [])?;
        }
        let of = |jail: Option<JailId>| jail.map_or(Some(ACROSS), |id| self.jail(id));
        let mut delete =
            self.transaction.prepare_cached("DELETE FROM history WHERE jail = ?1 AND offender = ?2")?;
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO history (jail, offender, count, last, last_end) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for change in &changes.history {
            match change {
                RecordChange::Forgotten { jail, offender } => {
                    delete.execute(params![of(*jail), bytes(*offender).as_slice()])?;
                }
                RecordChange::Noted(record) => {
                    let Some(jail) = of(record.jail) else { continue };
                    insert.execute(params![
                        jail,
                        bytes(record.offender).as_slice(),
                        record.count,
                        record.last.as_millis(),
                        record.last_end.map(Timestamp::as_millis),
                    ])?;
                }
            }
        }
        Ok(())
    }

    fn outbox(&self, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
        let changes = &checkpoint.outbox;
        if changes.all {
            self.transaction.execute("DELETE FROM outbox", [])?;
        }
        let mut insert = self
            .transaction
            .prepare_cached("INSERT OR REPLACE INTO outbox (id, sink, event) VALUES (?1, ?2, ?3)")?;
        for row in &changes.put {
            let Ok(event) = serde_json::to_string(&*row.event) else { continue };
            insert.execute(params![row.id.cast_signed(), &*row.sink, event])?;
        }
        let mut delete = self.transaction.prepare_cached("DELETE FROM outbox WHERE id = ?1")?;
        for id in &changes.gone {
            delete.execute([id.cast_signed()])?;
        }
        Ok(())
    }

    fn sources(&self, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
        if checkpoint.all_sources {
            self.transaction.execute_batch("DELETE FROM files; DELETE FROM cursors;")?;
        }
        let seen = checkpoint.at.as_millis();
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO files (dev, inode, path, offset, head, inside, tail, seen) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let mut delete =
            self.transaction.prepare_cached("DELETE FROM files WHERE dev = ?1 AND inode = ?2")?;
        for ((dev, inode), mark) in &checkpoint.files {
            let (dev, inode) = (dev.cast_signed(), inode.cast_signed());
            let Some(mark) = mark else {
                delete.execute([dev, inode])?;
                continue;
            };
            insert.execute(params![
                dev,
                inode,
                mark.path.as_os_str().as_bytes(),
                mark.position.offset.cast_signed(),
                &mark.head[..],
                inside_number(mark.inside),
                &mark.tail[..],
                seen,
            ])?;
        }
        let mut insert = self
            .transaction
            .prepare_cached("INSERT OR REPLACE INTO cursors (source, cursor, seen) VALUES (?1, ?2, ?3)")?;
        let mut delete = self.transaction.prepare_cached("DELETE FROM cursors WHERE source = ?1")?;
        for (source, cursor) in &checkpoint.cursors {
            match cursor {
                Some(cursor) => insert.execute(params![source, cursor, seen])?,
                None => delete.execute([source])?,
            };
        }
        Ok(())
    }
}

/// The file's numbers of these jails, new ones for new names.
fn jail_ids(transaction: &Transaction<'_>, names: &[String]) -> rusqlite::Result<Vec<i64>> {
    let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO jails (name) VALUES (?1)")?;
    let mut find = transaction.prepare_cached("SELECT id FROM jails WHERE name = ?1")?;
    names
        .iter()
        .map(|name| {
            insert.execute([name])?;
            find.query_row([name], |row| row.get(0))
        })
        .collect()
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn bytes(net: IpNet) -> Vec<u8> {
    let mut bytes = match net.addr() {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    bytes.push(net.prefix_len());
    bytes
}

fn offender(bytes: &[u8]) -> Option<IpNet> {
    let (len, address) = bytes.split_last()?;
    let address: IpAddr = match address.len() {
        4 => <[u8; 4]>::try_from(address).ok()?.into(),
        _ => <[u8; 16]>::try_from(address).ok()?.into(),
    };
    IpNet::new(address, *len).ok()
}

fn mark(row: &Row<'_>) -> rusqlite::Result<Mark> {
    Ok(Mark {
        path: OsString::from_vec(row.get(2)?).into(),
        position: Position {
            dev: row.get::<_, i64>(0)?.cast_unsigned(),
            inode: row.get::<_, i64>(1)?.cast_unsigned(),
            offset: row.get::<_, i64>(3)?.cast_unsigned(),
        },
        head: row.get_ref(4)?.as_blob()?.into(),
        inside: match row.get::<_, i64>(5)? {
            1 => Inside::LongLine,
            2 => Inside::OldLine,
            _ => Inside::Nothing,
        },
        tail: row.get_ref(6)?.as_blob()?.into(),
    })
}

fn inside_number(inside: Inside) -> i64 {
    match inside {
        Inside::Nothing => 0,
        Inside::LongLine => 1,
        Inside::OldLine => 2,
    }
}
