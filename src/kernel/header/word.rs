//! Words of a header's value, and whether they are addresses.
//!
//! A word is what stands between blanks, commas, semicolons, quotation marks, brackets and equals signs, so that lists,
//! ports in brackets and RFC 7239's `for="[2001:db8::1]:80"` come apart by themselves. It is read to its end before
//! it is looked up: 203.0.113.7 is not found in 203.0.113.77. A port behind an IPv4 address and a zone behind an IPv6
//! address are not part of it.

use nft::bpf::{Asm, Cond, Label, Reg, Size, helper};

use Cond::{Eq, Ge, Gt, Le, Lt, Ne, Set};
use Reg as R;
use Size::B;

use super::shared::{self, BYTES_LENGTH, COLON, COMPLETE, INVALID, LETTER, PAIR, get, put};

/// Below 64, so that they are bits of a number.
const DELIMITERS: &[u8] = b" ,\r\n\t;\"=";
const BRACKETS: &[u8] = b"[]";

/// Begins a new word; R1 is lost.
pub(super) fn begin(asm: &mut Asm, shared: Reg) {
    get(asm, R::R1, shared, shared::ZERO);
    for slot in shared::WORD {
        put(asm, shared, slot, R::R1);
    }
}

/// Begins a new number of the same word; R1 is lost.
fn begin_number(asm: &mut Asm, shared: Reg) {
    get(asm, R::R1, shared, shared::ZERO);
    for slot in [shared::HEX, shared::DECIMAL, shared::DIGITS] {
        put(asm, shared, slot, R::R1);
    }
}

/// Sets and clears flags; R1 is lost.
fn flags(asm: &mut Asm, shared: Reg, set: i32, clear: i32) {
    get(asm, R::R1, shared, shared::FLAGS);
    if clear != 0 {
        asm.and(R::R1, !clear);
    }
    if set != 0 {
        asm.or(R::R1, set);
    }
    put(asm, shared, shared::FLAGS, R::R1);
}

