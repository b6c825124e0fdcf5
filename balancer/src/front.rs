//! The task that owns the balancer's core: takes what happens, and carries out what the core says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use common::link::message::Message;
use common::link::{Hub, LinkEvent};
use common::logging::repeats::Repeats;
use common::millis::millis;
use common::process::clock::unix_ms;
use common::time::Now;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::connection::{self, Device};
use crate::door::FromDoor;
use crate::pending::ConnectionId;
use crate::route::{Core, Effect, Input};
use crate::stats::{self, Board, Report};

/// What may wait for the front: beyond it acceptors, connections and links wait too.
pub(crate) const WAITING_MAX: usize = 1_024;

/// Taken in one turn from each queue.
const TURN_MAX: usize = 256;

/// The grain of the core's deadlines: seconds long, so that a tenth does not matter.
const TICK: Duration = Duration::from_millis(100);

/// For the last replies to be sent and read.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Front {
    core: Core,
    hub: Hub,
    board: Board,
    report: Report,
    login_deadline: Duration,
    started: Instant,
    /// Read once a turn.
    now: Now,
    /// Given to every connection.
    door: mpsc::Sender<FromDoor>,
    connections: HashMap<ConnectionId, Served>,
    last_connection: u64,
    /// Kept for its memory.
    effects: Vec<Effect>,
    explained: Repeats<(IpAddr, &'static str)>,
}

/// A connection that has a task.
#[derive(Debug)]
struct Served {
    /// `None`: it has its reply.
    reply: Option<oneshot::Sender<Vec<u8>>>,
    task: AbortHandle,
}

impl Front {
    pub(crate) fn new(
        core: Core,
        hub: Hub,
        board: Board,
        report: Report,
        login_deadline: Duration,
        door: mpsc::Sender<FromDoor>,
    ) -> Self {
        Self {
            core,
            hub,
            started: board.started(),
            board,
            report,
            login_deadline,
            now: Now { ms: 0, unix_ms: 0 },
            door,
            connections: HashMap::new(),
            last_connection: 0,
            effects: Vec::new(),
            explained: Repeats::at_debug(),
        }
    }

    /// Runs until `stop` completes, and then until the last reply is sent.
    pub(crate) async fn run(
        mut self,
        mut door: mpsc::Receiver<FromDoor>,
        mut links: mpsc::Receiver<LinkEvent>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut happened, mut events) = (Vec::new(), Vec::new());
        loop {
            self.board.round().ends(self.core.next_deadline());
            let due = tokio::select! {
                _ = links.recv_many(&mut events, TURN_MAX) => false,
                _ = door.recv_many(&mut happened, TURN_MAX) => false,
                _ = ticks.tick(), if self.core.next_deadline().is_some() => true,
                _ = &mut stop => break,
            };
            self.read_clock();
            self.board.round().begins(self.now.ms);
            if due {
                self.apply(Input::Tick);
            }
            events.drain(..).for_each(|event| self.hear_link(event));
            happened.drain(..).for_each(|event| self.hear(event));
            stats::publish(&self.board, &self.core);
        }

        self.read_clock();
        self.board.round().ends(None);
        self.apply(Input::Shutdown);
        self.board.ends();
        let deadline = Instant::now() + SHUTDOWN_MAX;
        while self.core.pending() > 0
            && let Ok(Some(event)) = timeout_at(deadline, door.recv()).await
        {
            self.hear(event);
        }
        stats::publish(&self.board, &self.core);
        for served in self.connections.values() {
            served.task.abort();
        }
    }

    /// A conn server asks what was counted, for an operator; everything else is the core's.
    fn hear_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Request {
                link,
                id,
                message: Message::FiguresAsk(_),
                ..
            } => {
                stats::publish(&self.board, &self.core);
                let figures = self.report.figures(&self.board.snapshot(), self.now.ms);
                self.hub.answer(link, id, figures);
            }
            event => self.apply(Input::Link(event)),
        }
    }

    fn hear(&mut self, event: FromDoor) {
        match event {
            FromDoor::Accepted { stream, source, at } => self.accept(stream, source, at),
            FromDoor::Unseen => self.apply(Input::Unseen),
            FromDoor::Login {
                connection,
                source,
                frame_id,
                body,
            } => self.apply(Input::Login {
                connection,
                source,
                frame_id,
                body,
            }),
            FromDoor::Ended { connection, how } => {
                self.connections.remove(&connection);
                self.apply(Input::Ended { connection, how });
            }
        }
    }

    /// Gives the connection a task, unless the core turns it away: then it costs no more than this.
    fn accept(&mut self, stream: TcpStream, source: IpAddr, at: Instant) {
        self.last_connection += 1;
        let connection = ConnectionId(self.last_connection);
        self.apply_to(Input::Accepted { connection, source });
        let turned_away = self.effects.contains(&Effect::Drop { connection });
        self.carry_out();
        if turned_away {
            return;
        }
        let (reply, replied) = oneshot::channel();
        let device = Device {
            connection,
            source,
            accepted: at,
            login_deadline: self.login_deadline,
            door: self.door.clone(),
        };
        let task = tokio::spawn(connection::serve(stream, device, replied)).abort_handle();
        let reply = Some(reply);
        self.connections.insert(connection, Served { reply, task });
    }

    fn apply(&mut self, input: Input) {
        self.apply_to(input);
        self.carry_out();
    }

    /// What the core wants done stands in `effects` afterwards.
    fn apply_to(&mut self, input: Input) {
        self.core.apply(input, self.now, &mut self.effects);
    }

    fn read_clock(&mut self) {
        self.now = Now {
            ms: millis(self.started.elapsed()),
            unix_ms: unix_ms(),
        };
    }

    fn carry_out(&mut self) {
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Drop { connection } => {
                    if let Some(served) = self.connections.remove(&connection) {
                        served.task.abort();
                    }
                }
                Effect::Reply { connection, frame } => {
                    let served = self.connections.get_mut(&connection);
                    if let Some(reply) = served.and_then(|served| served.reply.take()) {
                        // The device has gone meanwhile: its `Ended` is on the way.
                        let _ = reply.send(frame);
                    }
                }
                Effect::Request {
                    link,
                    id,
                    deadline_ms,
                    login,
                } => self.hub.request(link, id, deadline_ms, login),
                Effect::Explain { source, why } => {
                    if tracing::enabled!(tracing::Level::DEBUG)
                        && let Some(untold) = self.explained.tell((source, why), self.now.ms)
                    {
                        tracing::debug!(%source, why, untold, "a device was not let in");
                    }
                }
            }
        }
    }
}
