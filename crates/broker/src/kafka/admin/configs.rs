//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources.
//!
//! Topics have Kafka's settings, all of which are told with their defaults, because tools read them to write them. A broker tells its own
//! settings (`lakebed.…`) and those of Kafka's that say the same, and they can't be altered while it runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse as Replaced;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::*;

use super::super::Service;
use super::super::response::{Reply, ReplyTo};
use super::{topic_config, words};
use crate::config::TABLE;
use crate::reason::Reason;
use crate::topics::settings::{Known, ValueType, all_known};
use crate::topics::{Alteration, ConfigAlteration};

/// Kafka's numbers of kinds of resources.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Kafka's numbers of where a value comes from.
const SET_FOR_TOPIC: i8 = 1;
const SET_FOR_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// Kafka's code and a sentence for people.
type Refused = (ResponseError, String);

/// A setting with its value, and those that it takes it from.
struct Shown {
    name: String,
    value: String,
    source: i8,
    read_only: bool,
    value_type: ValueType,
    synonyms: Vec<(String, String, i8)>,
    documentation: Option<&'static str>,
}

fn wrong<T>(why: impl ToString) -> Result<T, Refused> {
    Err((ResponseError::InvalidRequest, why.to_string()))
}

/// Answers with settings, all of them unless some are named.
pub(super) async fn describe(
    service: &Service,
    reply_to: ReplyTo,
    request: DescribeConfigsRequest,
    reached_at: SocketAddr,
) -> Reply {
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let shown = shown(service, &resource, reached_at).await;
        let result = DescribeConfigsResult::default().with_resource_type(resource.resource_type);
        let result = result.with_resource_name(resource.resource_name);
        results.push(match shown {
            Ok(shown) => {
                let keys = resource.configuration_keys;
                let asked = |name: &str| keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == name));
                let shown = shown.into_iter().filter(|one| asked(&one.name));
                let with = (request.include_synonyms, request.include_documentation);
                let one = |one| config_result(one, reply_to.version, with);
                result.with_error_message(None).with_configs(shown.map(one).collect())
            }
            Err((error, why)) => result.with_error_code(error.code()).with_error_message(Some(words(why))),
        });
    }
    reply_to.send(&DescribeConfigsResponse::default().with_results(results))
}

async fn shown(
    service: &Service,
    resource: &DescribeConfigsResource,
    reached_at: SocketAddr,
) -> Result<Vec<Shown>, Refused> {
    match resource.resource_type {
        TOPIC => {
            let config = topic_config(service, &resource.resource_name).await?;
            Ok(all_known().map(|known| topic_setting(&known, config.get(known.name))).collect())
        }
        BROKER if resource.resource_name.as_str() == service.node_id().to_string() => {
            Ok(broker_settings(service, reached_at))
        }
        // What holds for all brokers and was set while they ran: nothing.
        BROKER if resource.resource_name.is_empty() => Ok(Vec::new()),
        BROKER => {
            wrong(format_args!("this is broker {}, not {:?}", service.node_id(), resource.resource_name.as_str()))
        }
        other => {
            wrong(format_args!("resources of type {other} have no settings here; topics (2) and brokers (4) have"))
        }
    }
}

fn topic_setting(known: &Known, set: Option<&String>) -> Shown {
    let mut synonyms = Vec::new();
    if let Some(value) = set {
        synonyms.push((known.name.to_owned(), value.clone(), SET_FOR_TOPIC));
    }
    if let Some(name) = known.broker_name {
        synonyms.push((name.to_owned(), known.default.to_owned(), DEFAULT));
    }
    Shown {
        name: known.name.to_owned(),
        value: set.map_or_else(|| known.default.to_owned(), Clone::clone),
        source: if set.is_some() { SET_FOR_TOPIC } else { DEFAULT },
        read_only: false,
        value_type: known.value_type,
        synonyms,
        documentation: known.documentation,
    }
}

