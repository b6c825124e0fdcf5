//! Pure. What a session sends, and what of it the kernel has not taken.
//!
//! There is one of these for every session of the node: nothing is allocated while the kernel takes
//! everything.

use super::Sink;

/// The output of one session.
#[derive(Debug, Default)]
pub struct Output {
    /// Only while there is some.
    unsent: Option<Box<Unsent>>,
}

/// What the device has not read yet.
#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    /// Of these bytes the kernel has so many.
    taken: usize,
}

impl Output {
    /// Sends, and keeps what the kernel does not take. Returns the bytes that wait now; `None`:
    /// the device went.
    pub fn send(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Option<usize> {
        if let Some(unsent) = &mut self.unsent {
            // The kernel was full and has not said otherwise yet.
            unsent.bytes.extend_from_slice(bytes);
            return Some(unsent.bytes.len() - unsent.taken);
        }
        let taken = sink.write(bytes)?;
        let rest = &bytes[taken..];
        if !rest.is_empty() {
            self.unsent = Some(Box::new(Unsent {
                bytes: rest.to_vec(),
                taken: 0,
            }));
        }
        Some(rest.len())
    }

    /// Goes on where the kernel was full. Returns whether that was the last of what waited; `None`: the device went.
    pub fn flush(&mut self, sink: &mut impl Sink) -> Option<bool> {
        let Some(unsent) = &mut self.unsent else {
            return Some(false);
        };
        unsent.taken += sink.write(&unsent.bytes[unsent.taken..])?;
        let has_drained = unsent.taken == unsent.bytes.len();
        if has_drained {
            self.unsent = None;
        }
        Some(has_drained)
    }

    /// Bytes that wait for the kernel.
    pub fn waiting(&self) -> usize {
        let waiting = |unsent: &Unsent| unsent.bytes.len() - unsent.taken;
        self.unsent.as_deref().map_or(0, waiting)
    }

    /// What is still to be sent.
    pub fn into_rest(self) -> Vec<u8> {
        let rest = |unsent: Box<Unsent>| {
            let mut bytes = unsent.bytes;
            bytes.drain(..unsent.taken);
            bytes
        };
        self.unsent.map(rest).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Script;
    use super::*;

    #[test]
    fn what_the_kernel_takes_is_not_kept() {
        let (mut output, mut wire) = (Output::default(), Script::default());
        wire.room = 5;
        assert_eq!(output.send(b"abc", &mut wire), Some(0));
        assert_eq!(output.send(b"de", &mut wire), Some(0));
        assert_eq!((output.waiting(), output.into_rest()), (0, vec![]));
        assert_eq!(wire.taken, b"abcde");
    }

    #[test]
    fn what_it_does_not_take_follows_in_order_when_there_is_room() {
        let (mut output, mut wire) = (Output::default(), Script::default());
        wire.room = 2;
        assert_eq!(output.send(b"abc", &mut wire), Some(1));
        // Room that nobody has told of is not tried: what came first goes first.
        wire.room = 10;
        assert_eq!(output.send(b"def", &mut wire), Some(4));
        wire.room = 2;
        assert_eq!(
            (output.flush(&mut wire), output.waiting()),
            (Some(false), 2)
        );
        wire.room = 9;
        assert_eq!((output.flush(&mut wire), output.waiting()), (Some(true), 0));
        assert_eq!(output.flush(&mut wire), Some(false), "nothing waited");
        assert_eq!(output.send(b"g", &mut wire), Some(0));
        assert_eq!(wire.taken, b"abcdefg");
    }

    #[test]
    fn the_rest_is_what_the_kernel_does_not_have() {
        let (mut output, mut wire) = (Output::default(), Script::default());
        wire.room = 1;
        output.send(b"abc", &mut wire);
        wire.room = 1;
        output.flush(&mut wire);
        assert_eq!(output.into_rest(), b"c");
    }

    #[test]
    fn a_device_that_went_is_told_at_once() {
        let (mut output, mut wire) = (Output::default(), Script::default());
        output.send(b"abc", &mut wire);
        wire.is_gone = true;
        assert_eq!(output.flush(&mut wire), None);
        assert_eq!(Output::default().send(b"a", &mut wire), None);
    }
}
