//! What happened, one line an event, for people.
//!
//! ```text
//!    12.345 s  sim-000003     > logic-1        Telemetry seq 5..=7 #9  [stream 41, arrives at 12.401 s]
//!    12.401 s  logic-1        < sim-000003     Telemetry seq 5..=7 #9  [stream 41]
//! ```
//!
//! | sign | means |
//! | --- | --- |
//! | `>` | left: a frame when its last piece was sent, a message when it was said |
//! | `<` | came, and is being handled |
//! | `x` | came to nobody: the stream, the link or the process was gone |
//! | `!` | a fault |
//! | `*` | what somebody thinks of it |
//!
//! A run without a tracer pays one comparison an event. As a run can be repeated, nobody has to
//! trace for fear of missing something: a failure is run again with one that keeps the last lines.

mod describe;
mod pieces;
pub mod words;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::Write;

use common::ids::AccountId;
use common::link::LinkId;
use logic_server::writer::{Work, WriteResult};

use self::pieces::Pieces;
use crate::links::{self, LinkMail, Part};
use crate::network::{Arrival, Client, Side, Stream};
use crate::process::{Mail, Process};
use crate::store::Fate;
use crate::world::{Event, World};

/// Which lines are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Those of one device, and those that concern every device.
    pub device: Option<usize>,
    pub from_ms: u64,
    pub to_ms: u64,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            device: None,
            from_ms: 0,
            to_ms: u64::MAX,
        }
    }
}

/// Whom a line tells something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Concerns {
    Everybody,
    /// None: the tiers among themselves.
    Devices(Vec<usize>),
}

#[derive(Debug)]
struct Line {
    who: String,
    sign: char,
    whom: String,
    what: String,
    concerns: Concerns,
}

enum Sink {
    Print(Box<dyn Write>),
    Last { lines: VecDeque<String>, max: usize },
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Print(_) => "Print",
            Self::Last { .. } => "Last",
        })
    }
}

/// Who talks on a stream; outlives it, because its last pieces do.
#[derive(Clone, Debug)]
struct Parties {
    client: String,
    server: String,
    device: Option<usize>,
}

/// Where on its way something is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Sent {
        arrives_at_ms: u64,
    },
    Heard,
    /// Whoever it was for is gone.
    Lost,
}

impl Leg {
    fn sign(self) -> char {
        match self {
            Self::Sent { .. } => '>',
            Self::Heard => '<',
            Self::Lost => 'x',
        }
    }

    fn of_arrival(is_heard: bool) -> Self {
        if is_heard { Self::Heard } else { Self::Lost }
    }
}

#[derive(Debug)]
pub struct Tracer {
    filter: Filter,
    sink: Sink,
    parties: BTreeMap<Stream, Parties>,
    /// By where they go, and whether they were sent or came: a stream may end in between.
    pieces: BTreeMap<(Stream, Side, bool), Pieces>,
    /// Whose a request on a link is, so that its answer is theirs too.
    requests: BTreeMap<(LinkId, u64), Concerns>,
}

impl Tracer {
    pub fn printing(filter: Filter, to: Box<dyn Write>) -> Box<Self> {
        Self::new(filter, Sink::Print(to))
    }

    /// Keeps the last lines.
    pub fn keeping(filter: Filter, max: usize) -> Box<Self> {
        let lines = VecDeque::with_capacity(max);
        Self::new(filter, Sink::Last { lines, max })
    }

    fn new(filter: Filter, sink: Sink) -> Box<Self> {
        Box::new(Self {
            filter,
            sink,
            parties: BTreeMap::new(),
            pieces: BTreeMap::new(),
            requests: BTreeMap::new(),
        })
    }

