//! Pure. What `rcu top` shows: two looks at a cluster's nodes, and what happened between them.

use std::collections::HashMap;
use std::time::Duration;

use common::link::Role;
use common::link::message::{NodeState, NodeView};
use common::millis::millis;
use ratatui::text::{Line as Row, Span};
use serde::Serialize;

use crate::node::{role_name, state_name};
use crate::screen::frame;
use crate::screen::parts::{
    BAD, FLOW, GOOD, ODD, QUIET, Trend, bar, bar_row, fault_style, places_style, rate, trend_row,
};
use crate::table::{Column, Table};
use crate::time;

/// Cells of a bar in a table.
const BAR_WIDTH: usize = 8;

/// Of the nodes at the front door, where not all nodes fit; the logic servers have the rest.
const FRONT_SHARE: usize = 3;

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
}

/// Figures of each look, for as long as it is watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Trends {
    logins: Trend,
    records: Trend,
    /// Logins or records of each node that is there.
    nodes: HashMap<String, Trend>,
}

impl Trends {
    pub(super) fn apply(&mut self, picture: &Picture) {
        self.logins.push(picture.logins_per_s);
        self.records.push(picture.records_per_s);
        let mut earlier = std::mem::take(&mut self.nodes);
        for line in &picture.nodes {
            let key = line.key();
            let mut trend = earlier.remove(&key).unwrap_or_default();
            trend.push(line.records_per_s.or(line.logins_per_s).unwrap_or(0.0));
            self.nodes.insert(key, trend);
        }
    }
}

/// A picture as it is shown, with what was before it.
pub(super) struct Shown {
    pub(super) picture: Picture,
    pub(super) trends: Trends,
}

impl Shown {
    /// One look has no trend.
    pub(super) fn of(picture: Picture) -> Self {
        let trends = Trends::default();
        Self { picture, trends }
    }

    fn cluster(&self, width: usize) -> Vec<Row<'static>> {
        let it = &self.picture;
        let places = (it.sessions, it.places_max);
        let style = places_style(it.sessions, it.places_max);
        // Of the first look there are no rates yet.
        let known = |per_s: f64| (it.over_ms > 0).then_some(per_s);
        let none = Trend::default();
        let flow = |name, per_s, trend| trend_row(name, known(per_s), FLOW, trend, width);
        let fault = |name, per_s| {
            let style = fault_style(per_s == 0.0);
            trend_row(name, known(per_s), style, &none, width)
        };
        vec![
            bar_row("sessions", places, style, "places", width),
            flow("logins/s", it.logins_per_s, &self.trends.logins),
            flow("records/s", it.records_per_s, &self.trends.records),
            fault("refusals/s", it.refusals_per_s),
            fault("overloaded/s", it.overloaded_per_s),
        ]
    }

    fn fronts(&self, rows: usize, width: usize) -> Vec<Row<'static>> {
        let columns = [
            Column::left("front door").shortens(),
            Column::left("role").leaves(2),
            Column::left("state"),
            Column::left("link").leaves(3),
            Column::right("logins/s"),
            Column::right("refusals/s").leaves(1),
        ];
        self.table(&self.fronts_of(), rows, width, columns, |line| {
            [
                line.node(),
                line.role.into(),
                line.state(),
                Span::styled(line.link.clone(), QUIET),
                per_s(line.logins_per_s, FLOW),
                per_s(line.refusals_per_s, ODD),
            ]
        })
    }

    fn logic_servers(&self, rows: usize, width: usize) -> Vec<Row<'static>> {
        let columns = [
            Column::left("logic server").shortens(),
            Column::left("state"),
            Column::left("places").leaves(1),
            Column::right("sessions"),
            Column::right("of"),
            Column::right("records/s"),
            Column::right("overloaded/s").leaves(2),
        ];
        self.table(&self.logic_of(), rows, width, columns, |line| {
            let (used, max) = (line.places_used.unwrap_or(0), line.places_max.unwrap_or(0));
            let (used, max) = (used.into(), max.into());
            [
                line.node(),
                line.state(),
                match line.places_max {
                    Some(_) => Span::styled(bar(used, max, BAR_WIDTH), places_style(used, max)),
                    None => "-".into(),
                },
                whole(line.sessions),
                whole(line.places_max.map(u64::from)),
                per_s(line.records_per_s, FLOW),
                per_s(line.overloaded_per_s, ODD),
            ]
        })
    }

    fn fronts_of(&self) -> Vec<&Line> {
        let nodes = self.picture.nodes.iter();
        nodes.filter(|line| !line.is_logic()).collect()
    }

    fn logic_of(&self) -> Vec<&Line> {
        let nodes = self.picture.nodes.iter();
        nodes.filter(|line| line.is_logic()).collect()
    }

    /// Titles and at most `rows` below them; where that is too few for all, those that are not up come first.
    fn table<const N: usize>(
        &self,
        nodes: &[&Line],
        rows: usize,
        width: usize,
        columns: [Column; N],
        cells: impl Fn(&Line) -> [Span<'static>; N],
    ) -> Vec<Row<'static>> {
        let mut shown = nodes.to_vec();
        let left_out = match nodes.len() > rows {
            true => nodes.len() - rows.saturating_sub(1),
            false => 0,
        };
        if left_out > 0 {
            shown.sort_by_key(|line| line.is_up());
            shown.truncate(nodes.len() - left_out);
        }
        let cells: Vec<_> = shown.iter().map(|line| cells(line)).collect();
        let mut lines = Table::new(columns, Some(width)).lines(&cells).into_iter();
        let titles = lines.next().map(|titles| titles.style(QUIET));
        let none = Trend::default();
        let rows = lines.zip(&shown).map(|(row, line)| {
            let trend = self.trends.nodes.get(&line.key());
            trend.unwrap_or(&none).beside(row, width)
        });
        let mut table: Vec<_> = titles.into_iter().chain(rows).collect();
        if left_out > 0 {
            let down = nodes.iter().filter(|line| !line.is_up()).count();
            let hidden = down.saturating_sub(shown.len());
            let what = format!("… and {left_out} more, {hidden} of them not up");
            table.push(Span::styled(what, QUIET).into());
        }
        table
    }
}

