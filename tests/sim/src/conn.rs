//! The conn servers of the simulated cluster.

use common::config::Policy;
use common::epoch::{Epoch, NodeNumber};
use common::link::message::Message;
use common::link::{LinkEvent, LinkId, Peer, Role};
use common::pacing::Rate;
use conn_server::account::Found;
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

use crate::links::{LinkMail, Part};
use crate::model::Broken;
use crate::plan::Plan;
use crate::process::{Mail, Process, Thread, Tier};
use crate::timer::Timer;
use crate::world::{World, balancer_address, logic_address};

/// Answers of the database.
#[derive(Debug)]
pub enum ConnMail {
    Found { id: u64, found: Found },
    MarkStored(Epoch),
}

#[derive(Debug)]
pub struct ConnNode {
    core: Decisions,
    timer: Timer,
}

impl ConnNode {
    /// `mark` is what the database holds of it.
    pub fn start(plan: &Plan, index: usize, mark: Epoch, seed: u64) -> Self {
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
            epochs: Epochs::new(NodeNumber::new(node_number(index)).expect("small"), mark),
            counters: Counters::default(),
            tickets: StdRng::seed_from_u64(seed),
            waits: SmallRng::seed_from_u64(!seed),
        };
        let logic_servers = (0..plan.logic_servers.into())
            .map(|node| logic_address(node).to_string())
            .collect();
        Self {
            core: Decisions::new(desk, logic_servers, 10_000),
            timer: Timer::default(),
        }
    }
}

/// Tells conn servers apart in an epoch and in the database.
pub fn node_number(conn: usize) -> u16 {
    conn as u16 + 1
}

impl World {
    pub fn conn_link(&mut self, index: usize, link: LinkId, mail: LinkMail) -> Result<(), Broken> {
        let event = match mail {
            LinkMail::Up => {
                let Some(peer) = self.peer(index, link) else {
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
        self.conn_apply(index, Input::Link(event))
    }

    /// Who is at the other end of a link of a conn server.
    fn peer(&self, index: usize, link: LinkId) -> Option<Peer> {
        let other = self.links.other_end(link, Process::conn(index))?;
        let (role, address, target) = match other.tier {
            Tier::Balancer => (Role::Balancer, balancer_address(other.index), None),
            Tier::Logic => {
                let address = logic_address(other.index);
                (Role::Logic, address, Some(address.to_string()))
            }
            Tier::Conn => return None,
        };
        Some(Peer {
            role,
            node: other.to_string().parse().ok()?,
            version: 1,
            address,
            target,
        })
    }

    pub fn conn_mail(&mut self, index: usize, mail: ConnMail) -> Result<(), Broken> {
        match mail {
            ConnMail::Found { id, found } => self.conn_apply(index, Input::Found { id, found }),
            ConnMail::MarkStored(mark) => {
                self.accounts.store_mark(node_number(index), mark);
                self.conn_apply(index, Input::MarkStored(Some(mark)))
            }
        }
    }

    pub fn wake_conn(&mut self, index: usize) -> Result<(), Broken> {
        self.conn_apply(index, Input::Tick)
    }

    pub fn conn_timer(&mut self, index: usize) -> Result<(), Broken> {
        if self.conns[index].timer.fires(self.now_ms) {
            self.conn_apply(index, Input::Tick)?;
        }
        Ok(())
    }

    fn conn_apply(&mut self, index: usize, input: Input) -> Result<(), Broken> {
        let me = Process::conn(index);
        let now = self.now(me);
        let mut effects = vec![];
        let core = &mut self.conns[index].core;
        core.apply(input, now.ms, now.unix_ms, &mut effects);
        for effect in effects {
            self.conn_effect(index, effect)?;
        }
        let clock = self.life(me).clock;
        let conn = &mut self.conns[index];
        let deadline_ms = Some(clock.world_ms(conn.core.next_deadline()));
        if let Some(at_ms) = conn.timer.arm(deadline_ms, self.now_ms) {
            self.mail(me, at_ms, Mail::Wake(Thread::Main));
        }
        Ok(())
    }

    fn conn_effect(&mut self, index: usize, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Request {
                link,
                id,
                deadline_ms,
                message,
            } => {
                if let Message::Grant(grant) = &message {
                    self.links.observe(Process::conn(index), grant.epoch);
                    let (account_id, epoch) = (grant.account_id, grant.epoch);
                    self.model.published(
                        index,
                        account_id,
                        epoch,
                        self.now_ms,
                        self.healed_at_ms,
                    )?;
                }
                self.says(
                    link,
                    Process::conn(index),
                    Part::Request { id, deadline_ms },
                    message,
                );
            }
            Effect::Answer { link, id, message } => {
                self.says(link, Process::conn(index), Part::Answer { id }, message);
            }
            Effect::Notice { link, message } => {
                self.says(link, Process::conn(index), Part::Notice, message);
            }
            Effect::CloseLink { link, why } => panic!("a conn server closes {link}: {why}"),
            Effect::LookUp { id, account } => {
                let found = self.accounts.look_up(&account);
                self.database_answers(index, ConnMail::Found { id, found });
            }
            Effect::StoreMark(mark) => self.database_answers(index, ConnMail::MarkStored(mark)),
            // No account changes in this world, and nobody asks when it logged in last.
            Effect::CheckVersions { .. } | Effect::NoteLastLogin(_) => {}
        }
        Ok(())
    }

    fn database_answers(&mut self, index: usize, mail: ConnMail) {
        let at_ms = self.now_ms + self.rng.random_range(self.plan.store_ms.clone());
        self.mail(Process::conn(index), at_ms, Mail::Conn(mail));
    }
}
