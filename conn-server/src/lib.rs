//! Tier 2: who may come in, and where to.
//!
//! Pure, from the outside in: [`core`] takes everything that happens and says what to do; [`login`]
//! is the story of one login, judged with what lies on the [`desk`]; [`pool`] picks the logic server,
//! [`directory`] knows which session of an account is current, [`epochs`] orders them; [`throttle`]
//! and [`nonces`] keep the impatient and the repeated away; [`load`] tells the balancers;
//! [`account`], [`audit`], [`effect`] and [`counters`] are what the others speak of.
//!
//! Shells: [`node`] is a conn server that runs; `server` is the task that owns the core, between the
//! links and the [`accounts`]; [`settings`] and [`stats`] are for those who run and watch it.

pub mod account;
pub mod accounts;
pub mod audit;
pub mod config;
pub mod core;
pub mod counters;
pub mod desk;
pub mod directory;
pub mod effect;
pub mod epochs;
pub mod load;
pub mod login;
pub mod node;
pub mod nonces;
pub mod pool;
mod server;
pub mod settings;
pub mod stats;
pub mod throttle;

pub use config::Config;
pub use node::{ConnServer, StartError};
pub use settings::Settings;

#[cfg(test)]
mod testing;
