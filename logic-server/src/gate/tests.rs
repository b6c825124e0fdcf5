//! The gate against the contract's sections 1 and 3 and DESIGN.md section 4, and a model.

#![allow(clippy::unwrap_used)]

mod bench;
mod door;
mod grants;
mod links;
mod model;
mod operator;
