//! Profiles: where a broker is, written down, so that client verbs find it without being told.
//!
//! 1. `dev` writes the profile `dev` and makes it the current one when it serves, and takes it away when it stops; of two, the last one stands.
//! 2. A profile is a file `NAME.toml` in `LAKEBED_PROFILE_DIR`, else `$XDG_STATE_HOME/lakebed/profiles`, else
//!    `~/.local/state/lakebed/profiles`; the file `current` there holds the name of one. Both are replaced whole, never written over.
//! 3. A profile that can't be written is no reason for a broker not to serve.
//! 4. There is no secret in a profile.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::args::ProfileVerb;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Names the directory of profiles.
pub(crate) const DIRECTORY_VARIABLE: &str = "LAKEBED_PROFILE_DIR";

/// The profile that `dev` writes.
const DEV: &str = "dev";
/// The file with the name of the profile that is used.
const CURRENT: &str = "current";
/// More than any profile.
const FILE_BYTES_MAX: u64 = 64 << 10;
const NAME_MAX: usize = 64;

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// gRPC and HTTP, as `host:port`.
    pub(crate) server: String,
    /// Kafka, as `host:port`.
    pub(crate) kafka: Option<String>,
    /// Its store, without secrets.
    pub(crate) store: Option<String>,
    /// The process that wrote it.
    pub(crate) process: Option<u32>,
}

/// The directory of profiles.
#[derive(Debug, Clone)]
pub(crate) struct Profiles {
    directory: PathBuf,
}

/// A profile with its name and file.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Whether client verbs use it.
    pub(crate) current: bool,
    #[serde(flatten)]
    pub(crate) profile: Profile,
}

impl Profiles {
    /// Those of this user; nothing where no variable tells where they are.
    pub(crate) fn of_user() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = || variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
        let home = || Some(variable("HOME")?.join(".local/state"));
        let of_state = || Some(state().or_else(home)?.join("lakebed/profiles"));
        variable(DIRECTORY_VARIABLE).or_else(of_state).map(|directory| Self { directory })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }

    /// Writes the profile `dev` of this process, and makes it the current one.
    ///
    /// # Errors
    /// The directory can't be written; client verbs go on with what they had.
    pub(crate) fn write_dev(&self, http: SocketAddr, kafka: SocketAddr, store: &str) -> std::io::Result<()> {
        let profile = Profile {
            server: reachable(http).to_string(),
            kafka: Some(reachable(kafka).to_string()),
            store: Some(store.to_owned()),
            process: Some(std::process::id()),
        };
        let text = toml::to_string(&profile).map_err(std::io::Error::other)?;
        std::fs::create_dir_all(&self.directory)?;
        self.replace(&self.file(DEV), &text)?;
        self.replace(&self.directory.join(CURRENT), &format!("{DEV}\n"))
    }

    /// Takes the profile `dev` away if it is that of this process.
    pub(crate) fn remove_dev(&self) {
        if let Ok(profile) = read(&self.file(DEV))
            && profile.process == Some(std::process::id())
        {
            // It is found to be stale otherwise, when nothing answers there.
            drop(std::fs::remove_file(self.file(DEV)));
        }
    }

    /// Puts a whole file in the place of another.
    fn replace(&self, path: &Path, text: &str) -> std::io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.directory.join(format!(".{name}.{}", std::process::id()));
        let written = std::fs::File::create(&temporary).and_then(|mut file| file.write_all(text.as_bytes()));
        let replaced = written.and_then(|()| std::fs::rename(&temporary, path));
        if replaced.is_err() {
            drop(std::fs::remove_file(&temporary));
        }
        replaced
    }

    /// The name of the current profile, whether or not there is one of that name.
    fn current_name(&self) -> Option<String> {
        let name = read_text(&self.directory.join(CURRENT)).ok()?;
        Some(name.trim().to_owned()).filter(|name| is_name(name))
    }

    /// The current profile; nothing if none is chosen, or the one that was is gone.
    ///
    /// # Errors
    /// It is there, but can't be read.
    pub(crate) fn current(&self) -> Result<Option<Named>, Failure> {
        match self.current_name() {
            None => Ok(None),
            Some(name) => match self.named(&name) {
                Err(failure) if failure.exit == Exit::NotFound => Ok(None),
                profile => profile.map(Some),
            },
        }
    }

    fn named(&self, name: &str) -> Result<Named, Failure> {
        let file = self.file(name);
        let profile = read(&file).map_err(|error| {
            let failure = Failure::file(format!("profile {name} can't be read from {}", file.display()), &error);
            failure.remedy("see what there is with `lakebed profile list`, or name a broker with --server")
        })?;
        let current = self.current_name().as_deref() == Some(name);
        Ok(Named { name: name.to_owned(), file, current, profile })
    }

    /// All that can be read, by name.
    fn list(&self) -> Vec<Named> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_owned()));
        let mut profiles: Vec<Named> =
            names.filter(|name| is_name(name)).filter_map(|name| self.named(&name).ok()).collect();
        profiles.sort_by(|a, b| a.name.cmp(&b.name));
        profiles
    }

    fn choose(&self, name: &str) -> Result<Named, Failure> {
        if !is_name(name) {
            let what = format!("{name:?} is no name of a profile");
            return Err(Failure::usage(what).remedy("names are letters, digits, '.', '_' and '-'"));
        }
        let mut named = self.named(name)?;
        self.replace(&self.directory.join(CURRENT), &format!("{name}\n"))
            .map_err(|error| Failure::file(format!("profile {name} can't be made the current one"), &error))?;
        named.current = true;
        Ok(named)
    }
}

