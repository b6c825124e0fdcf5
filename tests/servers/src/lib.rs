//! Servers that tests run against: private, on free ports, in directories of their own, gone afterwards
//! whatever becomes of the test.

mod postgres;
mod programs;

pub use postgres::{PostgresServer, SHARED, ServerError, TestDatabase};
