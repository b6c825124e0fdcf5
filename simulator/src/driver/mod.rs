//! Thousands of devices over real sockets, in one thread.
//!
//! The device core decides; here bytes are moved, time is read once a turn, and what the core
//! asks for is carried out. A device costs its state, a socket while it is connected, and
//! nothing else: one buffer to read into, one list of effects, one timer heap serve them all.
//!
//! - `engine`: the loop. `connection`: a socket of a device. `timers`: who is due.
//! - `sources`: which loopback address a device connects from. `resolver`: the balancers.
//! - `stats`: what is counted.

mod connection;
mod engine;
mod resolver;
mod sources;
mod stats;
mod timers;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::Waker;
use thiserror::Error;

use crate::device::{self, Identity};
use crate::history::History;
use engine::Engine;
pub use sources::DEVICES_PER_SOURCE_MAX;
pub use stats::{Percentiles, Stats};

/// What a fleet is and how it begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the balancers are: `HOST:PORT` each, tried as DNS would give them.
    pub balancers: Vec<String>,
    /// One device each.
    pub identities: Vec<Identity>,
    /// What the devices have in common, how often they report among it.
    pub device: device::Settings,
    /// Below 2^31 and above every one that these accounts ever used.
    pub boot_counter: u32,
    /// Decides everything random but the order in which the network answers.
    pub seed: u64,
    /// How many devices are switched on in a second.
    pub connects_per_s: u32,
    /// How many devices share a source address, where the balancer is on IPv4 loopback:
    /// 1..=[`DEVICES_PER_SOURCE_MAX`].
    pub devices_per_source: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            balancers: vec!["127.0.0.1:10000".into()],
            identities: Vec::new(),
            device: device::Settings::default(),
            boot_counter: 1,
            seed: 0,
            connects_per_s: 1_000,
            devices_per_source: 1,
        }
    }
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("there is no device to simulate")]
    NoDevices,
    #[error("{0} is not HOST:PORT")]
    Balancer(String),
    #[error("a boot counter is below 2^31")]
    BootCounter,
    #[error("cannot set up the event loop of the simulator")]
    Loop(#[source] io::Error),
}

/// The simulator's thread ended by itself.
#[derive(Debug, Error)]
pub enum SimulatorError {
    #[error("the event loop of the simulator failed")]
    Loop(#[source] io::Error),
    #[error("the simulator's thread panicked")]
    Panicked,
}

/// What remains of a run.
#[derive(Debug)]
pub struct Outcome {
    /// One per device, in the order of [`Settings::identities`].
    pub histories: Vec<History>,
    pub stats: Stats,
    /// Every boot counter that was used is below this one.
    pub next_boot_counter: u32,
}

/// A running fleet. Dropping it ends the run at once.
#[derive(Debug)]
pub struct Simulator {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    stats: Arc<Mutex<Stats>>,
    thread: Option<JoinHandle<io::Result<Outcome>>>,
}

/// What the loop is told from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// No new records; end when all are answered, or after this long.
    Stop {
        patience: Duration,
    },
    Abandon,
}

impl Simulator {
    /// Starts the fleet's thread; the devices are switched on from there.
    ///
    /// # Errors
    /// The settings make no sense, or the operating system refuses an event loop.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        let (orders, taken) = mpsc::channel();
        let engine = Engine::new(settings, taken)?;
        let (waker, stats) = (engine.waker(), engine.published());
        let thread = thread::Builder::new()
            .name("simulator".into())
            .spawn(move || engine.run())
            .map_err(StartError::Loop)?;
        Ok(Self {
            orders,
            waker,
            stats,
            thread: Some(thread),
        })
    }

    /// As of a tenth of a second ago.
    pub fn stats(&self) -> Stats {
        self.stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The devices stop making records; waits until every record is answered, but no longer than
    /// `patience`; then all connections are dropped. Blocks its thread meanwhile.
    ///
    /// # Errors
    /// The loop had ended before.
    pub fn stop(mut self, patience: Duration) -> Result<Outcome, SimulatorError> {
        self.tell(Order::Stop { patience });
        let Some(thread) = self.thread.take() else {
            return Err(SimulatorError::Panicked);
        };
        match thread.join() {
            Ok(outcome) => outcome.map_err(SimulatorError::Loop),
            Err(_) => Err(SimulatorError::Panicked),
        }
    }

    /// A loop that has ended hears nothing, which its join will tell.
    fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
        let _ = self.waker.wake();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.tell(Order::Abandon);
            let _ = thread.join();
        }
    }
}
