//! The profile of the AWS command line: `~/.aws/credentials` and `~/.aws/config`, as far as keys, region and endpoint go.
//!
//! Single sign-on, `credential_process` and role chaining are not done here: their keys come in by the environment.

use std::collections::BTreeMap;

/// The settings of one profile, by their names in the file.
pub(crate) type Profile = BTreeMap<String, String>;

/// Reads profile `name` out of the two files' texts; what `credentials` says stands over `config`.
///
/// `None` if neither has it.
pub(crate) fn read(name: &str, credentials: &str, config: &str) -> Option<Profile> {
    let long = format!("profile {name}");
    let config = section(config, |title| title == long || (name == "default" && title == "default"));
    let credentials = section(credentials, |title| title == name);
    if config.is_none() && credentials.is_none() {
        return None;
    }
    let mut profile = config.unwrap_or_default();
    profile.extend(credentials.unwrap_or_default());
    Some(profile)
}

/// The settings in the sections whose title is `wanted`. Indented lines belong to a nested setting and are passed over.
fn section(text: &str, wanted: impl Fn(&str) -> bool) -> Option<Profile> {
    let mut found = None;
    let mut inside = false;
    for line in text.lines() {
        let nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let title = title.0.split_whitespace().collect::<Vec<_>>().join(" ");
            inside = wanted(&title);
            if inside {
                found.get_or_insert_with(Profile::new);
            }
        } else if let (Some(profile), true, false, Some((name, value))) =
            (&mut found, inside, nested, line.split_once('='))
        {
            let value = value.split(" #").next().unwrap_or_default();
            profile.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}
