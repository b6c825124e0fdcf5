//! P9: accounts with a session or an open grant on a logic server, each once.

use std::collections::BTreeMap;

use common::ids::AccountId;

use super::Broken;

/// What an account holds of a node.
#[derive(Debug, Default)]
struct Held {
    sessions: u32,
    grants: u32,
}

#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    /// By node; an account that holds nothing is not there.
    held: Vec<BTreeMap<AccountId, Held>>,
}

impl Places {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max: max as usize,
            held: vec![],
        }
    }

    pub(super) fn session_began(&mut self, node: usize, account_id: AccountId) {
        self.held(node, account_id).sessions += 1;
    }

    pub(super) fn session_ended(&mut self, node: usize, account_id: AccountId) {
        self.held(node, account_id).sessions -= 1;
        self.let_go(node, account_id);
    }

    pub(super) fn grant_opened(&mut self, node: usize, account_id: AccountId) {
        self.held(node, account_id).grants += 1;
    }

    pub(super) fn grant_closed(&mut self, node: usize, account_id: AccountId) {
        self.held(node, account_id).grants -= 1;
        self.let_go(node, account_id);
    }

    pub(super) fn node_died(&mut self, node: usize) {
        if let Some(held) = self.held.get_mut(node) {
            held.clear();
        }
    }

    pub(super) fn check(&self, node: usize) -> Result<(), Broken> {
        let in_use = self.held.get(node).map_or(0, BTreeMap::len);
        if in_use > self.max {
            return Err(Broken::new(
                "P9",
                format_args!("node {node} has {in_use} of {} places in use", self.max),
            ));
        }
        Ok(())
    }

    fn held(&mut self, node: usize, account_id: AccountId) -> &mut Held {
        if self.held.len() <= node {
            self.held.resize_with(node + 1, BTreeMap::new);
        }
        self.held[node].entry(account_id).or_default()
    }

    fn let_go(&mut self, node: usize, account_id: AccountId) {
        let held = &mut self.held[node];
        if held
            .get(&account_id)
            .is_some_and(|held| held.sessions == 0 && held.grants == 0)
        {
            held.remove(&account_id);
        }
    }
}