/// An address that a client on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('.') && name.chars().all(is_allowed)
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn read(path: &Path) -> std::io::Result<Profile> {
    toml::from_str(&read_text(path)?).map_err(|error| std::io::Error::other(error.message().to_owned()))
}

pub(crate) fn run(verb: &ProfileVerb, output: Output) -> Result<(), Failure> {
    let profiles = Profiles::of_user().ok_or_else(|| {
        Failure::new("there is no place for profiles").remedy(format!("set {DIRECTORY_VARIABLE}, or HOME"))
    })?;
    match verb {
        ProfileVerb::List => {
            let listed = profiles.list();
            if listed.is_empty() {
                output.notice("there are no profiles: `lakebed dev` writes one while it runs");
            }
            output.list("profiles", &listed, ["current", "name", "server", "kafka"], |named| {
                let mark = if named.current { "*" } else { "" };
                let kafka = named.profile.kafka.clone().unwrap_or_else(|| "-".to_owned());
                [mark.to_owned(), named.name.clone(), named.profile.server.clone(), kafka]
            })
        }
        ProfileVerb::Use { name } => {
            let named = profiles.choose(name)?;
            output.notice(format!("client verbs now use profile {name}: {}", named.profile.server));
            output.one(&named, String::new)
        }
        ProfileVerb::Show { name } => {
            let named = match name {
                Some(name) if is_name(name) => Some(profiles.named(name)?),
                Some(name) => return Err(Failure::usage(format!("{name:?} is no name of a profile"))),
                None => profiles.current()?,
            };
            let named = named.ok_or_else(|| {
                let failure = Failure::new("no profile is in use").code("PROFILE_NOT_FOUND", Exit::NotFound);
                failure.remedy("start a broker with `lakebed dev`, or choose one with `lakebed profile use NAME`")
            })?;
            output.one(&named, || {
                let Profile { server, kafka, store, .. } = &named.profile;
                let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                let (name, file) = (&named.name, named.file.display());
                let (kafka, store) = (or_dash(kafka), or_dash(store));
                format!("name    {name}\nfile    {file}\nserver  {server}\nkafka   {kafka}\nstore   {store}\n")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles() -> (tempfile::TempDir, Profiles) {
        let directory = tempfile::tempdir().unwrap();
        let profiles = Profiles { directory: directory.path().join("new/profiles") };
        (directory, profiles)
    }

    #[test]
    fn what_dev_writes_is_the_current_profile_until_it_stops() {
        let (_directory, profiles) = profiles();
        assert!(profiles.current().unwrap().is_none());
        let (http, kafka) = ("0.0.0.0:7171".parse().unwrap(), "[::]:9191".parse().unwrap());
        profiles.write_dev(http, kafka, "memory://").unwrap();
        let current = profiles.current().unwrap().unwrap();
        assert_eq!((current.name.as_str(), current.profile.server.as_str()), (DEV, "127.0.0.1:7171"));
        assert_eq!(current.profile.kafka.as_deref(), Some("[::1]:9191"), "an address that clients can connect to");
        let left: Vec<_> = std::fs::read_dir(&profiles.directory).unwrap().flatten().collect();
        assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
        profiles.remove_dev();
        assert!(profiles.current().unwrap().is_none() && profiles.list().is_empty());
    }

    #[test]
    fn the_profile_of_another_dev_stays() {
        let (_directory, profiles) = profiles();
        std::fs::create_dir_all(&profiles.directory).unwrap();
        let other = "server = 'h:1'\nprocess = 1\nunknown = 'of a later version'\n";
        std::fs::write(profiles.file(DEV), other).unwrap();
        profiles.remove_dev();
        assert_eq!(profiles.list()[0].profile.server, "h:1");
    }

    #[test]
    fn a_profile_is_chosen_by_its_name_and_only_if_it_is_there() {
        let (_directory, profiles) = profiles();
        std::fs::create_dir_all(&profiles.directory).unwrap();
        std::fs::write(profiles.file("staging"), "server = 'staging.example:7070'\n").unwrap();
        assert_eq!(profiles.choose("staging").unwrap().profile.server, "staging.example:7070");
        assert_eq!(profiles.current().unwrap().unwrap().name, "staging");
        assert_eq!(profiles.choose("production").unwrap_err().exit, Exit::NotFound);
        assert_eq!(profiles.choose("../staging").unwrap_err().exit, Exit::Usage);
        assert_eq!(profiles.current().unwrap().unwrap().name, "staging", "as it was");
        std::fs::write(profiles.file("staging"), "server = \n").unwrap();
        let told = profiles.current().unwrap_err();
        assert!(told.to_string().contains("staging.toml"), "{told}");
    }
}
