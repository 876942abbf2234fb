//! Which broker client verbs talk to, and who said so.
//!
//! `--server`, then `LAKEBED_SERVER`, then [`DEFAULT`]. An error about a broker that can't be reached names the one that decided.

use std::fmt;

use lakebed_client::Client;

use crate::args::ServerArgs;
use crate::failure::Failure;

/// Where a broker listens for gRPC and HTTP unless it is told otherwise.
pub(crate) const DEFAULT: &str = "127.0.0.1:7070";

const VARIABLE: &str = "LAKEBED_SERVER";

/// A broker's gRPC address.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `host:port` or `http://host:port`.
    pub(crate) address: String,
    origin: Origin,
}

/// Who said where the broker is.
#[derive(Debug, Clone)]
enum Origin {
    Flag,
    Variable,
    Default,
}

impl ServerArgs {
    /// The broker that is meant.
    ///
    /// # Errors
    /// What was said can't be read.
    pub(crate) fn find(&self) -> Result<Server, Failure> {
        if let Some(address) = &self.server {
            return Ok(Server { address: address.clone(), origin: Origin::Flag });
        }
        match std::env::var(VARIABLE) {
            Ok(address) if !address.is_empty() => Ok(Server { address, origin: Origin::Variable }),
            Err(std::env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{VARIABLE} is not text"))),
            _ => Ok(Server { address: DEFAULT.to_owned(), origin: Origin::Default }),
        }
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
        let origin = match &self.origin {
            Origin::Flag => "from --server".to_owned(),
            Origin::Variable => format!("from {VARIABLE}"),
            Origin::Default => "the default".to_owned(),
        };
        write!(f, "{}, {origin}", self.address)
    }
}
