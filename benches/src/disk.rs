//! What one fsync costs where the fleet keeps its data: the unit in which a change can be reckoned.
//!
//! Two kinds, because a file system charges them differently: overwriting bytes that the file has (as the controller's
//! anchor does) and appending (as a proxy's log does), where the new length has to be safe too.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::distribution::Samples;

/// What is written each time: a page, as SQLite's log and the file system have it.
const BYTES: usize = 4096;

/// A file to write and sync, and how long that took.
#[derive(Debug)]
pub struct Disk {
    file: File,
    end: u64,
    /// `pwrite` of 4 KiB over what is there, and `fdatasync`.
    pub overwrite: Samples,
    /// `pwrite` of 4 KiB behind the end, and `fdatasync`.
    pub append: Samples,
}

impl Disk {
    /// Makes the file in `folder`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let path = folder.join("fsync");
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all_at(&[0; BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, end: BYTES as u64, overwrite: Samples::default(), append: Samples::default() })
    }

    /// Measures one of each kind.
    ///
    /// # Errors
    /// A disk that is full or fails.
    pub fn measure(&mut self) -> io::Result<()> {
        let page = [0xa5; BYTES];
        let begun = Instant::now();
        self.file.write_all_at(&page, 0)?;
        self.file.sync_data()?;
        self.overwrite.push(begun.elapsed());
        let begun = Instant::now();
        self.file.write_all_at(&page, self.end)?;
        self.file.sync_data()?;
        self.append.push(begun.elapsed());
        self.end += BYTES as u64;
        Ok(())
    }
}
