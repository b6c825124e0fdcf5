//! A conn server that judges nothing: it answers everybody the same, or nobody.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::link::message::{ConnLoad, LoginAnswer, Message};
use common::link::{Hub, HubSettings, Key, Keys, LinkEvent, Role};
use common::secret::Secret;
use protocols::rcu::frame;
use protocols::rcu::login::{LoginReply, LoginVerdict};
use tokio::sync::mpsc;

pub(crate) fn keys() -> Keys {
    Keys {
        cluster: vec![Key::new(Secret::new([1; 32]))],
        operator: vec![],
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Manner {
    Answer(LoginVerdict<'static>),
    Silent,
}

pub(crate) struct ConnServer {
    pub(crate) target: String,
    hub: Hub,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    logins: AtomicU64,
    last_source: Mutex<Option<IpAddr>>,
}

impl ConnServer {
    pub(crate) async fn start(manner: Manner) -> Self {
        let (events, mut heard) = mpsc::channel(1_024);
        let hub = Hub::new(HubSettings {
            role: Role::Conn,
            node: "conn-1".parse().expect("a name"),
            keys: keys(),
            events,
            listen_publicly: false,
        });
        let any = "127.0.0.1:0".parse().expect("an address");
        let bound = hub.listen(any, &[Role::Balancer]).await.expect("bound");
        let seen = Arc::new(Seen::default());
        let (speaking, noting) = (hub.clone(), seen.clone());
        tokio::spawn(async move {
            while let Some(event) = heard.recv().await {
                match event {
                    LinkEvent::Up { link, .. } => {
                        let load = ConnLoad {
                            places_free: 10,
                            places_max: 10,
                            logins_open: 0,
                        };
                        speaking.notice(link, load);
                    }
                    LinkEvent::Request {
                        link,
                        id,
                        message: Message::Login(login),
                        ..
                    } => {
                        noting.logins.fetch_add(1, Ordering::SeqCst);
                        *noting.last_source.lock().expect("not poisoned") = Some(login.source);
                        if let Manner::Answer(verdict) = manner {
                            speaking.answer(link, id, answer(verdict));
                        }
                    }
                    _ => {}
                }
            }
        });
        Self {
            target: bound.to_string(),
            hub,
            seen,
        }
    }

    pub(crate) fn logins(&self) -> u64 {
        self.seen.logins.load(Ordering::SeqCst)
    }

    pub(crate) fn last_source(&self) -> Option<IpAddr> {
        *self.seen.last_source.lock().expect("not poisoned")
    }

    pub(crate) async fn stop(&self) {
        self.hub.shutdown().await;
    }
}

fn answer(verdict: LoginVerdict<'_>) -> LoginAnswer {
    let mut frame = Vec::new();
    let reply = LoginReply {
        retry_after_ms: 0,
        server_time_ms: 1,
        verdict,
    };
    reply.encode(1, &mut frame);
    LoginAnswer {
        body: frame.split_off(frame::HEADER_BYTES),
    }
}
