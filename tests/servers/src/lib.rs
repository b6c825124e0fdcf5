//! Servers that tests run against: private, on free ports, in directories of their own, gone afterwards
//! whatever becomes of the test.

mod disk;
mod postgres;
mod programs;

pub use disk::{LEFT_OUT, disks_are_left_out, on_disk};
pub use postgres::{PostgresServer, SHARED, ServerError, TestDatabase};
