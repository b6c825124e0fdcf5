//! Pure. A protocol that nobody speaks, a line of text each way: what a new one takes is a codec, an adapter, and its
//! line in [`super`]; the tests below run it through a gate and a shard that know nothing of it.
//!
//! ```text
//! device                         cluster
//! hello TICKET PROOF (in hex)    welcome HEARTBEAT_S · who? · later MS
//! beat                           alive
//! note SEQ UNIX_MS TEXT          kept SEQ · again SEQ MS
//! did N TEXT                     do N CODE TEXT
//!                                bye REASON
//! ```

use std::iter::{self, Once};

use common::secret::Secret;
use protocols::rcu::attach::Attach;
use protocols::rcu::code::CommandStatus;
use records::RawRecord;

use super::{Adapter, Cut, Evidence, Heard, Receipt, Reply, Word};
use crate::counters::Counter;

pub(crate) struct Lines;

/// The kind that its notes are stored as.
const NOTE: u8 = 200;

impl Adapter for Lines {
    type Frame<'a> = &'a str;
    type Records<'a> = Once<RawRecord<'a>>;

    const BYTES_BEFORE_ADMISSION_MAX: usize = 256;
    const FRAME_BYTES_MAX: usize = 256;
    const ORDER_BYTES_MAX: usize = 64;

    fn cut(bytes: &[u8], frame_bytes_max: usize) -> Result<Cut<&str>, Counter> {
        match bytes.iter().position(|&byte| byte == b'\n') {
            Some(end) if end < frame_bytes_max => Ok(Cut::Frame {
                frame: str::from_utf8(&bytes[..end]).map_err(|_| Counter::FrameBody)?,
                consumed: end + 1,
            }),
            None if bytes.len() < frame_bytes_max => Ok(Cut::More { needed: usize::MAX }),
            _ => Err(Counter::FrameLength),
        }
    }

    fn read<'a>(line: &Self::Frame<'a>) -> Result<Heard<'a, Self::Records<'a>>, Counter> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "hello" => claim(rest).ok_or(Counter::FrameBody),
            "beat" => Ok(Heard::Alive { frame_id: 0 }),
            "note" => note(rest).ok_or(Counter::FrameBody),
            "did" => answer(rest).ok_or(Counter::FrameBody),
            _ => Ok(Heard::Unknown),
        }
    }

    fn write(word: &Word<'_>, out: &mut Vec<u8>) {
        let line = match word {
            Word::Welcome { terms, .. } => format!("welcome {}\n", terms.heartbeat_s),
            Word::NotAdmitted { .. } => "who?\n".into(),
            Word::Draining { retry_after_ms, .. } => format!("later {retry_after_ms}\n"),
            Word::Alive { .. } => "alive\n".into(),
            Word::Stored(receipt) => format!("kept {}\n", receipt.base_seq),
            Word::NotNow { receipt, .. } => format!("again {}\n", receipt.base_seq),
            Word::Order { frame_id, order } => {
                let text = String::from_utf8_lossy(&order.payload);
                format!("do {frame_id} {} {text}\n", order.code)
            }
            Word::Goodbye { reason, .. } => format!("bye {reason}\n"),
            // A line cannot be cut wrongly.
            Word::Malformed(_) => return,
        };
        out.extend_from_slice(line.as_bytes());
    }
}

fn claim<'a, R>(text: &str) -> Option<Heard<'a, R>> {
    let (ticket, proof) = text.split_once(' ')?;
    let attach = Attach {
        ticket: Secret::new(bytes(ticket)?),
        proof: bytes(proof)?,
    };
    Some(Heard::Claim {
        frame_id: 0,
        evidence: Evidence::Ticket(attach),
    })
}

fn note(text: &str) -> Option<Heard<'_, Once<RawRecord<'_>>>> {
    let mut words = text.splitn(3, ' ');
    let record = RawRecord {
        seq: words.next()?.parse().ok()?,
        recorded_at_ms: words.next()?.parse().ok()?,
        kind: NOTE,
        payload: words.next()?.as_bytes(),
    };
    let receipt = Receipt {
        base_seq: record.seq,
        frame_id: 0,
        count: 1,
    };
    let records = iter::once(record);
    Some(Heard::Records { receipt, records })
}

