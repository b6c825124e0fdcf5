//! Servers that tests run against: private, on free ports, in directories of their own, gone afterwards
//! whatever becomes of the test. And what was said in a test run ([`said`]), searched for secrets ([`leaks`]).

mod disk;
pub mod leaks;
mod pgbouncer;
mod postgres;
mod programs;
mod rights;
pub mod said;

pub use disk::{LEFT_OUT, disks_are_left_out, on_disk};
pub use pgbouncer::{PgBouncer, poolers_are_left_out};
pub use postgres::{PostgresServer, Role, SHARED, ServerError, TestDatabase};
pub use rights::Right;
