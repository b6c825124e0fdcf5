//! Figures of several nodes, by the names that Prometheus shows them under.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::histogram::Histogram;

/// Everything of one scrape.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By name; all series of a name stand together, as the format wants it.
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: MetricType,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    labels: Vec<(&'static str, String)>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(u64),
    /// The sizes are divided by this to get the unit of the name.
    Histogram(Box<Histogram>, f64),
}

/// The figures of one node.
#[derive(Debug)]
pub struct NodeFigures<'g> {
    gathered: &'g mut Gathered,
    tier: &'static str,
    node: &'g str,
}

impl Gathered {
    /// For the figures of this node; `tier` as its crate is called, with underscores.
    pub fn node<'g>(&'g mut self, tier: &'static str, node: &'g str) -> NodeFigures<'g> {
        NodeFigures {
            gathered: self,
            tier,
            node,
        }
    }

    fn put(&mut self, name: String, help: &'static str, series: Series) {
        let kind = match series.value {
            Value::Counter(_) => MetricType::Counter,
            Value::Gauge(_) => MetricType::Gauge,
            Value::Histogram(..) => MetricType::Histogram,
        };
        let family = self.families.entry(name).or_insert_with(|| Family {
            help,
            kind,
            series: vec![],
        });
        family.series.push(series);
    }

    pub(super) fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, family) in &self.families {
            let mut metric = encoder.encode_descriptor(name, family.help, None, family.kind)?;
            for series in &family.series {
                let mut metric = metric.encode_family(&series.labels)?;
                match &series.value {
                    Value::Counter(count) => {
                        metric.encode_counter::<[(&str, &str); 0], _, u64>(count, None)?;
                    }
                    Value::Gauge(figure) => metric.encode_gauge(figure)?,
                    Value::Histogram(histogram, per_unit) => {
                        let buckets: Vec<_> = histogram
                            .buckets()
                            .map(|(bound, count)| {
                                let bound = bound.map_or(f64::INFINITY, |it| it as f64 / per_unit);
                                (bound, count)
                            })
                            .collect();
                        let sum = histogram.sum() as f64 / per_unit;
                        let count = histogram.count();
                        metric.encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl NodeFigures<'_> {
    /// Shown as `rcu_TIER_NAME_total`.
    pub fn counter(&mut self, name: &str, help: &'static str, count: u64) {
        self.put(name, help, Value::Counter(count));
    }

    /// Shown as `rcu_TIER_NAME`.
    pub fn gauge(&mut self, name: &str, help: &'static str, figure: u64) {
        self.put(name, help, Value::Gauge(figure));
    }

    /// Shown as `rcu_TIER_ready`: what /readyz says.
    pub fn ready(&mut self, missing: &[String]) {
        let help = "1: nothing is missing, as /readyz says.";
        self.gauge("ready", help, missing.is_empty().into());
    }

    /// Shown as `rcu_TIER_NAME_bucket` and so on; `per_unit`: sizes to one unit of the name.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &'static str,
        histogram: Histogram,
        per_unit: f64,
    ) {
        self.put(name, help, Value::Histogram(Box::new(histogram), per_unit));
    }

    /// One counter for each event of the catalogue.
    pub fn event(&mut self, code: crate::codes::Code, count: u64) {
        let mut labels = self.labels();
        labels.push(("code", code.number().to_string()));
        labels.push(("event", code.name().to_owned()));
        labels.push(("level", code.level().name().to_owned()));
        let series = Series {
            labels,
            value: Value::Counter(count),
        };
        let help = "Events that were logged, by code; also those that the filter holds back.";
        let name = format!("rcu_{}_events", self.tier);
        self.gathered.put(name, help, series);
    }

    fn put(&mut self, name: &str, help: &'static str, value: Value) {
        let series = Series {
            labels: self.labels(),
            value,
        };
        let name = format!("rcu_{}_{name}", self.tier);
        self.gathered.put(name, help, series);
    }

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("tier", self.tier.to_owned()),
            ("node", self.node.to_owned()),
        ]
    }
}
