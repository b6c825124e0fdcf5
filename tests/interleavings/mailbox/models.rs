//! What the mailbox promises, each as a run that loom repeats in every order of its threads. A
//! wake-up that is missed is a deadlock here, a message that is never dropped a leak: loom reports
//! both.

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::Arc;
use loom::thread;

use crate::mailbox::{Inbox, Mailbox, mailbox};
use crate::poll::{Poll, Token};

const WAKE: Token = Token(0);

fn new<T>() -> (Poll, Mailbox<T>, Inbox<T>) {
    let poll = Poll::new();
    let (mailbox, inbox) = mailbox(poll.registry(), WAKE).expect("a waker");
    (poll, mailbox, inbox)
}

/// A loop as the drivers are: it takes so many messages a turn, and sleeps where none is left over.
struct Loop<T> {
    poll: Poll,
    inbox: Inbox<T>,
    per_turn: usize,
    left_work: bool,
    /// How often it found something in the box.
    takes: usize,
}

impl<T> Loop<T> {
    fn new(poll: Poll, inbox: Inbox<T>, per_turn: usize) -> Self {
        Self {
            poll,
            inbox,
            per_turn,
            left_work: false,
            takes: 0,
        }
    }

    fn turn(&mut self, heard: &mut Vec<T>) {
        if !self.left_work {
            self.poll.sleep();
        }
        for _ in 0..self.per_turn {
            let looks = !self.inbox.has_more();
            let Some(message) = self.inbox.next() else {
                break;
            };
            self.takes += usize::from(looks);
            heard.push(message);
        }
        self.left_work = self.inbox.has_more();
    }
}

/// Nothing is lost or heard twice, each sender's messages come in order, a loop that sleeps is
/// woken, and it is woken no more often than it finds its box filled anew: by as many `senders`
/// with as many `messages` each, and a loop that works off `per_turn` of them before it looks up.
pub(crate) fn messages_arrive(senders: usize, messages: usize, per_turn: usize) {
    let (poll, mailbox, inbox) = new();
    let threads: Vec<_> = (0..senders)
        .map(|sender| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                for message in 0..messages {
                    mailbox.post((sender, message));
                }
            })
        })
        .collect();
    let mut receiver = Loop::new(poll, inbox, per_turn);
    let mut heard = vec![];
    while heard.len() < senders * messages {
        receiver.turn(&mut heard);
    }
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    assert_eq!(receiver.inbox.next(), None, "heard twice");
    for sender in 0..senders {
        let of_sender = heard.iter().filter(|(from, _)| *from == sender);
        let of_sender: Vec<_> = of_sender.map(|(_, message)| *message).collect();
        assert!(of_sender.into_iter().eq(0..messages), "{heard:?}");
    }
    assert_eq!(receiver.poll.wakes(), receiver.takes, "wake-ups");
}

/// With `waiting_max` in the box the next is given back, and only then; what was not given back
/// arrives.
pub(crate) fn a_full_box_gives_back(waiting_max: usize) {
    let (poll, mailbox, inbox) = new();
    let threads: Vec<_> = (0..2)
        .map(|sender| {
            let mailbox = mailbox.clone();
            thread::spawn(move || {
                (0..2)
                    .filter(|message| mailbox.try_post((sender, *message), waiting_max).is_err())
                    .count()
            })
        })
        .collect();
    let mut receiver = Loop::new(poll, inbox, 1);
    let mut heard = vec![];
    // Somebody is not refused: an empty box is not full.
    receiver.turn(&mut heard);
    let refused = threads.into_iter().map(thread::JoinHandle::join);
    let refused: usize = refused.map(|count| count.expect("no thread panics")).sum();
    let before = heard.len();
    while heard.len() + refused < 4 {
        receiver.turn(&mut heard);
    }
    // All of it was there when the senders ended: what one look found, and the full box.
    assert!(heard.len() - before <= 2 * waiting_max, "{heard:?}");
    // The first that come are never refused.
    assert!(
        heard.len() >= waiting_max,
        "{heard:?} of 4, {refused} refused"
    );
    assert_eq!(receiver.inbox.next(), None);
}

/// A loop that never looks: the box holds what it may, and no sender waits.
pub(crate) fn the_bound_is_held(waiting_max: usize) {
    let (_poll, mailbox, mut inbox) = new();
    let threads: Vec<_> = (0..3)
        .map(|sender| {
            let mailbox = mailbox.clone();
            thread::spawn(move || mailbox.try_post(sender, waiting_max))
        })
        .collect();
    let refused = threads.into_iter().map(thread::JoinHandle::join);
    let refused: Vec<_> = refused
        .filter_map(|refused| refused.expect("no thread panics").err())
        .collect();
    let mut all: Vec<_> = std::iter::from_fn(|| inbox.next()).collect();
    assert_eq!(all.len(), waiting_max.min(3));
    all.extend(refused);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2], "the message itself is given back");
}

/// Says when it is dropped, and then posts another one: whoever drops it may not hold the lock.
struct Parting {
    mailbox: Mailbox<Parting>,
    dropped: Arc<AtomicUsize>,
    /// The one that is posted by the drop says nothing.
    echoes: bool,
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if self.echoes {
            self.mailbox.post(Parting {
                mailbox: self.mailbox.clone(),
                dropped: self.dropped.clone(),
                echoes: false,
            });
        }
    }
}

/// A loop ends while two threads post: what it has not taken is dropped, once, whether it was in
/// the box or comes later, although the messages hold on to the box.
pub(crate) fn a_loop_that_ends_drops_what_comes() {
    let (poll, mailbox, inbox) = new();
    let dropped = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (mailbox, dropped) = (mailbox.clone(), dropped.clone());
            thread::spawn(move || {
                mailbox.post(Parting {
                    mailbox: mailbox.clone(),
                    dropped,
                    echoes: true,
                });
            })
        })
        .collect();
    drop(mailbox);
    let mut receiver = Loop::new(poll, inbox, 1);
    let mut heard = vec![];
    receiver.turn(&mut heard);
    assert_eq!(heard.len(), 1);
    drop(receiver);
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    drop(heard);
    // Two, and what their drops posted.
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
}
