//! One server of each tier, linked: the smallest cluster of processes.

use crate::site::{Said, Server, Site, Tier, command};

/// What begins with it is of `[database]`.
const DATABASE: &str = "RCU_DATABASE__";

/// Devices come in here, and their records end in one database.
#[derive(Debug)]
pub struct Cluster {
    pub logic: Server,
    pub conn: Server,
    pub balancer: Server,
}

impl Cluster {
    /// `environment`: what all three are started with, as far as they know it.
    pub fn start(site: &Site, environment: &[(&str, &str)]) -> Self {
        let free = "listen = \"127.0.0.1:0\"";
        let start = |tier: Tier, node, more: &str| {
            let config = site.config(tier, node, more);
            // A balancer has no database, and says so.
            let is_known = |name: &str| tier != Tier::Balancer || !name.starts_with(DATABASE);
            let environment = environment.iter().copied();
            let environment = environment.filter(|(name, _)| is_known(name));
            site.start_command(&config, command(tier.program()).envs(environment))
        };
        let logic = start(Tier::LogicServer, "logic-1", free);
        let link = logic.link();
        let conn = start(
            Tier::ConnServer,
            "conn-1",
            &format!("logic_servers = {link:?}"),
        );
        let link = conn.link();
        let more = format!("{free}\nconn_servers = {link:?}");
        let balancer = start(Tier::Balancer, "balancer-1", &more);
        Self {
            logic,
            conn,
            balancer,
        }
    }

    /// From the outside in, as `scripts/cluster` does.
    pub fn stop(self, site: &Site) -> [Said; 3] {
        [self.balancer, self.conn, self.logic].map(|server| {
            let said = site.stop(server);
            said.expect_success();
            said
        })
    }
}
