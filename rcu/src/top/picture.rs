//! Pure. What `rcu top` shows: two looks at a cluster's nodes, and what happened between them.

use std::fmt::Write;
use std::time::Duration;

use common::link::Role;
use common::link::message::NodeView;
use common::millis::millis;
use serde::Serialize;

use crate::node::{role_name, state_name};
use crate::table::rate;

/// What a balancer answered that let nobody in.
const REFUSALS: [&str; 6] = [
    "refused",
    "disabled",
    "clock_skew",
    "full",
    "busy",
    "malformed",
];

/// What a logic server answered `overloaded`.
const OVERLOADED: [&str; 2] = ["telemetry_overloaded", "telemetry_beyond_window"];

/// A line of `rcu top --json`: the cluster over a stretch of time. Rates are per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Picture {
    pub(super) at_ms: u64,
    /// What the rates are over.
    over_ms: u64,
    /// Of all logic servers that answered, and so are the others.
    sessions: u64,
    places_used: u64,
    places_max: u64,
    /// Whole logins at the balancers; at the conn server where no balancer is linked.
    logins_per_s: f64,
    refusals_per_s: f64,
    records_per_s: f64,
    overloaded_per_s: f64,
    nodes: Vec<Line>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Line {
    name: Option<String>,
    role: &'static str,
    state: &'static str,
    /// Where the link to it is.
    link: String,
    /// `null`, like the figures below it: it did not say, or it has none.
    sessions: Option<u64>,
    places_used: Option<u32>,
    places_max: Option<u32>,
    logins_per_s: Option<f64>,
    refusals_per_s: Option<f64>,
    records_per_s: Option<f64>,
    overloaded_per_s: Option<f64>,
    records_stored: Option<u64>,
}

/// A look at the nodes, and when it was.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) nodes: Vec<NodeView>,
    /// Monotonic.
    pub(super) at: Duration,
    pub(super) unix_ms: u64,
}

impl Picture {
    pub(super) fn new(before: &Look, now: &Look) -> Self {
        let over = now.at.saturating_sub(before.at);
        let nodes: Vec<_> = now
            .nodes
            .iter()
            .map(|node| {
                let same = |other: &&NodeView| (other.role, &other.name) == (node.role, &node.name);
                let earlier = before.nodes.iter().find(same);
                Line::new(earlier, node, over)
            })
            .collect();
        let sum = |of: fn(&Line) -> Option<f64>| nodes.iter().filter_map(of).sum::<f64>();
        let front = |of: fn(&Line) -> Option<f64>| {
            let of_role = |role| -> Option<f64> {
                let lines = nodes.iter().filter(|line| line.role == role_name(role));
                let rates: Vec<_> = lines.map(of).collect();
                (!rates.is_empty()).then(|| rates.into_iter().flatten().sum())
            };
            of_role(Role::Balancer)
                .or_else(|| of_role(Role::Conn))
                .unwrap_or(0.0)
        };
        let logic = || {
            let lines = nodes.iter();
            lines.filter(|line| line.role == role_name(Role::Logic))
        };
        let places = |of: fn(&Line) -> Option<u32>| logic().filter_map(of).map(u64::from).sum();
        Self {
            at_ms: now.unix_ms,
            over_ms: millis(over),
            sessions: logic().filter_map(|line| line.sessions).sum(),
            places_used: places(|line| line.places_used),
            places_max: places(|line| line.places_max),
            logins_per_s: front(|line| line.logins_per_s),
            refusals_per_s: front(|line| line.refusals_per_s),
            records_per_s: sum(|line| line.records_per_s),
            overloaded_per_s: sum(|line| line.overloaded_per_s),
            nodes,
        }
    }