/// `long byte(u32 n, struct shared *s)`: the nth byte of the value.
pub(super) fn byte_function(asm: &mut Asm, this: Label, word: Label, group: Label) {
    let [digit, letter, dot, colon, end_of_word, end_of_line, on, stop] = [(); 8].map(|()| asm.label());
    let [not_digit, count, lone, gap, complete, invalid] = [(); 6].map(|()| asm.label());
    let [there, rest, beyond] = [(); 3].map(|()| asm.label());
    asm.function(this, "byte");
    asm.mov(R::R6, R::R2);
    asm.mov(R::R7, R::R1);
    asm.and(R::R7, BYTES_LENGTH - 1);
    get(asm, R::R2, R::R6, shared::VALUE);
    asm.add(R::R2, R::R1);
    asm.mov(R::R8, i32::from(b'\n'));
    get(asm, R::R4, R::R6, shared::LENGTH);
    asm.jump_if(R::R2, Ge, R::R4, end_of_line);
    // The next bytes are read when the last are used up.
    asm.jump_if(R::R7, Ne, 0, there);
    asm.sub(R::R4, R::R2);
    asm.jump_if(R::R4, Lt, 1, end_of_line);
    asm.jump_if(R::R4, Lt, BYTES_LENGTH, rest);
    asm.mov(R::R4, BYTES_LENGTH);
    asm.place(rest);
    get(asm, R::R1, R::R6, shared::BASE);
    asm.add(R::R2, R::R1);
    get(asm, R::R1, R::R6, shared::SKB);
    asm.mov(R::R3, R::R6);
    asm.add(R::R3, i32::from(shared::BYTES));
    asm.call(helper::SKB_LOAD_BYTES);
    asm.jump_if(R::R0, Ne, 0, end_of_line);
    asm.place(there);
    asm.mov(R::R1, R::R6);
    asm.add(R::R1, R::R7);
    asm.load(B, R::R8, R::R1, shared::BYTES);
    asm.jump_if(R::R8, Lt, i32::from(b'0'), not_digit);
    asm.jump_if(R::R8, Le, i32::from(b'9'), digit);
    asm.place(not_digit);
    asm.jump_if(R::R8, Ge, 64, beyond);
    asm.imm64(R::R1, DELIMITERS.iter().fold(0, |bits, byte| bits | 1 << *byte));
    asm.rsh(R::R1, R::R8);
    asm.jump_if(R::R1, Set, 1, end_of_word);
    asm.place(beyond);
    for bracket in BRACKETS {
        asm.jump_if(R::R8, Eq, i32::from(*bracket), end_of_word);
    }
    get(asm, R::R9, R::R6, shared::FLAGS);
    asm.jump_if(R::R9, Set, INVALID | COMPLETE, on);
    asm.jump_if(R::R8, Eq, i32::from(b'.'), dot);
    asm.jump_if(R::R8, Eq, i32::from(b':'), colon);
    asm.jump_if(R::R8, Eq, i32::from(b'%'), complete);
    asm.or(R::R8, 0x20);
    asm.jump_if(R::R8, Lt, i32::from(b'a'), invalid);
    asm.jump_if(R::R8, Le, i32::from(b'f'), letter);
    asm.place(invalid);
    flags(asm, R::R6, INVALID, 0);
    asm.place(on);
    asm.mov(R::R0, 0);
    asm.exit();

    asm.place(complete);
    flags(asm, R::R6, COMPLETE, 0);
    asm.jump(on);

    asm.place(digit);
    get(asm, R::R9, R::R6, shared::FLAGS);
    asm.jump_if(R::R9, Set, INVALID | COMPLETE, on);
    asm.sub(R::R8, i32::from(b'0'));
    asm.jump(count);
    asm.place(letter);
    asm.or(R::R9, LETTER);
    asm.sub(R::R8, i32::from(b'a') - 10);
    asm.place(count);
    asm.and(R::R9, !(COLON | PAIR));
    put(asm, R::R6, shared::FLAGS, R::R9);
    get(asm, R::R1, R::R6, shared::HEX);
    asm.lsh(R::R1, 4);
    asm.or(R::R1, R::R8);
    put(asm, R::R6, shared::HEX, R::R1);
    get(asm, R::R1, R::R6, shared::DECIMAL);
    asm.mul(R::R1, 10);
    asm.add(R::R1, R::R8);
    put(asm, R::R6, shared::DECIMAL, R::R1);
    get(asm, R::R1, R::R6, shared::DIGITS);
    asm.add(R::R1, 1);
    put(asm, R::R6, shared::DIGITS, R::R1);
    asm.jump(on);

    // An octet has ended.
    asm.place(dot);
    get(asm, R::R2, R::R6, shared::DOTS);
    asm.jump_if(R::R2, Ge, 3, invalid);
    octet(asm, invalid);
    put(asm, R::R6, shared::OCTETS, R::R1);
    asm.add(R::R2, 1);
    put(asm, R::R6, shared::DOTS, R::R2);
    begin_number(asm, R::R6);
    asm.jump(on);

    // A group has ended, or the address is complete and a port follows.
    asm.place(colon);
    get(asm, R::R1, R::R6, shared::DOTS);
    asm.jump_if(R::R1, Eq, 3, complete);
    asm.jump_if(R::R1, Ne, 0, invalid);
    get(asm, R::R1, R::R6, shared::DIGITS);
    asm.jump_if(R::R1, Eq, 0, lone);
    asm.jump_if(R::R1, Gt, 4, invalid);
    asm.mov(R::R1, R::R6);
    get(asm, R::R2, R::R6, shared::HEX);
    asm.call_function(group);
    begin_number(asm, R::R6);
    flags(asm, R::R6, COLON, LETTER);
    asm.jump(on);
    asm.place(lone);
    asm.jump_if(R::R9, Set, COLON, gap);
    flags(asm, R::R6, COLON, 0);
    asm.jump(on);
    asm.place(gap);
    get(asm, R::R1, R::R6, shared::GAP);
    asm.jump_if(R::R1, Ne, 0, invalid);
    get(asm, R::R1, R::R6, shared::GROUPS);
    asm.add(R::R1, 1);
    put(asm, R::R6, shared::GAP, R::R1);
    flags(asm, R::R6, PAIR, 0);
    asm.jump(on);

    asm.place(end_of_line);
    asm.place(end_of_word);
    asm.mov(R::R1, R::R6);
    asm.call_function(word);
    get(asm, R::R1, R::R6, shared::STOP);
    asm.jump_if(R::R1, Ne, 0, stop);
    get(asm, R::R1, R::R6, shared::ONE_WORD);
    asm.jump_if(R::R1, Ne, 0, stop);
    asm.jump_if(R::R8, Eq, i32::from(b'\r'), stop);
    asm.jump_if(R::R8, Ne, i32::from(b'\n'), on);
    asm.place(stop);
    asm.mov(R::R0, 1);
    asm.exit();
}

/// `R1 = octets and the number just read`; to `invalid` unless that is an octet. R6 is what is shared, R3 is lost.
fn octet(asm: &mut Asm, invalid: Label) {
    get(asm, R::R1, R::R6, shared::FLAGS);
    asm.jump_if(R::R1, Set, LETTER, invalid);
    get(asm, R::R1, R::R6, shared::DIGITS);
    asm.jump_if(R::R1, Eq, 0, invalid);
    asm.jump_if(R::R1, Gt, 3, invalid);
    get(asm, R::R3, R::R6, shared::DECIMAL);
    asm.jump_if(R::R3, Gt, 255, invalid);
    get(asm, R::R1, R::R6, shared::OCTETS);
    asm.lsh(R::R1, 8);
    asm.or(R::R1, R::R3);
}

