//! Writes one object of every kind into a directory, for readers that are not ours and as golden files.
//!
//! `cargo run -p lakebed-segment --example write_objects -- DIRECTORY`

#[path = "../tests/objects/samples.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]
mod samples;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or_else(|| std::io::Error::other("which directory?"))?;
    let directory = std::path::PathBuf::from(directory);
    std::fs::create_dir_all(&directory)?;
    for (name, bytes) in samples::files() {
        std::fs::write(directory.join(name), bytes)?;
    }
    for (name, bytes) in samples::table_files() {
        std::fs::write(directory.join(name), bytes)?;
    }
    std::fs::write(directory.join("cleaned.parquet"), samples::cleaned_file())
}
