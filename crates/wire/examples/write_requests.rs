//! Writes a request of every kind and version that a broker decodes into a directory, as seeds of the fuzz target `request`.
//!
//! `cargo run -p lakebed-wire --example write_requests -- fuzz/seeds/request`

#[path = "../tests/guard/corpus.rs"]
mod corpus;
#[path = "../tests/guard/generate.rs"]
#[allow(clippy::unwrap_used, unreachable_pub)]
mod generate;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or_else(|| std::io::Error::other("which directory?"))?;
    let directory = std::path::PathBuf::from(directory);
    std::fs::create_dir_all(&directory)?;
    for (name, bytes) in corpus::files() {
        std::fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}