/// What this broker was told, by our names and by Kafka's; without secrets, by name.
fn broker_settings(service: &Service, reached_at: SocketAddr) -> Vec<Shown> {
    let (config, default) = (&service.rooms.config, crate::config::Config::default());
    let mut settings = BTreeMap::new();
    let mut show = |name: String, value: String, is_default: bool, value_type: ValueType| {
        let source = if is_default { DEFAULT } else { SET_FOR_BROKER };
        let synonyms = vec![(name.clone(), value.clone(), source)];
        let shown = Shown { name, value, source, read_only: true, value_type, synonyms, documentation: None };
        settings.insert(shown.name.clone(), shown);
    };
    for setting in TABLE {
        let value = setting.value(config).to_string();
        let is_default = value == setting.value(&default).to_string();
        show(format!("lakebed.{}", setting.name.replace('_', ".")), value, is_default, ValueType::String);
    }
    for known in all_known() {
        if let Some(name) = known.broker_name {
            show(name.to_owned(), known.default.to_owned(), true, known.value_type);
        }
    }
    let (host, port) = service.reached_by_clients(reached_at);
    let millis = |span: Duration| span.as_millis().to_string();
    let kafkas = [
        ("advertised.listeners", format!("PLAINTEXT://{host}:{port}"), ValueType::String),
        ("auto.create.topics.enable", config.auto_create_topics.to_string(), ValueType::Boolean),
        ("broker.id", service.node_id().to_string(), ValueType::Int),
        ("default.replication.factor", "1".to_owned(), ValueType::Int),
        ("group.initial.rebalance.delay.ms", millis(config.group_initial_rebalance_delay), ValueType::Int),
        ("group.max.session.timeout.ms", millis(config.group_session_timeout_max), ValueType::Int),
        ("group.max.size", config.group_members_max.to_string(), ValueType::Int),
        ("group.min.session.timeout.ms", millis(config.group_session_timeout_min), ValueType::Int),
        ("listeners", format!("PLAINTEXT://{}", config.kafka_listen), ValueType::String),
        ("log.retention.check.interval.ms", millis(config.retention_check_interval), ValueType::Long),
        ("num.partitions", config.default_partitions.to_string(), ValueType::Int),
        ("offsets.retention.minutes", (config.offsets_retention.as_secs() / 60).to_string(), ValueType::Int),
        ("producer.id.expiration.ms", millis(config.producer_id_expiration), ValueType::Int),
    ];
    for (name, value, value_type) in kafkas {
        show(name.to_owned(), value, false, value_type);
    }
    settings.into_values().collect()
}

/// `with`: whether the others that a value comes from are asked for, and what it does.
fn config_result(shown: Shown, version: i16, with: (bool, bool)) -> DescribeConfigsResourceResult {
    let (with_synonyms, with_documentation) = with;
    let synonym = |(name, value, source): (String, String, i8)| {
        DescribeConfigsSynonym::default().with_name(words(name)).with_value(Some(words(value))).with_source(source)
    };
    let synonyms = if with_synonyms { shown.synonyms.into_iter().map(synonym).collect() } else { Vec::new() };
    let result = DescribeConfigsResourceResult::default()
        .with_name(words(shown.name))
        .with_value(Some(words(shown.value)))
        .with_read_only(shown.read_only)
        .with_config_source(shown.source)
        .with_synonyms(synonyms);
    let value_type = match shown.value_type {
        ValueType::Boolean => 1,
        ValueType::String => 2,
        ValueType::Int => 3,
        ValueType::Long => 5,
        ValueType::Double => 6,
        ValueType::List => 7,
    };
    let documentation = shown.documentation.filter(|_| with_documentation).map(words);
    if version >= 3 { result.with_config_type(value_type).with_documentation(documentation) } else { result }
}

/// Gives topics the settings that are named, and no others.
pub(super) async fn replace(service: &Service, reply_to: ReplyTo, request: AlterConfigsRequest) -> Reply {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let mut config = BTreeMap::new();
        let mut named = Ok(());
        for setting in &resource.configs {
            let Some(value) = &setting.value else {
                named = wrong(format_args!("setting {} has no value", setting.name));
                continue;
            };
            if config.insert(setting.name.to_string(), value.to_string()).is_some() {
                named = wrong(format_args!("setting {} is named twice", setting.name));
            }
        }
        let topic = (resource.resource_type, resource.resource_name.as_str());
        let done = match named {
            Ok(()) => alter_topic(service, topic, ConfigAlteration::Replace(config), request.validate_only).await,
            refused => refused,
        };
        let (error, why) = told(done);
        let response = Replaced::default().with_error_code(error).with_error_message(why.map(words));
        responses.push(response.with_resource_type(resource.resource_type).with_resource_name(resource.resource_name));
    }
    reply_to.send(&AlterConfigsResponse::default().with_responses(responses))
}

/// Gives topics some settings, or their defaults again.
pub(super) async fn alter(service: &Service, reply_to: ReplyTo, request: IncrementalAlterConfigsRequest) -> Reply {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let topic = (resource.resource_type, resource.resource_name.as_str());
        let done = match changes(service, &resource).await {
            Ok(changes) => alter_topic(service, topic, ConfigAlteration::Some(changes), request.validate_only).await,
            Err(refused) => Err(refused),
        };
        let (error, why) = told(done);
        let response = Altered::default().with_error_code(error).with_error_message(why.map(words));
        responses.push(response.with_resource_type(resource.resource_type).with_resource_name(resource.resource_name));
    }
    reply_to.send(&IncrementalAlterConfigsResponse::default().with_responses(responses))
}

