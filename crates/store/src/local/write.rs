//! Writing and syncing one new file: large ones past the operating system's page cache.
//!
//! A broker serves fresh records from its own memory, so a second copy of them in the page cache is of little use, and the
//! kernel's copying into fresh pages costs more processor time than all the rest of a commit. So payloads from
//! [`DIRECT_BYTES_MIN`] on go through a small aligned buffer that stays in the processor's cache, and from there to the disk
//! (`O_DIRECT`). A file system that refuses this gets the same bytes in the usual way.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::payload::Payload;

/// Smaller payloads are copied into the page cache: one request to the disk for data and metadata together is faster then.
const DIRECT_BYTES_MIN: u64 = 256 * 1024;

/// Direct writes have addresses, positions and lengths in multiples of this; no disk has larger blocks.
const ALIGNMENT: usize = 4096;

/// One direct write: large enough for a disk's full rate, small enough for a processor's cache.
const STAGE_BYTES: usize = 1 << 20;

/// Most stages that are kept for the next write.
const STAGES_KEPT_MAX: usize = 8;

/// The stages that are not in use.
#[derive(Debug, Default)]
pub(super) struct Stages {
    free: Mutex<Vec<Stage>>,
}

/// An aligned buffer: the part of `bytes` from `start` on, [`STAGE_BYTES`] long.
#[derive(Debug)]
struct Stage {
    bytes: Vec<u8>,
    start: usize,
}

impl Stage {
    fn new() -> Self {
        let bytes = vec![0; STAGE_BYTES + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, start }
    }

    fn aligned(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + STAGE_BYTES]
    }
}

impl Stages {
    /// Writes `payload` to a new file and syncs it.
    ///
    /// # Errors
    /// What the file system says; what is left of the file is without meaning.
    pub(super) fn write_synced(&self, path: &Path, payload: &Payload) -> std::io::Result<()> {
        if payload.size_bytes() >= DIRECT_BYTES_MIN {
            match self.write_direct(path, payload) {
                Err(error) if is_unsupported(&error) => remove_if_there(path)?,
                other => return other,
            }
        }
        let mut file = File::create_new(path)?;
        payload.parts().iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()
    }

    /// Writes `payload` into a file that is there, from `offset` on, and syncs the bytes.
    ///
    /// # Errors
    /// What the file system says; what stands there is without meaning.
    pub(super) fn write_part_synced(&self, path: &Path, offset: u64, payload: &Payload) -> std::io::Result<()> {
        let is_whole = |number: u64| number.is_multiple_of(ALIGNMENT as u64);
        // SUBTLE: only whole blocks go directly: a block that was filled up with zeros might overwrite the beginning of the next part.
        if payload.size_bytes() >= DIRECT_BYTES_MIN && is_whole(offset) && is_whole(payload.size_bytes()) {
            match self.write_part_direct(path, offset, payload) {
                Err(error) if is_unsupported(&error) => {}
                other => return other,
            }
        }
        let mut file = File::options().write(true).open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        payload.parts().iter().try_for_each(|part| file.write_all(part))?;
        file.sync_data()
    }

    fn write_part_direct(&self, path: &Path, offset: u64, payload: &Payload) -> std::io::Result<()> {
        let mut file = open_direct(File::options().write(true), path)?;
        file.seek(SeekFrom::Start(offset))?;
        self.write_by_stage(&mut file, payload)?;
        file.sync_data()
    }

    fn write_direct(&self, path: &Path, payload: &Payload) -> std::io::Result<()> {
        let mut file = open_direct(File::options().write(true).create_new(true), path)?;
        self.write_by_stage(&mut file, payload)?;
        // The last block was written whole.
        file.set_len(payload.size_bytes())?;
        file.sync_all()
    }

    fn write_by_stage(&self, file: &mut File, payload: &Payload) -> std::io::Result<()> {
        let mut stage = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(Stage::new);
        let written = write_staged(file, stage.aligned(), payload);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < STAGES_KEPT_MAX {
            free.push(stage);
        }
        written
    }
}

