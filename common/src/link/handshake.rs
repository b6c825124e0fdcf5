//! From a TCP connection to a transport: preamble, Noise, hello. Every way in which it can fail has
//! a line of its own, on both sides.
//!
//! The hello goes as the first sealed message and not inside the Noise handshake: a recorded
//! handshake can be played again, but not answered, so only who said a hello is really there.

use std::io;
use std::time::Duration;

use snow::params::NoiseParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dialler::ATTEMPT_MS_MAX;
use super::framing::{FramingError, PREAMBLE_BYTES, Preamble, VERDICT_BYTES, Verdict, Versions};
use super::keys::{KeyId, Keys};
use super::peer::Role;
use super::transport::Transport;
use super::wire::{self, Hello, Welcome, WireError};
use crate::ids::NodeName;
use crate::secret::Secret;

/// From the connection to the hello: three round trips, and 0.2 ms of arithmetic. A dialler that
/// waits no longer has gone.
const HANDSHAKE_MAX: Duration = Duration::from_millis(ATTEMPT_MS_MAX);

/// Of one frame before the hello is through, whatever a later version puts there.
const FRAME_BYTES_MAX: usize = 1_024;

/// Who we are, as far as the peer may know.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) versions: Versions,
    pub(super) role: Role,
    pub(super) node: NodeName,
}

/// Why a connection did not become a link. Display goes behind "link to …" or "link from …".
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("no key to dial with as {0}")]
    NoKey(Role),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("lost in the handshake")]
    Lost(#[from] io::Error),
    #[error("nothing came of it within {} s", HANDSHAKE_MAX.as_secs())]
    Slow,
    #[error("it does not speak link")]
    NotALink,
    #[error("it does not know our key {0}: the cluster keys differ")]
    KeyRefused(KeyId),
    #[error("its key {0} is unknown here: the cluster keys differ")]
    KeyUnknown(KeyId),
    #[error("it speaks link versions {theirs}, we speak {ours}")]
    Version { ours: Versions, theirs: Versions },
    #[error("the handshake with key {0} fails: another key with this id, or altered on the way")]
    Noise(KeyId),
    #[error("it admits no {role} with our key {key}")]
    RoleRefused { role: Role, key: KeyId },
    #[error("its key {key} admits no {role} here")]
    RoleUnknown { role: Role, key: KeyId },
    #[error("it says a wrong hello")]
    Hello,
}

impl From<FramingError> for HandshakeError {
    fn from(_: FramingError) -> Self {
        Self::Hello
    }
}

impl From<WireError> for HandshakeError {
    fn from(_: WireError) -> Self {
        Self::Hello
    }
}

/// The listening side: admits `roles`, each with the keys that are for it.
pub(super) async fn admit(
    stream: &mut TcpStream,
    keys: &Keys,
    roles: &[Role],
    us: &Identity,
) -> Result<(Transport, Hello), HandshakeError> {
    let admitting = admit_unhurried(stream, keys, roles, us);
    let result = timeout(HANDSHAKE_MAX, admitting).await;
    result.unwrap_or(Err(HandshakeError::Slow))
}

/// The dialling side, whose time is its attempt's. Returns the transport and what the listener said
/// of itself.
pub(super) async fn dial(
    stream: &mut TcpStream,
    keys: &Keys,
    us: &Identity,
) -> Result<(Transport, Hello), HandshakeError> {
    let key = keys
        .to_dial_as(us.role)
        .ok_or(HandshakeError::NoKey(us.role))?;
    let preamble = Preamble {
        versions: us.versions,
        key: key.id(),
    }
    .encode();
    let mut noise = dialler(key.secret(), &preamble);
    let mut flight = preamble.to_vec();
    push_frame(&say(&mut noise), &mut flight);
    stream.write_all(&flight).await?;

    let mut verdict = [0; VERDICT_BYTES];
    stream.read_exact(&mut verdict).await?;
    let (verdict, theirs) = Verdict::decode(&verdict).ok_or(HandshakeError::NotALink)?;
    let differ = HandshakeError::Version {
        ours: us.versions,
        theirs,
    };
    match verdict {
        Verdict::Accepted => {}
        Verdict::KeyUnknown => return Err(HandshakeError::KeyRefused(key.id())),
        Verdict::VersionUnknown => return Err(differ),
        Verdict::HandshakeFailed => return Err(HandshakeError::Noise(key.id())),
    }
    let version = us.versions.common(theirs).ok_or(differ)?;
    let mut transport = hear(noise, &read_frame(stream).await?)
        .and_then(snow::HandshakeState::into_transport_mode)
        .map(Transport::new)
        .map_err(|_| HandshakeError::Noise(key.id()))?;

    let mut hello = Vec::new();
    wire::encode_hello(&us.hello(version), &mut hello);
    send_sealed(stream, &mut transport, &hello).await?;
    match wire::decode_welcome(&read_sealed(stream, &mut transport).await?)? {
        Welcome::Hello(peer) if peer.version == version => Ok((transport, peer)),
        Welcome::Hello(_) => Err(HandshakeError::Hello),
        Welcome::RoleRefused => Err(HandshakeError::RoleRefused {
            role: us.role,
            key: key.id(),
        }),
    }
}

