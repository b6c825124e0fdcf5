//! The conn server of the simulated cluster, with its accounts and its stored mark.

use common::config::Policy;
use common::epoch::{Epoch, NodeNumber};
use common::ids::AccountName;
use common::link::message::Message;
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::pacing::Rate;
use conn_server::account::{Account, Found};
use conn_server::core::{Core as Decisions, Effect, Input};
use conn_server::counters::Counters;
use conn_server::desk::{Desk, Rules};
use conn_server::directory::Directory;
use conn_server::epochs::Epochs;
use conn_server::nonces::Nonces;
use conn_server::pool::NodePool;
use conn_server::throttle::{Limits, Throttle};
use rand::rngs::{SmallRng, StdRng};
use rand::{RngExt, SeedableRng};

use crate::device::{account_name, device_key};
use crate::links::{End, LinkMail, Part};
use crate::model::Broken;
use crate::plan::Plan;
use crate::timer::Timer;
use crate::world::{Core, Event, World, account_of, logic_address};

/// Answers of the database.
#[derive(Debug)]
pub enum ConnMail {
    Found { id: u64, found: Found },
    MarkStored(Epoch),
}

#[derive(Debug)]
pub struct ConnNode {
    pub generation: u32,
    pub is_up: bool,
    core: Decisions,
    timer: Timer,
    /// What the database holds; outlives the process.
    pub mark: Epoch,
}

impl ConnNode {
    pub fn start(plan: &Plan, generation: u32, mark: Epoch, seed: u64) -> Self {
        let wide = Rate::UNLIMITED;
        let limits = Limits {
            in_all: wide,
            per_source: wide,
            sources_max: 10_000,
            guesses_max: 10_000,
        };
        let desk = Desk {
            rules: Rules {
                grant_ttl_ms: u32::from(plan.grant_ttl_s) * 1_000,
                clock_skew_max_ms: 300_000,
                source_exact: true,
                heartbeat_s: None,
            },
            throttle: Throttle::new(limits, seed),
            nonces: Nonces::new(100_000),
            pool: NodePool::new(Policy::LeastLoaded, plan.logic_servers),
            directory: Directory::new(plan.logic_servers),
            epochs: Epochs::new(NodeNumber::new(1).expect("small"), mark),
            counters: Counters::default(),
            tickets: StdRng::seed_from_u64(seed),
            waits: SmallRng::seed_from_u64(!seed),
        };
        let logic_servers = (0..plan.logic_servers.into())
            .map(|node| logic_address(node).to_string())
            .collect();
        Self {
            generation,
            is_up: true,
            core: Decisions::new(desk, logic_servers, 10_000),
            timer: Timer::default(),
            mark,
        }
    }

    pub fn is_current(&self, generation: u32) -> bool {
        self.is_up && self.generation == generation
    }
}

impl World {
    pub fn conn_link(&mut self, link: LinkId, mail: LinkMail) -> Result<(), Broken> {
        self.note_health();
        let event = match mail {
            LinkMail::Up => {
                let Some(peer) = self.peer(link) else {
                    return Ok(());
                };
                LinkEvent::Up { link, peer }
            }
            LinkMail::Down => LinkEvent::Down {
                link,
                why: "simulated".into(),
            },
            LinkMail::Said {
                part,
                message,
                epoch,
            } => match part {
                Part::Request { id, deadline_ms } => LinkEvent::Request {
                    link,
                    id,
                    deadline_ms,
                    message,
                    epoch,
                },
                Part::Answer { id } => LinkEvent::Answer {
                    link,
                    id,
                    message,
                    epoch,
                },
                Part::Notice => LinkEvent::Notice {
                    link,
                    message,
                    epoch,
                },
            },
        };
        self.conn_apply(Input::Link(event))
    }

