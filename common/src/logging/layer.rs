//! From events of `tracing` to lines.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::AUDIT;
use super::line::{Format, Line};
use super::repeats::Repeats;
use crate::codes::Code;
use crate::process::clock::unix_ms;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) queue: NonBlocking,
    /// Of lines of [`AUDIT`], which no flood of others crowds out.
    pub(super) audit: NonBlocking,
    pub(super) format: Format,
    pub(super) coloured: bool,
}

/// Writes every event.
#[derive(Debug)]
pub(super) struct Lines {
    /// Who speaks where no span says it.
    node: String,
    sinks: Vec<Sink>,
    /// Of libraries, by the place in their source.
    repeats: Mutex<Repeats<Identifier>>,
    started: Instant,
}

impl Lines {
    pub(super) fn new(node: String, sinks: Vec<Sink>) -> Self {
        Self {
            node,
            sinks,
            repeats: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// What a library says as often as it likes is told as seldom as our own repeated lines, and with a
    /// code. `false`: not this time.
    fn is_told(&self, metadata: &Metadata<'_>, line: &mut Line) -> bool {
        if !is_of_a_library(metadata) {
            return true;
        }
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(untold) = repeats.tell(metadata.callsite(), now_ms) else {
            return false;
        };
        line.code = Some(Code::LibraryTold.number());
        let about = [
            ("library", line.target.clone().into()),
            ("untold", untold.into()),
        ];
        let about = about.map(|(name, value): (&str, Value)| (name.to_owned(), value));
        line.fields.extend(about);
        if metadata.target() == PASSWORD_FILE {
            line.fields.remove("line");
        }
        true
    }
}

/// What reads `~/.pgpass` tells whole lines of it, passwords and all.
const PASSWORD_FILE: &str = "sqlx_postgres::options::pgpass";

/// Our own lines of INFO and above have codes (`tests/tests/codes.rs`).
fn is_of_a_library(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
        && *metadata.level() <= Level::INFO
        && metadata.fields().field("code").is_none()
}

/// Whether [`Counting`] counts it.
pub(super) fn has_code(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.fields().field("code").is_some() || is_of_a_library(metadata)
}

/// The node that a span belongs to, kept with the span.
struct SpanNode(String);

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut line = Line::default();
        attributes.record(&mut Fields(&mut line));
        if let Some(span) = context.span(id)
            && let Some(Value::String(node)) = line.fields.remove("node")
        {
            span.extensions_mut().insert(SpanNode(node));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line {
            unix_ms: unix_ms(),
            level: match *metadata.level() {
                Level::ERROR => "ERROR",
                Level::WARN => "WARN",
                Level::INFO => "INFO",
                Level::DEBUG => "DEBUG",
                Level::TRACE => "TRACE",
            },
            target: metadata.target().to_owned(),
            ..Line::default()
        };
        event.record(&mut Fields(&mut line));
        if !self.is_told(metadata, &mut line) {
            return;
        }
        // A node that the event names is one that it is about.
        let of_span = context.event_scope(event).and_then(|mut scope| {
            scope.find_map(|span| Some(span.extensions().get::<SpanNode>()?.0.clone()))
        });
        line.node = of_span.unwrap_or_else(|| self.node.clone());
        for sink in &self.sinks {
            let text = line.write(sink.format, sink.coloured);
            let queue = match metadata.target() == AUDIT {
                true => &sink.audit,
                false => &sink.queue,
            };
            // A full queue counts what it drops.
            let _ = queue.clone().write_all(text.as_bytes());
        }
    }
}

/// Counts events by their codes, in the order of [`Code::ALL`].
#[derive(Debug)]
pub(super) struct Counting(pub(super) Arc<[AtomicU64]>);

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let code = match is_of_a_library(event.metadata()) {
            true => Some(Code::LibraryTold),
            false => {
                let mut line = Line::default();
                event.record(&mut Fields(&mut line));
                line.code.and_then(Code::of)
            }
        };
        let place = code.and_then(|code| Code::ALL.iter().position(|&it| it == code));
        if let Some(count) = place.and_then(|place| self.0.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Takes the fields of an event, or of a span, into a line.
struct Fields<'l>(&'l mut Line);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.0.message = text,
            (name, value) => _ = self.0.fields.insert(name.to_owned(), value),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match (field.name(), u16::try_from(value)) {
            ("code", Ok(code)) => self.0.code = Some(code),
            _ => self.put(field, value.into()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}