fn answer<'a, R>(text: &'a str) -> Option<Heard<'a, R>> {
    let (order, text) = text.split_once(' ')?;
    Some(Heard::Answer(Reply {
        frame_id: order.parse().ok()?,
        command_id: None,
        status: CommandStatus::Ok,
        more: false,
        payload: text.as_bytes(),
    }))
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..N).map(byte).collect();
    bytes?.try_into().ok()
}

#[allow(clippy::unwrap_used)]
mod tests {
    use common::epoch::Epoch;
    use common::ids::AccountId;
    use common::link::message::{self, CommandAnswer, GrantVerdict, Message, Order};
    use common::link::{Asker, LinkId};
    use common::time::Now;

    use super::*;
    use crate::adapter::Protocol;
    use crate::ask::{Ask, Question};
    use crate::batch::BatchOutcome;
    use crate::gate::{self, Core, Effect, Listener};
    use crate::ids::{ConnId, ListenerIndex, SessionId, ShardIndex, Slot};
    use crate::settings::Settings;
    use crate::shard::{self, Effects, SessionSeed, Shard};

    const NOW: Now = Now {
        ms: 1_000,
        unix_ms: 1_767_225_600_000,
    };
    const LINK: LinkId = LinkId(1);
    const CONN: ConnId = ConnId(1);
    const SLOT: Slot = Slot(0);

    /// A gate with a port for RCU and one for lines.
    fn gate() -> Core {
        let rcu = Settings::default().gate(vec![]);
        let of = |protocol| Listener { protocol };
        let listeners = vec![of(Protocol::Rcu), of(Protocol::Lines)];
        Core::new(&gate::Settings { listeners, ..rcu }, 1)
    }

    fn grant() -> message::Grant {
        message::Grant {
            account_id: AccountId(7),
            account: "device".parse().unwrap(),
            account_version: 1,
            session_key: Secret::new([1; 32]),
            ticket: Secret::new([2; 16]),
            source: None,
            epoch: Epoch::at_ms(5),
            ttl_ms: 30_000,
            heartbeat_s: None,
        }
    }

