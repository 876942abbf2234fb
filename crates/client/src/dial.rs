//! Where brokers are, and how a connection to one of them is made.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::error::{ClientError, root_cause};

/// An idle connection is probed so often; a peer that is gone without a word is noticed.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A probe that is not answered for so long means that the peer is gone.
const KEEPALIVE_MAX: Duration = Duration::from_secs(10);
/// Bytes that a stream may send before they are read. Less makes a fast reader wait for the way to the broker and back.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The brokers that may be asked, in turn.
#[derive(Debug)]
pub(crate) struct Dialer {
    endpoints: Vec<(String, Endpoint)>,
    /// The one that answered last.
    current: AtomicUsize,
}

impl Dialer {
    /// Takes addresses as `host:port` or as URLs.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is none, or one isn't an address.
    pub(crate) fn new(addresses: &[String], connect_max: Duration) -> Result<Self, ClientError> {
        let wrong = |message: String| ClientError::refused(Code::InvalidArgument, "", message);
        if addresses.is_empty() {
            return Err(wrong("a client needs the address of a broker".to_owned()));
        }
        let endpoints = addresses.iter().map(|address| {
            let url = if address.contains("://") { address.clone() } else { format!("http://{address}") };
            let endpoint = Endpoint::from_shared(url);
            let endpoint =
                endpoint.map_err(|error| wrong(format!("{address:?} is no address, such as host:port: {error}")))?;
            let endpoint = endpoint
                .tcp_nodelay(true)
                .connect_timeout(connect_max)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE_MAX);
            Ok((address.clone(), endpoint))
        });
        Ok(Self { endpoints: endpoints.collect::<Result<_, _>>()?, current: AtomicUsize::new(0) })
    }

    /// A new connection: to the broker that answered last, else to the next that answers; each is asked once.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`] with the cause at the last.
    pub(crate) async fn dial(&self) -> Result<Channel, ClientError> {
        let begin = self.current.load(Ordering::Relaxed);
        let mut cause = String::new();
        for step in 0..self.endpoints.len() {
            let index = (begin + step) % self.endpoints.len();
            match self.endpoints[index].1.connect().await {
                Ok(channel) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(channel);
                }
                Err(error) => cause = root_cause(&error),
            }
        }
        Err(ClientError::NotConnected { address: self.addresses(), cause })
    }

    /// Has the next broker asked first: this one is there, but of no use.
    pub(crate) fn turn(&self) {
        let next = (self.current.load(Ordering::Relaxed) + 1) % self.endpoints.len();
        self.current.store(next, Ordering::Relaxed);
    }

    fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.endpoints.iter().map(|(address, _)| address.as_str()).collect();
        addresses.join(",")
    }
}
