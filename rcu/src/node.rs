//! `rcu node`: the processes of a running cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use common::link::Role;
use common::link::message::{NodeState, NodeView};
use common::process::output;
use rcu::columns;
use serde::Serialize;

use crate::operator::{Failure, Target, json_line};
use crate::table::{Column, Table, Wide};

/// Shows the processes of a running cluster.
///
/// A conn server is asked: it tells of itself, of the logic servers that it dials, linked or not,
/// and of the balancers that have linked to it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rcu node list                                   of `rcu up` on ./rcu-data
  rcu node list --cluster 10.0.0.5:10100 --operator-key /etc/rcu/operator
  rcu node list --json | jq -r 'select(.state != \"up\") | .name // .link'

Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(crate) struct Node {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists them: the conn server, its logic servers in the order of its configuration, balancers.
    List(Wide),
}

/// A line of `rcu node list --json`.
#[derive(Debug, Serialize)]
struct Line {
    /// `null`: it is not linked, and so not known.
    name: Option<String>,
    role: &'static str,
    state: &'static str,
    /// Where the link to it is dialled, or where it dialled from.
    link: String,
    link_version: u16,
    /// Where devices reach it.
    addresses: Vec<SocketAddr>,
    places_used: Option<u32>,
    places_max: Option<u32>,
    sessions: Option<u64>,
    /// The release that runs there.
    version: Option<String>,
    uptime_ms: Option<u64>,
    /// Counters since its start, and gauges.
    figures: BTreeMap<String, u64>,
}

impl Node {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Action::List(wide) = self.action;
        let nodes = self.target.run(async |operator| operator.nodes().await)?;
        let lines = nodes.into_iter().map(Line::from);
        if self.target.json {
            for line in lines {
                json_line(&line)?;
            }
        } else {
            let lines: Vec<_> = lines.collect();
            let width = wide.width(columns::of_stdout());
            output::print(&table(&lines, width))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Balancer => "balancer",
        Role::Conn => "conn-server",
        Role::Logic => "logic-server",
        Role::Operator => "operator",
    }
}

pub(crate) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "down",
        NodeState::Adopting => "adopting",
        NodeState::Silent => "silent",
        NodeState::Draining => "draining",
    }
}

impl From<NodeView> for Line {
    fn from(node: NodeView) -> Self {
        let figures = node.figures;
        let sessions = figures.as_ref().and_then(|it| it.value("sessions"));
        Self {
            name: node.name.map(String::from),
            role: role_name(node.role),
            state: state_name(node.state),
            link: node.link,
            link_version: node.link_version,
            places_used: node.places.map(|places| places.used),
            places_max: node.places.map(|places| places.max),
            sessions,
            version: figures.as_ref().map(|it| it.software.clone()),
            uptime_ms: figures.as_ref().map(|it| it.uptime_ms),
            addresses: figures.as_ref().map_or(vec![], |it| it.addresses.clone()),
            figures: figures.map_or(BTreeMap::new(), |it| it.values.into_iter().collect()),
        }
    }
}

fn table(lines: &[Line], width: Option<usize>) -> String {
    let columns = [
        Column::left("node").shortens(),
        Column::left("role").leaves(1),
        Column::left("state"),
        Column::left("devices at").leaves(2),
        Column::left("link").leaves(4),
        Column::right("sessions"),
        Column::right("places"),
        Column::right("version").leaves(3),
        Column::right("up"),
    ];
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let rows = lines.iter().map(|line| {
        let addresses: Vec<_> = line.addresses.iter().map(ToString::to_string).collect();
        let places = line.places_used.zip(line.places_max);
        let uptime = line.uptime_ms.map(|ms| {
            humantime::format_duration(Duration::from_secs(ms / 1_000))
                .to_string()
                .split(' ')
                .take(2)
                .collect()
        });
        [
            // One that was never linked has no name.
            line.name.clone().unwrap_or_else(|| line.link.clone()),
            line.role.into(),
            line.state.into(),
            or_dash((!addresses.is_empty()).then(|| addresses.join(","))),
            line.link.clone(),
            or_dash(line.sessions.map(|it| it.to_string())),
            or_dash(places.map(|(used, max)| format!("{used}/{max}"))),
            or_dash(line.version.clone()),
            or_dash(uptime),
        ]
    });
    Table::new(columns, width).page(&rows.collect::<Vec<_>>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use common::link::message::{Figures, Places};

    use super::*;

    fn logic() -> NodeView {
        NodeView {
            role: Role::Logic,
            name: Some("logic-1".parse().unwrap()),
            link: "127.0.0.1:30000".into(),
            state: NodeState::Draining,
            link_version: 2,
            places: Some(Places { used: 3, max: 10 }),
            figures: Some(Figures {
                software: "0.1.0".into(),
                uptime_ms: 93_784_000,
                addresses: vec!["127.0.0.1:20000".parse().unwrap()],
                values: vec![("sessions".into(), 2), ("records".into(), 7)],
            }),
        }
    }

    #[test]
    fn a_node_is_one_documented_object() {
        let json = serde_json::to_string(&Line::from(logic())).unwrap();
        assert_eq!(
            json,
            "{\"name\":\"logic-1\",\"role\":\"logic-server\",\"state\":\"draining\",\
             \"link\":\"127.0.0.1:30000\",\"link_version\":2,\"addresses\":[\"127.0.0.1:20000\"],\
             \"places_used\":3,\"places_max\":10,\"sessions\":2,\"version\":\"0.1.0\",\
             \"uptime_ms\":93784000,\"figures\":{\"records\":7,\"sessions\":2}}"
        );
        let down = NodeView {
            name: None,
            state: NodeState::Down,
            link_version: 0,
            places: None,
            figures: None,
            ..logic()
        };
        let json = serde_json::to_string(&Line::from(down)).unwrap();
        // So the example of --help names it by its link.
        let help = Node::augment_args(clap::Command::new("node")).render_help();
        assert!(help.to_string().contains("| .name // .link"), "{help}");
        assert!(json.starts_with("{\"name\":null,\"role\":\"logic-server\",\"state\":\"down\""));
        assert!(
            json.contains("\"sessions\":null,\"version\":null"),
            "{json}"
        );
    }

    #[test]
    fn the_table_has_a_line_for_each_and_a_dash_for_what_is_not_known() {
        let down = NodeView {
            name: None,
            state: NodeState::Down,
            places: None,
            figures: None,
            ..logic()
        };
        let text = table(&[Line::from(logic()), Line::from(down)], None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let words: Vec<_> = lines[1].split_whitespace().collect();
        let expected = [
            "logic-1",
            "logic-server",
            "draining",
            "127.0.0.1:20000",
            "127.0.0.1:30000",
            "2",
            "3/10",
            "0.1.0",
            "1day2h",
        ];
        assert_eq!(words, expected);
        assert_eq!(
            lines[2].split_whitespace().filter(|it| *it == "-").count(),
            5
        );
    }

    #[test]
    fn the_table_fits_80_columns_and_60() {
        let lines = [Line::from(logic())];
        let at_80 = table(&lines, Some(80));
        let expected = "\
node     role          state     devices at       sessions  places      up
logic-1  logic-server  draining  127.0.0.1:20000         2    3/10  1day2h
";
        assert_eq!(at_80, expected);
        let expected = "\
node     role          state     sessions  places      up
logic-1  logic-server  draining         2    3/10  1day2h
";
        assert_eq!(table(&lines, Some(60)), expected);
    }
}
