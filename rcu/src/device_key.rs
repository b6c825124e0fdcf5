//! Keys of devices: how one is made, shown, and kept in a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use common::process::Failure;
use common::secret::{DeviceKey, Secret};
use rand::TryRng;
use rand::rngs::SysRng;

pub(crate) fn random_key() -> Result<DeviceKey, Failure> {
    let mut key = [0; 32];
    SysRng.try_fill_bytes(&mut key)?;
    Ok(Secret::new(key))
}

pub(crate) fn hex(key: &DeviceKey) -> String {
    key.expose()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A file for keys. Refuses to replace one: it may hold the only copy of others.
pub(crate) fn new_file(path: &Path, text: &str) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file.write_all(text.as_bytes());
    // What is half written would only be in the way of the next attempt.
    written
        .and_then(|()| file.sync_all())
        .or_else(|error| fs::remove_file(path).and(Err(error)))?;
    Ok(file)
}
