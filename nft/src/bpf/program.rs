//! Programs: loaded, judged by the kernel's verifier, called by rules.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::asm::{Asm, Reg};
use super::btf;
use super::sys::{self, Attr};
use crate::expr::Expr;

/// Why a program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel has no bpf(2), or does not let us.
    #[error("failed to load a BPF program: {0}")]
    System(#[from] io::Error),
    /// The verifier does not take the program, e.g. for want of a helper in an old kernel.
    #[error("the kernel's verifier refuses the BPF program ({error}): {log}")]
    Verifier {
        /// What it is about.
        error: io::Error,
        /// The last lines of what the verifier says.
        log: String,
    },
}

impl LoadError {
    /// Whether capabilities are missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let (Self::System(error) | Self::Verifier { error, .. }) = self;
        error.kind() == io::ErrorKind::PermissionDenied
    }
}

/// A loaded program, of the type that filters sockets and that `match bpf` calls: it is given the packet from its
/// network header on, and matches when it returns something else than 0.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// What a [test](Program::test) showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned.
    pub returned: u32,
    /// How long one run took on average, in nanoseconds.
    pub nanoseconds: u32,
}

impl Program {
    /// Loads what was assembled. The kernel proves it safe first, which takes some milliseconds.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(name: &str, asm: &Asm) -> Result<Self, LoadError> {
        let code = asm.assemble();
        let names: Vec<&str> = asm.functions.iter().map(|(_, name)| *name).collect();
        let btf = if names.is_empty() { None } else { Some(btf::load(&names)?) };
        // struct bpf_func_info: the instruction a function begins at, its type.
        let functions: Vec<u32> = (asm.functions.iter().zip(btf::FIRST_FUNCTION..))
            .flat_map(|((at, _), id)| [*at as u32, id])
            .collect();
        // Some helpers are for programs under the GPL only; this crate names none of them.
        let license = c"MIT OR Apache-2.0".to_bytes_with_nul();
        let attr = || {
            let attr = Attr::new()
                .u32(0, sys::BPF_PROG_TYPE_SOCKET_FILTER)
                .u32(4, asm.len() as u32)
                .pointer(8, code.as_slice())
                .pointer(16, license)
                .name(48, name);
            match &btf {
                None => attr,
                Some(btf) => attr
                    .fd(72, btf.as_raw_fd())
                    .u32(76, 8)
                    .pointer(80, functions.as_slice())
                    .u32(88, asm.functions.len() as u32),
            }
        };
        // SAFETY: code, license and functions are as long as said, and only read.
        match unsafe { sys::open(sys::PROG_LOAD, &mut attr()) } {
            Ok(fd) => return Ok(Self { fd }),
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => return Err(e.into()),
            Err(_) => {}
        }
        // Once more, to hear why: the log costs time.
        let mut log = vec![0u8; 1 << 20];
        let mut attr = attr().u32(24, 1).u32(28, log.len() as u32).pointer(32, log.as_mut_slice());
        // SAFETY: as above, and `log` is written by nobody else and as long as said.
        let error = match unsafe { sys::open(sys::PROG_LOAD, &mut attr) } {
            Ok(fd) => return Ok(Self { fd }),
            Err(e) => e,
        };
        let text = String::from_utf8_lossy(log.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        Err(LoadError::Verifier { error, log: lines[lines.len().saturating_sub(25)..].join("\n") })
    }

    /// A program that runs already, by its number.
    ///
    /// # Errors
    /// `ENOENT` when there is none, `EPERM` without `CAP_SYS_ADMIN`.
    pub fn by_id(id: u32) -> io::Result<Self> {
        // SAFETY: no addresses.
        let fd = unsafe { sys::open(sys::PROG_GET_FD_BY_ID, &mut Attr::new().u32(0, id))? };
        Ok(Self { fd })
    }

    /// Its number.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn id(&self) -> io::Result<u32> {
        // The head of struct bpf_prog_info: type, id.
        let mut info = [0u32; 2];
        let mut attr = Attr::new()
            .fd(0, self.fd.as_raw_fd())
            .u32(4, size_of_val(&info) as u32)
            .pointer(8, &raw mut info);
        // SAFETY: `info` is as long as said, and nothing else holds it.
        unsafe { sys::bpf(sys::OBJ_GET_INFO_BY_FD, &mut attr) }?;
        Ok(info[1])
    }

    /// `match bpf`: a rule goes on if the program returns something else than 0. The expression names a file
    /// descriptor of this process: it may be committed while the program is held. Afterwards the rule holds it.
    ///
    /// `struct xt_bpf_info_v1` in `linux/netfilter/xt_bpf.h`: mode, count, descriptor, 512 bytes for other modes, the
    /// kernel's pointer.
    #[must_use]
    pub fn expr(&self) -> Expr {
        const XT_BPF_MODE_FD_ELF: u16 = 2;
        let mut info = vec![0u8; 528];
        info[0..2].copy_from_slice(&XT_BPF_MODE_FD_ELF.to_ne_bytes());
        info[4..8].copy_from_slice(&self.fd.as_raw_fd().to_ne_bytes());
        Expr::Match { name: "bpf".into(), rev: 1, info: info.into() }
    }

    /// Runs it `repeat` times on a packet, given from its network header on, without a network.
    ///
    /// # Errors
    /// When the system refuses, e.g. a packet longer than a page of memory.
    pub fn test(&self, packet: &[u8], repeat: u32) -> io::Result<TestRun> {
        // The kernel wants an Ethernet header, of which it takes the protocol.
        let mut frame = vec![0u8; 12];
        let ethertype: u16 = if packet.first().is_some_and(|b| b >> 4 == 6) { 0x86dd } else { 0x0800 };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(packet);
        let mut attr = Attr::new()
            .fd(0, self.fd.as_raw_fd())
            .u32(8, frame.len() as u32)
            .pointer(16, frame.as_slice())
            .u32(32, repeat);
        // SAFETY: `frame` is as long as said, and only read.
        unsafe { sys::bpf(sys::PROG_TEST_RUN, &mut attr) }?;
        Ok(TestRun { returned: attr.get(4), nanoseconds: attr.get(36) })
    }
}

/// Whether this process may load programs at all: tries the smallest.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_BPF`, `ENOSYS` without bpf(2).
pub fn probe() -> Result<(), LoadError> {
    let mut asm = Asm::new();
    asm.mov(Reg::R0, 0);
    asm.exit();
    Program::load("stockade_probe", &asm).map(drop)
}
