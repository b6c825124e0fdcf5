//! Why a figure could not be measured. It is printed in the figure's place.

use std::fmt::Display;
use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    /// The skeleton lives and dies as one.
    #[error("a link of the skeleton ended")]
    LinkEnded,
    #[error("{0}")]
    Failed(String),
}

pub(crate) type Result<T> = std::result::Result<T, BenchError>;

impl BenchError {
    pub(crate) fn failed(why: impl Display) -> Self {
        Self::Failed(why.to_string())
    }
}

/// Says what was tried where the world refused it.
pub(crate) trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: &'static str) -> Result<T> {
        self.map_err(|source| BenchError::Io { what, source })
    }
}
