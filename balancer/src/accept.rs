//! Accepting connections, also when the process is out of descriptors.
//!
//! A listener whose accept fails for want of one stays readable: without care the loop spins, and
//! devices hang in the backlog. So one descriptor is kept in reserve: it is given up, the next
//! connection is accepted into its place and closed, and it is taken back.

use std::fs::File;
use std::io;
use std::time::Duration;

use common::codes::Code;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::door::FromDoor;

/// For an accept that fails otherwise, or while the reserve is lost to somebody else.
const PAUSE: Duration = Duration::from_millis(100);

/// The connection that the accept failed for is there already, or was taken back by its device.
const UNSEEN_MAX: Duration = Duration::from_millis(1);

/// Accepts until the front is gone. While the front is behind, devices wait in the kernel's backlog.
pub(crate) async fn run(listener: TcpListener, door: mpsc::Sender<FromDoor>) {
    let mut reserve = Reserve::take();
    // Since the last connection that was accepted: said once, then counted.
    let mut in_want = false;
    loop {
        let happened = match listener.accept().await {
            Ok((stream, address)) => {
                in_want = false;
                FromDoor::Accepted {
                    stream,
                    source: address.ip().to_canonical(),
                    at: Instant::now(),
                }
            }
            Err(error) if is_out_of_descriptors(&error) => {
                if !std::mem::replace(&mut in_want, true) {
                    tracing::warn!(
                        code = Code::BalancerWithoutDescriptors.number(),
                        %error,
                        "out of file descriptors: connections are closed unseen"
                    );
                }
                if !reserve.turn_away(&listener).await {
                    sleep(PAUSE).await;
                    continue;
                }
                FromDoor::Unseen
            }
            // The device has gone again before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                if !std::mem::replace(&mut in_want, true) {
                    tracing::warn!(
                        code = Code::BalancerAcceptFailed.number(),
                        %error,
                        "cannot accept devices"
                    );
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        if door.send(happened).await.is_err() {
            return;
        }
    }
}

/// A descriptor that is open for no other reason than that it can be closed.
struct Reserve(Option<File>);

impl Reserve {
    fn take() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Accepts one connection in the reserve's place and closes it. False: there was none, or no reserve.
    async fn turn_away(&mut self, listener: &TcpListener) -> bool {
        let had_reserve = self.0.take().is_some();
        let accepted = timeout(UNSEEN_MAX, listener.accept()).await;
        let turned_away = had_reserve && matches!(accepted, Ok(Ok(_)));
        drop(accepted);
        *self = Self::take();
        turned_away
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}
