//! Classic BPF, as far as the filter needs it. Conditional jumps reach 255 instructions; the builder keeps every
//! block shorter and a test proves that no jump was cut.

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQUAL: u16 = 0x15;
const JUMP: u16 = 0x05;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;

/// The offsets in `struct seccomp_data`.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const ARGUMENTS_OFFSET: u32 = 16;

/// The answer that makes a call fail with `number`.
pub(super) fn errno(number: i32) -> u32 {
    ERRNO | (number.cast_unsigned() & 0xffff)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) when_true: u8,
    pub(super) when_false: u8,
    pub(super) value: u32,
}

/// A system call's number and the block that judges it.
pub(super) type Rule = (u32, Program);

/// A run of instructions. A block given to [`Program::when_equal`] must end with an answer.
#[derive(Debug, Default)]
pub(super) struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    fn push(&mut self, code: u16, when_true: u8, when_false: u8, value: u32) {
        self.instructions.push(Instruction { code, when_true, when_false, value });
    }

    pub(super) fn load_architecture(&mut self) {
        self.push(LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET);
    }

    pub(super) fn load_number(&mut self) {
        self.push(LOAD_WORD, 0, 0, NUMBER_OFFSET);
    }

    /// Loads the low 32 bits of an argument, all that the kernel looks at in the calls judged here.
    pub(super) fn load_argument(&mut self, index: u32) {
        self.push(LOAD_WORD, 0, 0, ARGUMENTS_OFFSET + 8 * index);
    }

    pub(super) fn mask(&mut self, bits: u32) {
        self.push(AND, 0, 0, bits);
    }

    pub(super) fn answer(&mut self, answer: u32) {
        self.push(RETURN, 0, 0, answer);
    }

    pub(super) fn allow(&mut self) {
        self.answer(ALLOW);
    }

    pub(super) fn unless_equal_kill(&mut self, value: u32) {
        self.push(JUMP_EQUAL, 1, 0, value);
        self.answer(KILL_PROCESS);
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn if_at_least_kill(&mut self, value: u32) {
        self.push(JUMP_AT_LEAST, 0, 1, value);
        self.answer(KILL_PROCESS);
    }

    pub(super) fn if_equal(&mut self, value: u32, answer: u32) {
        self.push(JUMP_EQUAL, 0, 1, value);
        self.answer(answer);
    }

    pub(super) fn if_equal_allow(&mut self, value: u32) {
        self.if_equal(value, ALLOW);
    }

    pub(super) fn if_any_bit(&mut self, bits: u32, answer: u32) {
        self.push(JUMP_ANY_BIT, 0, 1, bits);
        self.answer(answer);
    }

    pub(super) fn unless_any_bit(&mut self, bits: u32, answer: u32) {
        self.push(JUMP_ANY_BIT, 1, 0, bits);
        self.answer(answer);
    }

    pub(super) fn unless_any_bit_allow(&mut self, bits: u32) {
        self.unless_any_bit(bits, ALLOW);
    }

    /// A block that is run when what is loaded equals `value`.
    pub(super) fn when_equal(&mut self, value: u32, fill: impl FnOnce(&mut Self)) {
        let mut block = Self::default();
        fill(&mut block);
        let length = u8::try_from(block.instructions.len()).unwrap_or(u8::MAX);
        self.push(JUMP_EQUAL, 0, length, value);
        self.instructions.append(&mut block.instructions);
    }

    /// Finds the loaded number among `rules` by halving, as the kernel runs the filter once for every number when
    /// it is loaded; allows what is not among them.
    pub(super) fn search(&mut self, rules: &[Rule]) {
        const LEAF: usize = 3;
        let (left, right) = rules.split_at(rules.len() / 2);
        let Some((middle, _)) = right.first().filter(|_| rules.len() > LEAF) else {
            for (number, block) in rules {
                let length = u8::try_from(block.instructions.len()).unwrap_or(u8::MAX);
                self.push(JUMP_EQUAL, 0, length, *number);
                self.instructions.extend_from_slice(&block.instructions);
            }
            return self.allow();
        };
        let mut below = Self::default();
        below.search(left);
        self.push(JUMP_AT_LEAST, 0, 1, *middle);
        self.push(JUMP, 0, 0, u32::try_from(below.instructions.len()).unwrap_or(u32::MAX));
        self.instructions.append(&mut below.instructions);
        self.search(right);
    }

    /// A block by itself, for [`Program::search`]. It must end with an answer.
    pub(super) fn block(fill: impl FnOnce(&mut Self)) -> Self {
        let mut block = Self::default();
        fill(&mut block);
        block
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.instructions.len() * 8);
        for instruction in &self.instructions {
            out.extend_from_slice(&instruction.code.to_ne_bytes());
            out.push(instruction.when_true);
            out.push(instruction.when_false);
            out.extend_from_slice(&instruction.value.to_ne_bytes());
        }
        out
    }

    /// Runs the program as the kernel would. `None` when it falls off its end or does what the kernel refuses.
    #[cfg(test)]
    pub(super) fn run(&self, architecture: u32, number: u32, arguments: [u64; 6]) -> Option<u32> {
        let mut data = vec![];
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&architecture.to_le_bytes());
        data.extend_from_slice(&0_u64.to_le_bytes());
        for argument in arguments {
            data.extend_from_slice(&argument.to_le_bytes());
        }
        let (mut position, mut loaded) = (0_usize, 0_u32);
        loop {
            let step = *self.instructions.get(position)?;
            position += 1;
            let condition = match step.code {
                LOAD_WORD => {
                    let at = usize::try_from(step.value).ok()?;
                    loaded = u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?);
                    continue;
                }
                AND => {
                    loaded &= step.value;
                    continue;
                }
                RETURN => return Some(step.value),
                JUMP_EQUAL => loaded == step.value,
                JUMP => {
                    position += usize::try_from(step.value).ok()?;
                    continue;
                }
                JUMP_AT_LEAST => loaded >= step.value,
                JUMP_ANY_BIT => loaded & step.value != 0,
                _ => return None,
            };
            position += usize::from(if condition { step.when_true } else { step.when_false });
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.instructions.len()
    }
}
