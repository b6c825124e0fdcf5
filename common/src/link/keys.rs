//! The keys that let a process into the cluster: files of 64 hex digits that only their owner reads.
//!
//! A file holds one key, or two during a rotation, one a line: all of them are accepted, the first
//! is the one to dial with. To rotate: add the new key as second line everywhere, then make it the
//! first everywhere, then take the old one away.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::peer::Role;
use crate::secret::Secret;

/// More keys in one file are a rotation that was never finished.
const KEYS_PER_FILE_MAX: usize = 2;

/// Names a key without telling anything of it: the first 8 bytes of HMAC-SHA256(key, "rcu link key id").
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key of the link, with its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    id: KeyId,
    secret: Secret<32>,
}

impl Key {
    pub fn new(secret: Secret<32>) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose())
            .expect("HMAC takes a key of any length");
        mac.update(b"rcu link key id");
        let mut id = [0; 8];
        id.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        Self {
            id: KeyId(id),
            secret,
        }
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn secret(&self) -> &Secret<32> {
        &self.secret
    }
}

/// Which keys a process accepts, and for which roles.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Admit balancers, conn servers and logic servers. The first is dialled with.
    pub cluster: Vec<Key>,
    /// Admit operators, and nobody else. The first is dialled with.
    pub operator: Vec<Key>,
}

impl Keys {
    /// The cluster's keys, and none for operators.
    pub fn from_file(cluster: &Path) -> Result<Self, KeyError> {
        Ok(Self {
            cluster: read_keys(cluster)?,
            operator: Vec::new(),
        })
    }

    /// Adds the operator's keys: for a process that operators call, or for the operator's command.
    pub fn with_operator_file(mut self, operator: &Path) -> Result<Self, KeyError> {
        self.operator = read_keys(operator)?;
        Ok(self)
    }

    /// The key with which a process of this role dials.
    pub(super) fn to_dial_as(&self, role: Role) -> Option<&Key> {
        self.of(role).first()
    }

    /// The key of this id, where some role is admitted by it.
    pub(super) fn find(&self, id: KeyId) -> Option<&Key> {
        let mut keys = self.cluster.iter().chain(&self.operator);
        keys.find(|key| key.id == id)
    }

    /// Whether a peer that holds the key of this id may be of this role.
    pub(super) fn admit(&self, id: KeyId, role: Role) -> bool {
        self.of(role).iter().any(|key| key.id == id)
    }

    fn of(&self, role: Role) -> &[Key] {
        match role {
            Role::Balancer | Role::Conn | Role::Logic => &self.cluster,
            Role::Operator => &self.operator,
        }
    }
}

/// Why a key file cannot be used. Never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the key file {} can be read by others (mode {mode:04o}): chmod 600 it", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the key file {}: line {line} is not 64 hex digits", path.display())]
    Malformed { path: PathBuf, line: usize },
    #[error("the key file {} holds {keys} keys; it must hold 1, or {KEYS_PER_FILE_MAX} during a rotation", path.display())]
    Count { path: PathBuf, keys: usize },
    #[error("the key file {} holds {keys} keys; it must hold 1", path.display())]
    Several { path: PathBuf, keys: usize },
}

/// Reads a key file. Refuses one that anybody but its owner may read.
pub fn read_keys(path: &Path) -> Result<Vec<Key>, KeyError> {
    let unreadable = |source| KeyError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let keys = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let secret = secret_from_hex(line.trim()).ok_or_else(|| KeyError::Malformed {
                path: path.to_owned(),
                line: index + 1,
            })?;
            Ok(Key::new(secret))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() || keys.len() > KEYS_PER_FILE_MAX {
        return Err(KeyError::Count {
            path: path.to_owned(),
            keys: keys.len(),
        });
    }
    Ok(keys)
}

/// Reads a file of exactly one key that is none of the link.
pub fn read_secret(path: &Path) -> Result<Secret<32>, KeyError> {
    match read_keys(path)?.as_slice() {
        [only] => Ok(only.secret),
        several => Err(KeyError::Several {
            path: path.to_owned(),
            keys: several.len(),
        }),
    }
}

/// Writes a new key file of mode 0600 with one key. Fails where the file exists: a key is never overwritten.
pub fn write_key(path: &Path, secret: &Secret<32>) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let mut line = String::with_capacity(65);
    for byte in secret.expose() {
        use fmt::Write;
        write!(line, "{byte:02x}").map_err(io::Error::other)?;
    }
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

/// 32 bytes from exactly 64 hex digits.
pub fn secret_from_hex(text: &str) -> Option<Secret<32>> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let digit = |ascii: u8| char::from(ascii).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        (directory, path)
    }

    #[test]
    fn a_written_key_is_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster");
        let secret = Secret::new(std::array::from_fn(|i| i as u8 * 7));
        write_key(&path, &secret).expect("written");
        assert_eq!(read_keys(&path).expect("read"), [Key::new(secret)]);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert!(write_key(&path, &secret).is_err(), "overwritten");
    }

    #[test]
    fn the_key_id_is_the_first_8_bytes_of_its_hmac() {
        // printf 'rcu link key id' | openssl dgst -sha256 -mac hmac -macopt hexkey:00…00
        assert_eq!(
            Key::new(Secret::new([0; 32])).id().to_string(),
            "8ccea3f363d05e5d"
        );
    }

    #[test]
    fn a_file_that_is_no_owner_only_key_is_refused_with_the_reason() {
        let digits = "ab".repeat(32);
        for (text, mode, expected) in [
            (digits.clone(), 0o640, "can be read by others (mode 0640)"),
            (digits[1..].to_owned(), 0o600, "line 1 is not 64 hex digits"),
            (format!("{digits}\nxy\n"), 0o600, "line 2 is not"),
            ("\n".to_owned(), 0o600, "holds 0 keys"),
            (format!("{digits}\n").repeat(3), 0o600, "holds 3 keys"),
        ] {
            let (_directory, path) = file(&text, mode);
            let why = read_keys(&path).expect_err("refused").to_string();
            assert!(why.contains(expected), "{why}");
            assert!(!why.contains(&digits), "{why}");
        }
    }

    #[test]
    fn the_operators_key_admits_operators_and_nobody_else() {
        let cluster = Key::new(Secret::new([1; 32]));
        let operator = Key::new(Secret::new([2; 32]));
        let keys = Keys {
            cluster: vec![cluster],
            operator: vec![operator],
        };
        for role in [Role::Balancer, Role::Conn, Role::Logic] {
            assert!(keys.admit(cluster.id(), role));
            assert!(!keys.admit(operator.id(), role));
        }
        assert!(keys.admit(operator.id(), Role::Operator));
        assert!(!keys.admit(cluster.id(), Role::Operator));
    }
}
