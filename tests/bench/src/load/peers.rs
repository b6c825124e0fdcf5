//! Peers that cost a server as much as they can, each in a thread of its own that ends when it is told.
//!
//! A peer is on another machine as a rule, and takes none of the server's cores: so its thread is the
//! last that the kernel gives one to.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use protocols::rcu::frame::HEADER_BYTES;
use protocols::rcu::message::FromDevice;

use super::connect::connect_and_wait;
use super::exchange::Granted;
use super::sources::{PORTS, Source};
use crate::error::{BenchError, Result, Tried as _};

/// Frames of one write of who floods.
const FRAMES_AT_ONCE: u16 = 4_096;
const NICENESS: i32 = 19;
/// After so long without room a peer looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);
/// Connections that one peer holds open without a word, at most; it opens others all the same.
const SILENT_MAX: usize = 4_000;

/// What a peer is up to.
pub(crate) enum Peer {
    /// Heartbeats as fast as they are taken, and reads what comes.
    Floods(TcpStream),
    /// The same, and never reads.
    NeverReads(TcpStream),
    /// Opens one connection after the other from an address that holds a grant, and says nothing.
    OpensSilently { granted: Granted, source: Source },
}

/// A peer at work.
pub(crate) struct AtWork {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl AtWork {
    /// Ends it; returns how many frames it sent, or connections it opened.
    pub(crate) fn end(self) -> Result<u64> {
        self.ends.store(true, Ordering::Relaxed);
        let done = self.thread.join();
        done.map_err(|_| BenchError::failed("a peer panicked"))?
    }
}

impl Peer {
    pub(crate) fn start(self) -> AtWork {
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let thread = std::thread::spawn(move || {
            rustix::process::nice(NICENESS)
                .map_err(|error| BenchError::failed(error.to_string()))?;
            match self {
                Self::Floods(stream) => flood(stream, true, &told),
                Self::NeverReads(stream) => flood(stream, false, &told),
                Self::OpensSilently { granted, source } => open(&granted, source, &told),
            }
        });
        AtWork { ends, thread }
    }
}

fn flood(mut stream: TcpStream, reads: bool, ends: &Arc<AtomicBool>) -> Result<u64> {
    let mut frames = Vec::with_capacity(usize::from(FRAMES_AT_ONCE) * HEADER_BYTES);
    for id in 1..=FRAMES_AT_ONCE {
        FromDevice::Heartbeat.encode(id, &mut frames);
    }
    stream.set_write_timeout(Some(LOOK)).tried("use a socket")?;
    let reader = match reads {
        true => {
            let mut replies = stream.try_clone().tried("share a socket")?;
            replies.set_read_timeout(Some(LOOK)).tried("use a socket")?;
            let ends = ends.clone();
            Some(std::thread::spawn(move || {
                // As nice as the thread that made it.
                let mut buffer = vec![0; 1 << 16];
                while !ends.load(Ordering::Relaxed) {
                    match replies.read(&mut buffer) {
                        Ok(0) => return,
                        Err(error) if !is_patient(&error) => return,
                        _ => {}
                    }
                }
            }))
        }
        false => None,
    };
    let (mut sent, mut at) = (0, 0);
    while !ends.load(Ordering::Relaxed) {
        match stream.write(&frames[at..]) {
            Ok(count) => {
                sent += count as u64;
                at = (at + count) % frames.len();
            }
            Err(error) if is_patient(&error) => {}
            // Sent away: it has had its share.
            Err(_) => break,
        }
    }
    if let Some(reader) = reader
        && reader.join().is_err()
    {
        return Err(BenchError::failed("a reader panicked"));
    }
    Ok(sent / HEADER_BYTES as u64)
}

fn is_patient(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn open(granted: &Granted, source: Source, ends: &AtomicBool) -> Result<u64> {
    let (mut held, mut opened) = (VecDeque::new(), 0);
    for port in (0..PORTS as u16).cycle() {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let stream = connect_and_wait(source.after(port), granted.server());
        held.push_back(stream.tried("connect")?);
        opened += 1;
        if held.len() > SILENT_MAX {
            held.pop_front();
        }
    }
    Ok(opened)
}
