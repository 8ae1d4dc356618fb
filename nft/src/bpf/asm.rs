//! An assembler for eBPF: methods append instructions, labels are resolved at the end.
//!
//! The instruction set is described in the kernel's `Documentation/bpf/standardization/instruction-set.rst`. Registers
//! 0 to 5 are lost over a call, 6 to 9 are kept, 10 is the end of the function's stack of at most 512 bytes (all
//! functions of a chain of calls together).

use std::os::fd::{AsRawFd, RawFd};

use super::map::Map;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(u8);

impl Reg {
    /// What a function returns.
    pub const R0: Self = Self(0);
    /// The first argument.
    pub const R1: Self = Self(1);
    /// The second argument.
    pub const R2: Self = Self(2);
    /// The third argument.
    pub const R3: Self = Self(3);
    /// The fourth argument.
    pub const R4: Self = Self(4);
    /// The fifth argument.
    pub const R5: Self = Self(5);
    /// Kept over calls.
    pub const R6: Self = Self(6);
    /// Kept over calls.
    pub const R7: Self = Self(7);
    /// Kept over calls.
    pub const R8: Self = Self(8);
    /// Kept over calls.
    pub const R9: Self = Self(9);
    /// The end of the stack, read only.
    pub const STACK: Self = Self(10);
}

/// The second operand of an instruction.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// What a register holds.
    Reg(Reg),
    /// A number, extended with its sign to 64 bits.
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Self {
        Self::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(n: i32) -> Self {
        Self::Imm(n)
    }
}

/// How much is loaded or stored.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// One byte.
    B,
    /// Two.
    H,
    /// Four.
    W,
    /// Eight.
    D,
}

impl Size {
    fn code(self) -> u8 {
        match self {
            Self::W => 0x00,
            Self::H => 0x08,
            Self::B => 0x10,
            Self::D => 0x18,
        }
    }
}

/// When a jump is taken. Comparisons are of 64 bits, without a sign unless said.
#[derive(Clone, Copy, Debug)]
pub enum Cond {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `& ... != 0`
    Set,
    /// `<`, with a sign
    SignedLt,
}

impl Cond {
    fn code(self) -> u8 {
        match self {
            Self::Eq => 0x10,
            Self::Gt => 0x20,
            Self::Ge => 0x30,
            Self::Set => 0x40,
            Self::Ne => 0x50,
            Self::Lt => 0xa0,
            Self::Le => 0xb0,
            Self::SignedLt => 0xc0,
        }
    }
}

/// Numbers of the kernel's helper functions, as in `linux/bpf.h`; bpf-helpers(7) describes them.
pub mod helper {
    /// `void *bpf_map_lookup_elem(map, key)`
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    /// `long bpf_skb_load_bytes(skb, offset, to, len)`
    pub const SKB_LOAD_BYTES: i32 = 26;
    /// `u64 bpf_ktime_get_boot_ns()`, Linux 5.8
    pub const KTIME_GET_BOOT_NS: i32 = 125;
    /// `long bpf_loop(nr, function, context, flags)`, Linux 5.17
    pub const LOOP: i32 = 181;
}

/// A place to jump to, or a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

#[derive(Clone, Copy, Debug)]
enum Fixup {
    Jump(Label),
    Call(Label),
    Address(Label),
}

/// One instruction as the kernel wants it: `struct bpf_insn`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Insn {
    code: u8,
    regs: u8,
    offset: i16,
    imm: i32,
}

impl Insn {
    fn write(self, out: &mut Vec<u8>) {
        out.push(self.code);
        // Two bit fields in one byte: their order is the host's.
        out.push(if cfg!(target_endian = "big") { self.regs.rotate_left(4) } else { self.regs });
        out.extend(self.offset.to_ne_bytes());
        out.extend(self.imm.to_ne_bytes());
    }
}

/// A program in the making. The first instruction is its entry.
#[derive(Debug, Default)]
pub struct Asm {
    code: Vec<Insn>,
    labels: Vec<Option<usize>>,
    fixups: Vec<(usize, Fixup)>,
    /// Where functions begin, in order, and what they are called.
    pub(super) functions: Vec<(usize, &'static str)>,
}

impl Asm {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A label that is [placed](Self::place) later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label means the next instruction.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// A function begins here. The kernel wants it to end in [`exit`](Self::exit) or a jump back.
    pub fn function(&mut self, label: Label, name: &'static str) {
        self.place(label);
        self.functions.push((self.code.len(), name));
    }

