//! The commands that ask a running agent: `ping`, `status`, `bans`, `ban`, `unban`, `reload`; `stop` has a file of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{Failure, SHIPPED, print};
use crate::cli::exit;
use crate::config::Config;
use crate::control::{self, Request, Response};

/// A reload compiles every filter; nothing else takes long.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// `stockade ping`.
///
/// # Errors
/// When no agent answers, or one that does not enforce (yet).
pub(super) fn ping(config: &Path) -> Result<()> {
    print(text(&ask(config, &Request::Ping)?))
}

/// `stockade reload`.
///
/// # Errors
/// The configuration's mistakes, all of them.
pub(super) fn reload(config: &Path) -> Result<()> {
    let done = ask(config, &Request::Reload)?;
    for warning in done["warnings"].as_array().into_iter().flatten() {
        eprintln!("stockade: warning: {}", text(warning));
    }
    let lifted = done["lifted"].as_u64().unwrap_or(0);
    let mut told = format!("reloaded: {}", counted(done["jails"].as_u64().unwrap_or(0), "jail"));
    if lifted > 0 {
        told += &format!(", {} lifted", counted(lifted, "ban"));
    }
    print(&told)
}

/// `1 ban`, `2 bans`.
pub(super) fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// `stockade ban`.
///
/// # Errors
/// When an offender is not an address or network, or may not be banned.
pub(super) fn ban(config: &Path, request: Request, json: bool) -> Result<()> {
    let done = ask(config, &request)?;
    if json {
        return print(&done.to_string());
    }
    for ban in done["banned"].as_array().into_iter().flatten() {
        print(&format!("banned {} until {}", text(&ban["offender"]), until(&ban["until"])))?;
    }
    for note in done["notes"].as_array().into_iter().flatten() {
        eprintln!("stockade: note: {}", text(note));
    }
    if let Some(n) = done["unchanged"].as_u64().filter(|n| *n > 0) {
        eprintln!("stockade: {n} banned already for as long or longer: unban first to shorten a ban");
    }
    Ok(())
}

/// `stockade unban`.
///
/// # Errors
/// Exit code 1 when nothing of what was named was banned.
pub(super) fn unban(config: &Path, request: Request, json: bool) -> Result<()> {
    let done = ask(config, &request)?;
    if json {
        print(&done.to_string())?;
    }
    let lifted = done["unbanned"].as_array().map_or(&[][..], Vec::as_slice);
    if !json {
        for ban in lifted {
            print(&format!("unbanned {} in {}", text(&ban["offender"]), text(&ban["jail"])))?;
        }
        for wide in done["covered"].as_array().into_iter().flatten() {
            let (offender, by, jail) = (text(&wide["offender"]), text(&wide["by"]), text(&wide["jail"]));
            eprintln!("stockade: {offender} lies in {by}, which {jail} bans: unban that to let it in");
        }
        for offender in done["not_banned"].as_array().into_iter().flatten() {
            eprintln!("stockade: {} has no ban of its own", text(offender));
        }
    }
    let all = matches!(&request, Request::Unban { offenders, .. } if offenders.is_empty());
    if lifted.is_empty() && !all {
        return Err(Failure::quiet(exit::NO).into());
    }
    Ok(())
}

/// `stockade bans`.
///
/// # Errors
/// When no agent answers, or the jail is not known.
pub(super) fn bans(config: &Path, jail: Option<String>, json: bool) -> Result<()> {
    let bans = ask(config, &Request::Bans { jail })?;
    if json {
        return print(&bans.to_string());
    }
    let rows = bans.as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        return print("nobody is banned");
    }
    let mut table = vec![
        ["OFFENDER", "JAIL", "SINCE", "UNTIL", "OFFENSES", "PACKETS", "HEADERS", "WHY"].map(str::to_owned),
    ];
    for ban in rows {
        table.push([
            text(&ban["offender"]).to_owned(),
            format!("{}{}", text(&ban["jail"]), if ban["observed"] == true { " (observed)" } else { "" }),
            text(&ban["since"]).to_owned(),
            until(&ban["until"]).to_owned(),
            ban["offenses"].to_string(),
            count(&ban["packets"]),
            count(&ban["header_packets"]),
            text(&ban["evidence"]).to_owned(),
        ]);
    }
    print(&columns(&table))
}

fn count(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |n| n.to_string())
}

/// `stockade status`.
///
/// # Errors
/// When no agent answers, or the jail is not known.
pub(super) fn status(config: &Path, jail: Option<String>, json: bool) -> Result<()> {
    let status = ask(config, &Request::Status { jail })?;
    if json {
        return print(&status.to_string());
    }
    print(&super::status::render(&status))
}

/// Asks the agent that `config` names.
fn ask(config: &Path, request: &Request) -> Result<Value> {
    let socket = Config::paths(config, &SHIPPED)?.control;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(control::call(&socket, request, TIMEOUT)) {
        Ok(Response::Ok(value)) => Ok(value),
        Ok(Response::Error { code, message }) => Err(Failure::new(code, message).into()),
        Err(e) => Err(Failure::new(exit::UNREACHABLE, e.to_string()).into()),
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn until(value: &Value) -> &str {
    value.as_str().unwrap_or("lifted by hand (permanent)")
}

/// Columns of equal width, two spaces apart, the last one ragged.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "bb", "c"], ["long", "b", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a     bb  c\nlong  b");
    }
}
