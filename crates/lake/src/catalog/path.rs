//! What a request is about, by its path; names in it are percent-decoded one by one.

use std::collections::BTreeMap;

use http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::answer::Refused;

/// The parameters of a request.
pub(super) type Query = BTreeMap<String, String>;

/// Separates the levels of a namespace.
const LEVELS: char = '\u{1f}';

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Config,
    Namespaces,
    Namespace(String),
    Tables(String),
    Table(String, String),
    /// A client's report of a scan.
    Metrics,
    Views(String),
    View(String),
    /// Something that can only be changed.
    ReadOnly,
}

impl Target {
    /// # Errors
    /// [`Refused`] for a path that the catalog has nothing at.
    pub(super) fn of(path: &str, prefix: Option<&str>) -> Result<Self, Refused> {
        let unknown = || Refused::no_endpoint(path);
        let below = path.strip_prefix(super::PREFIX).and_then(|path| path.strip_prefix("/v1/")).ok_or_else(unknown)?;
        let mut parts =
            below.trim_end_matches('/').split('/').map(decoded).collect::<Result<Vec<String>, Refused>>()?;
        if prefix.is_some_and(|prefix| parts.len() > 1 && parts[0] == prefix) {
            parts.remove(0);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(match parts[..] {
            ["config"] => Self::Config,
            ["namespaces"] => Self::Namespaces,
            ["namespaces", namespace] => Self::Namespace(levels(namespace)),
            ["namespaces", _, "properties" | "register" | "register-view"] => Self::ReadOnly,
            ["namespaces", namespace, "tables"] => Self::Tables(levels(namespace)),
            ["namespaces", namespace, "tables", table] => Self::Table(levels(namespace), table.to_owned()),
            ["namespaces", _, "tables", _, "metrics"] => Self::Metrics,
            ["namespaces", namespace, "views"] => Self::Views(levels(namespace)),
            ["namespaces", _, "views", view] => Self::View(view.to_owned()),
            ["tables" | "views", "rename"] | ["transactions", "commit"] | ["oauth", "tokens"] => Self::ReadOnly,
            _ => return Err(unknown()),
        })
    }

    /// # Errors
    /// [`Refused`] for a method that would change something, or that nothing is asked by.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Refused> {
        let answered: &[Method] = match self {
            Self::Config | Self::Namespaces | Self::Tables(_) | Self::Views(_) => &[Method::GET],
            Self::Namespace(_) | Self::Table(..) | Self::View(_) => &[Method::GET, Method::HEAD],
            Self::Metrics => &[Method::POST],
            Self::ReadOnly => &[],
        };
        if answered.contains(method) {
            return Ok(());
        }
        match *method {
            Method::POST | Method::PUT | Method::DELETE | Method::PATCH => Err(Refused::read_only(method)),
            _ => Err(Refused::bad_method(method)),
        }
    }
}

/// The parameters after the question mark.
///
/// # Errors
/// [`Refused`] if one is not UTF-8.
pub(super) fn query(uri: &Uri) -> Result<Query, Refused> {
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?))
    };
    pairs.map(pair).collect()
}

fn decoded(part: &str) -> Result<String, Refused> {
    let text = percent_decode_str(part).decode_utf8();
    text.map(|text| text.into_owned()).map_err(|_| Refused::bad(format!("'{part}' is not UTF-8")))
}

/// A namespace as people write it. Ours have one level, so one with more is not found, and named.
fn levels(namespace: &str) -> String {
    namespace.replace(LEVELS, ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_before_they_are_decoded() {
        let of = |path: &str| Target::of(&format!("/iceberg/v1/{path}"), Some("wh")).ok();
        assert_eq!(of("config"), Some(Target::Config));
        assert_eq!(of("wh/namespaces/"), Some(Target::Namespaces));
        assert_eq!(of("namespaces/a%1Fb"), Some(Target::Namespace("a.b".to_owned())));
        let table = |name: &str| Some(Target::Table("default".to_owned(), name.to_owned()));
        assert_eq!(of("namespaces/default/tables/a%2Fb"), table("a/b"));
        assert_eq!(of("wh/namespaces/default/tables/%C3%A4%20%25"), table("ä %"));
        assert_eq!(of("namespaces/default/tables/a/metrics"), Some(Target::Metrics));
        for none in ["", "other/namespaces", "namespaces/a/b", "namespaces/default/tables/a/b", "namespaces/%FF"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert!(Target::of("/iceberg", None).is_err() && Target::of("/iceberg/v2/config", None).is_err());
        assert!(Target::of("/iceberg/v1/wh/namespaces", None).is_err());
    }
}
