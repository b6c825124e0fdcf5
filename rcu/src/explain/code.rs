//! `rcu explain code 4007`: what a line of the log is about, and what to do.

use std::error::Error;

use common::codes::{self, Code};
use serde::Serialize;

/// What was asked for is no code.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no code; `rcu explain code` lists them all")]
pub(super) struct NoCode(String);

/// For programs.
#[derive(Serialize)]
struct Object {
    code: u16,
    event: &'static str,
    level: &'static str,
    speaker: &'static str,
    what: &'static str,
    #[serde(rename = "do")]
    action: &'static str,
}

/// The codes of these numbers, or all where none is named.
pub(super) fn explain(numbers: &[String], markdown: bool) -> Result<String, NoCode> {
    if markdown {
        return Ok(codes::markdown());
    }
    let wanted = wanted(numbers)?;
    Ok(wanted.iter().map(|code| format!("{code}\n")).collect())
}

/// The same, an object a line.
pub(super) fn json(numbers: &[String]) -> Result<String, Box<dyn Error>> {
    let objects = wanted(numbers)?.into_iter().map(|code| {
        let object = Object {
            code: code.number(),
            event: code.name(),
            level: code.level().name(),
            speaker: code.speaker(),
            what: code.text(),
            action: code.action(),
        };
        Ok(serde_json::to_string(&object)? + "\n")
    });
    objects.collect()
}

fn wanted(numbers: &[String]) -> Result<Vec<Code>, NoCode> {
    match numbers {
        [] => Ok(Code::ALL.to_vec()),
        numbers => numbers.iter().map(|number| parse(number)).collect(),
    }
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
    fn programs_get_an_object_a_line() {
        let json = json(&["4007".into(), "1001".into()]).unwrap();
        let lines: Vec<serde_json::Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let expected = serde_json::json!({
            "code": 4007,
            "event": "BatchesNotTaken",
            "level": "WARN",
            "speaker": "logic server",
            "what": Code::BatchesNotTaken.text(),
            "do": Code::BatchesNotTaken.action(),
        });
        assert_eq!((lines.len(), &lines[0]), (2, &expected));
        assert_eq!(lines[1]["event"], "ProcessStops");
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
