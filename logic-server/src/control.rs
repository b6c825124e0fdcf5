//! The links to the conn servers: what they ask goes to the gate. The gate answers them itself,
//! through the hub.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::config::SourceCheck;
use common::link::message::{self, Message};
use common::link::{Asker, Hub, LinkEvent};
use tokio::sync::mpsc;

use crate::ask::Ask;
use crate::clock::Clock;
use crate::driver::ToGate;
use crate::gate::Input;
use crate::mailbox::Mailbox;
use crate::stats::Figures;

/// Events of the links that wait for the task; while so many do, links are not read.
pub(crate) const EVENTS_WAITING_MAX: usize = 1_024;

/// Messages that wait for the gate; while so many do, nothing is asked of it.
const GATE_WAITING_MAX: usize = 16_384;

/// What the task needs.
#[derive(Debug)]
pub(crate) struct ControlTask {
    pub(crate) events: mpsc::Receiver<LinkEvent>,
    pub(crate) gate: Mailbox<ToGate>,
    pub(crate) source_check: SourceCheck,
    pub(crate) requests_shed: Arc<AtomicU64>,
    /// What it tells those who ask what the node counted, without asking a loop.
    pub(crate) report: Report,
}

/// What a node tells of itself.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) hub: Hub,
    pub(crate) figures: Figures,
    pub(crate) clock: Clock,
    /// Where devices reach it.
    pub(crate) advertised: Vec<SocketAddr>,
}

impl Report {
    fn figures(&self) -> message::Figures {
        let stats = self.figures.snapshot();
        let values = stats.measured().chain(stats.counted());
        let values = values.map(|(name, _, figure)| (name, figure));
        message::Figures::new(self.clock.now().ms, self.advertised.clone(), values)
    }
}

impl ControlTask {
    /// Runs until the hub is gone.
    pub(crate) async fn run(mut self) {
        while let Some(event) = self.events.recv().await {
            self.take(event);
        }
    }

    fn take(&self, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, .. } => self.tell(Input::LinkUp { link }),
            LinkEvent::Down { link, .. } => self.tell(Input::LinkDown { link }),
            LinkEvent::Request {
                link,
                id,
                deadline_ms,
                message,
                ..
            } => match message {
                Message::Grant(mut grant) => {
                    if self.source_check == SourceCheck::Off {
                        grant.source = None;
                    }
                    self.ask(Input::Grant {
                        link,
                        request: id,
                        grant,
                    });
                }
                Message::GrantCheck(check) => self.ask(Input::GrantCheck {
                    link,
                    request: id,
                    check,
                }),
                Message::SessionPageAsk(ask) => self.ask(Input::SessionPageAsk {
                    link,
                    request: id,
                    ask,
                }),
                Message::FiguresAsk(_) => {
                    self.report.hub.answer(link, id, self.report.figures());
                }
                message => {
                    let now_ms = self.report.clock.now().ms;
                    let asker = Asker::new(link, id, deadline_ms, now_ms);
                    match Ask::of(asker, message) {
                        Ok(ask) => self.ask(Input::Ask(ask)),
                        Err(message) => unexpected(&message),
                    }
                }
            },
            LinkEvent::Notice { message, .. } => match message {
                Message::End(end) => self.tell(Input::End(end)),
                Message::Revoke(revoke) => self.tell(Input::Revoke(revoke)),
                message => unexpected(&message),
            },
            // Nothing is asked from here.
            LinkEvent::Answer { message, .. } => unexpected(&message),
            // The link itself has said so.
            LinkEvent::Refused { .. } => {}
        }
    }

    /// What must not be lost; the conn servers send no more of it than accounts change.
    fn tell(&self, input: Input<'static>) {
        self.gate.post(ToGate::Input(input));
    }

    /// What whoever asks gives up after its deadline, and tries elsewhere.
    fn ask(&self, input: Input<'static>) {
        let asked = self.gate.try_post(ToGate::Input(input), GATE_WAITING_MAX);
        if asked.is_err() {
            self.requests_shed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The link lets no role say what is not its to say: a peer of a later version.
fn unexpected(message: &Message) {
    tracing::debug!(?message, "ignored a message of a conn server");
}
