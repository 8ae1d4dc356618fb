//! eBPF for rules: programs written in Rust with [`Asm`], loaded with bpf(2), called by a rule as `match bpf`.
//!
//! No clang, no object files and no C library: a program is emitted when it is needed, so that it can have the
//! configuration's words in it. The kernel's verifier, not the assembler, decides whether a program is safe.
//!
//! A rule that calls a program keeps it and its maps alive, also when the process that loaded them has ended.
//!
//! # Privileges
//!
//! Loading a program that does more than arithmetic needs `CAP_BPF` and `CAP_PERFMON` (Linux 5.8; before it
//! `CAP_SYS_ADMIN`) of the initial user namespace, and `CAP_NET_ADMIN` for the rule. See capabilities(7).

mod asm;
mod btf;
mod map;
mod program;
mod sys;

pub use asm::{Asm, Cond, Label, Operand, Reg, Size, helper};
pub use map::{Map, MapKind};
pub use program::{LoadError, Program, TestRun, probe};
pub use sys::boot_time;
