//! Pure. By what a record is known again: in the history of what was sent, and rebuilt from its row.

use sha2::{Digest as _, Sha256};

const DIGEST_BITS: u32 = 48;

/// 48 bits of SHA-256 over what never changes about a record: time, kind, payload.
pub fn digest(recorded_at_ms: u64, kind: u8, payload: &[u8]) -> u64 {
    let hash = Sha256::new()
        .chain_update(recorded_at_ms.to_le_bytes())
        .chain_update([kind])
        .chain_update(payload)
        .finalize();
    let (head, _) = hash.split_first_chunk().expect("a hash of 32 bytes");
    u64::from_le_bytes(*head) >> (u64::BITS - DIGEST_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_covers_time_kind_and_payload() {
        let one = digest(1, 2, b"three");
        assert_ne!(one, digest(2, 2, b"three"));
        assert_ne!(one, digest(1, 3, b"three"));
        assert_ne!(one, digest(1, 2, b"thref"));
        assert!(one < 1 << 48);
    }
}
