//! The balancers' names as addresses. Looking up a name blocks, so a name is looked up in a
//! thread that ends with the answer; addresses are at hand.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use mio::Waker;

use super::StartError;

#[derive(Debug)]
pub(super) struct Resolver {
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
    waker: Arc<Waker>,
    answers: (Sender<Vec<SocketAddr>>, Receiver<Vec<SocketAddr>>),
    /// Devices that wait for the look-up that is under way.
    waiting: Vec<usize>,
}

impl Resolver {
    pub(super) fn new(balancers: &[String], waker: Arc<Waker>) -> Result<Self, StartError> {
        let mut addresses = Vec::new();
        let mut names = Vec::new();
        for balancer in balancers {
            match balancer.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let port = balancer
                        .rsplit_once(':')
                        .map(|(_, port)| port.parse::<u16>());
                    if !matches!(port, Some(Ok(_))) {
                        return Err(StartError::Balancer(balancer.clone()));
                    }
                    names.push(balancer.clone());
                }
            }
        }
        Ok(Self {
            addresses,
            names,
            waker,
            answers: mpsc::channel(),
            waiting: Vec::new(),
        })
    }

    /// The addresses, where none has to be looked up; else the device waits for [`Self::take`].
    pub(super) fn request(&mut self, index: usize) -> Option<Vec<SocketAddr>> {
        if self.names.is_empty() {
            return Some(self.addresses.clone());
        }
        self.waiting.push(index);
        if self.waiting.len() == 1 {
            self.look_up();
        }
        None
    }

    /// The answer of a look-up and the devices that waited for it.
    pub(super) fn take(&mut self) -> Option<(Vec<SocketAddr>, Vec<usize>)> {
        let addresses = self.answers.1.try_recv().ok()?;
        Some((addresses, std::mem::take(&mut self.waiting)))
    }

    fn look_up(&self) {
        let names = self.names.clone();
        let known = self.addresses.clone();
        let answer = self.answers.0.clone();
        let waker = Arc::clone(&self.waker);
        let look_up = move || {
            let found = names
                .iter()
                .filter_map(|name| name.to_socket_addrs().ok())
                .flatten();
            let addresses = known.iter().copied().chain(found).collect();
            // The loop may have ended meanwhile.
            let _ = answer.send(addresses);
            let _ = waker.wake();
        };
        // Without a thread the devices' own time limit ends the wait.
        let _ = thread::Builder::new()
            .name("resolver".into())
            .spawn(look_up);
    }
}
