//! Copies of a followed log that a glob matches too: `access.log*` and `copytruncate`.
//!
//! While it is being made, and until the log itself is emptied, the copy holds nothing but the log's own lines. It is
//! not read then but passed over as far as the log was read; once the log is emptied it is read on from there.

use std::io;
use std::path::Path;

use super::Handler;
use super::body::Body;
use super::event::FileId;
use super::file::File;
use super::follower::Follower;
use super::kin::logs_of;
use super::mark::{HEAD, Mark};
use crate::types::Timestamp;

/// So many bytes are compared at each place.
const SAMPLE: usize = 4096;

/// What a file is beside another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// All that it holds is in the other one.
    Copy,
    /// It begins with all that the other one holds, and goes on.
    Longer,
    Different,
}

impl Follower {
    /// The open file that the one at `path` may be a copy of, judging by its name.
    pub(super) fn original_of(&self, path: &Path) -> Option<FileId> {
        let (directory, name) = (path.parent()?, path.file_name()?);
        logs_of(name).into_iter().find_map(|log| {
            let id = self.entries.get(&directory.join(log))?.file?;
            let file = self.files.get(&id)?;
            (!file.leaving && !file.paths.iter().any(|known| known == path)).then_some(id)
        })
    }

    /// Whether a file that is being opened is a copy of `original`, in which case it is passed over as far as that was
    /// read. One that is still empty may become a copy.
    pub(super) fn begin_as_copy(
        &mut self,
        file: &mut File,
        original: FileId,
        handler: &mut dyn Handler,
    ) -> io::Result<bool> {
        let Some(known) = self.files.get_mut(&original) else { return Ok(false) };
        let copy = likeness(file, known)? == Likeness::Copy;
        if copy {
            file.twin = Some(original);
            file.skip_to(&known.mark, handler)?;
        }
        Ok(copy)
    }

    /// Whether the file is a copy of one that is read itself, and so is not to be read now.
    pub(super) fn is_twin(&mut self, id: FileId, now: Timestamp, handler: &mut dyn Handler) -> bool {
        let Some(original) = self.files.get(&id).and_then(|file| file.twin) else { return false };
        match self.look_at_original(original, now, handler) {
            Ok(()) => {}
            // Not before it is known what became of the original.
            Err(error) => {
                self.failed_to_read(original, &error, handler);
                if let Some(file) = self.files.get_mut(&id) {
                    // Nobody waits for it.
                    file.failed = true;
                }
                return true;
            }
        }
        let Some(mut file) = self.files.remove(&id) else { return true };
        let told = match (file.twin, self.files.get_mut(&original)) {
            (Some(_), Some(known)) => file.look(now, handler).and_then(|anew| {
                let likeness = match anew {
                    Some(_) => Likeness::Different,
                    None => likeness(&mut file, known)?,
                };
                let done = !known.queued && known.caught_up;
                match likeness {
                    Likeness::Copy => {}
                    Likeness::Longer if !done => {}
                    Likeness::Longer | Likeness::Different => file.twin = None,
                }
                if likeness != Likeness::Different {
                    file.skip_to(&known.mark, handler)?;
                }
                Ok(())
            }),
            _ => {
                file.twin = None;
                Ok(())
            }
        };
        let is_twin = file.twin.is_some();
        file.caught_up = is_twin;
        self.files.insert(id, file);
        if let Err(error) = told {
            self.failed_to_read(id, &error, handler);
            return true;
        }
        is_twin
    }

    /// Notices that a file was emptied before one that may be its copy is looked at.
    pub(super) fn look_at_original(
        &mut self,
        original: FileId,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) -> io::Result<()> {
        let Some(file) = self.files.get_mut(&original) else { return Ok(()) };
        if let Some(anew) = file.look(now, handler)? {
            self.begin_again(original, anew, now, handler);
        }
        Ok(())
    }

    /// The file was emptied: its copies are read from where it was read up to.
    pub(super) fn let_twins_go(
        &mut self,
        mark: &Mark,
        original: FileId,
        now: Timestamp,
        handler: &mut dyn Handler,
    ) {
        let twins = self.files.values().filter(|file| file.twin == Some(original));
        for id in twins.map(|file| file.info.id).collect::<Vec<_>>() {
            let Some(file) = self.files.get_mut(&id) else { continue };
            file.twin = None;
            file.caught_up = false;
            let looked = file.look(now, handler);
            if let Err(error) = looked.and_then(|anew| {
                if anew.is_none() && is_copy_of(file, mark)? { file.skip_to(mark, handler) } else { Ok(()) }
            }) {
                self.failed_to_read(id, &error, handler);
            }
            self.enqueue(id);
        }
    }

    /// Copies are looked at with each poll: the original may have been read on.
    pub(super) fn enqueue_twins(&mut self) {
        let twins = self.files.values().filter(|file| file.twin.is_some());
        for id in twins.map(|file| file.info.id).collect::<Vec<_>>() {
            self.enqueue(id);
        }
    }
}

/// Whether the file is a copy of what was marked, which is there no more. It may have been made before the last lines
/// were added.
fn is_copy_of(file: &mut File, mark: &Mark) -> io::Result<bool> {
    if file.size >= mark.position.offset && file.size >= mark.head.len() as u64 {
        return mark.fits(&mut file.body, file.size);
    }
    let mut head = [0; HEAD];
    let n = file.body.read_at(&mut head, 0)?;
    Ok(mark.head.starts_with(&head[..n]))
}

fn likeness(file: &mut File, known: &mut File) -> io::Result<Likeness> {
    let place = known.mark.position.offset;
    compare((&mut file.body, file.size), (&mut known.body, known.size), place)
}

/// Compares the beginnings of two files, their ends, and what is before the place up to which `known` was read.
pub(super) fn compare(
    (file, file_size): (&mut Body, u64),
    (known, known_size): (&mut Body, u64),
    place: u64,
) -> io::Result<Likeness> {
    let common = file_size.min(known_size);
    if file_size == 0 {
        return Ok(Likeness::Copy);
    }
    for end in [common.min(SAMPLE as u64), place.min(common), common] {
        let start = end.saturating_sub(SAMPLE as u64);
        let length = usize::try_from(end - start).unwrap_or(SAMPLE);
        let (mut a, mut b) = (vec![0; length], vec![0; length]);
        let n = file.read_at(&mut a, start)?;
        let m = known.read_at(&mut b, start)?;
        if m < length {
            // It is just being emptied, as will be seen the next time.
            return Ok(Likeness::Copy);
        }
        if n != length || a != b {
            return Ok(Likeness::Different);
        }
    }
    Ok(match known_size {
        0 => Likeness::Different,
        size if file_size > size => Likeness::Longer,
        _ => Likeness::Copy,
    })
}
