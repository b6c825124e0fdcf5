//! The contract with devices.
