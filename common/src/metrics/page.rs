//! The three pages.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::Sources;
use super::gathered::Gathered;

/// What is answered: an HTTP status, the kind of the text, the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) text: String,
}

const PLAIN: &str = "text/plain; charset=utf-8";
/// Prometheus asks for it, and reads it since its version 2.5.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Page {
    pub(super) fn of(path: &str, sources: &Sources) -> Self {
        match path {
            "/metrics" => metrics(sources),
            "/healthz" => lacking("ok", sources.iter().flat_map(|source| source.stuck())),
            "/readyz" => lacking("ready", sources.iter().flat_map(|source| source.missing())),
            _ => Self::plain(404, "/metrics, /healthz, /readyz\n".into()),
        }
    }

    pub(super) fn plain(status: u16, text: String) -> Self {
        Self {
            status,
            content_type: PLAIN,
            text,
        }
    }
}

/// `good`, or all that speaks against it.
fn lacking(good: &str, faults: impl Iterator<Item = String>) -> Page {
    let faults: Vec<_> = faults.collect();
    match faults.is_empty() {
        true => Page::plain(200, format!("{good}\n")),
        false => Page::plain(503, faults.join("\n") + "\n"),
    }
}

fn metrics(sources: &Sources) -> Page {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(sources.clone())));
    let mut text = String::new();
    match text::encode(&mut text, &registry) {
        Ok(()) => Page {
            status: 200,
            content_type: OPEN_METRICS,
            text,
        },
        Err(fmt::Error) => Page::plain(500, "the metrics cannot be written\n".into()),
    }
}

#[derive(Debug)]
struct Scrape(Sources);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gathered = Gathered::default();
        for source in self.0.iter() {
            source.gather(&mut gathered);
        }
        gathered.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;
    use crate::histogram::Histogram;

    #[derive(Debug)]
    struct Tier(&'static str);

    impl Source for Tier {
        fn gather(&self, gathered: &mut Gathered) {
            let mut figures = gathered.node("logic_server", self.0);
            figures.counter("accepted", "Connections.", 3);
            figures.gauge("sessions", "Live sessions.", 2);
            let mut turns = Histogram::default();
            turns.record(3);
            turns.record(5_000_000_000);
            figures.histogram("turn_seconds", "Turns.", turns, 1e6);
        }

        fn stuck(&self) -> Vec<String> {
            match self.0 {
                "logic-3" => vec!["logic-3: shard-1 stands still".into()],
                _ => vec![],
            }
        }

        fn missing(&self) -> Vec<String> {
            match self.0 {
                "logic-2" => vec!["logic-2: no conn server is linked".into()],
                _ => vec![],
            }
        }
    }

    fn of(path: &str, nodes: &[&'static str]) -> Page {
        let sources: Vec<Box<dyn Source>> = nodes
            .iter()
            .map(|&node| Box::new(Tier(node)) as Box<dyn Source>)
            .collect();
        Page::of(path, &sources.into())
    }

    #[test]
    fn the_series_of_all_nodes_stand_together_under_one_name() {
        let text = of("/metrics", &["logic-1", "logic-2"]).text;
        let expected = "\
# HELP rcu_logic_server_accepted Connections.
# TYPE rcu_logic_server_accepted counter
rcu_logic_server_accepted_total{tier=\"logic_server\",node=\"logic-1\"} 3
rcu_logic_server_accepted_total{tier=\"logic_server\",node=\"logic-2\"} 3
# HELP rcu_logic_server_sessions Live sessions.
# TYPE rcu_logic_server_sessions gauge
rcu_logic_server_sessions{tier=\"logic_server\",node=\"logic-1\"} 2
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        for line in [
            "turn_seconds_count{tier=\"logic_server\",node=\"logic-1\"} 2",
            "turn_seconds_bucket{le=\"0.000002\",tier=\"logic_server\",node=\"logic-1\"} 0",
            "turn_seconds_bucket{le=\"0.000004\",tier=\"logic_server\",node=\"logic-1\"} 1",
            "turn_seconds_bucket{le=\"+Inf\",tier=\"logic_server\",node=\"logic-1\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn who_is_not_ready_says_what_is_missing() {
        assert_eq!(
            of("/readyz", &["logic-1"]),
            Page::plain(200, "ready\n".into())
        );
        let missing = Page::plain(503, "logic-2: no conn server is linked\n".into());
        assert_eq!(of("/readyz", &["logic-1", "logic-2"]), missing);
        assert_eq!(of("/healthz", &["logic-2"]).status, 200);
        let stuck = Page::plain(503, "logic-3: shard-1 stands still\n".into());
        assert_eq!(of("/healthz", &["logic-1", "logic-3"]), stuck);
        assert_eq!(of("/readyz", &["logic-1", "logic-3"]).status, 200);
        assert_eq!(of("/", &[]).status, 404);
    }
}