    /// What was kept, the oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let lines = match &self.sink {
            Sink::Last { lines, .. } => Some(lines),
            Sink::Print(_) => None,
        };
        lines.into_iter().flatten().map(String::as_str)
    }

    fn tell(&mut self, now_ms: u64, line: Line) {
        let Filter {
            device,
            from_ms,
            to_ms,
        } = self.filter;
        let is_asked = match (device, &line.concerns) {
            (None, _) | (_, Concerns::Everybody) => true,
            (Some(device), Concerns::Devices(devices)) => devices.contains(&device),
        };
        if !is_asked || now_ms < from_ms || now_ms > to_ms {
            return;
        }
        let Line {
            who,
            sign,
            whom,
            what,
            ..
        } = line;
        let text = format!(
            "{:>12}  {who:<14} {sign} {whom:<14} {what}",
            seconds(now_ms)
        );
        match &mut self.sink {
            // Nobody reads it any more, as behind `| head`: the run goes on.
            Sink::Print(to) => {
                let _ = writeln!(to, "{text}");
            }
            Sink::Last { lines, max } => {
                if lines.len() == *max {
                    lines.pop_front();
                }
                lines.push_back(text);
            }
        }
    }

    // ---- streams ------------------------------------------------------------------------------

    fn parties(&mut self, stream: Stream, world: &World) -> Parties {
        if let Some(parties) = self.parties.get(&stream) {
            return parties.clone();
        }
        let connection = world.network.connection(stream);
        let (client, device) = match connection.map(|connection| connection.client) {
            Some(Client::Device { index, .. }) => (name_of_device(index), Some(index)),
            Some(other) => (format!("{other:?}").to_lowercase(), None),
            None => ("somebody".into(), None),
        };
        let server = connection.map(|connection| connection.server);
        let server = server.map_or_else(|| "somewhere".into(), |server| server.to_string());
        let parties = Parties {
            client,
            server,
            device,
        };
        if connection.is_some() {
            self.parties.insert(stream, parties.clone());
        }
        parties
    }

    fn stream(&mut self, world: &World, stream: Stream, to: Side, arrival: &Arrival, leg: Leg) {
        let parties = self.parties(stream, world);
        let (from, receiver, sender) = match to {
            Side::Client => (Side::Server, parties.client, parties.server),
            Side::Server => (Side::Client, parties.server, parties.client),
        };
        let is_sent = matches!(leg, Leg::Sent { .. });
        let pieces = self.pieces.entry((stream, to, is_sent)).or_default();
        let said = match arrival {
            Arrival::Bytes(bytes) if leg == Leg::Lost => vec![format!("{} bytes", bytes.len())],
            Arrival::Bytes(bytes) => pieces.push(bytes, from),
            Arrival::End => match pieces.rest() {
                0 => vec!["end of stream".into()],
                rest => vec![format!("end of stream, after {rest} bytes of half a frame")],
            },
            Arrival::Reset => vec!["reset".into()],
        };
        let (who, whom) = if is_sent {
            (sender, receiver)
        } else {
            (receiver, sender)
        };
        let place = match leg {
            Leg::Sent { arrives_at_ms } => format!(", arrives at {}", seconds(arrives_at_ms)),
            Leg::Heard | Leg::Lost => String::new(),
        };
        for what in said {
            let line = Line {
                who: who.clone(),
                sign: leg.sign(),
                whom: whom.clone(),
                what: format!("{what}  [stream {}{place}]", stream.0),
                concerns: Concerns::Devices(parties.device.into_iter().collect()),
            };
            self.tell(world.now_ms, line);
        }
    }

    // ---- links --------------------------------------------------------------------------------

    fn link(&mut self, world: &World, link: LinkId, to: Process, mail: &LinkMail, leg: Leg) {
        let other = world
            .links
            .ends(link)
            .map(|ends| if ends[0] == to { ends[1] } else { ends[0] });
        let other = other.map_or_else(|| "somebody".into(), |other| other.to_string());
        let mut place = String::new();
        let (what, concerns) = match mail {
            LinkMail::Up => ("link stands".into(), Concerns::Everybody),
            LinkMail::Down => ("link is broken".into(), Concerns::Everybody),
            LinkMail::Said { part, message, .. } => {
                place = part_words(*part);
                let concerns = self.whose(link, *part, describe::of_message(message));
                (words::link(message), concerns)
            }
        };
        let (who, whom) = match leg {
            // That it stands or is broken nobody says: it is found out.
            Leg::Sent { .. } if !matches!(mail, LinkMail::Said { .. }) => return,
            Leg::Sent { .. } => (other, to.to_string()),
            Leg::Heard | Leg::Lost => (to.to_string(), other),
        };
        let line = Line {
            who,
            sign: leg.sign(),
            whom,
            what: format!("{what}  [link {}{place}]", link.0),
            concerns,
        };
        self.tell(world.now_ms, line);
    }

    /// An answer is of interest to whoever the question was about.
    fn whose(&mut self, link: LinkId, part: Part, concerns: Concerns) -> Concerns {
        match part {
            Part::Request { id, .. } => {
                self.requests.insert((link, id), concerns.clone());
                concerns
            }
            Part::Answer { id } => self.requests.get(&(link, id)).cloned().unwrap_or(concerns),
            Part::Notice => concerns,
        }
    }
}

