//! One connection, and the calls that answer once.

use std::collections::BTreeMap;
use std::time::Duration;

use lakebed_wire::v1;
use tonic::transport::{Channel, Endpoint};

use crate::consumer::{ConsumeOptions, Consumer};
use crate::error::ClientError;
use crate::services::admin_service_client::AdminServiceClient;
use crate::services::consume_service_client::ConsumeServiceClient;
use crate::services::produce_service_client::ProduceServiceClient;

/// How long a connection may take to stand.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Most topics in one answer of `list_topics`.
const PAGE_SIZE: i32 = 1000;

/// A connection to a broker. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects to a broker at `address`: `host:port` or `http://host:port`.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`].
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        let failed = |cause: String| ClientError::NotConnected { address: address.to_owned(), cause };
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(url).map_err(|error| failed(error.to_string()))?;
        let endpoint = endpoint.tcp_nodelay(true).connect_timeout(CONNECT_MAX);
        let channel = endpoint.connect().await.map_err(|error| failed(root_cause(&error)))?;
        Ok(Self { channel })
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
        let answer = self.admin().create_topic(request).await.map_err(|status| ClientError::from_status(&status))?;
        Ok(answer.into_inner().topic.unwrap_or_default())
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
            let answer = self.admin().list_topics(request).await.map_err(|status| ClientError::from_status(&status))?;
            let page = answer.into_inner();
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
        let answer = self.admin().describe_topic(request).await.map_err(|status| ClientError::from_status(&status))?;
        Ok(answer.into_inner())
    }

    /// Deletes a topic and everything in it; answers its id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_topic(&self, name: &str) -> Result<String, ClientError> {
        let request = v1::DeleteTopicRequest { name: name.to_owned(), ..Default::default() };
        let answer = self.admin().delete_topic(request).await.map_err(|status| ClientError::from_status(&status))?;
        Ok(answer.into_inner().id)
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
    pub async fn produce_request(&self, request: v1::ProduceRequest) -> Result<v1::ProduceResponse, ClientError> {
        let mut client = ProduceServiceClient::new(self.channel.clone());
        let answer = client.produce(request).await.map_err(|status| ClientError::from_status(&status))?;
        Ok(answer.into_inner())
    }

    /// Reads one partition once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch(&self, request: v1::FetchRequest) -> Result<v1::FetchResponse, ClientError> {
        let answer = self.consume_service().fetch(request).await.map_err(|status| ClientError::from_status(&status))?;
        Ok(answer.into_inner())
    }

    /// Opens a stream over partitions of one topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn consume(&self, options: ConsumeOptions) -> Result<Consumer, ClientError> {
        Consumer::open(self.consume_service(), options).await
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    fn consume_service(&self) -> ConsumeServiceClient<Channel> {
        ConsumeServiceClient::new(self.channel.clone())
    }
}

/// The innermost reason, which is what a person can act on.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
