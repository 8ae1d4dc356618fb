//! Where a program begins: the packet's headers, the gate, the PROXY protocol.

use nft::bpf::{Asm, Cond, Label, Reg, Size, helper};

use Cond::{Eq, Ge, Gt, Lt, Ne, Set, SignedLt};
use Reg as R;
use Size::{B, D, H, W};

use super::program::{BLOCK, WINDOW, load_bytes};
use super::shared::{self, get_own, put_own};

/// The shortest payload that is looked at: a request line and a header of one letter.
const SHORTEST: i32 = 24;
/// An IPv6 address with an IPv4 one in it (`INET6_ADDRSTRLEN`, without the NUL).
const LONGEST_ADDRESS: i32 = 45;

/// `int head(struct __sk_buff *skb)`
pub(super) fn head_function(asm: &mut Asm, this: Label, [block, byte, look4, look6]: [Label; 4]) {
    const SHARED: i16 = -shared::SIZE;
    const BYTES: i16 = SHARED - 40;
    let [no, six, tcp, found] = [(); 4].map(|()| asm.label());
    asm.function(this, "head");
    asm.mov(R::R6, R::R1);

    // The IP header: R7 is where the TCP header begins. TCP over IPv4 has 40 bytes at least.
    asm.mov(R::R2, 0);
    load_bytes(asm, BYTES, 40);
    asm.jump_if(R::R0, Ne, 0, no);
    asm.load(B, R::R1, R::STACK, BYTES);
    asm.mov(R::R7, R::R1);
    asm.rsh(R::R1, 4);
    asm.jump_if(R::R1, Eq, 6, six);
    asm.jump_if(R::R1, Ne, 4, no);
    asm.load(B, R::R2, R::STACK, BYTES + 9);
    asm.jump_if(R::R2, Ne, 6, no);
    asm.load(H, R::R2, R::STACK, BYTES + 6);
    asm.to_be(R::R2, 16);
    asm.jump_if(R::R2, Set, 0x1fff, no);
    asm.and(R::R7, 15);
    asm.lsh(R::R7, 2);
    asm.jump(tcp);

    // IPv6: up to four extension headers, as RFC 8200 orders them; a fragment is not for us.
    asm.place(six);
    asm.mov(R::R7, 40);
    asm.load(B, R::R8, R::STACK, BYTES + 6);
    for _ in 0..4 {
        let skip = asm.label();
        asm.jump_if(R::R8, Eq, 6, tcp);
        for kind in [0, 43, 60] {
            asm.jump_if(R::R8, Eq, kind, skip);
        }
        asm.jump(no);
        asm.place(skip);
        asm.mov(R::R1, R::R6);
        asm.mov(R::R2, R::R7);
        load_bytes(asm, BYTES, 2);
        asm.jump_if(R::R0, Ne, 0, no);
        asm.load(B, R::R8, R::STACK, BYTES);
        asm.load(B, R::R1, R::STACK, BYTES + 1);
        asm.add(R::R1, 1);
        asm.lsh(R::R1, 3);
        asm.add(R::R7, R::R1);
    }
    asm.jump_if(R::R8, Ne, 6, no);

    // The TCP header: R7 becomes where the payload begins.
    asm.place(tcp);
    asm.mov(R::R1, R::R6);
    asm.mov(R::R2, R::R7);
    asm.add(R::R2, 12);
    load_bytes(asm, BYTES, 1);
    asm.jump_if(R::R0, Ne, 0, no);
    asm.load(B, R::R1, R::STACK, BYTES);
    asm.rsh(R::R1, 4);
    asm.lsh(R::R1, 2);
    asm.add(R::R7, R::R1);

    // What the functions share.
    asm.load(W, R::R8, R::R6, 0);
    asm.load(W, R::R1, R::R6, 0);
    asm.xor(R::R1, R::R8);
    asm.mov(R::R2, R::R1);
    asm.lsh(R::R2, 32);
    asm.or(R::R1, R::R2);
    put_own(asm, shared::ZERO, R::R1);
    put_own(asm, shared::SKB, R::R6);
    put_own(asm, shared::STOP, R::R1);
    put_own(asm, shared::LINES, R::R1);
    put_own(asm, shared::BLOCK, R::R1);
    put_own(asm, shared::VALUE, R::R1);
    put_own(asm, shared::ONE_WORD, R::R1);
    for at in (0..shared::BYTES_LENGTH as i16).step_by(8) {
        asm.store(D, R::STACK, SHARED + shared::BYTES + at, R::R1);
    }
    for slot in shared::WORD {
        put_own(asm, slot, R::R1);
    }
    let [version1, version2, go, out] = [(); 4].map(|()| asm.label());

    // The payload's first bytes: R8 is how long it is.
    asm.sub(R::R8, R::R7);
    asm.jump_if(R::R8, SignedLt, SHORTEST, no);
    put_own(asm, shared::BASE, R::R7);
    let bounded = asm.label();
    asm.jump_if(R::R8, Lt, WINDOW, bounded);
    asm.mov(R::R8, WINDOW);
    asm.place(bounded);
    put_own(asm, shared::LENGTH, R::R8);
    asm.mov(R::R1, R::R6);
    asm.mov(R::R2, R::R7);
    load_bytes(asm, BYTES, SHORTEST);
    asm.jump_if(R::R0, Ne, 0, no);
    asm.load(B, R::R1, R::STACK, BYTES);
    asm.jump_if(R::R1, Eq, 0x0d, version2);

    // A method is letters, and a space within the first bytes; then comes a path, a URL or an asterisk.
    asm.or(R::R1, 0x20);
    asm.jump_if(R::R1, Lt, i32::from(b'a'), no);
    asm.jump_if(R::R1, Gt, i32::from(b'z'), no);
    asm.load(D, R::R1, R::STACK, BYTES);
    asm.imm64(R::R2, u64::from_ne_bytes(*b"PROXY \0\0"));
    asm.imm64(R::R3, u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 0, 0]));
    asm.and(R::R1, R::R3);
    asm.jump_if(R::R1, Eq, R::R2, version1);
    // Answers are as many as requests.
    asm.lsh(R::R1, 32);
    asm.rsh(R::R1, 32);
    asm.jump_if(R::R1, Eq, i32::from_ne_bytes(*b"HTTP"), no);
    for at in 1..SHORTEST as i16 {
        let more = asm.label();
        asm.load(B, R::R1, R::STACK, BYTES + at);
        asm.jump_if(R::R1, Ne, i32::from(b' '), more);
        if at + 1 == SHORTEST as i16 {
            asm.jump(go);
        } else {
            asm.load(B, R::R1, R::STACK, BYTES + at + 1);
            for beginning in [b'/', b'h', b'H', b'*'] {
                asm.jump_if(R::R1, Eq, i32::from(beginning), go);
            }
            asm.jump(no);
        }
        asm.place(more);
    }
    asm.jump(no);

    // PROXY protocol, version 1: a line of text, in which the addresses are words. What follows may be the request.
    asm.place(version1);
    asm.load(B, R::R1, R::STACK, BYTES + 6);
    asm.jump_if(R::R1, Ne, i32::from(b'T'), go);
    // Behind `PROXY TCP4 ` stands the source, then the destination, which is one of ours.
    put_own(asm, shared::VALUE, 11);
    put_own(asm, shared::ONE_WORD, 1);
    asm.mov(R::R1, LONGEST_ADDRESS + 1);
    asm.address(R::R2, byte);
    asm.mov(R::R3, R::STACK);
    asm.add(R::R3, i32::from(SHARED));
    asm.mov(R::R4, 0);
    asm.call(helper::LOOP);
    put_own(asm, shared::ONE_WORD, 0);
    get_own(asm, R::R1, shared::STOP);
    asm.jump_if(R::R1, Eq, 1, out);
    asm.jump(go);

    // Version 2: signature, command, family, length as u16, addresses.
    asm.place(version2);
    asm.load(D, R::R1, R::STACK, BYTES);
    asm.imm64(R::R2, u64::from_ne_bytes([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51]));
    asm.jump_if(R::R1, Ne, R::R2, no);
    asm.load(W, R::R1, R::STACK, BYTES + 8);
    asm.mov(R::R2, i32::from_ne_bytes([0x55, 0x49, 0x54, 0x0a]));
    asm.jump_if(R::R1, Ne, R::R2, no);
    let [four, addresses] = [asm.label(), asm.label()];
    asm.load(B, R::R1, R::STACK, BYTES + 13);
    asm.jump_if(R::R1, Eq, 0x11, four);
    asm.jump_if(R::R1, Ne, 0x21, no);
    asm.mov(R::R1, R::R6);
    asm.mov(R::R2, R::R7);
    asm.add(R::R2, 16);
    load_bytes(asm, BYTES + 24, 16);
    asm.jump_if(R::R0, Ne, 0, no);
    asm.load(D, R::R2, R::STACK, BYTES + 24);
    asm.load(D, R::R3, R::STACK, BYTES + 32);
    asm.to_be(R::R2, 64);
    asm.to_be(R::R3, 64);
    asm.mov(R::R1, R::STACK);
    asm.add(R::R1, i32::from(SHARED));
    asm.call_function(look6);
    asm.jump(addresses);
    asm.place(four);
    asm.load(W, R::R2, R::STACK, BYTES + 16);
    asm.to_be(R::R2, 32);
    asm.mov(R::R1, R::STACK);
    asm.add(R::R1, i32::from(SHARED));
    asm.call_function(look4);
    asm.place(addresses);
    get_own(asm, R::R1, shared::STOP);
    asm.jump_if(R::R1, Eq, 1, out);
    // The request may follow in the same packet.
    asm.load(H, R::R1, R::STACK, BYTES + 14);
    asm.to_be(R::R1, 16);
    asm.add(R::R1, 16);
    get_own(asm, R::R7, shared::BASE);
    get_own(asm, R::R8, shared::LENGTH);
    asm.jump_if(R::R1, Ge, R::R8, no);
    asm.add(R::R7, R::R1);
    asm.sub(R::R8, R::R1);
    asm.jump_if(R::R8, Lt, SHORTEST, no);
    put_own(asm, shared::BASE, R::R7);
    put_own(asm, shared::LENGTH, R::R8);
    asm.jump(go);

    asm.place(go);
    asm.mov(R::R1, WINDOW / BLOCK);
    asm.address(R::R2, block);
    asm.mov(R::R3, R::STACK);
    asm.add(R::R3, i32::from(SHARED));
    asm.mov(R::R4, 0);
    asm.call(helper::LOOP);
    asm.place(out);
    get_own(asm, R::R1, shared::STOP);
    asm.jump_if(R::R1, Eq, 1, found);
    asm.place(no);
    asm.mov(R::R0, 0);
    asm.exit();
    asm.place(found);
    asm.mov(R::R0, 1);
    asm.exit();
}
