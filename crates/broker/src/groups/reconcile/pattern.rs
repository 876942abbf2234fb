//! Patterns by which members subscribe to topics: regular expressions on an engine whose time is linear in the text.
//!
//! A pattern must match a whole name. The dialect is that of crate `regex`, near RE2's: no look-around, no references back.

use regex::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 4096;
/// Most memory of a compiled pattern; names of topics need little.
const COMPILED_BYTES_MAX: usize = 256 << 10;
/// Most memory that matching may take for itself.
const CACHE_BYTES_MAX: usize = 256 << 10;

/// Compiles a pattern.
///
/// # Errors
/// What is wrong with it, for a person.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let build = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(CACHE_BYTES_MAX)
            .build()
            .map_err(|error| error.to_string())
    };
    // SUBTLE: by itself first: `a)|(b` is none, and would be one between parentheses.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_and_one_that_is_none_is_refused() {
        for (pattern, name, matches) in [
            ("foo.*", "foobar", true),
            ("foo", "foobar", false),
            ("foo|bar", "foobar", false),
            ("foo|bar", "bar", true),
            ("^foo$", "foo", true),
            ("[a-z]+-[0-9]{2}", "ab-12", true),
            ("", "", true),
            ("(?i)ORDERS", "orders", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(name), matches, "{pattern} {name}");
        }
        let large = "(a{500}){500}";
        for wrong in ["*", "(", "a)|(b", "(?=x)", r"(a)\1", "(?x)a # ", "[", large, &"a".repeat(PATTERN_BYTES_MAX + 1)]
        {
            assert!(compile(wrong).is_err(), "{wrong:.20}");
        }
    }
}
