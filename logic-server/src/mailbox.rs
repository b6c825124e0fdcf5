//! How another thread speaks to a loop that sleeps in epoll.
//!
//! Posting takes the lock for a push, receiving for a swap: nobody holds it while working. The
//! loop is woken only by the message that finds its box empty; a loop that is behind finds the
//! others when it comes round.
//!
//! What threads can do to it in any order is tried exhaustively: `tests/interleavings`.

use std::collections::VecDeque;
use std::io;
use std::sync::PoisonError;

use mio::{Registry, Token, Waker};

use crate::sync::{Arc, Mutex, MutexGuard};

/// Messages that an empty box keeps memory for; what a storm took beyond it is given back.
const KEPT: usize = 256;

/// The sending side. Messages to a loop that has ended are dropped.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    shared: Arc<Shared<T>>,
}

/// The loop's side.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    shared: Arc<Shared<T>>,
    /// Taken out of the box and not worked off yet.
    taken: VecDeque<T>,
}

#[derive(Debug)]
struct Shared<T> {
    waiting: Mutex<Waiting<T>>,
    waker: Waker,
}

#[derive(Debug)]
struct Waiting<T> {
    messages: VecDeque<T>,
    /// The loop has ended.
    closed: bool,
}

/// A mailbox that wakes the loop of this registry with `token`.
pub(crate) fn mailbox<T>(registry: &Registry, token: Token) -> io::Result<(Mailbox<T>, Inbox<T>)> {
    let shared = Arc::new(Shared {
        waiting: Mutex::new(Waiting {
            messages: VecDeque::new(),
            closed: false,
        }),
        waker: Waker::new(registry, token)?,
    });
    let mailbox = Mailbox {
        shared: Arc::clone(&shared),
    };
    let taken = VecDeque::new();
    Ok((mailbox, Inbox { shared, taken }))
}

impl<T> Mailbox<T> {
    /// For messages that nobody could refuse, and whose number something else bounds.
    pub(crate) fn post(&self, message: T) {
        let _ = self.push(message, usize::MAX);
    }

    /// For messages that can be refused: given back where `waiting_max` wait in the box. As many
    /// again may be taken out of it and not be worked off.
    pub(crate) fn try_post(&self, message: T, waiting_max: usize) -> Result<(), T> {
        self.push(message, waiting_max)
    }

    /// Holds the loop fast in its next turn, for as long as the guard lives.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Drop + '_ {
        let held = self.shared.lock();
        self.shared.waker.wake().expect("an eventfd of our own");
        held
    }

    fn push(&self, message: T, waiting_max: usize) -> Result<(), T> {
        let mut waiting = self.shared.lock();
        if waiting.messages.len() >= waiting_max {
            return Err(message);
        }
        if waiting.closed {
            return Ok(());
        }
        waiting.messages.push_back(message);
        let first = waiting.messages.len() == 1;
        drop(waiting);
        if first && let Err(error) = self.shared.waker.wake() {
            // An eventfd of our own cannot fail; a loop that is not woken would be dead in silence.
            panic!("cannot wake a loop: {error}");
        }
        Ok(())
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Inbox<T> {
    /// The oldest message.
    pub(crate) fn next(&mut self) -> Option<T> {
        if self.taken.is_empty() {
            if self.taken.capacity() > KEPT {
                self.taken = VecDeque::new();
            }
            std::mem::swap(&mut self.taken, &mut self.shared.lock().messages);
        }
        self.taken.pop_front()
    }

    /// Whether there is something left of what was taken out of the box: then the loop must not
    /// sleep, because nobody is going to wake it for that.
    pub(crate) fn has_more(&self) -> bool {
        !self.taken.is_empty()
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.closed = true;
        let messages = std::mem::take(&mut waiting.messages);
        // A message may own a mailbox of its own: never dropped under the lock.
        drop(waiting);
        drop(messages);
    }
}

impl<T> Shared<T> {
    /// A push or a swap cannot be left half done by a panic: a poisoned lock is as good as another.
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const WAKE: Token = Token(7);

    fn woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().any(|event| event.token() == WAKE)
    }

    #[test]
    fn only_the_message_that_finds_the_box_empty_wakes() {
        let mut poll = Poll::new().unwrap();
        let (mailbox, mut inbox) = mailbox(poll.registry(), WAKE).unwrap();
        mailbox.post(1);
        assert!(woken(&mut poll));
        mailbox.post(2);
        assert!(!woken(&mut poll), "it was not empty");
        assert_eq!([inbox.next(), inbox.next()], [Some(1), Some(2)]);
        assert_eq!(inbox.next(), None);
        mailbox.post(3);
        assert!(woken(&mut poll));
    }

    #[test]
    fn messages_keep_their_order_and_the_loop_knows_of_those_it_left() {
        let poll = Poll::new().unwrap();
        let (mailbox, mut inbox) = mailbox(poll.registry(), WAKE).unwrap();
        (0..3).for_each(|message| mailbox.post(message));
        assert_eq!(inbox.next(), Some(0));
        assert!(inbox.has_more());
        mailbox.post(3);
        let rest: Vec<_> = std::iter::from_fn(|| inbox.next()).collect();
        assert_eq!(rest, [1, 2, 3]);
        assert!(!inbox.has_more());
    }

    #[test]
    fn a_full_box_gives_the_message_back_and_a_loop_that_ended_swallows_it() {
        let poll = Poll::new().unwrap();
        let (mailbox, inbox) = mailbox(poll.registry(), WAKE).unwrap();
        (0..3).for_each(|message| mailbox.try_post(message, 3).unwrap());
        assert_eq!(mailbox.try_post(9, 3), Err(9));
        mailbox.post(10);
        drop(inbox);
        assert_eq!(mailbox.try_post(11, 3), Ok(()));
    }
}
