//! One link: the task that owns its socket, and the queue by which the hub speaks to it.
//!
//! Syscalls decide what a link costs, so whatever is queued goes out in one write, and whatever
//! one read brings goes to the owner in one delivery.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::framing::FramingError;
use super::highest::HighestEpoch;
use super::liveness::{self, Activity, Liveness, Verdict};
use super::message::{Message, Ping};
use super::peer::{Class, LinkEvent, LinkId, Role, may_send};
use super::stamp::{self, TooFarAhead};
use super::transport::Transport;
use super::wire::{self, Envelope, WireError};
use crate::codes::Code;
use crate::epoch::Epoch;
use crate::millis::millis;
use crate::process::clock::unix_ms;

/// What may wait for one link to take it. Adopting 100,000 sessions is 2 MB.
const QUEUE_BYTES_MAX: usize = 16 << 20;
const QUEUE_MESSAGES_MAX: usize = 1 << 16;

/// One read, at most.
const READ_BYTES: usize = 64 << 10;

/// Control messages taken for one write; a last one may exceed it.
const WRITE_BYTES: usize = 256 << 10;

/// Bulk in one write, so that control never waits for more.
const BULK_BYTES: usize = 64 << 10;

/// For what is still queued when a link is closed on purpose.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// An encoded message on its way to the connection's task.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) bulk: bool,
    pub(super) bytes: Vec<u8>,
}

/// The hub's end of the queue. Dropping it closes the link once the queue is sent.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Queued>,
    queued_bytes: Arc<AtomicUsize>,
    cut: oneshot::Sender<&'static str>,
}

/// The connection's end.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::Receiver<Queued>,
    queued_bytes: Arc<AtomicUsize>,
    cut: oneshot::Receiver<&'static str>,
}

/// The queue of a link is full.
#[derive(Debug)]
pub(super) struct Full;

pub(super) fn queue() -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
    let (cut, cut_receiver) = oneshot::channel();
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox {
        queue: sender,
        queued_bytes: queued_bytes.clone(),
        cut,
    };
    let inbox = Inbox {
        queue: receiver,
        queued_bytes,
        cut: cut_receiver,
    };
    (outbox, inbox)
}

impl Outbox {
    pub(super) fn push(&self, queued: Queued) -> Result<(), Full> {
        let bytes = queued.bytes.len();
        if self.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            return Err(Full);
        }
        match self.queue.try_send(queued) {
            // Closed: the connection has ended, and its Down is on the way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Full),
        }
    }

    /// Ends the link at once, whatever is queued.
    pub(super) fn cut(self, why: &'static str) {
        // Where nobody receives it, the link has ended by itself.
        let _ = self.cut.send(why);
    }
}

