//! Holds the house style as far as a machine can see it: what a file opens with, how long files and functions are, what is left over.
//!
//! Sizes are ratcheted: what is too long is listed with its size and may only shrink. Each check is a function from a text to
//! complaints, and is shown to bite on a bad sample.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file.
const FILE_LINES_MAX: usize = 800;
/// Most lines of a function: what fits a screen.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are longer, with the lines that they may have. Entries only shrink and go.
const LONG_FILES: [(&str, usize); 0] = [];
/// Functions that are longer, as `file::function`, with the lines that they may have. Entries only shrink and go.
const LONG_FUNCTIONS: [(&str, usize); 0] = [];

/// What must not stay in the code. Spelled in two halves, so that this file does not find itself.
const LEFTOVERS: [&str; 8] = [
    concat!("todo", "!("),
    concat!("dbg", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
    concat!("thread::", "sleep"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("unbounded_", "channel("),
];

/// Hosts of registries: which one serves a build is the business of the machine that builds.
const REGISTRY_HOSTS: [&str; 7] = [
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("deb.", "debian.org"),
    concat!("proxy.", "golang.org"),
];

/// Directories that are not ours to judge.
const SKIPPED: [&str; 7] = ["target", ".git", ".venv", ".tools", ".work", "data", "lakebed-data"];
const TEXT_EXTENSIONS: [&str; 10] = ["rs", "toml", "md", "py", "sh", "txt", "proto", "yml", "yaml", "json"];

/// A text file with its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

fn opening(source: &Source) -> Option<String> {
    (!source.text.starts_with("//! ")).then(|| format!("{} does not open with what it is (`//!`)", source.path))
}

fn leftovers<'a>(source: &'a Source, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    source.text.lines().enumerate().flat_map(move |(index, line)| {
        let found = words.iter().filter(move |word| line.contains(**word));
        found.map(move |word| format!("{}:{}: {word}", source.path, index + 1))
    })
}

/// The functions of a file that `cargo fmt` has formatted, with how many lines each has: from its `fn` to the brace at its depth.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let begins = lines.iter().enumerate().filter_map(|(index, line)| Some((index, function_name(line)?)));
    let measured = begins.map(|(index, name)| {
        let indent = indent(lines[index]);
        let ends = |line: &str| line.len() > indent && self::indent(line) == indent && line.ends_with(['}', ';']);
        let length = lines[index..].iter().position(|line| ends(line)).map_or(1, |last| last + 1);
        (format!("{}::{name}", source.path), length)
    });
    measured.collect()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| {
        matches!(*word, "pub" | "const" | "async" | "unsafe" | "extern")
            || word.starts_with("pub(")
            || *word == "super)"
    });
    (words.next()? == "fn").then(|| words.next())?.and_then(|name| name.split(['(', '<']).next())
}

/// Complains about what is longer than the limit and not listed, longer than listed, or listed without need.
fn ratchet(sizes: &[(String, usize)], limit: usize, listed: &[(&str, usize)]) -> Vec<String> {
    let allowed = |name: &str| listed.iter().find(|(listed, _)| *listed == name).map_or(limit, |(_, lines)| *lines);
    let too_long = sizes.iter().filter(|(name, lines)| *lines > allowed(name));
    let mut complaints: Vec<String> = too_long
        .map(|(name, lines)| format!("{name} has {lines} lines; at most {} are allowed", allowed(name)))
        .collect();
    for (name, lines) in listed {
        let now = sizes.iter().find(|(size, _)| size == name).map_or(0, |(_, lines)| *lines);
        if now < *lines {
            complaints.push(format!("{name} has {now} lines now: lower or remove its entry of {lines}"));
        }
    }
    complaints
}

fn sources() -> Vec<Source> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut sources = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                directories.push(path);
            } else if path.is_file()
                && path
                    .extension()
                    .is_some_and(|extension| TEXT_EXTENSIONS.contains(&extension.to_string_lossy().as_ref()))
            {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { path: path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), text });
            }
        }
    }
    sources
}

fn rust() -> Vec<Source> {
    let mut sources = sources();
    sources.retain(Source::is_rust);
    assert!(sources.len() > 25, "the workspace is seen");
    sources
}

fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn sample(text: &str) -> Source {
    Source { path: "a.rs".to_owned(), text: text.to_owned() }
}

#[test]
fn every_file_opens_with_what_it_is() {
    assert_none(rust().iter().filter_map(opening).collect());
}

#[test]
fn nothing_is_left_over() {
    assert_none(rust().iter().flat_map(|source| leftovers(source, &LEFTOVERS).collect::<Vec<_>>()).collect());
}

#[test]
fn no_file_names_the_host_of_a_registry() {
    let sources = sources();
    assert_none(sources.iter().flat_map(|source| leftovers(source, &REGISTRY_HOSTS).collect::<Vec<_>>()).collect());
}

#[test]
fn files_are_short_enough_to_read() {
    let sizes: Vec<_> = rust().into_iter().map(|source| (source.path, source.text.lines().count())).collect();
    assert_none(ratchet(&sizes, FILE_LINES_MAX, &LONG_FILES));
}

#[test]
fn functions_fit_a_screen() {
    let sizes: Vec<_> = rust().iter().flat_map(functions).collect();
    assert!(sizes.len() > 100, "functions are seen");
    assert_none(ratchet(&sizes, FUNCTION_LINES_MAX, &LONG_FUNCTIONS));
}

#[test]
fn a_file_that_does_not_say_what_it_is_is_found() {
    assert!(opening(&sample("use std::fs;\n")).is_some());
    assert!(opening(&sample("//! What it is.\n")).is_none());
}

#[test]
fn each_leftover_is_found_with_its_line() {
    for word in LEFTOVERS.iter().chain(&REGISTRY_HOSTS) {
        let source = sample(&format!("//! A file.\nlet x = {word};\n"));
        assert_eq!(leftovers(&source, &[word]).collect::<Vec<_>>(), [format!("a.rs:2: {word}")]);
    }
}

#[test]
fn a_function_is_measured_from_its_name_to_its_brace() {
    let text = "fn one() {}\n\nimpl X {\n    pub(crate) async fn five(\n        a: u8,\n    ) -> u8 {\n        if a > 1 {\n        }\n    }\n    \
                fn declared(&self) -> u8;\n}\n";
    let expected = [("a.rs::one", 1), ("a.rs::five", 6), ("a.rs::declared", 1)];
    let found = functions(&sample(text));
    assert_eq!(found.iter().map(|(name, lines)| (name.as_str(), *lines)).collect::<Vec<_>>(), expected);
}

#[test]
fn a_size_may_only_shrink() {
    let sizes = [("a".to_owned(), 9), ("b".to_owned(), 12), ("c".to_owned(), 5)];
    assert_eq!(ratchet(&sizes, 10, &[]).len(), 1, "b is too long");
    assert_eq!(ratchet(&sizes, 10, &[("b", 12)]).len(), 0, "b is known to be");
    assert_eq!(ratchet(&sizes, 10, &[("b", 11)]).len(), 1, "b grew");
    assert_eq!(ratchet(&sizes, 10, &[("b", 13)]).len(), 1, "b shrank, so must its entry");
    assert_eq!(ratchet(&sizes, 10, &[("b", 12), ("gone", 20)]).len(), 1, "an entry of nothing");
}
