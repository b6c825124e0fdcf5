//! Pure. What a device remembers of its records, for the judge.

use sha2::{Digest, Sha256};

/// 64 bits of SHA-256 over what the contract says never changes about a record: time, kind, payload.
pub fn digest(recorded_at_ms: u64, kind: u8, payload: &[u8]) -> u64 {
    let hash = Sha256::new()
        .chain_update(recorded_at_ms.to_le_bytes())
        .chain_update([kind])
        .chain_update(payload)
        .finalize();
    let (head, _) = hash.split_first_chunk().expect("32 bytes");
    u64::from_le_bytes(*head)
}
