//! Bytes as choices: what a sequence of operations is made of. When the bytes are used up every
//! choice is the first one, and the sequence is over.

use arbitrary::Unstructured;

/// A sequence ends here however many bytes are left: what it could find is found by then, and an
/// execution stays far below a millisecond.
const STEPS_MAX: usize = 400;

/// The choices that some bytes make.
#[derive(Debug)]
pub struct Choices<'a> {
    bytes: Unstructured<'a>,
    steps: usize,
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: Unstructured::new(bytes),
            steps: 0,
        }
    }

    /// Whether there is another step to take.
    pub fn next_step(&mut self) -> bool {
        self.steps += 1;
        !self.bytes.is_empty() && self.steps <= STEPS_MAX
    }

    /// One of 0..n; a byte is used for it, or two where `n` is greater than 256.
    pub fn below(&mut self, n: u32) -> u32 {
        let max = n.saturating_sub(1);
        self.bytes.int_in_range(0..=max).unwrap_or(0)
    }

    /// True once in n.
    pub fn once_in(&mut self, n: u32) -> bool {
        self.below(n) == n - 1
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    pub fn u8(&mut self) -> u8 {
        self.bytes.arbitrary().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        self.bytes.arbitrary().unwrap_or(0)
    }

    pub fn u32(&mut self) -> u32 {
        self.bytes.arbitrary().unwrap_or(0)
    }

    pub fn u64(&mut self) -> u64 {
        self.bytes.arbitrary().unwrap_or(0)
    }

    /// So many bytes as they come, fewer at the end.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let length = length.min(self.bytes.len());
        self.bytes.bytes(length).unwrap_or(&[])
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }
}
