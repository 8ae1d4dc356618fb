//! What the program's functions share: a structure in the stack of the first one.
//!
//! The verifier remembers what it knows about a number that is stored in 8 aligned bytes, and tells states apart by it:
//! a dozen counters would be millions of states. It does not for 4 bytes in the middle of such a slot. So that is where
//! the counters are.

use nft::bpf::{Asm, Operand, Reg, Size};

/// A number, by its offset in bytes.
#[derive(Clone, Copy)]
pub(super) struct Slot(i16);

/// The packet.
pub(super) const SKB: Slot = Slot(0);
/// Line ends of the block that are still to be looked behind: a bit for each byte.
pub(super) const LINES: Slot = Slot(8);
/// 0, but the verifier does not know: what begins with it is not taken for a constant. (Kernels before 6.7 prove a
/// loop's function for its first turn only, and cut out what that one does not need.)
pub(super) const ZERO: Slot = Slot(16);

/// Of the colon-separated groups before a `::`, as an address: the first 8 bytes, the last 8 bytes.
pub(super) const HEAD: [Slot; 2] = [Slot(24), Slot(32)];
/// The groups behind a `::`, moved up by each that follows.
pub(super) const TAIL: [Slot; 2] = [Slot(40), Slot(48)];
/// How many groups there are.
pub(super) const GROUPS: Slot = Slot(60);
/// 0, or one more than there were groups before the `::`.
pub(super) const GAP: Slot = Slot(68);
/// The octets that a dot has ended.
pub(super) const OCTETS: Slot = Slot(76);
/// How many dots there are.
pub(super) const DOTS: Slot = Slot(84);
/// The number being read, taken as hexadecimal.
pub(super) const HEX: Slot = Slot(92);
/// The same taken as decimal.
pub(super) const DECIMAL: Slot = Slot(100);
/// How many digits it has.
pub(super) const DIGITS: Slot = Slot(108);
/// See below.
pub(super) const FLAGS: Slot = Slot(116);
/// All that is known of a word.
pub(super) const WORD: [Slot; 12] =
    [HEAD[0], HEAD[1], TAIL[0], TAIL[1], GROUPS, GAP, OCTETS, DOTS, HEX, DECIMAL, DIGITS, FLAGS];

/// Where the payload begins in the packet.
pub(super) const BASE: Slot = Slot(124);
/// How much of the payload is looked at.
pub(super) const LENGTH: Slot = Slot(132);
/// Why to stop: 1 found, 2 the head has ended; 0 to go on.
pub(super) const STOP: Slot = Slot(140);
/// Where the block begins in the payload.
pub(super) const BLOCK: Slot = Slot(148);
/// Where the value begins in the payload.
pub(super) const VALUE: Slot = Slot(156);
/// 1 when only the first word of the value counts.
pub(super) const ONE_WORD: Slot = Slot(164);

/// Bytes of the value that were read at once: so many at a time.
pub(super) const BYTES: i16 = 168;
/// How many those are, a power of two.
pub(super) const BYTES_LENGTH: i32 = 16;

/// Bytes in all.
pub(super) const SIZE: i16 = 184;

/// The word is no address.
pub(super) const INVALID: i32 = 1;
/// The address is complete: a port or a zone follows.
pub(super) const COMPLETE: i32 = 2;
/// The number has a digit that is not decimal.
pub(super) const LETTER: i32 = 4;
/// The character before was a colon.
pub(super) const COLON: i32 = 8;
/// The two characters before were colons.
pub(super) const PAIR: i32 = 16;

impl Slot {
    fn size(self) -> Size {
        if self.0 % 8 == 4 { Size::W } else { Size::D }
    }
}

/// `to = shared->slot`
pub(super) fn get(asm: &mut Asm, to: Reg, shared: Reg, slot: Slot) {
    asm.load(slot.size(), to, shared, slot.0);
}

/// `shared->slot = what`
pub(super) fn put(asm: &mut Asm, shared: Reg, slot: Slot, what: impl Into<Operand>) {
    asm.store(slot.size(), shared, slot.0, what);
}

/// `shared->slot = what`, in the function that has the structure in its stack.
pub(super) fn put_own(asm: &mut Asm, slot: Slot, what: impl Into<Operand>) {
    asm.store(slot.size(), Reg::STACK, slot.0 - SIZE, what);
}

/// `to = shared->slot`, in the function that has the structure in its stack.
pub(super) fn get_own(asm: &mut Asm, to: Reg, slot: Slot) {
    asm.load(slot.size(), to, Reg::STACK, slot.0 - SIZE);
}
