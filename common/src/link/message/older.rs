//! Pure. What a peer of an older version hears in the place of a message that it does not know, and what its own
//! messages are today. So everybody but the link itself knows the newest alone.
//!
//! ```text
//! message ── to_version(of the peer) ──▶ link      link ── renewed() ──▶ message
//! ```

use super::{Message, SessionAnswer, SessionCheckAnswer, SessionLook, SessionLooked, SessionShown};

impl Message {
    /// As a peer of this version of the link knows it.
    pub fn to_version(self, version: u16) -> Self {
        if self.since_version() <= version {
            return self;
        }
        match self {
            Self::SessionLooked(SessionLooked { look }) => SessionCheckAnswer {
                state: look.map(|look| look.state),
            }
            .into(),
            Self::SessionShown(shown) => match shown {
                SessionShown::Session {
                    account_id,
                    node,
                    look,
                } => SessionAnswer::Session {
                    account_id,
                    node,
                    state: look.state,
                },
                SessionShown::No(why) => SessionAnswer::No(why),
            }
            .into(),
            other => other,
        }
    }

    /// What it is today.
    pub fn renewed(self) -> Self {
        match self {
            Self::SessionCheckAnswer(SessionCheckAnswer { state }) => SessionLooked {
                look: state.map(SessionLook::from),
            }
            .into(),
            Self::SessionAnswer(answer) => match answer {
                SessionAnswer::Session {
                    account_id,
                    node,
                    state,
                } => SessionShown::Session {
                    account_id,
                    node,
                    look: state.into(),
                },
                SessionAnswer::No(why) => SessionShown::No(why),
            }
            .into(),
            other => other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::epoch::Epoch;
    use crate::ids::AccountId;
    use crate::link::message::{NoSession, SessionState};

    use super::*;

    #[test]
    fn an_older_peer_is_told_what_it_knows_and_the_rest_is_not_known_here() {
        let state = SessionState {
            epoch: Epoch::at_ms(9),
            source: None,
            heartbeat_s: 60,
            silent_ms: 5,
            unanswered: 2,
            command: false,
        };
        let look = SessionLook {
            state,
            attached_unix_ms: Some(7),
            contradicting: Some(1),
        };
        let shown = |look| SessionShown::Session {
            account_id: AccountId(1),
            node: "logic-1".parse().unwrap(),
            look,
        };
        let unsaid = SessionLook::from(state);
        let no = SessionShown::No(NoSession::Busy);
        let pairs: [(Message, Message); 4] = [
            (
                SessionLooked { look: Some(look) }.into(),
                SessionLooked { look: Some(unsaid) }.into(),
            ),
            (
                SessionLooked { look: None }.into(),
                SessionLooked { look: None }.into(),
            ),
            (shown(look).into(), shown(unsaid).into()),
            (no.clone().into(), no.into()),
        ];
        for (message, heard) in pairs {
            assert_eq!(message.clone().to_version(3), message);
            let old = message.to_version(2);
            assert_eq!(old.since_version(), 2);
            assert_eq!(old.renewed(), heard);
        }
    }
}