    /// Several lines, for a terminal that redraws them in place.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "sessions {} of {} places   logins/s {:.1}   refusals/s {:.1}   records/s {:.1}   \
             overloaded/s {:.1}   Ctrl-C ends it\n",
            self.sessions,
            self.places_max,
            self.logins_per_s,
            self.refusals_per_s,
            self.records_per_s,
            self.overloaded_per_s
        );
        let _ = writeln!(
            text,
            "  {:<16} {:<12} {:<9} {:>9} {:>15} {:>9} {:>10} {:>10} {:>12}",
            "node",
            "role",
            "state",
            "sessions",
            "places",
            "logins/s",
            "refusals/s",
            "records/s",
            "overloaded/s"
        );
        let whole = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        let rate = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
        for node in &self.nodes {
            let places = node.places_used.zip(node.places_max);
            let places = places.map_or("-".into(), |(used, max)| format!("{used}/{max}"));
            let _ = writeln!(
                text,
                "  {:<16} {:<12} {:<9} {:>9} {:>15} {:>9} {:>10} {:>10} {:>12}",
                node.name.as_deref().unwrap_or(&node.link),
                node.role,
                node.state,
                whole(node.sessions),
                places,
                rate(node.logins_per_s),
                rate(node.refusals_per_s),
                rate(node.records_per_s),
                rate(node.overloaded_per_s),
            );
        }
        text
    }

    /// One line, for a log or a pipe.
    pub(super) fn line(&self) -> String {
        format!(
            "sessions {} of {} | logins/s {:.1} | refusals/s {:.1} | records/s {:.1} | overloaded/s {:.1}\n",
            self.sessions,
            self.places_max,
            self.logins_per_s,
            self.refusals_per_s,
            self.records_per_s,
            self.overloaded_per_s
        )
    }
}

impl Line {
    fn new(before: Option<&NodeView>, now: &NodeView, over: Duration) -> Self {
        let figures = now.figures.as_ref();
        let count = |names: &[&str]| -> Option<u64> {
            let figures = figures?;
            names.iter().map(|name| figures.value(name)).sum()
        };
        // A node that was started meanwhile counts from 0 again, and one that was not there then
        // has no rate yet.
        let per_s = |names: &[&str]| -> Option<f64> {
            let before = before?.figures.as_ref()?;
            let earlier: u64 = names
                .iter()
                .map(|name| before.value(name))
                .sum::<Option<_>>()?;
            let per_s = rate(earlier, count(names)?, over);
            Some((per_s * 10.0).round() / 10.0)
        };
        let is_front = matches!(now.role, Role::Balancer | Role::Conn);
        let is_logic = now.role == Role::Logic;
        Self {
            name: now.name.as_ref().map(ToString::to_string),
            role: role_name(now.role),
            state: state_name(now.state),
            link: now.link.clone(),
            sessions: count(&["sessions"]),
            places_used: now.places.map(|places| places.used),
            places_max: now.places.map(|places| places.max),
            logins_per_s: is_front.then(|| per_s(&["logins"])).flatten(),
            refusals_per_s: is_front.then(|| per_s(&REFUSALS)).flatten(),
            records_per_s: is_logic.then(|| per_s(&["records_stored"])).flatten(),
            overloaded_per_s: is_logic.then(|| per_s(&OVERLOADED)).flatten(),
            records_stored: is_logic.then(|| count(&["records_stored"])).flatten(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::link::message::{Figures, NodeState, Places};

    use super::*;

    fn node(role: Role, name: &str, values: &[(&str, u64)]) -> NodeView {
        NodeView {
            role,
            name: Some(name.parse().unwrap()),
            link: "127.0.0.1:1".into(),
            state: NodeState::Up,
            link_version: 2,
            places: (role != Role::Balancer).then_some(Places { used: 3, max: 10 }),
            figures: Some(Figures {
                values: values
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), *value))
                    .collect(),
                ..Figures::default()
            }),
        }
    }

    fn logic(name: &str, stored: u64, overloaded: u64) -> NodeView {
        let values = [
            ("sessions", 2),
            ("records_stored", stored),
            ("telemetry_overloaded", overloaded),
            ("telemetry_beyond_window", 0),
        ];
        node(Role::Logic, name, &values)
    }

