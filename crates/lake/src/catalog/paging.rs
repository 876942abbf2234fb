//! Pages of a listing. A token names the last of the page before.

use super::answer::Refused;
use super::path::Query;

/// Names of a page, if the client asks for pages and not for their size; and the most that it gets.
const PAGE_NAMES: usize = 1000;
/// Begins every token, so that what is none is noticed.
const TOKEN: &str = "after-";

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) names: Vec<String>,
    /// What gives the next page; `None` with the last one.
    pub(super) next_token: Option<String>,
}

/// The page of `names`, which ascend, that `query` asks for; all of them if it asks for none.
///
/// # Errors
/// [`Refused`] for a token or a size that is none.
pub(super) fn page(names: Vec<String>, query: &Query) -> Result<Page, Refused> {
    let (token, size) = (query.get("pageToken"), query.get("pageSize"));
    if token.is_none() && size.is_none() {
        return Ok(Page { names, next_token: None });
    }
    let size = match size {
        None => PAGE_NAMES,
        Some(text) => match text.parse::<usize>() {
            Ok(size) if size > 0 => size.min(PAGE_NAMES),
            _ => return Err(Refused::bad(format!("pageSize is '{text}': use a number from 1 on"))),
        },
    };
    let after = match token.map(String::as_str) {
        None | Some("") => None,
        Some(token) => {
            let bad =
                || Refused::bad(format!("pageToken '{token}' is not one of this catalog: begin again without it"));
            Some(token.strip_prefix(TOKEN).and_then(from_hex).ok_or_else(bad)?)
        }
    };
    let start = after.map_or(0, |after| names.partition_point(|name| *name <= after));
    let more = names.len() > start.saturating_add(size);
    let names: Vec<String> = names.into_iter().skip(start).take(size).collect();
    let next_token = names.last().filter(|_| more).map(|last| format!("{TOKEN}{}", to_hex(last)));
    Ok(Page { names, next_token })
}

fn to_hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<String> {
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    String::from_utf8(bytes.collect::<Result<Vec<u8>, _>>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(names: &[&str], token: Option<&str>, size: Option<&str>) -> Option<Page> {
        let parameter = |name: &str, value: Option<&str>| value.map(|value| (name.to_owned(), value.to_owned()));
        let query = [parameter("pageToken", token), parameter("pageSize", size)].into_iter().flatten().collect();
        page(names.iter().map(|name| (*name).to_owned()).collect(), &query).ok()
    }

    #[test]
    fn pages_together_are_the_whole_whatever_comes_and_goes() {
        let all = ["a", "b", "c", "d", "e"];
        assert_eq!(ask(&all, None, None).unwrap().names, all);
        let first = ask(&all, Some(""), Some("2")).unwrap();
        assert_eq!(first.names, ["a", "b"]);
        // The last of the page before is gone, and one has come before it.
        let second = ask(&["a", "aa", "c", "d", "e"], first.next_token.as_deref(), Some("2")).unwrap();
        assert_eq!(second.names, ["c", "d"]);
        let last = ask(&all, second.next_token.as_deref(), Some("2")).unwrap();
        assert_eq!((last.names, last.next_token), (vec!["e".to_owned()], None));
        assert_eq!(ask(&all, None, Some("5")).unwrap().next_token, None);
        assert_eq!(ask(&[], Some(""), None).unwrap(), Page { names: Vec::new(), next_token: None });
    }

    #[test]
    fn what_is_no_page_is_refused() {
        for (token, size) in [
            (None, Some("0")),
            (None, Some("-1")),
            (None, Some("x")),
            (None, Some("")),
            (Some("a"), None),
            (Some("after-"), None),
            (Some("after-6"), None),
            (Some("after-zz"), None),
            (Some("after-ff"), None),
        ] {
            assert_eq!(ask(&["a"], token, size), None, "{token:?} {size:?}");
        }
        assert!(ask(&["a"], Some("after-61"), Some("99999")).is_some());
    }
}
