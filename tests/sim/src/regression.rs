//! A case that found something: its whole plan in a file of its own, run ever after.
//!
//! The plan is stated, not drawn, so that it keeps its meaning when later plans are drawn
//! otherwise. What it cannot keep is the order of random numbers: when the world draws them
//! otherwise, the same seed tells another story under the same circumstances. Therefore a case may
//! ask for several seeds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::plan::Plan;

/// A file of `tests/sim/regressions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// What it found, in words, and what mended it.
    pub found: String,
    /// What was broken then.
    pub promise: String,
    /// How many seeds are run, from the plan's on.
    #[serde(default = "one")]
    pub seeds: u32,
    pub plan: Plan,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Error)]
pub enum RegressionError {
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}")]
    Text {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("a plan cannot be written as TOML")]
    Unwritable(#[from] toml::ser::Error),
    #[error("{name} is no name of a regression: small letters, digits and dashes")]
    Name { name: String },
    #[error("{path} exists")]
    Exists { path: PathBuf },
}

/// Where they are kept: in the source, beside the program that found them.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

impl Regression {
    /// # Errors
    /// What is wrong with the text, with its line.
    pub fn parse(text: &str) -> Result<Self, Box<toml::de::Error>> {
        toml::from_str(text).map_err(Box::new)
    }

    /// # Errors
    /// The file cannot be read, or is no regression.
    pub fn load(path: &Path) -> Result<Self, RegressionError> {
        let text = fs::read_to_string(path).map_err(|source| RegressionError::File {
            path: path.into(),
            source,
        })?;
        Self::parse(&text).map_err(|source| RegressionError::Text {
            path: path.into(),
            source,
        })
    }

    /// # Errors
    /// A plan holds a number that TOML does not: more than 2^63.
    pub fn to_toml(&self) -> Result<String, RegressionError> {
        Ok(toml::to_string(self)?)
    }

    /// Writes it beside the others, under a name that none of them has.
    ///
    /// # Errors
    /// The name is taken or is none, or the file cannot be written.
    pub fn save(&self, directory: &Path, name: &str) -> Result<PathBuf, RegressionError> {
        check_name(name)?;
        let path = directory.join(format!("{name}.toml"));
        if path.exists() {
            return Err(RegressionError::Exists { path });
        }
        self.write(&path)?;
        Ok(path)
    }

    /// Writes it, over what was there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RegressionError> {
        let text = self.to_toml()?;
        let directory = path.parent().unwrap_or(path);
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(path, text))
            .map_err(|source| RegressionError::File {
                path: path.into(),
                source,
            })
    }

    /// The plan under each of its seeds.
    pub fn plans(&self) -> impl Iterator<Item = Plan> {
        (0..u64::from(self.seeds.max(1))).map(|step| Plan {
            seed: self.plan.seed.wrapping_add(step),
            ..self.plan.clone()
        })
    }
}

/// A name is a file's and a test's: small letters, digits, dashes.
///
/// # Errors
/// It is none.
pub fn check_name(name: &str) -> Result<(), RegressionError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(is_letter) {
        return Err(RegressionError::Name { name: name.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::plan::{Class, Overrides};

    use super::*;

    fn regression() -> Regression {
        let overrides = Overrides {
            classes: Some(vec![Class::Reset, Class::ByteByByte]),
            ..Overrides::default()
        };
        Regression {
            found: "a line\nand another".into(),
            promise: "P1".into(),
            seeds: 3,
            plan: Plan::draw(u64::MAX - 1, &overrides),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let regression = regression();
        let text = regression.to_toml().expect("it can be written");
        assert_eq!(Regression::parse(&text), Ok(regression), "{text}");
    }

    #[test]
    fn a_word_that_nobody_knows_is_named_with_its_line() {
        let text = regression().to_toml().expect("it can be written");
        for (wrong, right) in [("wimdow =", "window ="), ("resett =", "reset =")] {
            let error = Regression::parse(&text.replace(right, wrong)).expect_err(wrong);
            let name = wrong.trim_end_matches(" =");
            assert!(error.message().contains(name), "{error}");
            assert!(error.span().is_some(), "{error}");
        }
    }

    #[test]
    fn a_plan_that_does_not_state_all_is_refused() {
        let text = regression().to_toml().expect("it can be written");
        let without: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with("window"))
            .collect();
        assert!(Regression::parse(&without.join("\n")).is_err());
    }

    #[test]
    fn a_regression_runs_under_each_of_its_seeds() {
        let seeds: Vec<_> = regression().plans().map(|plan| plan.seed).collect();
        assert_eq!(seeds, [u64::MAX - 1, u64::MAX, 0]);
    }

    #[test]
    fn a_name_is_taken_once_and_leaves_its_directory_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let regression = regression();
        let path = regression
            .save(directory.path(), "half-a-frame")
            .expect("saved");
        assert_eq!(Regression::load(&path).ok(), Some(regression.clone()));
        let again = regression.save(directory.path(), "half-a-frame");
        assert!(
            matches!(again, Err(RegressionError::Exists { .. })),
            "{again:?}"
        );
        for name in ["", "../out", "Upper", "a.b"] {
            let refused = regression.save(directory.path(), name);
            assert!(
                matches!(refused, Err(RegressionError::Name { .. })),
                "{name}"
            );
        }
    }
}
