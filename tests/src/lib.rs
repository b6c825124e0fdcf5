//! Tests of the whole: the rules of the house (`tests/house.rs`), the servers as processes
//! (`tests/processes.rs`, `tests/surroundings.rs`, with [`site`]) and, in `contract/`, devices written
//! in another language from the contract alone.

pub mod cluster;
pub mod site;
