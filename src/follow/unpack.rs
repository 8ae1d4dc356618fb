//! Reading a file that gzip compressed, from any place on, with little memory.

use std::fs::{File as Handle, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;

/// So much is unpacked at a time while what is known already is passed over, in bytes.
const STEP: usize = 64 * 1024;

/// Unpacks a file from its beginning on. What was unpacked last is kept, because a line that is not whole yet is read
/// again; nothing before that can be had but by beginning anew.
#[derive(Debug)]
pub(super) struct Unpacker {
    handle: Handle,
    stream: Option<Stream>,
    /// How much of what was read is kept, in bytes.
    keep: usize,
}

#[derive(Debug)]
struct Stream {
    decoder: MultiGzDecoder<BufReader<Handle>>,
    /// What was unpacked last.
    window: Vec<u8>,
    /// Where the window begins.
    start: u64,
}

impl Unpacker {
    pub(super) fn new(handle: Handle, keep: usize) -> Self {
        Self { handle, stream: None, keep }
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.handle.metadata()
    }

    /// Lets go of the memory; the next reading begins anew.
    pub(super) fn rest(&mut self) {
        self.stream = None;
    }

    /// Unpacks towards `offset`, at most about `budget` bytes; how much was unpacked, and whether `offset` is reached or
    /// there is nothing more.
    pub(super) fn advance(&mut self, offset: u64, budget: usize) -> io::Result<(usize, bool)> {
        let keep = self.keep;
        let stream = self.stream_for(offset)?;
        let mut done = 0;
        while stream.end() < offset {
            if done >= budget {
                return Ok((done, false));
            }
            let left = usize::try_from(offset - stream.end()).unwrap_or(STEP).min(STEP);
            let n = stream.unpack(left)?;
            if n == 0 {
                break;
            }
            done += n;
            stream.forget(keep);
        }
        Ok((done, true))
    }

    /// Fills the buffer from `offset` on, which should be near; less means that there is no more.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (_, reached) = self.advance(offset, usize::MAX)?;
        let keep = self.keep;
        let stream = self.stream_for(offset)?;
        if !reached || stream.end() < offset {
            return Ok(0);
        }
        let wanted = offset.saturating_add(buffer.len() as u64);
        while stream.end() < wanted {
            let left = usize::try_from(wanted - stream.end()).unwrap_or(STEP).min(STEP);
            if stream.unpack(left)? == 0 {
                break;
            }
        }
        let from = usize::try_from(offset - stream.start).unwrap_or(usize::MAX).min(stream.window.len());
        let n = buffer.len().min(stream.window.len() - from);
        buffer[..n].copy_from_slice(&stream.window[from..from + n]);
        // What is before this offset, too, may be asked for once more: the line before it.
        let kept = keep.max(stream.window.len() - from);
        stream.forget(kept + keep);
        Ok(n)
    }

    /// The stream, begun anew if it is past `offset`.
    fn stream_for(&mut self, offset: u64) -> io::Result<&mut Stream> {
        if self.stream.as_ref().is_some_and(|stream| stream.start > offset) {
            self.stream = None;
        }
        match self.stream {
            Some(ref mut stream) => Ok(stream),
            None => {
                let mut handle = self.handle.try_clone()?;
                handle.seek(SeekFrom::Start(0))?;
                let decoder = MultiGzDecoder::new(BufReader::with_capacity(STEP, handle));
                Ok(self.stream.insert(Stream { decoder, window: Vec::new(), start: 0 }))
            }
        }
    }
}

impl Stream {
    fn end(&self) -> u64 {
        self.start + self.window.len() as u64
    }

    /// Unpacks at most so much more; nothing at the end.
    fn unpack(&mut self, most: usize) -> io::Result<usize> {
        let before = self.window.len();
        self.window.resize(before + most, 0);
        let done = loop {
            match self.decoder.read(&mut self.window[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done,
            }
        };
        self.window.truncate(before + done.as_ref().map_or(0, |n| *n));
        done
    }

    /// Keeps only the last so many bytes. They are moved when that frees as much as is moved, not each time.
    fn forget(&mut self, keep: usize) {
        let surplus = self.window.len().saturating_sub(keep);
        if surplus > keep.max(STEP) {
            self.window.drain(..surplus);
            self.start += surplus as u64;
        }
    }
}
