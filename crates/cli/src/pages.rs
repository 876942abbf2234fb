//! What is made of the description of the command line: completions for shells, and manual pages.

use std::path::Path;

use clap_complete::Shell;

use crate::args;
use crate::failure::Failure;
use crate::output::{Output, write_out};

/// Prints what `shell` needs.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "lakebed", &mut text);
    write_out(&String::from_utf8_lossy(&text))
}

/// Prints the page of `lakebed`, or writes those of all verbs into a directory.
pub(crate) fn man(directory: Option<&Path>, output: Output) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| Failure::file("the manual pages can't be written", error);
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(args::command()).render(&mut page).map_err(|error| failed(&error))?;
        return write_out(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    clap_mangen::generate_to(args::command(), directory).map_err(|error| failed(&error))?;
    output.notice(format!("wrote the manual pages into {}", directory.display()));
    Ok(())
}