    fn front(role: Role, name: &str, logins: u64, refused: u64) -> NodeView {
        let mut values = vec![("logins", logins)];
        values.extend(REFUSALS.map(|name| (name, 0)));
        values.push(("sessions", 4));
        values[1].1 = refused;
        node(role, name, &values)
    }

    fn look(at_ms: u64, nodes: Vec<NodeView>) -> Look {
        Look {
            nodes,
            at: Duration::from_millis(at_ms),
            unix_ms: at_ms,
        }
    }

    #[test]
    fn rates_are_between_two_looks_and_logins_are_counted_once() {
        let before = look(
            1_000,
            vec![
                front(Role::Conn, "conn-1", 100, 10),
                logic("logic-1", 1_000, 5),
                front(Role::Balancer, "balancer-1", 60, 6),
                front(Role::Balancer, "balancer-2", 50, 5),
            ],
        );
        let after = look(
            3_000,
            vec![
                front(Role::Conn, "conn-1", 120, 14),
                logic("logic-1", 1_500, 9),
                logic("logic-2", 7_000, 0),
                front(Role::Balancer, "balancer-1", 70, 8),
                front(Role::Balancer, "balancer-2", 60, 7),
            ],
        );
        let picture = Picture::new(&before, &after);
        assert_eq!(picture.over_ms, 2_000);
        assert_eq!((picture.sessions, picture.places_max), (4, 20));
        assert_eq!(
            picture.logins_per_s, 10.0,
            "the balancers', not the conn server's too"
        );
        assert_eq!(picture.refusals_per_s, 2.0);
        assert_eq!(picture.records_per_s, 250.0, "logic-2 has no rate yet");
        assert_eq!(picture.overloaded_per_s, 2.0);
        assert_eq!(picture.nodes[2].records_per_s, None);
        assert_eq!(picture.nodes[2].records_stored, Some(7_000));

        // Without a balancer the conn server's logins are the cluster's.
        let of_conn = |look: &Look| look_of(look.at, &look.nodes[..1]);
        let picture = Picture::new(&of_conn(&before), &of_conn(&after));
        assert_eq!(picture.logins_per_s, 10.0);
    }

    fn look_of(at: Duration, nodes: &[NodeView]) -> Look {
        look(u64::try_from(at.as_millis()).unwrap(), nodes.to_vec())
    }

    #[test]
    fn a_picture_fits_a_terminal_and_one_line_of_json_tells_all_of_it() {
        let nodes = vec![front(Role::Conn, "conn-1", 1, 0), logic("logic-1", 1, 0)];
        let mut down = logic("logic-2", 1, 0);
        down.name = None;
        down.figures = None;
        down.state = NodeState::Down;
        let now = look(2_000, [nodes.clone(), vec![down]].concat());
        let picture = Picture::new(&look(1_000, nodes), &now);
        let table = picture.table();
        assert!(table.lines().all(|line| line.len() <= 120), "{table}");
        assert_eq!(table.lines().count(), 6);
        assert_eq!(picture.line().lines().count(), 1);
        let json = serde_json::to_value(&picture).unwrap();
        for (pointer, expected) in [
            ("/at_ms", serde_json::json!(2_000)),
            ("/over_ms", serde_json::json!(1_000)),
            ("/sessions", serde_json::json!(2)),
            ("/records_per_s", serde_json::json!(0.0)),
            ("/nodes/1/name", serde_json::json!("logic-1")),
            ("/nodes/1/records_stored", serde_json::json!(1)),
            ("/nodes/2/name", serde_json::json!(null)),
            ("/nodes/2/state", serde_json::json!("down")),
            ("/nodes/2/records_per_s", serde_json::json!(null)),
        ] {
            assert_eq!(
                json.pointer(pointer),
                Some(&expected),
                "{pointer} of {json}"
            );
        }
    }
}
