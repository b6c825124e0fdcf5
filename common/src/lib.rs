//! What crosses a process boundary, and the shells that every process needs.
//!
//! - [`ids`], [`secret`]: names of accounts, nodes and tickets; secrets that never print.
//! - [`fleet`]: the accounts and keys of many devices, from one key.
//! - [`epoch`]: the hybrid logical clock that orders the sessions of an account.
//! - [`codes`]: every event that is logged, by number, with what to do about it.
//! - [`config`], [`logging`]: how a process is told what to do, and tells what happens to it;
//!   [`process`]: how it is ended, limited, and fails.
//! - [`key_files`]: the keys of a cluster, as files.
//! - [`counters!`], [`gauges!`], [`histogram`], [`figures`]: what a tier counts and measures, and how others read it;
//!   [`metrics`]: how they are shown.
//! - [`database`]: the SQLite file of a process, or PostgreSQL.
//! - [`link`]: messages between the tiers, and the encrypted connection that carries them.
//! - [`time`]: an instant on both clocks; [`millis`]: lengths of time in milliseconds.
//! - [`pacing`]: how many logins are let through, per source and in all, and when the others come back.

pub mod codes;
pub mod config;
pub mod counters;
pub mod database;
pub mod epoch;
pub mod figures;
pub mod fleet;
pub mod histogram;
pub mod ids;
pub mod key_files;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod millis;
pub mod pacing;
pub mod process;
pub mod secret;
pub mod time;
