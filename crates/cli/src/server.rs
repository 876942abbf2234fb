//! Which broker client verbs talk to, and who said so.
//!
//! `--server`, then `LAKEBED_SERVER`, then the current profile (see [`crate::profile`]), then [`DEFAULT`]. An error about a broker that
//! can't be reached names the one that decided.

use std::fmt;
use std::path::PathBuf;

use lakebed_client::Client;

use crate::args::ServerArgs;
use crate::failure::Failure;
use crate::profile::Profiles;

/// Where a broker listens for gRPC and HTTP unless it is told otherwise.
pub(crate) const DEFAULT: &str = "127.0.0.1:7070";
/// Where a broker listens for Kafka unless it is told otherwise.
const DEFAULT_KAFKA: &str = "127.0.0.1:9092";

/// Names the broker if `--server` does not.
pub(crate) const VARIABLE: &str = "LAKEBED_SERVER";

/// A broker's addresses.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// gRPC and HTTP: `host:port` or `http://host:port`.
    pub(crate) address: String,
    /// Kafka: `host:port`, as far as it is known.
    pub(crate) kafka: String,
    origin: Origin,
}

/// Who said where the broker is.
#[derive(Debug, Clone)]
enum Origin {
    Flag,
    Variable,
    Profile { name: String, file: PathBuf },
    Default,
}

impl ServerArgs {
    /// The broker that is meant.
    ///
    /// # Errors
    /// What was said can't be read.
    pub(crate) fn find(&self) -> Result<Server, Failure> {
        let at =
            |address: &str, origin| Server { address: address.to_owned(), kafka: DEFAULT_KAFKA.to_owned(), origin };
        if let Some(address) = &self.server {
            return Ok(at(address, Origin::Flag));
        }
        match std::env::var(VARIABLE) {
            Ok(address) if !address.is_empty() => return Ok(at(&address, Origin::Variable)),
            Err(std::env::VarError::NotUnicode(_)) => return Err(Failure::usage(format!("{VARIABLE} is not UTF-8"))),
            _ => {}
        }
        let current = Profiles::of_user().map_or(Ok(None), |profiles| profiles.current())?;
        let Some(named) = current else { return Ok(at(DEFAULT, Origin::Default)) };
        let mut server = at(&named.profile.server, Origin::Profile { name: named.name, file: named.file });
        server.kafka = named.profile.kafka.unwrap_or(server.kafka);
        Ok(server)
    }

    /// A connection to the broker that is meant, and where that is.
    ///
    /// # Errors
    /// It can't be reached.
    pub(crate) async fn connect(&self) -> Result<(Client, Server), Failure> {
        let server = self.find()?;
        Ok((server.connect().await?, server))
    }
}

impl Server {
    /// A connection.
    ///
    /// # Errors
    /// It can't be reached.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let connected = Client::connect(&self.address).await;
        connected.map_err(|error| Failure::call("the broker can't be reached", self, &error))
    }

    /// What a person can do when nothing answers there.
    pub(crate) fn when_not_connected(&self) -> String {
        format!("start a broker with `lakebed dev`, or name another with --server (now {self})")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.address)?;
        match &self.origin {
            Origin::Flag => f.write_str("from --server"),
            Origin::Variable => write!(f, "from {VARIABLE}"),
            Origin::Profile { name, file } => write!(f, "from profile {name} in {}", file.display()),
            Origin::Default => f.write_str("the default"),
        }
    }
}
