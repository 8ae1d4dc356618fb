//! Looking an address up in the maps.

use std::collections::BTreeSet;

use nft::bpf::{Asm, Cond, Label, Map, Reg, Size, helper};

use Cond::{Eq, Le, Ne};
use Reg as R;
use Size::{D, W};

use super::program::Maps;
use super::shared::{self, get, put};

/// Looks the key at `stack + key` up; if there is a value and its ban is running, returns. R6 is what is shared.
fn look(asm: &mut Asm, map: &Map, key: i16, found: Label) {
    let absent = asm.label();
    asm.map(R::R1, map);
    asm.mov(R::R2, R::STACK);
    asm.add(R::R2, i32::from(key));
    asm.call(helper::MAP_LOOKUP_ELEM);
    asm.jump_if(R::R0, Eq, 0, absent);
    asm.mov(R::R1, R::R6);
    asm.mov(R::R2, R::R0);
    asm.call_function(found);
    get(asm, R::R1, R::R6, shared::STOP);
    asm.jump_if(R::R1, Eq, 0, absent);
    asm.mov(R::R0, 1);
    asm.exit();
    asm.place(absent);
}

/// `int look4(struct shared *s, u64 address)`: the address as a number.
pub(super) fn look4_function(asm: &mut Asm, this: Label, found: Label, maps: &Maps) {
    asm.function(this, "look4");
    asm.mov(R::R6, R::R1);
    asm.to_be(R::R2, 32);
    asm.store(W, R::STACK, -8, 32);
    asm.store(W, R::STACK, -4, R::R2);
    look(asm, &maps.single4, -4, found);
    look(asm, &maps.nets4, -8, found);
    asm.mov(R::R0, 0);
    asm.exit();
}

/// `int look6(struct shared *s, u64 first, u64 last)`: the address as two numbers. An IPv4-mapped one is IPv4.
pub(super) fn look6_function(
    asm: &mut Asm,
    this: Label,
    [found, look4]: [Label; 2],
    prefixes: &BTreeSet<u8>,
    maps: &Maps,
) {
    // Length, then address: the address alone must stand aligned.
    const LENGTH: i16 = -20;
    const ADDRESS: i16 = -16;
    // Address, then length.
    const MASKED: i16 = -48;
    let not_mapped = asm.label();
    asm.function(this, "look6");
    asm.mov(R::R6, R::R1);
    asm.mov(R::R7, R::R2);
    asm.mov(R::R8, R::R3);
    asm.jump_if(R::R7, Ne, 0, not_mapped);
    asm.mov(R::R1, R::R8);
    asm.rsh(R::R1, 32);
    asm.jump_if(R::R1, Ne, 0xffff, not_mapped);
    asm.mov(R::R1, R::R6);
    asm.mov(R::R2, R::R8);
    asm.call_function(look4);
    asm.mov(R::R0, 0);
    asm.exit();
    asm.place(not_mapped);
    asm.mov(R::R1, R::R7);
    asm.to_be(R::R1, 64);
    asm.store(D, R::STACK, ADDRESS, R::R1);
    asm.mov(R::R1, R::R8);
    asm.to_be(R::R1, 64);
    asm.store(D, R::STACK, ADDRESS + 8, R::R1);
    asm.store(W, R::STACK, LENGTH, 128);
    look(asm, &maps.single6, ADDRESS, found);
    for length in prefixes {
        let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
        for (at, value, mask) in [(0, R::R7, (mask >> 64) as u64), (8, R::R8, mask as u64)] {
            asm.imm64(R::R1, mask);
            asm.and(R::R1, value);
            asm.to_be(R::R1, 64);
            asm.store(D, R::STACK, MASKED + at, R::R1);
        }
        asm.store(W, R::STACK, MASKED + 16, i32::from(*length));
        look(asm, &maps.prefix6, MASKED, found);
    }
    look(asm, &maps.nets6, LENGTH, found);
    asm.mov(R::R0, 0);
    asm.exit();
}

/// `int found(struct shared *s, struct value *v)`: stops the search and counts the packet if the ban is running.
pub(super) fn found_function(asm: &mut Asm, this: Label) {
    let [running, over] = [asm.label(), asm.label()];
    asm.function(this, "found");
    asm.mov(R::R6, R::R1);
    asm.mov(R::R7, R::R2);
    asm.load(D, R::R8, R::R7, 0);
    asm.jump_if(R::R8, Eq, 0, running);
    asm.call(helper::KTIME_GET_BOOT_NS);
    asm.jump_if(R::R8, Le, R::R0, over);
    asm.place(running);
    asm.mov(R::R1, 1);
    asm.atomic_add(R::R7, 8, R::R1);
    put(asm, R::R6, shared::STOP, 1);
    asm.place(over);
    asm.mov(R::R0, 0);
    asm.exit();
}
