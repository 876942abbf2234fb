//! Calls about topics and the cluster that take everything their messages say, and health.

use http_body_util::{BodyExt, Limited};
use lakebed_wire::v1;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Client;
use crate::error::ClientError;

/// More than any answer about health.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a broker answers on `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it can do its work.
    pub ready: bool,
    /// Its answer as it is; if it is not ready it says why.
    pub answer: String,
}

impl Client {
    /// Sends a CreateTopic request as it is; answers the topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_topic_request(&self, request: v1::CreateTopicRequest) -> Result<v1::Topic, ClientError> {
        let mut admin = self.admin().await?;
        Ok(self.answer(admin.create_topic(self.request(request)).await)?.topic.unwrap_or_default())
    }

    /// Sends an AlterTopic request as it is; answers the topic as it is then.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn alter_topic(&self, request: v1::AlterTopicRequest) -> Result<v1::Topic, ClientError> {
        let mut admin = self.admin().await?;
        Ok(self.answer(admin.alter_topic(self.request(request)).await)?.topic.unwrap_or_default())
    }

    /// Sends a DeleteTopic request as it is; answers the id of the topic.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_topic_request(&self, request: v1::DeleteTopicRequest) -> Result<String, ClientError> {
        let mut admin = self.admin().await?;
        Ok(self.answer(admin.delete_topic(self.request(request)).await)?.id)
    }

    /// One page of the objects that hold a topic's records.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_segments(
        &self,
        request: v1::ListSegmentsRequest,
    ) -> Result<v1::ListSegmentsResponse, ClientError> {
        let mut admin = self.admin().await?;
        self.answer(admin.list_segments(self.request(request)).await)
    }

    /// The cluster as the broker knows it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cluster_info(&self) -> Result<v1::GetClusterInfoResponse, ClientError> {
        let mut admin = self.admin().await?;
        self.answer(admin.get_cluster_info(self.request(v1::GetClusterInfoRequest {})).await)
    }

    /// What `grpc.health.v1` says of a service, such as `lakebed.v1.ProduceService`: `SERVING`, `NOT_SERVING`, `UNKNOWN` or
    /// `SERVICE_UNKNOWN`. An empty name asks for the broker as a whole.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn health(&self, service: &str) -> Result<&'static str, ClientError> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.channel().await?).check(self.request(request)).await;
        let status = match answer {
            Ok(answer) => answer.into_inner().status,
            Err(status) if status.code() == Code::NotFound => ServingStatus::ServiceUnknown as i32,
            Err(status) => return self.answer::<()>(Err(status)).map(|()| ""),
        };
        Ok(ServingStatus::try_from(status).unwrap_or(ServingStatus::Unknown).as_str_name())
    }

    /// Asks `/readyz`, on the connection of the other calls.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ready(&self) -> Result<Readiness, ClientError> {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ClientError::from_status(&Status::from_error(error));
        let mut channel = self.channel().await?;
        let request = http::Request::get("/readyz").body(Body::empty()).expect("the request is one");
        std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(|error| failed(error.into()))?;
        let answer = channel.call(request).await.map_err(|error| failed(error.into()))?;
        let ready = answer.status().is_success();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(failed)?.to_bytes();
        Ok(Readiness { ready, answer: String::from_utf8_lossy(&body).trim().to_owned() })
    }
}
