//! A local program that takes a message on its standard input, as sendmail(8) of any mail server does.

use std::path::Path;
use std::time::Duration;

use super::text::harmless;
use super::transport::{End, Failure, Letter, Taken};
use crate::sinks::process;
use crate::sinks::trouble::Trouble;

/// What it ends with where somebody has to mend something (sysexits.h).
const EX_USAGE: i32 = 64;
const EX_DATAERR: i32 = 65;
const EX_NOUSER: i32 = 67;
const EX_NOHOST: i32 = 68;
const EX_NOPERM: i32 = 77;
const EX_CONFIG: i32 = 78;

/// Runs it, never through a shell. It is killed when it takes longer than `timeout`, or is not waited for any more.
pub(super) async fn send(program: &Path, letter: Letter<'_>, timeout: Duration) -> Result<Taken, Failure> {
    let name = program.display().to_string();
    // -i: a dot alone is no end. None of the addresses begins with a dash, nor would it be an option behind `--`.
    let mut words =
        vec![name.clone(), "-i".to_owned(), "-f".to_owned(), letter.from.to_string(), "--".to_owned()];
    words.extend(letter.to.iter().map(ToString::to_string));
    let outcome = match process::run(&words, [("LC_ALL", "C")], letter.text, timeout).await {
        Ok(outcome) => outcome,
        // Whatever keeps it from being run now may keep it from that for good; it is asked again all the same.
        Err(e) => return Err(Trouble::refused(format!("failed to run {name}: {e}")).into()),
    };
    if outcome.is_good() {
        return Ok(Taken::default());
    }
    let message = format!("{name}: {}", harmless(&outcome.text(), 300));
    Err(match outcome.status.map(|status| status.code()) {
        // It may have queued it.
        None => Failure { trouble: Trouble::later(message), end: End::Unclear },
        Some(Some(EX_USAGE | EX_NOUSER | EX_NOHOST | EX_NOPERM | EX_CONFIG)) => {
            Trouble::refused(message).into()
        }
        Some(Some(EX_DATAERR)) => Failure { trouble: Trouble::refused(message), end: End::Content },
        Some(_) => Trouble::later(message).into(),
    })
}
