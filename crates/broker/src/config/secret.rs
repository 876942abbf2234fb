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

#[cfg(test)]
mod tests {
    use crate::config::Config;

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