impl frame::Picture for Shown {
    fn title(&self) -> String {
        format!("RCU top   {}", time::date(self.picture.at_ms))
    }

    fn lines(&self, width: usize, rows: Option<usize>) -> Vec<Row<'static>> {
        let mut lines = self.cluster(width);
        let (fronts, logic) = (self.fronts_of().len(), self.logic_of().len());
        // Below a blank line and the titles of each of the two tables.
        let left = rows.map_or(usize::MAX, |rows| rows.saturating_sub(lines.len() + 4));
        let for_fronts = fronts.min((left / FRONT_SHARE).max(left.saturating_sub(logic)));
        lines.push(Row::default());
        lines.extend(self.fronts(for_fronts, width));
        lines.push(Row::default());
        lines.extend(self.logic_servers(left - for_fronts, width));
        lines
    }

    /// One line, for a log or a pipe.
    fn line(&self) -> String {
        let it = &self.picture;
        format!(
            "{} sessions {} of {} | logins/s {:.1} | refusals/s {:.1} | records/s {:.1} | overloaded/s {:.1}",
            time::date(it.at_ms),
            it.sessions,
            it.places_max,
            it.logins_per_s,
            it.refusals_per_s,
            it.records_per_s,
            it.overloaded_per_s
        )
    }
}

fn whole(value: Option<u64>) -> Span<'static> {
    value.map_or("-".into(), |value| value.to_string().into())
}

fn per_s(value: Option<f64>, style: ratatui::style::Style) -> Span<'static> {
    match value {
        Some(value) if value > 0.0 => Span::styled(format!("{value:.1}"), style),
        Some(value) => format!("{value:.1}").into(),
        None => "-".into(),
    }
}

impl Line {
    fn key(&self) -> String {
        format!(
            "{} {} {}",
            self.role,
            self.name.as_deref().unwrap_or(""),
            self.link
        )
    }

