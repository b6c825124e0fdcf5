//! `rcu explain HEX`: what a frame says, field by field, and what is wrong with it.
//!
//! Made for whoever debugs the first frame of a new device. The verdict comes from the same
//! decoder that the servers use; the lines beside the bytes are written for people, and a test
//! holds the two together.

mod code;
mod crc;
mod field;
mod hex;
mod message;
mod part;
mod proofs;
mod record;
#[cfg(test)]
mod tests;
mod wrap;

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::process::ExitCode;

use common::process::output;
use common::secret::DeviceKey;
use simulator::keys::key_from_hex;

pub use self::hex::HexError;
use self::part::Part;
use self::proofs::Proofs;
use crate::columns;

/// Standard input is read up to here: far more than anybody reads.
const STDIN_BYTES_MAX: u64 = 16 << 20;

/// A frame, field by field, and what is wrong with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rcu explain 52430105030000005ccbd217
  rcu explain 0x52 0x43 0x01 0x05 0x03 0x00 0x00 0x00 0x5c 0xcb 0xd2 0x17
  rcu explain - < capture.hex
  rcu explain --json - < capture.hex | jq .wrong
  rcu explain --key KEY LOGIN LOGINREPLY ATTACH
                                        whether the proofs are right; the Login goes first, for its
                                        nonce is in all that follow
  rcu explain code 4007                 what a line of the log with this code means, and what to do
  rcu explain code                      all of them

Exit codes: 0 nothing wrong, 1 something wrong, 2 wrong usage.")]
pub struct Explain {
    /// Hex digits of one or more frames, of either direction; spaces, line breaks, commas,
    /// colons and 0x are allowed; - reads them from standard input. Or: code NUMBER.
    #[arg(required = true)]
    hex: Vec<String>,
    /// The device's key, 64 hex digits: checks the proofs, and names common mistakes.
    // Read later: clap would print a key with a wrong digit.
    #[arg(long, env = "RCU_DEVICE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// JSON: an object for each frame, or each code.
    #[arg(long)]
    json: bool,
    /// All codes as the page docs/codes.md.
    #[arg(long, hide = true)]
    markdown: bool,
}

impl Explain {
    /// # Errors
    /// Standard input cannot be read, or what it holds is no hex digits; no event has such a code.
    pub fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        if let [first, numbers @ ..] = self.hex.as_slice()
            && first == "code"
        {
            let told = match self.json {
                true => code::json(numbers)?,
                false if self.markdown => code::explain(numbers, true)?,
                false => for_people(code::explain(numbers, false)?),
            };
            output::print(&told)?;
            return Ok(ExitCode::SUCCESS);
        }
        let hex = if self.hex == ["-"] {
            let mut text = String::new();
            io::stdin()
                .take(STDIN_BYTES_MAX)
                .read_to_string(&mut text)?;
            text
        } else {
            self.hex.join(" ")
        };
        let key = self.key.as_deref().map(key_from_hex).transpose()?;
        let explanation = explain(&hex, key)?;
        let told = match self.json {
            true => explanation.json()?,
            false => for_people(explanation.to_string()),
        };
        output::print(&told)?;
        Ok(if explanation.is_right() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(common::process::EXIT_FAILED)
        })
    }
}

/// As wide as the terminal that they read on.
fn for_people(text: String) -> String {
    match columns::of_stdout() {
        Some(columns) => wrap::wrapped(&text, columns),
        None => text,
    }
}

/// Every frame in a stretch of bytes, as `Display` shows it.
#[derive(Debug)]
pub struct Explanation {
    parts: Vec<Part>,
}

/// Explains the frames in a text of hex digits; with the device's key their proofs, too, each by what
/// the frames before it said.
///
/// # Errors
/// The first place that is no hex digit, or half a byte.
pub fn explain(hex: &str, key: Option<DeviceKey>) -> Result<Explanation, HexError> {
    let bytes = hex::parse(hex)?;
    let mut proofs = key.map(Proofs::new);
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let part = Part::of(rest, at, proofs.as_mut());
        at = part.next_at;
        parts.push(part);
    }
    Ok(Explanation { parts })
}

impl Explanation {
    /// Whether every frame is whole and right, its records too. A kind that nobody knows is
    /// ignored by its receiver, and not wrong.
    pub fn is_right(&self) -> bool {
        self.parts.iter().all(|part| part.wrong.is_empty())
    }

    /// For programs: an object for each frame, one a line.
    fn json(&self) -> serde_json::Result<String> {
        let objects = self.parts.iter().map(|part| {
            let object = serde_json::to_string(&part.object())?;
            Ok(object + "\n")
        });
        objects.collect()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.parts.len();
        for (index, part) in self.parts.iter().enumerate() {
            if count > 1 {
                write!(f, "{} of {count}, at byte {}: ", index + 1, part.at)?;
            }
            writeln!(f, "{part}")?;
        }
        if self.is_right() {
            return writeln!(f, "ok");
        }
        for (index, part) in self.parts.iter().enumerate() {
            for wrong in &part.wrong {
                match count {
                    1 => writeln!(f, "wrong: {wrong}")?,
                    _ => writeln!(f, "wrong: {} of {count}: {wrong}", index + 1)?,
                }
            }
        }
        Ok(())
    }
}
