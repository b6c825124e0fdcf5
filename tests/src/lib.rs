//! Tests of the whole: the rules of the house (`tests/house.rs`) and, in `contract/`, devices
//! written in another language from the contract alone.
