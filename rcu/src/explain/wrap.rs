//! Pure. Long lines in the width of a terminal, so that what stands in a column stays in it.

/// At least so much is left for the text of a column, or it begins at the line's own indentation.
const ROOM_MIN: usize = 24;

/// Breaks lines between words; a word that is too long stays whole, as it is to be copied.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    text.lines().map(|line| wrapped_line(line, width)).collect()
}

fn wrapped_line(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned() + "\n";
    }
    let indent = last_column(line, width.saturating_sub(ROOM_MIN));
    let (head, text): (String, String) = (
        line.chars().take(indent).collect(),
        line.chars().skip(indent).collect(),
    );
    let mut wrapped = head;
    let mut at = indent;
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && at + 1 + length > width {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            at = indent;
        } else if index > 0 {
            wrapped.push(' ');
            at += 1;
        }
        wrapped.push_str(word);
        at += length;
    }
    wrapped.push('\n');
    wrapped
}

/// Where the text begins behind the last two spaces that are no further than `most`.
fn last_column(line: &str, most: usize) -> usize {
    let chars: Vec<_> = line.chars().collect();
    let begins = |&at: &usize| {
        let before = at.checked_sub(2).and_then(|from| chars.get(from..at));
        before == Some(&[' ', ' ']) && chars.get(at).is_some_and(|it| *it != ' ')
    };
    (0..=most).rev().find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_in_the_column_in_which_they_began() {
        let text = "\
4007 BatchesNotTaken (WARN, logic server)
  what    The database does not take batches. They are kept and repeated.
  do      Look at the database.

wrong: byte 8, crc: expected 0x17d2cb5c (5ccbd217 on the wire), found 0x17d2cb5d
";
        let expected = "\
4007 BatchesNotTaken (WARN, logic server)
  what    The database does not take batches. They are kept
          and repeated.
  do      Look at the database.

wrong: byte 8, crc: expected 0x17d2cb5c (5ccbd217 on the
wire), found 0x17d2cb5d
";
        assert_eq!(wrapped(text, 60), expected);
        assert_eq!(wrapped(text, 200), text);
    }

    #[test]
    fn no_word_is_lost_or_cut() {
        let long = "x".repeat(90);
        let line = format!("    53  40 c2  proof           {long} = a \u{2016} b");
        let text = wrapped(&line, 60);
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&text), words(&line));
        assert!(
            text.contains("\n                               = a"),
            "{text}"
        );
        for width in 0..=130 {
            assert_eq!(words(&wrapped(&line, width)), words(&line));
        }
    }
}