/// Writes the payload stage by stage, the last one filled up to whole blocks with zeros.
fn write_staged(file: &mut File, stage: &mut [u8], payload: &Payload) -> std::io::Result<()> {
    let mut filled = 0;
    for part in payload.parts() {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(stage.len() - filled));
            stage[filled..filled + now.len()].copy_from_slice(now);
            filled += now.len();
            rest = later;
            if filled == stage.len() {
                file.write_all(stage)?;
                filled = 0;
            }
        }
    }
    let end = filled.next_multiple_of(ALIGNMENT);
    stage[filled..end].fill(0);
    file.write_all(&stage[..end])
}

#[cfg(target_os = "linux")]
fn open_direct(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags(libc::O_DIRECT).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &mut OpenOptions, _: &Path) -> std::io::Result<File> {
    Err(Error::from(ErrorKind::Unsupported))
}

/// A file system without direct writes says EINVAL, when the file is opened (Linux makes it all the same) or written. A write that
/// was cut short says so too, since the next one does not begin at a block: writing in the usual way then tells why.
fn is_unsupported(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported)
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// Sizes around every boundary, each in parts that end anywhere.
    #[test]
    fn files_hold_the_payload_whatever_its_size_and_its_parts() {
        let directory = tempfile::tempdir().unwrap();
        let stages = Stages::default();
        let direct = DIRECT_BYTES_MIN as usize;
        let sizes = [
            0,
            1,
            direct - 1,
            direct,
            direct + 1,
            STAGE_BYTES - 1,
            STAGE_BYTES,
            STAGE_BYTES + 1,
            3 * STAGE_BYTES + 4095,
        ];
        for (index, size) in sizes.into_iter().enumerate() {
            let whole: Bytes = (0..size).map(|i| (i % 251) as u8).collect();
            let parts = whole.chunks(100_003).map(|part| whole.slice_ref(part)).collect::<Vec<_>>();
            let path = directory.path().join(index.to_string());
            stages.write_synced(&path, &Payload::from(parts)).unwrap();
            assert!(fs::read(&path).unwrap() == whole, "{size} bytes");
        }
    }

    /// Parts of whole blocks and others, in any order, one of them twice.
    #[test]
    fn parts_are_written_to_their_places_in_any_order() {
        let directory = tempfile::tempdir().unwrap();
        let stages = Stages::default();
        for (index, part) in [ALIGNMENT * 100, ALIGNMENT * 100 + 1, 1000].into_iter().enumerate() {
            let whole: Bytes = (0..part * 3 + 777).map(|i| (i % 251) as u8).collect();
            let path = directory.path().join(index.to_string());
            File::create_new(&path).unwrap();
            for number in [2, 0, 3, 1, 0] {
                let start = number * part;
                let payload = Payload::from(whole.slice(start..(start + part).min(whole.len())));
                stages.write_part_synced(&path, start as u64, &payload).unwrap();
            }
            assert!(fs::read(&path).unwrap() == whole, "parts of {part} bytes");
        }
        let missing = stages.write_part_synced(&directory.path().join("none"), 0, &Payload::from("x"));
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_stage_is_aligned_and_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let stages = Stages::default();
        for name in ["a", "b"] {
            stages
                .write_direct(&directory.path().join(name), &Payload::from(vec![7; STAGE_BYTES]))
                .or_else(|error| if is_unsupported(&error) { Ok(()) } else { Err(error) })
                .unwrap();
        }
        assert!(stages.free.lock().unwrap().len() <= 1);
        assert!((Stage::new().aligned().as_ptr() as usize).is_multiple_of(ALIGNMENT));
    }

    /// `/dev/shm` is a tmpfs, which refuses direct writes on many kernels: the fallback is what is tested there.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_direct_writes_gets_the_same_bytes() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let path = directory.path().join("object");
        Stages::default().write_synced(&path, &Payload::from(vec![9; 600_001])).unwrap();
        assert!(fs::read(&path).unwrap() == vec![9; 600_001]);
    }

    #[test]
    fn a_file_that_stands_there_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("object");
        fs::write(&path, "first").unwrap();
        for size in [1, 600_000] {
            let error = Stages::default().write_synced(&path, &Payload::from(vec![1; size])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read(&path).unwrap(), b"first");
    }
}
