//! URLs as they may be shown: without what may be a secret in them.

use std::borrow::Cow;

/// What stands where something was left out.
const LEFT_OUT: &str = "…";

/// `url` without user, password, query and fragment. A path, and a URL that has none of them, stays as it is.
///
/// It works on any text, since what is shown most often is a URL that could not be parsed.
pub fn redact_url(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else { return Cow::Borrowed(url) };
    let (place, after) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], &rest[at..=at]),
        None => (rest, ""),
    };
    let authority = &place[..place.find('/').unwrap_or(place.len())];
    // A password may have a slash in it, which ends the authority too soon.
    let user_ends = authority.rfind('@').or_else(|| authority.contains(':').then(|| place.rfind('@')).flatten());
    if user_ends.is_none() && after.is_empty() {
        return Cow::Borrowed(url);
    }
    let user = if user_ends.is_some() { format!("{LEFT_OUT}@") } else { String::new() };
    let place = user_ends.map_or(place, |at| &place[at + 1..]);
    let after = if after.is_empty() { String::new() } else { format!("{after}{LEFT_OUT}") };
    Cow::Owned(format!("{scheme}://{user}{place}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_passwords_queries_and_fragments_are_left_out() {
        for (url, shown) in [
            ("s3://id:secret@bucket/prefix", "s3://…@bucket/prefix"),
            ("s3://id@bucket", "s3://…@bucket"),
            ("http://a:b@c@host:1/x?sig=secret#secret", "http://…@host:1/x?…"),
            ("az://container/p?sv=1&sig=secret", "az://container/p?…"),
            ("s4://id:se/cret@bucket", "s4://…@bucket"),
            ("gs://bucket#secret", "gs://bucket#…"),
        ] {
            assert_eq!(redact_url(url), shown);
            assert!(!shown.contains("secret"));
        }
    }

    #[test]
    fn what_has_no_secrets_stays_as_it_is() {
        for url in ["memory://", "file:///data/a@b", "s3://bucket/a@b", "./data?", "", "s3://", "http://host:1/p"] {
            assert_eq!(redact_url(url), url);
        }
    }
}
