//! `rcu explain code 4007`: what a line of the log is about, and what to do.

use common::codes::{self, Code};

/// What was asked for is no code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no code; `rcu explain code` lists them all")]
pub(super) struct NoCode(String);

/// The codes of these numbers, or all where none is named.
pub(super) fn explain(numbers: &[String], markdown: bool) -> Result<String, NoCode> {
    if markdown {
        return Ok(codes::markdown());
    }
    let named: Result<Vec<_>, _> = numbers.iter().map(|number| parse(number)).collect();
    let named = named?;
    let wanted = match named.as_slice() {
        [] => Code::ALL,
        named => named,
    };
    Ok(wanted.iter().map(|code| format!("{code}\n")).collect())
}

fn parse(number: &str) -> Result<Code, NoCode> {
    let code = number.parse().ok().and_then(Code::of);
    code.ok_or_else(|| NoCode(number.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn told(numbers: &[&str]) -> Result<String, NoCode> {
        let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
        explain(&numbers, false)
    }

    #[test]
    fn a_code_is_explained_with_what_to_do() {
        let told = told(&["4007"]).unwrap();
        assert!(
            told.starts_with("4007 BatchesNotTaken (WARN, logic server)"),
            "{told}"
        );
        assert!(told.contains(Code::BatchesNotTaken.action()), "{told}");
    }

    #[test]
    fn all_are_told_where_none_is_named_and_a_wrong_one_is_refused() {
        let all = told(&[]).unwrap();
        for code in Code::ALL {
            assert!(all.contains(code.name()));
        }
        for wrong in ["4", "x", "99999999", ""] {
            assert_eq!(told(&[wrong]), Err(NoCode(wrong.to_owned())));
        }
    }
}