    /// A node that was never linked has no name.
    fn node(&self) -> Span<'static> {
        self.name
            .clone()
            .unwrap_or_else(|| self.link.clone())
            .into()
    }

    fn is_logic(&self) -> bool {
        self.role == role_name(Role::Logic)
    }

    fn is_up(&self) -> bool {
        self.state == state_name(NodeState::Up)
    }

    fn state(&self) -> Span<'static> {
        let style = match self.state {
            state if state == state_name(NodeState::Up) => GOOD,
            state if state == state_name(NodeState::Down) => BAD,
            _ => ODD,
        };
        Span::styled(self.state, style)
    }

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
    use ratatui::style::Color;

    use super::*;
    use crate::screen::frame::{LogLines, golden};

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

    fn cluster() -> Shown {
        let nodes = |stored| {
            vec![
                front(Role::Conn, "conn-1", 1_000 + stored / 10, 0),
                logic("logic-1", stored, 0),
                logic("logic-2", 2 * stored, stored / 100),
                front(
                    Role::Balancer,
                    "balancer-1",
                    1_000 + stored / 10,
                    stored / 200,
                ),
            ]
        };
        let mut trends = Trends::default();
        let mut before = look(0, nodes(0));
        for at in 1..60 {
            let now = look(
                at * 1_000,
                nodes(before_stored(&before) + 300 + at * 7 % 40),
            );
            let picture = Picture::new(&before, &now);
            trends.apply(&picture);
            before = now;
        }
        let mut now = nodes(before_stored(&before) + 320);
        let mut down = logic("logic-3", 1, 0);
        down.name = None;
        down.figures = None;
        down.places = None;
        down.state = NodeState::Down;
        now.push(down);
        now[2].state = NodeState::Draining;
        let picture = Picture::new(&before, &look(60_000, now));
        trends.apply(&picture);
        Shown { picture, trends }
    }

    fn before_stored(look: &Look) -> u64 {
        let figures = look.nodes[1].figures.as_ref().unwrap();
        figures.value("records_stored").unwrap()
    }

    #[test]
    fn a_cluster_fits_every_terminal() {
        golden::compare("top", &cluster(), &LogLines::default());
    }

    #[test]
    fn states_have_colours() {
        let screen = golden::screen(&cluster(), &LogLines::default(), (80, 24));
        let rows = golden::rows(&screen);
        for (state, colour) in [
            ("down", Color::Red),
            ("draining", Color::Yellow),
            (" up ", Color::Green),
        ] {
            let y = rows.iter().position(|row| row.contains(state)).unwrap();
            let at = rows[y].split(state).next().unwrap().chars().count();
            assert_eq!(screen[(at as u16 + 1, y as u16)].fg, colour, "{state}");
        }
    }

    #[test]
    fn of_more_nodes_than_fit_those_that_are_not_up_are_shown() {
        let mut nodes: Vec<_> = (1..=40)
            .map(|n| logic(&format!("logic-{n}"), 1, 0))
            .collect();
        nodes[37].state = NodeState::Down;
        nodes.insert(0, front(Role::Conn, "conn-1", 1, 0));
        let picture = Picture::new(&look(0, nodes.clone()), &look(1_000, nodes));
        let shown = Shown::of(picture);
        let screen = golden::screen(&shown, &LogLines::default(), (80, 24));
        let rows = golden::rows(&screen);
        let place = |text: &str| rows.iter().position(|row| row.contains(text));
        assert!(
            place("logic-38").unwrap() < place("logic-1 ").unwrap(),
            "{rows:?}"
        );
        assert!(
            rows[23].contains("… and 29 more, 0 of them not up"),
            "{rows:?}"
        );
        assert!(place("conn-1").is_some(), "{rows:?}");
        let text = frame::text(&shown, 80);
        assert!(text.contains("logic-40"), "all of them: {text}");
        assert!(
            !text.contains("Ctrl-C"),
            "there is nothing to be ended: {text}"
        );
    }

    #[test]
    fn one_line_of_json_tells_all_of_a_picture() {
        let nodes = vec![front(Role::Conn, "conn-1", 1, 0), logic("logic-1", 1, 0)];
        let mut down = logic("logic-2", 1, 0);
        down.name = None;
        down.figures = None;
        down.state = NodeState::Down;
        let now = look(2_000, [nodes.clone(), vec![down]].concat());
        let picture = Picture::new(&look(1_000, nodes), &now);
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