/// Why a link ended. Display is what `Down` says.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("closed by the peer")]
    Eof,
    #[error("closed by us")]
    Closed,
    #[error("{0}")]
    Cut(&'static str),
    #[error("lost: {0}")]
    Lost(#[from] io::Error),
    #[error("the peer sent {0}")]
    Framing(#[from] FramingError),
    #[error("the peer sent {0}")]
    Wire(#[from] WireError),
    #[error("the peer ({from}) sent message number {number}, which is not its to say")]
    NotItsToSay { from: Role, number: u16 },
}

/// What a connection needs of its hub.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) link: LinkId,
    pub(super) us: Role,
    pub(super) peer: Role,
    pub(super) events: &'a mpsc::Sender<LinkEvent>,
    pub(super) highest: &'a HighestEpoch,
}

/// Runs the link until it ends, by itself or because `stop` completes.
pub(super) async fn run(
    mut stream: TcpStream,
    transport: Transport,
    inbox: Inbox,
    context: Context<'_>,
    stop: impl Future<Output = ()>,
) -> End {
    let (mut reader, writer) = stream.split();
    let mut connection = Connection {
        context,
        transport,
        inbox,
        bulk: VecDeque::new(),
        received: Vec::new(),
        heard: VecDeque::new(),
        is_ahead_told: false,
        plain: Vec::new(),
        unsent: Vec::new(),
        sent_bytes: 0,
    };
    let end = tokio::select! {
        end = connection.converse(&mut reader, &writer) => end,
        () = stop => End::Closed,
    };
    if matches!(end, End::Closed) {
        // The peer may be stuck, or gone: what it does not take within the second is lost.
        let _ = timeout(FLUSH_MAX, connection.flush(&writer)).await;
        let _ = stream.shutdown().await;
    }
    end
}

struct Connection<'a> {
    context: Context<'a>,
    transport: Transport,
    inbox: Inbox,
    /// Bulk taken from the queue, waiting for its turn.
    bulk: VecDeque<Vec<u8>>,
    /// Read, and not yet a whole frame.
    received: Vec<u8>,
    /// Decoded, and not yet taken by the owner.
    heard: VecDeque<LinkEvent>,
    /// That the peer's epochs are not believed is told once.
    is_ahead_told: bool,
    /// Messages of the write being made; kept for its memory.
    plain: Vec<u8>,
    /// Sealed; the first `sent_bytes` of it are with the kernel.
    unsent: Vec<u8>,
    sent_bytes: usize,
}

impl Connection<'_> {
    async fn converse(&mut self, reader: &mut ReadHalf<'_>, writer: &WriteHalf<'_>) -> End {
        let started = Instant::now();
        let now_ms = || millis(started.elapsed());
        let mut liveness = Liveness::new(0);
        let mut checks = interval(Duration::from_millis(liveness::CHECK_MS));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checks.reset();
        loop {
            let deliverable = self.heard.len().min(self.context.events.max_capacity());
            self.received.reserve(READ_BYTES);
            tokio::select! {
                biased;
                // First, so that after a pause of ours nothing is delivered that came before it.
                _ = checks.tick() => {
                    let activity = Activity {
                        unsent: !self.unsent.is_empty(),
                        reading: self.heard.is_empty(),
                    };
                    match liveness.check(activity, now_ms()) {
                        Verdict::Alive => {}
                        Verdict::Ping => self.push_ping(),
                        Verdict::Dead(why) => return End::Cut(why),
                    }
                }
                cut = &mut self.inbox.cut => return cut.map_or(End::Closed, End::Cut),
                permits = self.context.events.reserve_many(deliverable), if deliverable > 0 => {
                    let Ok(permits) = permits else {
                        return End::Closed;
                    };
                    permits.zip(self.heard.drain(..deliverable)).for_each(|(permit, event)| permit.send(event));
                }
                read = reader.read_buf(&mut self.received), if deliverable == 0 => match read {
                    Ok(0) => return End::Eof,
                    Ok(_) => {
                        liveness.heard();
                        if let Err(end) = self.open() {
                            return end;
                        }
                    }
                    Err(error) => return End::Lost(error),
                },
                ready = writer.writable(), if !self.unsent.is_empty() => if let Err(error) = ready {
                    return End::Lost(error);
                },
                Some(queued) = self.inbox.queue.recv(), if self.unsent.is_empty() => {
                    self.take(queued);
                    // Whoever else is about to speak on this link does so first.
                    tokio::task::yield_now().await;
                }
                () = std::future::ready(()), if self.unsent.is_empty() && !self.bulk.is_empty() => {}
            }
            match self.write(writer) {
                Ok(0) => {}
                Ok(_) => liveness.sent(),
                Err(error) => return End::Lost(error),
            }
        }
    }

    /// Decodes what was received, as far as it is whole.
    fn open(&mut self) -> Result<(), End> {
        let Self {
            context,
            transport,
            received,
            heard,
            is_ahead_told,
            ..
        } = self;
        let now_unix_ms = unix_ms();
        let used_bytes = transport.open(received, |message| {
            let envelope = wire::decode(message)?;
            if !may_send(context.peer, context.us, envelope.class, &envelope.message) {
                return Err(End::NotItsToSay {
                    from: context.peer,
                    number: wire::number(&envelope.message),
                });
            }
            let counts = stamp::counts(context.peer, envelope.epoch, now_unix_ms);
            let epoch = counts.unwrap_or_else(|TooFarAhead { ahead_ms }| {
                if !std::mem::replace(is_ahead_told, true) {
                    let (link, role, ahead_s) = (context.link, context.peer, ahead_ms / 1_000);
                    tracing::warn!(
                        code = Code::EpochNotBelieved.number(),
                        %link, %role, ahead_s,
                        "an epoch of the peer is too far ahead of our clock"
                    );
                }
                Epoch::ZERO
            });
            context.highest.observe(epoch);
            let message = envelope.message.renewed();
            let envelope = Envelope {
                message,
                epoch,
                ..envelope
            };
            heard.extend(event(context.link, envelope));
            Ok(())
        })?;
        received.drain(..used_bytes);
        Ok(())
    }

    /// Seals what is queued, if nothing sealed waits any more, and gives the kernel what it takes
    /// of it. Returns how many bytes that was.
    fn write(&mut self, writer: &WriteHalf<'_>) -> io::Result<usize> {
        if self.unsent.is_empty() {
            self.seal_queued();
        }
        let before = self.sent_bytes;
        while self.sent_bytes < self.unsent.len() {
            match writer.try_write(&self.unsent[self.sent_bytes..]) {
                Ok(bytes) => self.sent_bytes += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let written_bytes = self.sent_bytes - before;
        if self.sent_bytes == self.unsent.len() {
            self.unsent.clear();
            self.sent_bytes = 0;
        }
        Ok(written_bytes)
    }

    fn seal_queued(&mut self) {
        while self.plain.len() < WRITE_BYTES
            && let Ok(queued) = self.inbox.queue.try_recv()
        {
            self.take(queued);
        }
        let control_bytes = self.plain.len();
        while self.plain.len() - control_bytes < BULK_BYTES
            && let Some(message) = self.bulk.pop_front()
        {
            self.push(&message);
        }
        self.transport.seal(&self.plain, &mut self.unsent);
        self.plain.clear();
    }

    fn take(&mut self, queued: Queued) {
        match queued.bulk {
            true => self.bulk.push_back(queued.bytes),
            false => self.push(&queued.bytes),
        }
    }

    fn push(&mut self, message: &[u8]) {
        let queued_bytes = &self.inbox.queued_bytes;
        queued_bytes.fetch_sub(message.len(), Ordering::Relaxed);
        self.plain.extend_from_slice(message);
    }

    fn push_ping(&mut self) {
        let ping = Envelope {
            class: Class::Notice,
            id: 0,
            deadline_ms: 0,
            epoch: self.context.highest.load(),
            message: Ping.into(),
        };
        wire::encode(&ping, &mut self.plain);
    }

    /// Sends all that is queued.
    async fn flush(&mut self, writer: &WriteHalf<'_>) -> io::Result<()> {
        loop {
            let written_bytes = self.write(writer)?;
            if !self.unsent.is_empty() {
                writer.writable().await?;
            } else if written_bytes == 0 {
                return Ok(());
            }
        }
    }
}

/// What the owner hears of a message; nothing of a Ping, which has done its work by having come.
fn event(link: LinkId, envelope: Envelope) -> Option<LinkEvent> {
    let Envelope {
        class,
        id,
        deadline_ms,
        epoch,
        message,
    } = envelope;
    match (class, message) {
        (_, Message::Ping(_)) => None,
        (Class::Request, message) => Some(LinkEvent::Request {
            link,
            id,
            deadline_ms,
            message,
            epoch,
        }),
        (Class::Answer, message) => Some(LinkEvent::Answer {
            link,
            id,
            message,
            epoch,
        }),
        (Class::Notice, message) => Some(LinkEvent::Notice {
            link,
            message,
            epoch,
        }),
    }
}
