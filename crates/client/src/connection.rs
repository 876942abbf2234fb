//! The client: its connection, and the calls that answer once.
//!
//! Calls that answer once are not repeated here: what a failure means is in the error. A connection that broke is made anew by the next call,
//! to the next address that answers. Producers and consumers have connections of their own.

mod admin;
mod groups;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lakebed_wire::v1;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::consumer::{ConsumerBuilder, Start};
use crate::dial::Dialer;
use crate::error::ClientError;
use crate::group::GroupBuilder;
use crate::producer::ProducerBuilder;
use crate::services::admin_service_client::AdminServiceClient;
use crate::services::consume_service_client::ConsumeServiceClient;
use crate::services::produce_service_client::ProduceServiceClient;

pub use admin::Readiness;

/// Most topics in one answer of `list_topics`.
const PAGE_SIZE: i32 = 1000;
/// Largest message that is taken: any record that a broker takes fits.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// How a [`Client`] is made.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    addresses: Vec<String>,
    connect_max: Duration,
    call_max: Duration,
}

impl ClientBuilder {
    /// Another broker, as `host:port` or `http://host:port`. They are tried in turn, from the one that answered last.
    #[must_use]
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// How long one connection may take to stand. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, connect_max: Duration) -> Self {
        self.connect_max = connect_max;
        self
    }

    /// How long a call that answers once may take; the broker is told. Then it fails with DEADLINE_EXCEEDED. Default: 60 s.
    #[must_use]
    pub fn call_timeout(mut self, call_max: Duration) -> Self {
        self.call_max = call_max;
        self
    }

    /// Connects to the first broker that answers.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`], or [`ClientError::Refused`] for what is no address.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let dialer = Arc::new(Dialer::new(&self.addresses, self.connect_max)?);
        let channel = dialer.dial().await?;
        Ok(Client { dialer, channel: Arc::new(Mutex::new(Some(channel))), call_max: self.call_max })
    }
}

/// A client of one cluster. Clones share a connection.
///
/// ```no_run
/// # async fn example() -> Result<(), lakebed_client::ClientError> {
/// let client = lakebed_client::Client::builder().address("127.0.0.1:7070").address("127.0.0.1:7071").connect().await?;
/// let topic = client.create_topic("orders", Some(4), Default::default()).await?;
/// assert_eq!(topic.partition_count, 4);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) dialer: Arc<Dialer>,
    /// Absent after it broke.
    channel: Arc<Mutex<Option<Channel>>>,
    pub(crate) call_max: Duration,
}

impl Client {
    /// Begins a client with no address yet.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { addresses: Vec::new(), connect_max: Duration::from_secs(5), call_max: Duration::from_secs(60) }
    }

    /// Connects to a broker at `address`: `host:port` or `http://host:port`.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`], or [`ClientError::Refused`] for what is no address.
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Self::builder().address(address).connect().await
    }

    /// A producer for a topic; see [`ProducerBuilder`] for its settings.
    pub fn producer(&self, topic: &str) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), topic)
    }

    /// A consumer of a topic that begins at `start`; see [`ConsumerBuilder`] for its settings.
    pub fn consumer(&self, topic: &str, start: Start) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), topic, start)
    }

    /// A member of a consumer group; see [`GroupBuilder`] for its settings.
    pub fn group(&self, name: &str) -> GroupBuilder {
        GroupBuilder::new(self.clone(), name)
    }

    /// Creates a topic; `partitions` of `None` is the broker's default.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: Option<i32>,
        config: BTreeMap<String, String>,
    ) -> Result<v1::Topic, ClientError> {
        let request =
            v1::CreateTopicRequest { name: name.to_owned(), partition_count: partitions, config, validate_only: false };
        let mut admin = self.admin().await?;
        let answer = self.answer(admin.create_topic(self.request(request)).await)?;
        Ok(answer.topic.unwrap_or_default())
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_topics(&self) -> Result<Vec<v1::Topic>, ClientError> {
        let mut topics = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListTopicsRequest { page_size: PAGE_SIZE, page_token };
            let mut admin = self.admin().await?;
            let page = self.answer(admin.list_topics(self.request(request)).await)?;
            topics.extend(page.topics);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(topics);
            }
        }
    }

    /// A topic with the bounds of its partitions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_topic(&self, name: &str) -> Result<v1::DescribeTopicResponse, ClientError> {
        let request = v1::DescribeTopicRequest { name: name.to_owned() };
        let mut admin = self.admin().await?;
        self.answer(admin.describe_topic(self.request(request)).await)
    }

    /// Deletes a topic and everything in it; answers its id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_topic(&self, name: &str) -> Result<String, ClientError> {
        let request = v1::DeleteTopicRequest { name: name.to_owned(), ..Default::default() };
        let mut admin = self.admin().await?;
        Ok(self.answer(admin.delete_topic(self.request(request)).await)?.id)
    }

    /// Appends records to one partition, all of them or none; returns when they are durable.
    ///
    /// # Errors
    /// [`ClientError`].
    /// # Cancel They may be stored.
    pub async fn produce(
        &self,
        topic: &str,
        partition: Option<i32>,
        records: Vec<v1::Record>,
    ) -> Result<v1::ProduceResponse, ClientError> {
        let payload = Some(v1::produce_request::Payload::Records(v1::Records { records }));
        self.produce_request(v1::ProduceRequest {
            topic: topic.to_owned(),
            partition,
            payload,
            ..v1::ProduceRequest::default()
        })
        .await
    }

    /// Sends a Produce request as it is.
    ///
    /// # Errors
    /// [`ClientError`].
    /// # Cancel The records may be stored.
    pub async fn produce_request(&self, request: v1::ProduceRequest) -> Result<v1::ProduceResponse, ClientError> {
        let mut client = ProduceServiceClient::new(self.channel().await?);
        self.answer(client.produce(self.request(request)).await)
    }

    /// Reads one partition once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch(&self, request: v1::FetchRequest) -> Result<v1::FetchResponse, ClientError> {
        let client = ConsumeServiceClient::new(self.channel().await?);
        self.answer(client.max_decoding_message_size(MESSAGE_BYTES_MAX).fetch(self.request(request)).await)
    }

    pub(crate) async fn admin(&self) -> Result<AdminServiceClient<Channel>, ClientError> {
        Ok(AdminServiceClient::new(self.channel().await?))
    }

    /// The connection that is shared, made anew if it broke.
    async fn channel(&self) -> Result<Channel, ClientError> {
        let standing = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match standing {
            Some(channel) => Ok(channel),
            None => {
                let channel = self.dialer.dial().await?;
                *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
                Ok(channel)
            }
        }
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.call_max);
        request
    }

    pub(crate) fn answer<T>(&self, result: Result<Response<T>, Status>) -> Result<T, ClientError> {
        result.map(Response::into_inner).map_err(|status| {
            let error = ClientError::from_status(&status);
            if matches!(error, ClientError::Lost { .. }) {
                *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            error
        })
    }
}