fn part_words(part: Part) -> String {
    match part {
        Part::Request { id, deadline_ms } => format!(", request {id} within {deadline_ms} ms"),
        Part::Answer { id } => format!(", answer {id}"),
        Part::Notice => String::new(),
    }
}

/// Hooks: each is a comparison and nothing else where nobody traces.
impl World {
    /// An event that is not an arrival is taken from the heap.
    pub fn trace_event(&mut self, event: &Event) {
        if let Some(mut tracer) = self.tracer.take() {
            if let Some(line) = describe::of_event(event, self) {
                tracer.tell(self.now_ms, line);
            }
            self.tracer = Some(tracer);
        }
    }

    pub fn trace_link(&mut self, link: LinkId, to: Process, mail: &LinkMail, is_heard: bool) {
        // A link that was known to be gone is found broken once more: no news.
        let is_news = is_heard || matches!(mail, LinkMail::Said { .. });
        if let Some(mut tracer) = self.tracer.take_if(|_| is_news) {
            tracer.link(self, link, to, mail, Leg::of_arrival(is_heard));
            self.tracer = Some(tracer);
        }
    }

    /// What streams carried, and what the fake links took, before it goes into the heap.
    pub fn trace_sent(&mut self) {
        if let Some(mut tracer) = self.tracer.take() {
            self.network.is_watched = true;
            for seen in std::mem::take(&mut self.network.seen) {
                let leg = match seen.arrives_at_ms {
                    Some(arrives_at_ms) => Leg::Sent { arrives_at_ms },
                    None => Leg::of_arrival(seen.is_heard),
                };
                tracer.stream(self, seen.stream, seen.to, &seen.arrival, leg);
            }
            for links::Delivery {
                at_ms,
                link,
                to,
                mail,
            } in &self.link_deliveries
            {
                let leg = Leg::Sent {
                    arrives_at_ms: *at_ms,
                };
                tracer.link(self, *link, *to, mail, leg);
            }
            self.tracer = Some(tracer);
        }
    }

    /// What comes to a process and is neither from a stream nor from a link; `is_heard`: by the
    /// generation that it is meant for.
    pub fn trace_mail(&mut self, to: Process, mail: &Mail, is_heard: bool) {
        if let Some(mut tracer) = self.tracer.take() {
            if let Some(line) = describe::of_mail(to, mail, Leg::of_arrival(is_heard)) {
                tracer.tell(self.now_ms, line);
            }
            self.tracer = Some(tracer);
        }
    }

    /// What the store says to a write. What it did is in `fate`.
    pub fn trace_write(
        &mut self,
        by: Process,
        generation: u32,
        work: &Work,
        fate: Fate,
        result: &WriteResult,
    ) {
        if let Some(mut tracer) = self.tracer.take() {
            let leg = Leg::of_arrival(self.life(by).is_current(generation));
            tracer.tell(self.now_ms, describe::of_write(by, leg, work, fate, result));
            self.tracer = Some(tracer);
        }
    }

    /// A fault, in words, and the stream that it hit.
    pub fn trace_fault(&mut self, stream: Option<Stream>, what: impl FnOnce() -> String) {
        if let Some(mut tracer) = self.tracer.take() {
            let parties = stream.map(|stream| tracer.parties(stream, self));
            let line = Line {
                who: "fault".into(),
                sign: '!',
                whom: parties
                    .as_ref()
                    .map_or_else(String::new, |parties| parties.client.clone()),
                what: what(),
                concerns: parties.map_or(Concerns::Everybody, |parties| {
                    Concerns::Devices(parties.device.into_iter().collect())
                }),
            };
            tracer.tell(self.now_ms, line);
            self.tracer = Some(tracer);
        }
    }

