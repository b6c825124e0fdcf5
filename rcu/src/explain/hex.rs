//! Pure. Hex digits as people paste them.

use thiserror::Error;

/// Why a text is no hex digits. Characters are counted from 1.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum HexError {
    #[error("no hex digits")]
    Empty,
    #[error("character {at}, {found:?}, is no hex digit")]
    NotHex { found: char, at: usize },
    #[error("half a byte ends at character {at}: bytes have two hex digits")]
    HalfByte { at: usize },
}

/// The bytes of a text such as `5243 01`, `52:43:01`, `0x52, 0x43`, `\x52\x43`.
pub(super) fn parse(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high: Option<u8> = None;
    let mut characters = (1..).zip(text.chars()).peekable();
    let mut last = 0;
    while let Some((at, character)) = characters.next() {
        last = at;
        let prefix = matches!(character, '0' | '\\')
            && high.is_none()
            && characters
                .next_if(|(_, next)| matches!(next, 'x' | 'X'))
                .is_some();
        let separator = matches!(
            character,
            ',' | ':' | '-' | ';' | '"' | '{' | '}' | '[' | ']'
        );
        // A line may be broken within a byte, too.
        if character.is_whitespace() {
            continue;
        }
        if prefix || separator {
            if high.is_some() {
                return Err(HexError::HalfByte { at: at - 1 });
            }
            continue;
        }
        let Some(digit) = character.to_digit(16) else {
            return Err(HexError::NotHex {
                found: character,
                at,
            });
        };
        let digit = digit as u8;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(high << 4 | digit),
        }
    }
    match (high, bytes.is_empty()) {
        (Some(_), _) => Err(HexError::HalfByte { at: last }),
        (None, true) => Err(HexError::Empty),
        (None, false) => Ok(bytes),
    }
}

/// Bytes as hex digits, without spaces.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_taken_as_people_paste_it() {
        for text in [
            "524301",
            "52 43 01",
            " 52:43:01\n",
            "0x52, 0x43, 0x01",
            "{0x52,0x43,0X01};",
            "\"\\x52\\x43\\x01\"",
            "0x524301",
            "5243\r\n01",
            "52430\n1",
        ] {
            assert_eq!(parse(text), Ok(vec![0x52, 0x43, 0x01]), "{text:?}");
        }
        assert_eq!(parse("0Ff0"), Ok(vec![0x0f, 0xf0]));
    }

    #[test]
    fn what_is_no_hex_is_named_with_its_place() {
        assert_eq!(parse(""), Err(HexError::Empty));
        assert_eq!(parse(" 0x "), Err(HexError::Empty));
        assert_eq!(parse("52430"), Err(HexError::HalfByte { at: 5 }));
        assert_eq!(parse("52:4:01"), Err(HexError::HalfByte { at: 4 }));
        assert_eq!(parse("52 4g"), Err(HexError::NotHex { found: 'g', at: 5 }));
    }
}
