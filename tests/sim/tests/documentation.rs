//! Holds docs/simulation.md to the code. With `WRITE_DOCUMENTATION=1` it writes what it expects.

use std::path::Path;
use std::{env, fs};

use clap::ValueEnum;
use sim::plan::{Class, Rate};

const BEGIN: &str = "<!-- classes: written by tests/sim/tests/documentation.rs -->";
const END: &str = "<!-- end of classes -->";

/// The table of classes, from their own words.
fn table() -> String {
    let mut lines = vec![
        "| class | what goes wrong | how often |".to_owned(),
        "| --- | --- | --- |".to_owned(),
    ];
    let seconds = |ms: &u32| f64::from(*ms) / 1_000.0;
    for class in Class::value_variants() {
        let value = class.to_possible_value().expect("no class is hidden");
        let what = value.get_help().expect("a class says what it is");
        let often = match class.rate() {
            Rate::EveryMs(range) => format!(
                "each {} to {} s",
                seconds(range.start()),
                seconds(range.end())
            ),
            Rate::Of1000(range) => format!("{} to {} of 1,000", range.start(), range.end()),
        };
        lines.push(format!("| `{class}` | {what} | {often} |"));
    }
    lines.join("\n")
}

#[test]
fn the_table_of_classes_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/simulation.md");
    let text = fs::read_to_string(&path).expect("it is there");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where the table ends");
    let right = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table());
    if env::var_os("WRITE_DOCUMENTATION").is_some() {
        fs::write(&path, &right).expect("it can be written");
    } else {
        let how = "WRITE_DOCUMENTATION=1 cargo test -p sim --test documentation";
        assert!(
            text == right,
            "the classes are others now: {how}\n\n{}",
            table()
        );
    }
}