    /// `to = from`
    pub fn mov(&mut self, to: Reg, from: impl Into<Operand>) {
        self.alu(0xb0, to, from);
    }

    /// `to += by`
    pub fn add(&mut self, to: Reg, by: impl Into<Operand>) {
        self.alu(0x00, to, by);
    }

    /// `to -= by`
    pub fn sub(&mut self, to: Reg, by: impl Into<Operand>) {
        self.alu(0x10, to, by);
    }

    /// `to *= by`
    pub fn mul(&mut self, to: Reg, by: impl Into<Operand>) {
        self.alu(0x20, to, by);
    }

    /// `to |= with`
    pub fn or(&mut self, to: Reg, with: impl Into<Operand>) {
        self.alu(0x40, to, with);
    }

    /// `to &= with`
    pub fn and(&mut self, to: Reg, with: impl Into<Operand>) {
        self.alu(0x50, to, with);
    }

    /// `to <<= by`
    pub fn lsh(&mut self, to: Reg, by: impl Into<Operand>) {
        self.alu(0x60, to, by);
    }

    /// `to >>= by`, without a sign
    pub fn rsh(&mut self, to: Reg, by: impl Into<Operand>) {
        self.alu(0x70, to, by);
    }

    /// `to = -to`
    pub fn neg(&mut self, to: Reg) {
        self.push(0x87, to, Reg(0), 0, 0);
    }

    /// `to ^= with`
    pub fn xor(&mut self, to: Reg, with: impl Into<Operand>) {
        self.alu(0xa0, to, with);
    }

    /// The lowest `bits` (16, 32 or 64) from the host's order to the network's, or back; the rest becomes 0.
    pub fn to_be(&mut self, reg: Reg, bits: i32) {
        self.push(0xdc, reg, Reg(0), 0, bits);
    }

    /// The same for little-endian order.
    pub fn to_le(&mut self, reg: Reg, bits: i32) {
        self.push(0xd4, reg, Reg(0), 0, bits);
    }

    /// `to = value`, all of its 64 bits.
    pub fn imm64(&mut self, to: Reg, value: u64) {
        self.wide(to, 0, value);
    }

    /// `to = the map`, for a helper.
    pub fn map(&mut self, to: Reg, map: &Map) {
        const BPF_PSEUDO_MAP_FD: u8 = 1;
        let fd: RawFd = map.as_raw_fd();
        self.wide(to, BPF_PSEUDO_MAP_FD, u64::from(fd.cast_unsigned()));
    }

    /// `to = the function`, for a helper that calls it.
    pub fn address(&mut self, to: Reg, function: Label) {
        const BPF_PSEUDO_FUNC: u8 = 4;
        self.fixups.push((self.code.len(), Fixup::Address(function)));
        self.wide(to, BPF_PSEUDO_FUNC, 0);
    }

    /// `to = *(base + offset)`, zeros above.
    pub fn load(&mut self, size: Size, to: Reg, base: Reg, offset: i16) {
        self.push(0x61 | size.code(), to, base, offset, 0);
    }

    /// `*(base + offset) = what`
    pub fn store(&mut self, size: Size, base: Reg, offset: i16, what: impl Into<Operand>) {
        match what.into() {
            Operand::Reg(from) => self.push(0x63 | size.code(), base, from, offset, 0),
            Operand::Imm(n) => self.push(0x62 | size.code(), base, Reg(0), offset, n),
        }
    }

    /// `*(base + offset) += what`, eight bytes, in one step for all processors.
    pub fn atomic_add(&mut self, base: Reg, offset: i16, what: Reg) {
        self.push(0xdb, base, what, offset, 0);
    }

    /// Goes on there.
    pub fn jump(&mut self, to: Label) {
        self.fixups.push((self.code.len(), Fixup::Jump(to)));
        self.push(0x05, Reg(0), Reg(0), 0, 0);
    }

    /// Goes on there if `a` and `b` are so.
    pub fn jump_if(&mut self, a: Reg, cond: Cond, b: impl Into<Operand>, to: Label) {
        self.fixups.push((self.code.len(), Fixup::Jump(to)));
        match b.into() {
            Operand::Reg(b) => self.push(0x0d | cond.code(), a, b, 0, 0),
            Operand::Imm(n) => self.push(0x05 | cond.code(), a, Reg(0), 0, n),
        }
    }

