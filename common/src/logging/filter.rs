//! What is logged, as an operator writes it: `info,logic_server=debug`. A word that names nothing would
//! silence everything, so it is a mistake.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::AUDIT;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Modules that speak: our crates, and those of others.
const SPEAKERS: [&str; 11] = [
    AUDIT,
    "balancer",
    "common",
    "conn_server",
    "logic_server",
    "rcu",
    "simulator",
    "sqlx",
    "sqlx_core",
    "sqlx_postgres",
    "sqlx_sqlite",
];

/// Less alike is no guess (Jaro-Winkler).
const ALIKE_LEAST: f64 = 0.75;

/// # Errors
/// What is wrong with it, and what may be meant.
pub(super) fn parse(text: &str) -> Result<EnvFilter, String> {
    let parts = text.split(',').map(str::trim);
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(format!("it is empty: one of {}", LEVELS.join(", ")));
    }
    for part in &parts {
        check(part)?;
    }
    EnvFilter::try_new(parts.join(",")).map_err(|error| error.to_string())
}

/// `info`, `logic_server`, `logic_server::shard=debug`, `[span{field=value}]=trace`.
fn check(part: &str) -> Result<(), String> {
    let (module, level) = match part.split_once('[') {
        Some((module, _)) => (module, None),
        None => match part.split_once('=') {
            Some((module, level)) => (module, Some(level)),
            None if is_level(part) => return Ok(()),
            None => (part, None),
        },
    };
    let root = module.split("::").next().unwrap_or_default();
    let is_of_a_span = module.is_empty() && part.starts_with('[');
    if !is_of_a_span && !SPEAKERS.contains(&root) {
        let guess = guess(root, LEVELS.into_iter().chain(SPEAKERS));
        return Err(format!("`{root}` is neither a level nor a module{guess}"));
    }
    match level {
        Some(level) if !is_level(level) => {
            let guess = guess(level, LEVELS.into_iter());
            Err(format!("`{level}` is no level{guess}"))
        }
        _ => Ok(()),
    }
}

fn is_level(word: &str) -> bool {
    !word.is_empty() && word.parse::<LevelFilter>().is_ok()
}

fn guess(word: &str, words: impl Iterator<Item = &'static str>) -> String {
    let word = word.to_ascii_lowercase();
    words
        .map(|it| (strsim::jaro_winkler(&word, it), it))
        .filter(|(alike, _)| *alike >= ALIKE_LEAST)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, it)| format!(": did you mean `{it}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_level_or_a_module_is_taken() {
        for filter in [
            "info",
            "WARN",
            "off",
            "3",
            "logic_server",
            "info,logic_server::shard=debug, sqlx=warn",
            "warn,[logic_server{node=1}]=trace",
            "conn_server[link]=debug",
        ] {
            assert!(parse(filter).is_ok(), "{filter}: {:?}", parse(filter));
        }
    }

    #[test]
    fn what_names_nothing_is_a_mistake_with_what_may_be_meant() {
        let neither = "is neither a level nor a module";
        for (filter, told) in [
            (
                "warning",
                format!("`warning` {neither}: did you mean `warn`?"),
            ),
            ("inof", format!("`inof` {neither}: did you mean `info`?")),
            (
                "info,logic-server=debug",
                format!("`logic-server` {neither}: did you mean `logic_server`?"),
            ),
            ("info,xyz=debug", format!("`xyz` {neither}")),
            (
                "balancer=debgu",
                "`debgu` is no level: did you mean `debug`?".into(),
            ),
            (
                " , ",
                "it is empty: one of off, error, warn, info, debug, trace".into(),
            ),
        ] {
            assert_eq!(parse(filter).unwrap_err(), told);
        }
    }
}
