//! Damage to a file, of the smallest kind.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// Changes one byte in the middle of a file, and nothing else of it.
pub(crate) fn flip_a_byte(file: &Path) {
    let mode = fs::metadata(file).expect("a file").permissions();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("set");
    let open = fs::OpenOptions::new().read(true).write(true).open(file).expect("opened");
    let (middle, mut byte) = (open.metadata().expect("a file").len() / 2, [0]);
    open.read_exact_at(&mut byte, middle).expect("read");
    open.write_all_at(&[byte[0] ^ 1], middle).expect("written");
    fs::set_permissions(file, mode).expect("set");
}
