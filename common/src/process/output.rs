//! What programs say to whoever started them: what was asked for on standard output, everything else on
//! standard error. The macros of the standard library panic where nobody reads or the disk is full; nothing here
//! does, so every program says everything through this file.
//!
//! ```text
//! whoever read it is gone   the program ends without a word, with 141, as by SIGPIPE
//! a full disk               it is told on standard error, with 1
//! standard error            says what it can; what it cannot say is lost
//! ```

use std::error::Error;
use std::fmt::Display;
use std::io::{self, BufWriter, Stdout, Write};

use clap::Parser;

use super::EXIT_FAILED;

/// What shells show of a program that SIGPIPE ended: nobody reads what it prints.
pub const EXIT_UNREAD: u8 = 141;

/// Standard output did not take what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{}cannot write to standard output", done.as_ref().map_or(String::new(), |done| format!("{done}, but ")))]
pub struct OutputError {
    done: Option<String>,
    source: io::Error,
}

impl OutputError {
    /// `done`: what was done already, and is only not told.
    pub fn after(self, done: impl ToString) -> Self {
        Self {
            done: Some(done.to_string()),
            ..self
        }
    }

    /// What the system says.
    pub fn cause(&self) -> &io::Error {
        &self.source
    }

    pub fn reader_is_gone(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Only of writing to standard output: nothing else is told from it.
impl From<io::Error> for OutputError {
    fn from(source: io::Error) -> Self {
        Self { done: None, source }
    }
}

/// Prints what was asked for: when this returns, it is out.
///
/// # Errors
/// Standard output does not take it.
pub fn print(text: &str) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Standard output, for what draws a picture on a terminal again and again; nobody else needs it.
pub fn screen() -> Stdout {
    io::stdout()
}

/// Says something beside it, to whoever looks at standard error.
pub fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A list, which is printed as it is read.
#[derive(Debug)]
pub struct List(BufWriter<Stdout>);

impl List {
    pub fn begin() -> Self {
        Self(BufWriter::new(io::stdout()))
    }

    /// # Errors
    /// Standard output does not take it.
    pub fn line(&mut self, line: impl Display) -> Result<(), OutputError> {
        Ok(writeln!(self.0, "{line}")?)
    }

    /// Lines that end already.
    ///
    /// # Errors
    /// Standard output does not take it.
    pub fn text(&mut self, text: &str) -> Result<(), OutputError> {
        Ok(self.0.write_all(text.as_bytes())?)
    }

    /// # Errors
    /// Standard output does not take the rest.
    pub fn end(mut self) -> Result<(), OutputError> {
        Ok(self.0.flush()?)
    }
}

/// What the program was called with. Ends it, where that is wrong or it was asked for its help or version.
pub fn command_line<P: Parser>(program: &str) -> P {
    let asked = match P::try_parse() {
        Ok(command_line) => return command_line,
        Err(asked) => asked,
    };
    let code = match asked.print() {
        Err(error) if !asked.use_stderr() => failed(program, &OutputError::from(error)),
        _ => u8::try_from(asked.exit_code()).unwrap_or(EXIT_FAILED),
    };
    std::process::exit(code.into())
}

/// Tells why `program` failed, unless that is that nobody reads what it prints; returns what it ends with.
pub(super) fn failed(program: &str, error: &(dyn Error + 'static)) -> u8 {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let output = error.downcast_ref::<OutputError>();
        if output.is_some_and(OutputError::reader_is_gone) {
            return EXIT_UNREAD;
        }
        cause = error.source();
    }
    tell(with_causes(program, error));
    EXIT_FAILED
}

/// The error and its causes, each on a line.
fn with_causes(program: &str, error: &dyn Error) -> String {
    let mut told = format!("{program}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        told += &format!("\n{:1$} because: {error}", "", program.len());
        cause = error.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no login")]
    struct Outer<E: Error + 'static>(#[source] E);

    fn error(kind: io::ErrorKind) -> OutputError {
        io::Error::from(kind).into()
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = Outer(io::Error::other("no route"));
        let expected = "balancer: no login\n         because: no route";
        assert_eq!(with_causes("balancer", &error), expected);
    }

    #[test]
    fn only_a_reader_of_standard_output_that_is_gone_ends_it_quietly() {
        let broken = io::ErrorKind::BrokenPipe;
        assert_eq!(failed("rcu", &error(broken)), EXIT_UNREAD);
        assert_eq!(
            failed("rcu", &Outer(error(broken).after("done"))),
            EXIT_UNREAD
        );
        let full = error(io::ErrorKind::StorageFull).after("a is disabled");
        assert_eq!(failed("rcu", &full), EXIT_FAILED);
        assert_eq!(
            full.to_string(),
            "a is disabled, but cannot write to standard output"
        );
        // The pipe of something else.
        assert_eq!(failed("rcu", &Outer(io::Error::from(broken))), EXIT_FAILED);
    }
}
