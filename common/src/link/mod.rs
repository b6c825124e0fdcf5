//! Messages between the tiers.
