//! Values that have a form of their own.

/// `NAME=VALUE`.
pub(super) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE, such as retention.ms=86400000".to_owned()),
    }
}

/// `1024`, `64KiB`, `256MiB`, `1GiB`; `KB`, `MB`, `GB` count in thousands.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = lakebed_broker::config::parse_size(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|size| *size > 0)
        .ok_or_else(|| "must be more than 0 and fit this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("1500"), Ok(1500));
        assert_eq!(parse_size("2KB"), Ok(2000));
        for wrong in ["", "MiB", "0", "1XB", "-1", "99999999999999999999"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_setting_has_a_name_and_may_have_an_empty_value() {
        assert_eq!(parse_setting("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_setting("a="), Ok(("a".to_owned(), String::new())));
        assert!(parse_setting("a").is_err() && parse_setting("=b").is_err());
    }
}
