//! `AdminService`.

use lakebed_model::{PartitionIndex, PartitionKey, TopicId};
use lakebed_wire::v1;
use tonic::{Request, Response, Status};

use super::Services;
use super::produce::{wire_offset, wire_partition};
use super::status::{invalid, status};
use crate::reason::Reason;
use crate::services::admin_service_server::AdminService;
use crate::topics::{FoundTopic, NewTopic, TopicReference};

/// Topics in one page if the request says nothing, and at most.
const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 1000;

#[tonic::async_trait]
impl AdminService for Services {
    async fn alter_topic(
        &self,
        _request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        Err(status(Reason::Unsupported, "AlterTopic is not there yet", []))
    }

    async fn list_segments(
        &self,
        _request: Request<v1::ListSegmentsRequest>,
    ) -> Result<Response<v1::ListSegmentsResponse>, Status> {
        Err(status(Reason::Unsupported, "ListSegments is not there yet", []))
    }

    async fn get_cluster_info(
        &self,
        _request: Request<v1::GetClusterInfoRequest>,
    ) -> Result<Response<v1::GetClusterInfoResponse>, Status> {
        Err(status(Reason::Unsupported, "GetClusterInfo is not there yet", []))
    }

    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let partitions = match request.partition_count.map(u32::try_from) {
            None => None,
            Some(Ok(partitions)) => Some(partitions),
            Some(Err(_)) => {
                return Err(status(Reason::InvalidPartitionCount, "partition_count must be 1 or more", []));
            }
        };
        let name = request.name.clone();
        let new = NewTopic { name: request.name, partitions, config: request.config };
        let created = self.rooms.topics.create(new, request.validate_only).await;
        let topic = created.map_err(|error| status(Reason::from(&error), &error, [("topic", name)]))?;
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(wire_topic(&topic)) }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Err(_) => return Err(invalid("page_size must not be negative")),
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
        };
        let listed = self.rooms.topics.list().await;
        let topics = listed.map_err(|error| status(Reason::from(&error), &error, []))?;
        // The token is the last name of the page before, so that a page holds its place when topics come and go.
        let mut rest = topics.iter().filter(|topic| topic.name.as_str() > request.page_token.as_str());
        let page: Vec<v1::Topic> = rest.by_ref().take(size).map(wire_topic).collect();
        let next_page_token = match (rest.next(), page.last()) {
            (Some(_), Some(last)) => last.name.clone(),
            _ => String::new(),
        };
        Ok(Response::new(v1::ListTopicsResponse { topics: page, next_page_token }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        let state = self.rooms.log.barrier().await.map_err(|error| status(Reason::from(&error), &error, []))?;
        let topic = crate::topics::find(&state, &TopicReference::Name(name.clone())).ok_or_else(|| {
            status(Reason::TopicNotFound, format_args!("topic {name:?} does not exist"), [("topic", name.clone())])
        })?;
        let partitions = (0..topic.partitions).filter_map(|index| {
            let bounds = state.partition(PartitionKey::new(topic.id, PartitionIndex::new(index)))?;
            Some(v1::PartitionDescription {
                partition: wire_partition(index),
                earliest_offset: wire_offset(bounds.log_start),
                latest_offset: wire_offset(bounds.high_watermark),
            })
        });
        let partitions = partitions.collect();
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(wire_topic(&topic)), partitions }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let request = request.into_inner();
        let reference = TopicReference::Name(request.name.clone());
        let refuse =
            |error: &crate::topics::TopicError| status(Reason::from(error), error, [("topic", request.name.clone())]);
        let found = self.rooms.topics.find(&reference).await.map_err(|error| refuse(&error))?;
        if let Some(id) = &request.id
            && *id != found.id.to_string()
        {
            let message = format!("topic {:?} has id {}, not {id}: it has been created again", request.name, found.id);
            return Err(status(Reason::TopicNotFound, message, [("topic", request.name.clone())]));
        }
        if !request.validate_only {
            self.rooms.topics.delete(&TopicReference::Id(found.id)).await.map_err(|error| refuse(&error))?;
        }
        Ok(Response::new(v1::DeleteTopicResponse { id: found.id.to_string() }))
    }
}

fn wire_topic(topic: &FoundTopic) -> v1::Topic {
    let nil = topic.id == TopicId::new(uuid::Uuid::nil());
    v1::Topic {
        name: topic.name.to_string(),
        // A topic that was only validated has no id.
        id: if nil { String::new() } else { topic.id.to_string() },
        partition_count: wire_partition(topic.partitions),
        config: (*topic.config).clone(),
    }
}
