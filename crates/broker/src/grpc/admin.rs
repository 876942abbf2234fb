//! `AdminService`.

use std::collections::BTreeMap;

use lakebed_model::{Member, Node, PartitionIndex, PartitionKey, State, TopicId};
use lakebed_wire::v1;
use prost::Message;
use tonic::{Request, Response, Status};

use super::Services;
use super::produce::{wire_offset, wire_partition};
use super::status::{status, violation};
use crate::cluster;
use crate::reason::Reason;
use crate::services::admin_service_server::AdminService;
use crate::topics::{Alteration, ConfigAlteration, CreateError, FoundTopic, NewTopic, TopicError, TopicReference};

/// Topics in one page if the request says nothing, and at most.
const PAGE_SIZE_MAX: usize = 1000;
/// A page ends before it is larger: clients take 4 MiB by default, and settings may be long.
const PAGE_BYTES_MAX: usize = 2 << 20;

#[tonic::async_trait]
impl AdminService for Services {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let partitions = request.partition_count.map(check_partition_count).transpose()?;
        let name = request.name.clone();
        let new = NewTopic { name: request.name, partitions, config: request.config };
        let created = self.rooms.topics.create(new, request.validate_only).await;
        let topic = created.map_err(|error| create_status(&error, name))?;
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(wire_topic(&topic)) }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let request = request.into_inner();
        let size = match usize::try_from(request.page_size) {
            Err(_) => {
                let what = "page_size must not be negative";
                return Err(violation(Reason::InvalidRequest, "page_size", what, []));
            }
            Ok(0) => PAGE_SIZE_MAX,
            Ok(size) => size.min(PAGE_SIZE_MAX),
        };
        let listed = self.rooms.topics.list().await;
        let topics = listed.map_err(|error| status(Reason::from(&error), &error, []))?;
        // The token is the last name of the page before, so that a page holds its place when topics come and go.
        let rest = topics.iter().filter(|topic| topic.name.as_str() > request.page_token.as_str());
        let mut page: Vec<v1::Topic> = Vec::new();
        let (mut bytes, mut more) = (0, false);
        for topic in rest.map(wire_topic) {
            bytes += topic.encoded_len();
            more = page.len() == size || (bytes > PAGE_BYTES_MAX && !page.is_empty());
            if more {
                break;
            }
            page.push(topic);
        }
        let last = page.last().filter(|_| more);
        let next_page_token = last.map_or(String::new(), |last| last.name.clone());
        Ok(Response::new(v1::ListTopicsResponse { topics: page, next_page_token }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        let state = self.barrier().await?;
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

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let request = request.into_inner();
        let (name, validate_only) = (request.name.clone(), request.validate_only);
        let alteration = alteration(request)?;
        let altered = self.rooms.topics.alter(alteration, validate_only).await;
        let topic = altered.map_err(|error| topic_status(&error, name))?;
        Ok(Response::new(v1::AlterTopicResponse { topic: Some(wire_topic(&topic)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let request = request.into_inner();
        let name = request.name;
        let asked = request.id.as_deref().map(check_id).transpose()?;
        // Behind a barrier even if it is there: it may have been created again.
        let state = self.barrier().await?;
        let refuse = |error: &TopicError| topic_status(error, name.clone());
        let found = crate::topics::find(&state, &TopicReference::Name(name.clone()))
            .ok_or_else(|| refuse(&TopicError::NoSuchName { name: name.clone() }))?;
        if let Some(asked) = asked.filter(|asked| *asked != found.id) {
            return Err(refuse(&TopicError::OtherId { name: name.clone(), found: found.id, asked }));
        }
        if !request.validate_only {
            self.rooms.topics.delete(&TopicReference::Id(found.id)).await.map_err(|error| refuse(&error))?;
        }
        Ok(Response::new(v1::DeleteTopicResponse { id: found.id.to_string() }))
    }

    async fn list_segments(
        &self,
        request: Request<v1::ListSegmentsRequest>,
    ) -> Result<Response<v1::ListSegmentsResponse>, Status> {
        self.segments(request.into_inner()).await.map(Response::new)
    }

    async fn get_cluster_info(
        &self,
        _request: Request<v1::GetClusterInfoRequest>,
    ) -> Result<Response<v1::GetClusterInfoResponse>, Status> {
        let state = self.barrier().await?;
        let identity = self.rooms.log.identity();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let cell = v1::Cell {
            name: identity.cell.to_string(),
            epoch: i64::from(state.place().directory.epoch.get()),
            commit_number: signed(state.number().get()) - 1,
            feature_level: i32::from(state.feature_level().get()),
        };
        let brokers = self.brokers(&state);
        Ok(Response::new(v1::GetClusterInfoResponse {
            cluster_id: identity.cluster_id.to_string(),
            store: self.rooms.store.url().to_owned(),
            format: i32::try_from(lakebed_segment::FORMAT).unwrap_or(i32::MAX),
            cells: vec![cell],
            brokers,
            topic_count: count(state.topics().count()),
            partition_count: count(state.partition_count()),
            store_address: self.rooms.store.address().map(|address| v1::StoreAddress {
                endpoint: address.endpoint.clone(),
                region: address.region.clone(),
                path_style: address.path_style,
            }),
        }))
    }
}

impl Services {
    /// The brokers of the cluster, this one among them.
    fn brokers(&self, state: &State) -> Vec<v1::BrokerInfo> {
        let about = &self.about;
        let uptime_ms = i64::try_from(about.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        let Some(cluster) = &self.rooms.cluster else {
            return vec![v1::BrokerInfo {
                id: crate::kafka::NODE_ID,
                kafka_address: about.kafka_address.clone(),
                http_address: about.http_address.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                self_: true,
                uptime_ms,
                zone: self.rooms.config.zone.clone().unwrap_or_default(),
                leader: true,
            }];
        };
        let leader = cluster::leader(state).map(|node| node.id);
        let broker = |node: Node| {
            let is_self = node.member.nonce == cluster.me.nonce;
            let Member { kafka, http, zone, version, .. } = node.member;
            v1::BrokerInfo {
                id: node.id.get(),
                kafka_address: kafka,
                http_address: http,
                version,
                self_: is_self,
                uptime_ms: if is_self { uptime_ms } else { 0 },
                zone,
                leader: leader == Some(node.id),
            }
        };
        state.nodes().map(broker).collect()
    }

    pub(super) async fn barrier(&self) -> Result<State, Status> {
        self.rooms.log.barrier().await.map_err(|error| status(Reason::from(&error), &error, []))
    }
}

/// What a request asks to alter.
fn alteration(request: v1::AlterTopicRequest) -> Result<Alteration, Status> {
    let mask = |what: String| violation(Reason::InvalidRequest, "update_mask", what, []);
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(mask("update_mask must name at least one of partition_count, config and config.NAME".to_owned()));
    }
    let mut partitions = None;
    let mut some = BTreeMap::new();
    let mut replace = false;
    for path in paths {
        match path.as_str() {
            "partition_count" => partitions = Some(check_partition_count(request.partition_count)?),
            "config" => replace = true,
            path => match path.strip_prefix("config.") {
                Some(name) => drop(some.insert(name.to_owned(), request.config.get(name).cloned())),
                None => {
                    let path: String = path.chars().take(100).collect();
                    let known = "partition_count, config or config.NAME";
                    return Err(mask(format!("update_mask has no path {path:?}: it is {known}")));
                }
            },
        }
    }
    let config = if replace { ConfigAlteration::Replace(request.config) } else { ConfigAlteration::Some(some) };
    let id = request.id.as_deref().map(check_id).transpose()?;
    Ok(Alteration { name: request.name, id, partitions, config })
}

fn check_partition_count(count: i32) -> Result<u32, Status> {
    u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
        violation(Reason::InvalidPartitionCount, "partition_count", "partition_count must be 1 or more", [])
    })
}

fn check_id(id: &str) -> Result<TopicId, Status> {
    // In one form only, as it is shown: what is compared should not be guessed at.
    let known = uuid::Uuid::try_parse(id).ok().filter(|uuid| uuid.hyphenated().to_string() == id);
    known.map(TopicId::new).ok_or_else(|| {
        let what = "id must be a UUID in its usual form, such as 6ba7b810-9dad-41d1-80b4-00c04fd430c8";
        violation(Reason::InvalidRequest, "id", what, [])
    })
}

fn create_status(error: &CreateError, name: String) -> Status {
    let reason = Reason::from(error);
    let field = match (error, reason) {
        (CreateError::Setting(error), _) => format!("config.{}", error.setting()),
        (_, Reason::InvalidPartitionCount) => "partition_count".to_owned(),
        _ => "name".to_owned(),
    };
    violation(reason, &field, error, [("topic", name)])
}

fn topic_status(error: &TopicError, name: String) -> Status {
    let reason = Reason::from(error);
    let field = match (error, reason) {
        (TopicError::Setting(error), _) => format!("config.{}", error.setting()),
        (_, Reason::InvalidPartitionCount) => "partition_count".to_owned(),
        _ => "name".to_owned(),
    };
    violation(reason, &field, error, [("topic", name)])
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