    /// A turn in the life of a process.
    pub fn trace_process(&mut self, process: Process, what: &str) {
        if let Some(tracer) = &mut self.tracer {
            let line = Line {
                who: process.to_string(),
                sign: '*',
                whom: String::new(),
                what: what.into(),
                concerns: Concerns::Everybody,
            };
            tracer.tell(self.now_ms, line);
        }
    }

    /// What a device thinks of it.
    pub fn trace_device(&mut self, device: usize, what: impl FnOnce() -> String) {
        if let Some(mut tracer) = self.tracer.take() {
            let line = Line {
                who: name_of_device(device),
                sign: '*',
                whom: String::new(),
                what: what(),
                concerns: Concerns::Devices(vec![device]),
            };
            tracer.tell(self.now_ms, line);
            self.tracer = Some(tracer);
        }
    }
}

/// The device that a failure names: by name, by account, or by stream.
pub fn subject(what: &str, world: &World) -> Option<usize> {
    let device = number_after(what, "sim-")
        .or_else(|| {
            let account =
                number_after(what, "AccountId(").or_else(|| number_after(what, "account "))?;
            device_of(AccountId(account.try_into().ok()?))
        })
        .or_else(|| {
            let stream = Stream(number_after(what, "Stream(")? as u64);
            match world.network.connection(stream)?.client {
                Client::Device { index, .. } => Some(index),
                _ => None,
            }
        });
    device.filter(|device| *device < world.devices.len())
}

fn number_after(text: &str, before: &str) -> Option<usize> {
    let (_, rest) = text.split_once(before)?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

fn device_of(account_id: AccountId) -> Option<usize> {
    usize::try_from(account_id.0.checked_sub(1)?).ok()
}

fn name_of_device(index: usize) -> String {
    crate::device::account_name(index).to_string()
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(concerns: Concerns) -> Line {
        Line {
            who: "logic-0".into(),
            sign: '<',
            whom: "conn".into(),
            what: format!("{concerns:?}"),
            concerns,
        }
    }

    fn kept(filter: Filter, max: usize) -> Vec<String> {
        let mut tracer = Tracer::keeping(filter, max);
        tracer.tell(1_000, line(Concerns::Devices(vec![3])));
        tracer.tell(2_000, line(Concerns::Devices(vec![4, 5])));
        tracer.tell(3_000, line(Concerns::Everybody));
        tracer.tell(4_000, line(Concerns::Devices(vec![])));
        let lines = tracer.lines();
        lines
            .map(|line| line.trim_start()[..5].to_owned())
            .collect()
    }

    #[test]
    fn a_filter_takes_what_concerns_the_device_and_what_concerns_all() {
        let of = |device| Filter {
            device: Some(device),
            ..Filter::default()
        };
        assert_eq!(
            kept(Filter::default(), 9),
            ["1.000", "2.000", "3.000", "4.000"]
        );
        assert_eq!(kept(of(3), 9), ["1.000", "3.000"]);
        assert_eq!(kept(of(5), 9), ["2.000", "3.000"]);
    }

    #[test]
    fn a_filter_takes_a_stretch_of_time_with_both_its_ends() {
        let filter = Filter {
            from_ms: 2_000,
            to_ms: 3_000,
            ..Filter::default()
        };
        assert_eq!(kept(filter, 9), ["2.000", "3.000"]);
    }

    #[test]
    fn the_last_lines_are_kept() {
        assert_eq!(kept(Filter::default(), 2), ["3.000", "4.000"]);
    }

    #[test]
    fn a_failure_names_its_device() {
        let number = |what| number_after(what, "AccountId(");
        assert_eq!(
            number("Key { account_id: AccountId(12), seq: 3 }"),
            Some(12)
        );
        assert_eq!(number("AccountId()"), None);
        assert_eq!(
            number_after("not at rest: sim-000007 attached", "sim-"),
            Some(7)
        );
        assert_eq!(device_of(AccountId(1)), Some(0));
        assert_eq!(device_of(AccountId(0)), None);
    }
}
