//! The BPF program that looks for banned addresses in a request's head.
//!
//! It is emitted with the configured header names and prefix lengths in it. A packet is given from its network header
//! on; the answer is 1 when an address in one of the named headers, or the source in a PROXY protocol header, is in
//! the maps and its ban has not ended. Text that is not an address is skipped, and a hop that a client made up only
//! adds to what is looked up, so that nobody can hide the hop that the proxy wrote.
//!
//! ```text
//! head ─ IP and TCP headers; does the payload begin as a request or a PROXY header does? if not, 0
//!  └ block ─ 64 bytes at a time, at most 8192: where are the line ends?
//!     └ line ─ does the line begin with one of the names? the empty line ends the head
//!        └ byte ─ the value, byte by byte: what stands between delimiters is a word
//!           └ word ─ is the word an address? then look it up
//!              └ found ─ is the ban still running? count the packet
//! ```
//!
//! Loops are `bpf_loop` (Linux 5.17): the kernel proves each function once instead of every turn, in milliseconds.
//! Everything is on the stack: memory of the processor's own could be overwritten by a packet that interrupts, because
//! rules at the output hook run where interrupts are allowed.

use std::collections::BTreeSet;

use nft::bpf::{Asm, Cond, Label, Map, Operand, Reg, Size, helper};

use Cond::{Eq, Ge, Lt, Ne};
use Reg as R;
use Size::{B, D};

use super::shared::{self, get, put};
use super::{head, lookup, word};

/// So far a head is read, in bytes.
pub(super) const WINDOW: i32 = 8192;
/// Bytes read at once.
pub(super) const BLOCK: i32 = 64;

/// The maps a program looks addresses up in. A value is the end of the ban in nanoseconds since boot (0 for never),
/// then the packets counted, both `u64`.
pub(super) struct Maps {
    /// Key: the address.
    pub(super) single4: Map,
    /// Key: the address.
    pub(super) single6: Map,
    /// Key: the network's first address, then its length as `u32`.
    pub(super) prefix6: Map,
    /// Key: the length as `u32`, then the network's first address.
    pub(super) nets4: Map,
    /// The same.
    pub(super) nets6: Map,
}