    /// Who is at the other end of a link of the conn server.
    fn peer(&self, link: LinkId) -> Option<Peer> {
        let ends = self.links.ends(link)?;
        let other = if ends[0] == End::Conn {
            ends[1]
        } else {
            ends[0]
        };
        let (role, node, address, target) = match other {
            End::Balancer => (
                Role::Balancer,
                "balancer-1".to_owned(),
                crate::world::balancer_address(),
                None,
            ),
            End::Logic(node) => {
                let address = logic_address(node);
                (
                    Role::Logic,
                    format!("logic-{node}"),
                    address,
                    Some(address.to_string()),
                )
            }
            End::Conn => return None,
        };
        Some(Peer {
            role,
            node: node.parse().ok()?,
            version: 1,
            address,
            target,
        })
    }

    pub fn conn_mail(&mut self, mail: ConnMail) -> Result<(), Broken> {
        match mail {
            ConnMail::Found { id, found } => self.conn_apply(Input::Found { id, found }),
            ConnMail::MarkStored(mark) => {
                self.conn.mark = self.conn.mark.max(mark);
                self.conn_apply(Input::MarkStored(Some(mark)))
            }
        }
    }

    pub fn wake_conn(&mut self) -> Result<(), Broken> {
        self.conn_apply(Input::Tick)
    }

    pub fn conn_timer(&mut self) -> Result<(), Broken> {
        if self.conn.timer.fires(self.now_ms) {
            self.conn_apply(Input::Tick)?;
        }
        Ok(())
    }

    fn conn_apply(&mut self, input: Input) -> Result<(), Broken> {
        let mut effects = vec![];
        let unix_ms = self.unix_ms();
        self.conn
            .core
            .apply(input, self.now_ms, unix_ms, &mut effects);
        for effect in effects {
            self.conn_effect(effect)?;
        }
        let generation = self.conn.generation;
        let deadline_ms = Some(self.conn.core.next_deadline());
        if let Some(at_ms) = self.conn.timer.arm(deadline_ms, self.now_ms) {
            self.schedule(at_ms, Event::Wake(Core::Conn { generation }));
        }
        Ok(())
    }

    fn conn_effect(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Request {
                link,
                id,
                deadline_ms,
                message,
            } => {
                if let Message::Grant(grant) = &message {
                    self.links.observe(End::Conn, grant.epoch);
                    self.model.published(grant.account_id, grant.epoch)?;
                }
                self.conn_says(link, Part::Request { id, deadline_ms }, message);
            }
            Effect::Answer { link, id, message } => {
                self.conn_says(link, Part::Answer { id }, message)
            }
            Effect::Notice { link, message } => self.conn_says(link, Part::Notice, message),
            Effect::CloseLink { link, why } => panic!("the conn server closes {link}: {why}"),
            Effect::LookUp { id, account } => {
                let found = self.look_up(&account);
                self.database_answers(ConnMail::Found { id, found });
            }
            Effect::StoreMark(mark) => self.database_answers(ConnMail::MarkStored(mark)),
            // No account changes in this world, and nobody asks when it logged in last.
            Effect::CheckVersions { .. } | Effect::NoteLastLogin(_) => {}
        }
        Ok(())
    }

    fn conn_says(&mut self, link: LinkId, part: Part, message: Message) {
        self.links.say(
            link,
            End::Conn,
            part,
            message,
            self.now_ms,
            &mut self.link_deliveries,
        );
    }

    fn database_answers(&mut self, mail: ConnMail) {
        let generation = self.conn.generation;
        let at_ms = self.now_ms + self.rng.random_range(self.plan.store_ms.clone());
        self.schedule(at_ms, Event::ToConn { generation, mail });
    }

    fn look_up(&self, name: &AccountName) -> Found {
        let index = (0..self.devices.len()).find(|index| account_name(*index) == name.as_str());
        index.map_or(Found::Unknown, |index| {
            Found::Account(Account {
                id: account_of(index),
                key: device_key(index),
                version: 1,
                enabled: true,
            })
        })
    }
}
