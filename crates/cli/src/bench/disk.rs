//! What the disk itself can do: the floor under a local store.
//!
//! Small: write 4 KiB to a new file, sync it, link it to its name, sync the directory, one after another. Large: write 8 MiB to a new
//! file and sync it, with two at a time; they are kept to the end, as a log keeps what it is given.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Report, histogram, micros};
use crate::args::{BenchArgs, BenchTarget, Phase};
use crate::failure::Failure;

const SMALL_BYTES: usize = 4096;
const SMALL_WRITES: u64 = 500;
const LARGE_BYTES: usize = 8 << 20;
const WRITERS: u64 = 2;

pub(super) fn run(args: &BenchArgs) -> Result<Report, Failure> {
    let directory = args.directory.join(format!("lakebed-bench-disk-{}", std::process::id()));
    let failed =
        |error: std::io::Error| Failure::new(format!("{} can't be measured", directory.display())).cause(error);
    fs::create_dir_all(&directory).map_err(failed)?;
    let measured = measure(args, &directory);
    let removed = fs::remove_dir_all(&directory);
    let report = measured.map_err(failed)?;
    removed.map_err(failed)?;
    Ok(report)
}

fn measure(args: &BenchArgs, directory: &Path) -> std::io::Result<Report> {
    let mut latency_us = histogram();
    for index in 0..SMALL_WRITES {
        let begun = Instant::now();
        let (temporary, name) = (directory.join(format!("t{index}")), directory.join(format!("s{index}")));
        write_synced(&temporary, SMALL_BYTES)?;
        fs::hard_link(&temporary, &name)?;
        fs::remove_file(&temporary)?;
        File::open(directory)?.sync_all()?;
        latency_us.saturating_record(micros(begun.elapsed()));
    }
    let files = (args.volume as u64 / LARGE_BYTES as u64).max(WRITERS);
    let deadline = Instant::now() + Duration::from_secs(args.seconds_max);
    let begun = Instant::now();
    let written = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || -> std::io::Result<u64> {
                    let mut written = 0;
                    for index in (writer..files).step_by(WRITERS as usize) {
                        if Instant::now() >= deadline {
                            break;
                        }
                        let path = directory.join(format!("l{index}"));
                        write_synced(&path, LARGE_BYTES)?;
                        written += 1;
                    }
                    Ok(written)
                })
            })
            .collect();
        let mut written = 0;
        for writer in writers {
            written += writer.join().map_err(|_| std::io::Error::other("a writer panicked"))??;
        }
        Ok::<u64, std::io::Error>(written)
    })?;
    let bytes = written * LARGE_BYTES as u64;
    Ok(Report {
        what: BenchTarget::Disk,
        phase: Phase::Produce,
        records: written,
        bytes,
        elapsed: begun.elapsed(),
        latency_us,
        end_to_end_us: None,
        verified_bytes: 0,
        hash: None,
        rate: None,
    })
}

fn write_synced(path: &Path, bytes: usize) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(&vec![0x5a; bytes])?;
    file.sync_all()
}
