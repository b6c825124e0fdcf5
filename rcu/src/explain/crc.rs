//! Pure. What a wrong crc was probably computed with.

use protocols::rcu::frame::HEADER_BYTES;

const CASTAGNOLI: u32 = 0x82F6_3B78;
const ZLIB: u32 = 0xEDB8_8320;

/// A guess at the mistake behind `found`, for a whole frame; `None` where none fits.
pub(super) fn guess(frame: &[u8], found: u32) -> Option<&'static str> {
    let start = frame.get(..8)?;
    let body = frame.get(HEADER_BYTES..)?;
    let right = crc(CASTAGNOLI, !0, &[start, body]);
    let mistakes = [
        (right.swap_bytes(), "the right value in big-endian order"),
        (!right, "CRC-32C without the final inversion"),
        (
            !crc(CASTAGNOLI, 0, &[start, body]),
            "CRC-32C from 0, without the inversions",
        ),
        (
            crc(CASTAGNOLI, 0, &[start, body]),
            "CRC-32C from 0 instead of FFFFFFFF",
        ),
        (
            crc(CASTAGNOLI, !0, &[start, &[0; 4], body]),
            "CRC-32C with the crc field taken as zeros",
        ),
        (
            crc(CASTAGNOLI, !0, &[body]),
            "CRC-32C of the body without the header",
        ),
        (
            crc(CASTAGNOLI, !0, &[start]),
            "CRC-32C of the header without the body",
        ),
        (
            crc(ZLIB, !0, &[start, body]),
            "CRC-32 as zlib has it, not CRC-32C",
        ),
        (
            crc(ZLIB, !0, &[body]),
            "CRC-32 as zlib has it, of the body alone",
        ),
    ];
    // The first is named where two mistakes come to the same; a right one is no mistake.
    let fits = mistakes.into_iter().find(|(value, _)| *value == found);
    fits.filter(|_| found != right).map(|(_, mistake)| mistake)
}

/// Reflected, bit by bit, with the final inversion.
fn crc(polynomial: u32, initial: u32, parts: &[&[u8]]) -> u32 {
    let mut crc = initial;
    for &byte in parts.iter().copied().flatten() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (polynomial & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_polynomials_give_their_check_values() {
        assert_eq!(crc(CASTAGNOLI, !0, &[b"1234", b"56789"]), 0xE306_9283);
        assert_eq!(crc(ZLIB, !0, &[b"123456789"]), 0xCBF4_3926);
    }

    #[test]
    fn a_mistake_is_recognized_and_the_right_value_is_none() {
        let frame = b"RC\x01\x05\x03\0\x02\0\0\0\0\0hi";
        let signed = b"RC\x01\x05\x03\0\x02\0hi";
        let right = crc(CASTAGNOLI, !0, &[signed]);
        assert_eq!(guess(frame, right), None);
        assert_eq!(guess(frame, 1), None);
        assert_eq!(
            guess(frame, crc(ZLIB, !0, &[signed])),
            Some("CRC-32 as zlib has it, not CRC-32C")
        );
        assert_eq!(
            guess(frame, right.swap_bytes()),
            Some("the right value in big-endian order")
        );
    }
}