async fn admit_unhurried(
    stream: &mut TcpStream,
    keys: &Keys,
    roles: &[Role],
    us: &Identity,
) -> Result<(Transport, Hello), HandshakeError> {
    let mut bytes = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut bytes).await?;
    let preamble = Preamble::decode(&bytes).ok_or(HandshakeError::NotALink)?;
    // Read before anything is judged: closing with bytes unread would destroy the verdict.
    let first = read_frame(stream).await?;

    let Some(version) = us.versions.common(preamble.versions) else {
        refuse(stream, Verdict::VersionUnknown, us).await?;
        return Err(HandshakeError::Version {
            ours: us.versions,
            theirs: preamble.versions,
        });
    };
    let Some(key) = keys.find(preamble.key) else {
        refuse(stream, Verdict::KeyUnknown, us).await?;
        return Err(HandshakeError::KeyUnknown(preamble.key));
    };
    let Ok(mut noise) = hear(listener(key.secret(), &bytes), &first) else {
        refuse(stream, Verdict::HandshakeFailed, us).await?;
        return Err(HandshakeError::Noise(key.id()));
    };
    let mut flight = Verdict::Accepted.encode(us.versions).to_vec();
    push_frame(&say(&mut noise), &mut flight);
    stream.write_all(&flight).await?;
    let mut transport = noise
        .into_transport_mode()
        .map(Transport::new)
        .map_err(|_| HandshakeError::Noise(key.id()))?;

    let peer = wire::decode_hello(&read_sealed(stream, &mut transport).await?)?;
    if peer.version != version {
        return Err(HandshakeError::Hello);
    }
    let admitted = roles.contains(&peer.role) && keys.admit(key.id(), peer.role);
    let welcome = match admitted {
        true => Welcome::Hello(us.hello(version)),
        false => Welcome::RoleRefused,
    };
    let mut answer = Vec::new();
    wire::encode_welcome(&welcome, &mut answer);
    send_sealed(stream, &mut transport, &answer).await?;
    match admitted {
        true => Ok((transport, peer)),
        false => Err(HandshakeError::RoleUnknown {
            role: peer.role,
            key: key.id(),
        }),
    }
}

impl Identity {
    fn hello(&self, version: u16) -> Hello {
        Hello {
            version,
            role: self.role,
            node: self.node.clone(),
        }
    }
}

async fn refuse(stream: &mut TcpStream, verdict: Verdict, us: &Identity) -> io::Result<()> {
    stream.write_all(&verdict.encode(us.versions)).await?;
    stream.shutdown().await
}

async fn send_sealed(
    stream: &mut TcpStream,
    transport: &mut Transport,
    message: &[u8],
) -> io::Result<()> {
    let mut sealed = Vec::new();
    transport.seal(message, &mut sealed);
    stream.write_all(&sealed).await
}

/// One frame with one message: nothing else may come before the hello is answered.
async fn read_sealed(
    stream: &mut TcpStream,
    transport: &mut Transport,
) -> Result<Vec<u8>, HandshakeError> {
    let mut framed = Vec::new();
    push_frame(&read_frame(stream).await?, &mut framed);
    let mut messages = Vec::new();
    transport.open(&framed, |message| {
        messages.push(message.to_vec());
        Ok::<(), FramingError>(())
    })?;
    match <[Vec<u8>; 1]>::try_from(messages) {
        Ok([message]) => Ok(message),
        Err(_) => Err(HandshakeError::Hello),
    }
}

async fn read_frame(stream: &mut TcpStream) -> Result<Vec<u8>, HandshakeError> {
    let length = usize::from(stream.read_u16().await?);
    if length > FRAME_BYTES_MAX {
        return Err(HandshakeError::NotALink);
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

fn push_frame(frame: &[u8], out: &mut Vec<u8>) {
    out.extend((frame.len() as u16).to_be_bytes());
    out.extend(frame);
}

// ---- Noise ------------------------------------------------------------------------------------

/// The preamble is the prologue: a range of versions altered on the way fails the handshake.
pub(super) fn dialler(key: &Secret<32>, prologue: &[u8]) -> snow::HandshakeState {
    builder(key, prologue)
        .and_then(snow::Builder::build_initiator)
        .expect("the pattern has all it needs")
}

pub(super) fn listener(key: &Secret<32>, prologue: &[u8]) -> snow::HandshakeState {
    builder(key, prologue)
        .and_then(snow::Builder::build_responder)
        .expect("the pattern has all it needs")
}

fn builder<'a>(key: &'a Secret<32>, prologue: &'a [u8]) -> Result<snow::Builder<'a>, snow::Error> {
    let pattern: NoiseParams = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s".parse()?;
    snow::Builder::new(pattern)
        .prologue(prologue)?
        .psk(0, key.expose())
}

/// Our next handshake message.
pub(super) fn say(noise: &mut snow::HandshakeState) -> Vec<u8> {
    let mut message = vec![0; FRAME_BYTES_MAX];
    let length = noise
        .write_message(&[], &mut message)
        .expect("it is our turn, and the message fits");
    message.truncate(length);
    message
}

/// The peer's next handshake message; an error where it was not made with our key.
pub(super) fn hear(
    mut noise: snow::HandshakeState,
    message: &[u8],
) -> Result<snow::HandshakeState, snow::Error> {
    noise.read_message(message, &mut [0; FRAME_BYTES_MAX])?;
    Ok(noise)
}