/// `int word(struct shared *s)`: a word has ended. If it is an address, looks it up. Begins the next one.
pub(super) fn word_function(asm: &mut Asm, this: Label, [group, look4, look6]: [Label; 3]) {
    let [over, colons, embedded, whole, all, ready] = [(); 6].map(|()| asm.label());
    asm.function(this, "word");
    asm.mov(R::R6, R::R1);
    get(asm, R::R1, R::R6, shared::FLAGS);
    asm.jump_if(R::R1, Set, INVALID, over);
    // A colon at the end belongs to an address only if it is half of a `::`.
    asm.and(R::R1, COLON | PAIR);
    asm.jump_if(R::R1, Eq, COLON, over);
    get(asm, R::R8, R::R6, shared::GROUPS);
    get(asm, R::R1, R::R6, shared::GAP);
    asm.or(R::R8, R::R1);
    get(asm, R::R1, R::R6, shared::DOTS);
    asm.jump_if(R::R1, Eq, 0, colons);

    asm.jump_if(R::R1, Ne, 3, over);
    octet(asm, over);
    asm.jump_if(R::R8, Ne, 0, embedded);
    asm.mov(R::R2, R::R1);
    asm.mov(R::R1, R::R6);
    asm.call_function(look4);
    asm.jump(over);
    // The last two groups of an IPv6 address, written as IPv4.
    asm.place(embedded);
    asm.mov(R::R7, R::R1);
    asm.mov(R::R2, R::R1);
    asm.rsh(R::R2, 16);
    asm.mov(R::R1, R::R6);
    asm.call_function(group);
    asm.mov(R::R2, R::R7);
    asm.and(R::R2, 0xffff);
    asm.mov(R::R1, R::R6);
    asm.call_function(group);
    asm.jump(whole);

    asm.place(colons);
    asm.jump_if(R::R8, Eq, 0, over);
    get(asm, R::R1, R::R6, shared::DIGITS);
    asm.jump_if(R::R1, Eq, 0, whole);
    asm.jump_if(R::R1, Gt, 4, over);
    asm.mov(R::R1, R::R6);
    get(asm, R::R2, R::R6, shared::HEX);
    asm.call_function(group);

    // Eight groups, or fewer and a `::`.
    asm.place(whole);
    get(asm, R::R1, R::R6, shared::GROUPS);
    get(asm, R::R2, R::R6, shared::GAP);
    asm.jump_if(R::R2, Eq, 0, all);
    asm.jump_if(R::R1, Gt, 7, over);
    asm.jump(ready);
    asm.place(all);
    asm.jump_if(R::R1, Ne, 8, over);
    asm.place(ready);
    get(asm, R::R2, R::R6, shared::HEAD[0]);
    get(asm, R::R1, R::R6, shared::TAIL[0]);
    asm.or(R::R2, R::R1);
    get(asm, R::R3, R::R6, shared::HEAD[1]);
    get(asm, R::R1, R::R6, shared::TAIL[1]);
    asm.or(R::R3, R::R1);
    asm.mov(R::R1, R::R6);
    asm.call_function(look6);

    asm.place(over);
    begin(asm, R::R6);
    asm.mov(R::R0, 0);
    asm.exit();
}

/// `int group(struct shared *s, u64 group)`: one more group of an IPv6 address.
pub(super) fn group_function(asm: &mut Asm, this: Label) {
    let [tail, second, counted, invalid] = [(); 4].map(|()| asm.label());
    asm.function(this, "group");
    get(asm, R::R3, R::R1, shared::GROUPS);
    get(asm, R::R4, R::R1, shared::GAP);
    asm.jump_if(R::R4, Ne, 0, tail);
    // Before a `::` a group's place is known: 16 bits further down for each that came before.
    asm.jump_if(R::R3, Ge, 8, invalid);
    asm.mov(R::R5, R::R3);
    asm.and(R::R5, 3);
    asm.lsh(R::R5, 4);
    asm.xor(R::R5, 48);
    asm.lsh(R::R2, R::R5);
    asm.jump_if(R::R3, Ge, 4, second);
    get(asm, R::R4, R::R1, shared::HEAD[0]);
    asm.or(R::R4, R::R2);
    put(asm, R::R1, shared::HEAD[0], R::R4);
    asm.jump(counted);
    asm.place(second);
    get(asm, R::R4, R::R1, shared::HEAD[1]);
    asm.or(R::R4, R::R2);
    put(asm, R::R1, shared::HEAD[1], R::R4);
    asm.jump(counted);
    // Behind it every further group moves the others up.
    asm.place(tail);
    get(asm, R::R4, R::R1, shared::TAIL[0]);
    get(asm, R::R5, R::R1, shared::TAIL[1]);
    asm.lsh(R::R4, 16);
    asm.mov(R::R0, R::R5);
    asm.rsh(R::R0, 48);
    asm.or(R::R4, R::R0);
    asm.lsh(R::R5, 16);
    asm.or(R::R5, R::R2);
    put(asm, R::R1, shared::TAIL[0], R::R4);
    put(asm, R::R1, shared::TAIL[1], R::R5);
    asm.place(counted);
    asm.add(R::R3, 1);
    put(asm, R::R1, shared::GROUPS, R::R3);
    asm.mov(R::R0, 0);
    asm.exit();
    asm.place(invalid);
    get(asm, R::R4, R::R1, shared::FLAGS);
    asm.or(R::R4, INVALID);
    put(asm, R::R1, shared::FLAGS, R::R4);
    asm.jump(counted);
}