fn told(done: Result<(), Refused>) -> (i16, Option<String>) {
    match done {
        Ok(()) => (0, None),
        Err((error, why)) => (error.code(), Some(why)),
    }
}

async fn changes(
    service: &Service,
    resource: &AlterConfigsResource,
) -> Result<BTreeMap<String, Option<String>>, Refused> {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let mut changes = BTreeMap::new();
    for setting in &resource.configs {
        let name = setting.name.to_string();
        let value = match (setting.config_operation, &setting.value) {
            (DELETE, _) => None,
            (SET, Some(value)) => Some(value.to_string()),
            (operation @ (APPEND | SUBTRACT), Some(value)) => {
                let is_list = |known: &Known| known.name == name && known.value_type == ValueType::List;
                let Some(known) = all_known().find(is_list) else {
                    let why = format!("setting {name} is no list: nothing can be added to it or taken from it");
                    return Err((ResponseError::InvalidConfig, why));
                };
                let config = match resource.resource_type {
                    TOPIC => topic_config(service, &resource.resource_name).await?,
                    _ => Default::default(),
                };
                let now = config.get(&name).map_or(known.default, String::as_str);
                Some(list_after(now, value, operation == APPEND))
            }
            (SET | APPEND | SUBTRACT, None) => return wrong(format_args!("setting {name} has no value")),
            (other, _) => return wrong(format_args!("there is no operation {other} on settings")),
        };
        if changes.insert(name, value).is_some() {
            return wrong(format_args!("setting {} is named twice", setting.name));
        }
    }
    Ok(changes)
}

/// A list with some values more, or fewer.
fn list_after(now: &str, values: &str, append: bool) -> String {
    let parts =
        |text: &str| text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let (mut now, values): (Vec<String>, Vec<String>) = (parts(now), parts(values));
    if append {
        for value in values {
            if !now.contains(&value) {
                now.push(value);
            }
        }
    } else {
        now.retain(|value| !values.contains(value));
    }
    now.join(",")
}

async fn alter_topic(
    service: &Service,
    (kind, name): (i8, &str),
    config: ConfigAlteration,
    validate_only: bool,
) -> Result<(), Refused> {
    match kind {
        TOPIC => {}
        BROKER => {
            return wrong(
                "a broker's settings can't be altered while it runs: change its configuration, and start it again",
            );
        }
        other => return wrong(format_args!("resources of type {other} have no settings here; topics (2) have")),
    }
    let alteration = Alteration { name: name.to_owned(), id: None, partitions: None, config };
    let altered = service.rooms.topics.alter(alteration, validate_only).await;
    altered.map(drop).map_err(|error| (Reason::from(&error).row().kafka, error.to_string()))
}

/// Lists what has settings: topics and this broker. Version 0 asks for clients' metrics, of which there are none.
pub(super) async fn list_resources(
    service: &Service,
    reply_to: ReplyTo,
    request: &ListConfigResourcesRequest,
) -> Reply {
    let asked =
        |kind| reply_to.version >= 1 && (request.resource_types.is_empty() || request.resource_types.contains(&kind));
    if let Some(other) = request.resource_types.iter().find(|kind| !matches!(**kind, 2 | 4 | 8 | 16 | 32)) {
        tracing::debug!(other, "settings of an unknown type of resources were asked for");
        let refused = ListConfigResourcesResponse::default();
        return reply_to.send(&refused.with_error_code(ResponseError::UnsupportedVersion.code()));
    }
    let resource =
        |kind, name: String| ConfigResource::default().with_resource_type(kind).with_resource_name(words(name));
    let mut resources = Vec::new();
    if asked(TOPIC) {
        match service.rooms.topics.list().await {
            Ok(topics) => resources.extend(topics.iter().map(|topic| resource(TOPIC, topic.name.to_string()))),
            Err(error) => {
                let refused = ListConfigResourcesResponse::default().with_error_code(Reason::from(&error).kafka());
                return reply_to.send(&refused);
            }
        }
    }
    if asked(BROKER) {
        resources.push(resource(BROKER, service.node_id().to_string()));
    }
    // Before version 1 a resource is a name alone.
    reply_to.send(&ListConfigResourcesResponse::default().with_config_resources(resources))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_added_to_a_list_once_and_taken_from_it() {
        for (now, values, append, after) in [
            ("delete", "delete", true, "delete"),
            ("", "0:1, 1:1", true, "0:1,1:1"),
            ("0:1,1:1", "1:1", false, "0:1"),
            ("0:1", "0:1", false, ""),
            ("0:1", "9:9", false, "0:1"),
        ] {
            assert_eq!(list_after(now, values, append), after);
        }
    }
}
