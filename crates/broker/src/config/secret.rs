//! Texts that may hold a secret: they are never printed whole.

use std::fmt;

/// A URL whose user, password, query and fragment are left out wherever it is printed, by `{}` as by `{:?}`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The whole of it, for the one who opens it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&lakebed_store::redact_url(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", lakebed_store::redact_url(&self.0))
    }
}

/// Names of properties whose values are no secrets. Of all others only the name is printed.
const SHOWN: [&str; 6] =
    ["s3.endpoint", "s3.region", "s3.path-style-access", "client.region", "gcs.project-id", "adls.account-name"];

/// What clients of the catalog are told with each table: `name=value`, separated by commas. Credentials among them are never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SecretProperties(String);

impl SecretProperties {
    /// Whether each part has a name and a value, and each name is there once.
    ///
    /// # Errors
    /// What is wrong, for a person; without what may be a secret.
    pub fn check(&self) -> Result<(), &'static str> {
        check_properties(&self.0)
    }

    /// Names and values, for the ones who are told them.
    pub fn expose(&self) -> impl Iterator<Item = (&str, &str)> {
        pairs(&self.0).filter_map(Result::ok)
    }
}

/// Names and values; of one that has none what is wrong with it.
fn pairs(text: &str) -> impl Iterator<Item = Result<(&str, &str), &'static str>> {
    const WRONG: &str =
        "must be NAME=VALUE, separated by commas, such as s3.endpoint=http://minio.example:9000,s3.region=eu-central-1";
    text.split(',').map(|pair| match pair.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim(), value.trim())),
        _ => Err(WRONG),
    })
}

/// Whether it is properties.
///
/// # Errors
/// What is wrong, for a person; without what may be a secret.
pub(super) fn check_properties(text: &str) -> Result<(), &'static str> {
    let mut names = std::collections::BTreeSet::new();
    for pair in pairs(text) {
        if !names.insert(pair?.0) {
            return Err("must name every property once");
        }
    }
    Ok(())
}

impl From<&str> for SecretProperties {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for SecretProperties {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for SecretProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pair) in pairs(&self.0).enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            match pair {
                Ok((name, value)) if SHOWN.contains(&name) => write!(f, "{name}={}", lakebed_store::redact_url(value))?,
                Ok((name, _)) => write!(f, "{name}=…")?,
                // It may be a value that was cut off at its comma.
                Err(_) => f.write_str("…")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SecretProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::SecretProperties;
    use crate::config::Config;

    #[test]
    fn a_secret_in_a_property_is_never_printed() {
        let told =
            "s3.endpoint=http://id:hush@minio.example:9000, s3.access-key-id=hush,s3.secret-access-key=hu=sh,hush";
        let config = Config { catalog_properties: Some(told.into()), ..Config::default() };
        for text in [SecretProperties::from(told).to_string(), format!("{config:?}")] {
            assert!(!text.contains("hush") && !text.contains("hu=sh"), "{text}");
            assert!(text.contains("minio.example:9000") && text.contains("s3.secret-access-key=…,…"), "{text}");
        }
        let exposed: Vec<_> = config.catalog_properties.iter().flat_map(SecretProperties::expose).collect();
        assert_eq!(exposed[1..], [("s3.access-key-id", "hush"), ("s3.secret-access-key", "hu=sh")]);
        let problems = config.validate();
        assert!(problems.len() == 1 && !format!("{problems:?}").contains("hush"), "{problems:?}");
        let twice = Config { catalog_properties: Some("a=1,a=2".into()), ..Config::default() };
        assert_eq!(twice.validate().len(), 1);
    }

    #[test]
    fn a_secret_in_a_url_is_never_printed() {
        let config = Config { store: "s3://id:hush@bucket/p?sig=hush".into(), ..Config::default() };
        let printed = [config.store.to_string(), format!("{:?}", config.store), format!("{config:#?}")];
        for text in printed {
            assert!(!text.contains("hush") && text.contains("s3://…@bucket/p?…"), "{text}");
        }
        assert_eq!(config.store.expose(), "s3://id:hush@bucket/p?sig=hush", "who opens it gets all of it");
    }
}