    /// Calls a [`helper`].
    pub fn call(&mut self, helper: i32) {
        self.push(0x85, Reg(0), Reg(0), 0, helper);
    }

    /// Calls a function of this program.
    pub fn call_function(&mut self, function: Label) {
        const BPF_PSEUDO_CALL: Reg = Reg(1);
        self.fixups.push((self.code.len(), Fixup::Call(function)));
        self.push(0x85, Reg(0), BPF_PSEUDO_CALL, 0, 0);
    }

    /// Returns what is in R0.
    pub fn exit(&mut self) {
        self.push(0x95, Reg(0), Reg(0), 0, 0);
    }

    /// How many instructions there are; a 64-bit number is two.
    #[must_use]
    pub fn len(&self) -> usize {
        self.code.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.code.is_empty()
    }

    /// The instructions for the kernel.
    ///
    /// # Panics
    /// When a label was never placed, or a jump is too far: mistakes in the program's text, not in its input.
    pub(super) fn assemble(&self) -> Vec<u8> {
        let mut code = self.code.clone();
        for (at, fixup) in &self.fixups {
            let (Fixup::Jump(label) | Fixup::Call(label) | Fixup::Address(label)) = fixup;
            let Some(target) = self.labels[label.0] else { panic!("label {} was not placed", label.0) };
            let distance = target as i64 - *at as i64 - 1;
            match fixup {
                Fixup::Jump(_) => {
                    let Ok(distance) = i16::try_from(distance) else { panic!("a jump over {distance}") };
                    code[*at].offset = distance;
                }
                Fixup::Call(_) | Fixup::Address(_) => code[*at].imm = distance as i32,
            }
        }
        let mut bytes = Vec::with_capacity(code.len() * 8);
        for insn in code {
            insn.write(&mut bytes);
        }
        bytes
    }

    fn alu(&mut self, op: u8, to: Reg, operand: impl Into<Operand>) {
        match operand.into() {
            Operand::Reg(from) => self.push(0x0f | op, to, from, 0, 0),
            Operand::Imm(n) => self.push(0x07 | op, to, Reg(0), 0, n),
        }
    }

    fn wide(&mut self, to: Reg, source: u8, value: u64) {
        self.push(0x18, to, Reg(source), 0, value as u32 as i32);
        self.push(0, Reg(0), Reg(0), 0, (value >> 32) as u32 as i32);
    }

    fn push(&mut self, code: u8, to: Reg, from: Reg, offset: i16, imm: i32) {
        self.code.push(Insn { code, regs: to.0 | from.0 << 4, offset, imm });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(asm: &Asm) -> Vec<u64> {
        asm.assemble().chunks(8).map(|i| u64::from_ne_bytes(i.try_into().unwrap())).collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_written_as_the_kernel_reads_them() {
        // Compared with what `llvm-mc -triple bpfel -show-encoding` prints for the text beside each.
        let mut asm = Asm::new();
        let end = asm.label();
        asm.mov(Reg::R1, 7); // r1 = 7
        asm.add(Reg::R1, Reg::R2); // r1 += r2
        asm.load(Size::B, Reg::R3, Reg::R1, 4); // r3 = *(u8 *)(r1 + 4)
        asm.store(Size::D, Reg::STACK, -8, Reg::R3); // *(u64 *)(r10 - 8) = r3
        asm.jump_if(Reg::R3, Cond::Ne, 0, end); // if r3 != 0 goto +1
        asm.to_be(Reg::R3, 32); // r3 = be32 r3
        asm.place(end);
        asm.exit();
        assert_eq!(
            words(&asm),
            [
                0x0000_0007_0000_01b7,
                0x0000_0000_0000_210f,
                0x0000_0000_0004_1371,
                0x0000_0000_fff8_3a7b,
                0x0000_0000_0001_0355,
                0x0000_0020_0000_03dc,
                0x0000_0000_0000_0095,
            ]
        );
    }

    #[test]
    #[should_panic(expected = "was not placed")]
    fn a_label_that_leads_nowhere_is_told() {
        let mut asm = Asm::new();
        let nowhere = asm.label();
        asm.jump(nowhere);
        asm.assemble();
    }
}