/// `0x01` in every byte, times `byte`.
const fn every(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The program for these header names (in lower case, at most 40 bytes each) and lengths of banned IPv6 prefixes.
pub(super) fn emit(names: &[String], prefixes: &BTreeSet<u8>, maps: &Maps) -> Asm {
    let mut asm = Asm::new();
    let [head, block, line, byte, word, group, look4, look6, found] = [(); 9].map(|()| asm.label());
    head::head_function(&mut asm, head, [block, byte, look4, look6]);
    block_function(&mut asm, block, line);
    line_function(&mut asm, line, byte, names);
    word::byte_function(&mut asm, byte, word, group);
    word::word_function(&mut asm, word, [group, look4, look6]);
    word::group_function(&mut asm, group);
    lookup::look4_function(&mut asm, look4, found, maps);
    lookup::look6_function(&mut asm, look6, [found, look4], prefixes, maps);
    lookup::found_function(&mut asm, found);
    asm
}

/// `R0 = bpf_skb_load_bytes(skb, R2, stack + to, len)`; R1 must hold the packet.
pub(super) fn load_bytes(asm: &mut Asm, to: i16, len: impl Into<Operand>) {
    asm.mov(R::R4, len);
    asm.mov(R::R3, R::STACK);
    asm.add(R::R3, i32::from(to));
    asm.call(helper::SKB_LOAD_BYTES);
}

/// Reads the `room` bytes at `at` in the payload, or the `left` that there are, to the stack, and zeros behind them. R6 is
/// what is shared; to `stop` when there are none.
fn read(asm: &mut Asm, to: i16, room: i32, at: Reg, left: Reg, stop: Label) {
    let [whole, done] = [(); 2].map(|()| asm.label());
    // The caller knows, but the verifier wants it in its own terms.
    asm.jump_if(left, Lt, 1, stop);
    for zero in (0..room as i16).step_by(8) {
        asm.store(D, R::STACK, to + zero, 0);
    }
    get(asm, R::R2, R::R6, shared::BASE);
    asm.add(R::R2, at);
    get(asm, R::R1, R::R6, shared::SKB);
    asm.jump_if(left, Ge, room, whole);
    load_bytes(asm, to, left);
    asm.jump(done);
    asm.place(whole);
    load_bytes(asm, to, room);
    asm.place(done);
    asm.jump_if(R::R0, Ne, 0, stop);
}

/// `long block(u32 n, struct shared *s)`: marks the line ends of the nth 64 bytes, looks behind each.
fn block_function(asm: &mut Asm, this: Label, line: Label) {
    const BYTES: i16 = -64;
    let [stop, on] = [(); 2].map(|()| asm.label());
    asm.function(this, "block");
    asm.mov(R::R6, R::R2);
    asm.lsh(R::R1, 6);
    put(asm, R::R6, shared::BLOCK, R::R1);
    get(asm, R::R7, R::R6, shared::LENGTH);
    asm.jump_if(R::R1, Ge, R::R7, stop);
    asm.sub(R::R7, R::R1);
    read(asm, BYTES, BLOCK, R::R1, R::R7, stop);

    // A bit for each byte that is a line end, eight bytes at once: a byte of `x` is zero where the line ends, which
    // exactly then leaves its highest bit clear; the multiplication gathers the eight bits in the top byte.
    asm.mov(R::R9, 0);
    asm.imm64(R::R1, every(b'\n'));
    asm.imm64(R::R2, every(0x7f));
    asm.imm64(R::R3, 0x0102_0408_1020_4080);
    for at in (0..64).step_by(8) {
        let none = asm.label();
        asm.load(D, R::R4, R::STACK, BYTES + at);
        asm.xor(R::R4, R::R1);
        asm.mov(R::R5, R::R4);
        asm.and(R::R5, R::R2);
        asm.add(R::R5, R::R2);
        asm.or(R::R5, R::R4);
        asm.or(R::R5, R::R2);
        asm.xor(R::R5, -1);
        asm.jump_if(R::R5, Eq, 0, none);
        asm.to_le(R::R5, 64);
        asm.rsh(R::R5, 7);
        asm.mul(R::R5, R::R3);
        asm.rsh(R::R5, 56);
        if at > 0 {
            asm.lsh(R::R5, i32::from(at));
        }
        asm.or(R::R9, R::R5);
        asm.place(none);
    }
    asm.jump_if(R::R9, Eq, 0, on);
    put(asm, R::R6, shared::LINES, R::R9);
    asm.mov(R::R1, BLOCK);
    asm.address(R::R2, line);
    asm.mov(R::R3, R::R6);
    asm.mov(R::R4, 0);
    asm.call(helper::LOOP);
    get(asm, R::R1, R::R6, shared::STOP);
    asm.jump_if(R::R1, Ne, 0, stop);
    asm.place(on);
    asm.mov(R::R0, 0);
    asm.exit();
    asm.place(stop);
    asm.mov(R::R0, 1);
    asm.exit();
}

/// `long line(u32 turn, struct shared *s)`: is what follows the next line end one of the headers?
fn line_function(asm: &mut Asm, this: Label, byte: Label, names: &[String]) {
    // Room for the longest name and its colon.
    const ROOM: i32 = 48;
    const BYTES: i16 = -48;
    let [stop, on, end, value] = [(); 4].map(|()| asm.label());
    asm.function(this, "line");
    asm.mov(R::R6, R::R2);
    get(asm, R::R1, R::R6, shared::LINES);
    asm.jump_if(R::R1, Eq, 0, stop);
    asm.mov(R::R2, R::R1);
    asm.neg(R::R2);
    asm.and(R::R2, R::R1);
    asm.xor(R::R1, R::R2);
    put(asm, R::R6, shared::LINES, R::R1);
    // R2 is the lowest bit; R7 becomes its place.
    get(asm, R::R7, R::R6, shared::BLOCK);
    for (step, half) in [(32, u64::MAX << 32), (16, 0xffff_0000_ffff_0000), (8, 0xff00_ff00_ff00_ff00)]
        .into_iter()
        .chain([(4, 0xf0f0_f0f0_f0f0_f0f0), (2, 0xcccc_cccc_cccc_cccc), (1, 0xaaaa_aaaa_aaaa_aaaa)])
    {
        let lower = asm.label();
        asm.imm64(R::R3, half);
        asm.and(R::R3, R::R2);
        asm.jump_if(R::R3, Eq, 0, lower);
        asm.add(R::R7, step);
        asm.place(lower);
    }
    asm.add(R::R7, 1);

    get(asm, R::R8, R::R6, shared::LENGTH);
    asm.jump_if(R::R7, Ge, R::R8, stop);
    asm.sub(R::R8, R::R7);
    read(asm, BYTES, ROOM, R::R7, R::R8, stop);
    asm.load(B, R::R1, R::STACK, BYTES);
    asm.jump_if(R::R1, Eq, i32::from(b'\r'), end);
    asm.jump_if(R::R1, Eq, i32::from(b'\n'), end);

    // Letters in lower case; what else the bit changes is not in a name: `-` and `:` and digits have it.
    asm.imm64(R::R9, every(0x20));
    asm.load(D, R::R8, R::STACK, BYTES);
    asm.or(R::R8, R::R9);
    for name in names {
        let other = asm.label();
        let text: Vec<u8> = name.bytes().chain([b':']).map(|b| b | 0x20).collect();
        for (i, chunk) in text.chunks(8).enumerate() {
            let [mut want, mut mask] = [[0; 8]; 2];
            want[..chunk.len()].copy_from_slice(chunk);
            mask[..chunk.len()].fill(0xff);
            if i == 0 {
                asm.mov(R::R1, R::R8);
            } else {
                asm.load(D, R::R1, R::STACK, BYTES + 8 * i as i16);
                asm.or(R::R1, R::R9);
            }
            if chunk.len() < 8 {
                asm.imm64(R::R2, u64::from_ne_bytes(mask));
                asm.and(R::R1, R::R2);
            }
            asm.imm64(R::R2, u64::from_ne_bytes(want));
            asm.jump_if(R::R1, Ne, R::R2, other);
        }
        asm.add(R::R7, text.len() as i32);
        asm.jump(value);
        asm.place(other);
    }
    asm.place(on);
    asm.mov(R::R0, 0);
    asm.exit();

    asm.place(value);
    put(asm, R::R6, shared::VALUE, R::R7);
    word::begin(asm, R::R6);
    asm.mov(R::R1, WINDOW);
    asm.address(R::R2, byte);
    asm.mov(R::R3, R::R6);
    asm.mov(R::R4, 0);
    asm.call(helper::LOOP);
    get(asm, R::R1, R::R6, shared::STOP);
    asm.jump_if(R::R1, Eq, 0, on);
    asm.place(stop);
    asm.mov(R::R0, 1);
    asm.exit();
    asm.place(end);
    put(asm, R::R6, shared::STOP, 2);
    asm.mov(R::R0, 1);
    asm.exit();
}