    fn hello(key: u8) -> String {
        let attach = Attach::sign(Secret::new([2; 16]), &Secret::new([key; 32]));
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|it| format!("{it:02x}")).collect() };
        let (ticket, proof) = (hex(attach.ticket.expose()), hex(&attach.proof));
        format!("hello {ticket} {proof}\n")
    }

    /// What the gate asks for when a device comes by the port for lines and says this.
    fn come(gate: &mut Core, said: &str) -> Effect {
        let mut effects = vec![];
        let accepted = gate::Input::Accepted {
            conn: CONN,
            listener: ListenerIndex(1),
            source: [192, 0, 2, 1].into(),
        };
        gate.apply(accepted, NOW, &mut effects);
        // Cut anywhere.
        let (front, back) = said.as_bytes().split_at(said.len() / 2);
        for bytes in [front, back] {
            let input = gate::Input::Received { conn: CONN, bytes };
            gate.apply(input, NOW, &mut effects);
        }
        effects.retain(|it| matches!(it, Effect::Refuse { .. } | Effect::Admit { .. }));
        effects.remove(0)
    }

    fn refusal(gate: &mut Core, said: &str) -> String {
        match come(gate, said) {
            Effect::Refuse { reply, .. } => String::from_utf8(reply).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn seed_and_unread() -> (SessionSeed, Vec<u8>) {
        let mut gate = gate();
        let mut effects = vec![];
        let input = gate::Input::Grant {
            link: LINK,
            request: 1,
            grant: grant(),
        };
        gate.apply(input, NOW, &mut effects);
        assert!(matches!(
            &effects[..],
            [Effect::Answer { message: Message::GrantAnswer(it), .. }] if it.verdict == GrantVerdict::Granted
        ));
        assert_eq!(refusal(&mut gate, &hello(9)), "who?\n", "a wrong proof");
        assert_eq!(refusal(&mut gate, "beat\n"), "bye protocol_error\n");
        let long = "x".repeat(Lines::BYTES_BEFORE_ADMISSION_MAX + 1);
        assert_eq!(refusal(&mut gate, &long), "bye protocol_error\n");
        match come(&mut gate, &hello(1)) {
            Effect::Admit { seed, unread, .. } => (seed, unread),
            other => panic!("{other:?}"),
        }
    }

    struct Device {
        shard: Shard,
        effects: Effects,
        session: SessionId,
    }

    impl Device {
        fn attach() -> Self {
            let shard = Shard::new(Settings::default().shard(ShardIndex(0)), 1);
            let effects = Effects::default();
            let (seed, unread) = seed_and_unread();
            let session = seed.session;
            let mut device = Self {
                shard,
                effects,
                session,
            };
            device.apply(shard::Input::Adopt {
                slot: SLOT,
                seed,
                unread: &unread,
            });
            device
        }

        fn apply(&mut self, input: shard::Input<'_>) {
            self.shard.apply(input, NOW, &mut self.effects);
        }

        fn say(&mut self, said: &str) {
            let bytes = said.as_bytes();
            self.apply(shard::Input::Received { slot: SLOT, bytes });
        }

        fn hear(&mut self) -> String {
            self.effects.sends.clear();
            String::from_utf8(std::mem::take(&mut self.effects.out)).unwrap()
        }

        /// Ends the turn, and gives its batch back with this outcome; returns the texts in it.
        fn store(&mut self, outcome: BatchOutcome) -> Vec<String> {
            self.apply(shard::Input::Tick {
                read_until_ms: NOW.ms,
            });
            let batch = self.effects.batches.pop().expect("a batch");
            let text = |row| String::from_utf8(batch.payload(row).to_vec()).unwrap();
            let texts = batch.rows.iter().map(text).collect();
            assert!(batch.rows.iter().all(|row| row.account_id == AccountId(7)));
            self.apply(shard::Input::Finished { batch, outcome });
            texts
        }
    }

    #[test]
    fn a_device_that_speaks_it_is_admitted_stored_acknowledged_and_let_go() {
        let mut device = Device::attach();
        assert_eq!(device.hear(), "welcome 60\n");
        device.say("beat\nbe");
        device.say("at\nsomething of a later version\nno");
        assert_eq!(device.hear(), "alive\nalive\n");
        device.say("te 3 1767225600000 all is well\n");
        assert_eq!(
            device.hear(),
            "",
            "nothing is acknowledged before it is stored"
        );
        assert_eq!(device.store(BatchOutcome::Stored), ["all is well"]);
        assert_eq!(device.hear(), "kept 3\n");

        device.say("note 4 1767225600000 too much\n");
        let retry_after_ms = 10;
        device.store(BatchOutcome::Overloaded { retry_after_ms });
        assert_eq!(device.hear(), "again 4\n");

        device.say("hello again\n");
        assert_eq!(device.hear(), "bye protocol_error\n");
        assert_eq!(device.shard.sessions(), 0);
    }

    #[test]
    fn an_order_is_carried_out_and_answered_in_its_own_words() {
        let mut device = Device::attach();
        let session = device.session;
        device.hear();
        let asker = Asker::new(LINK, 5, 1_000, NOW.ms);
        let order = Order {
            command_id: 77,
            deadline_ms: 0,
            code: 3,
            payload: b"open the door".to_vec(),
        };
        let mut ask = Ask {
            asker,
            account_id: AccountId(7),
            question: Question::Command(order.clone()),
        };
        device.apply(shard::Input::Ask {
            session,
            ask: ask.clone(),
        });
        assert_eq!(device.hear(), "do 1 3 open the door\n");
        device.say("did 2 nothing of the kind\ndid 1 it is open\n");
        let answers = std::mem::take(&mut device.effects.answers);
        let [answer] = &answers[..] else {
            panic!("{answers:?}")
        };
        let replied = CommandAnswer::Replied {
            status: CommandStatus::Ok.code(),
            more: false,
            payload: b"it is open".to_vec(),
        };
        assert_eq!(answer.message, replied.into());

        let payload = vec![b'x'; Lines::ORDER_BYTES_MAX + 1];
        ask.question = Question::Command(Order { payload, ..order });
        device.apply(shard::Input::Ask { session, ask });
        assert_eq!(device.hear(), "");
        assert_eq!(
            device.effects.answers[0].message,
            CommandAnswer::TooLarge.into()
        );
    }
}
