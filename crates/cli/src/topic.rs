//! `lakebed topic create|list|describe|alter|delete|files|segments`.

pub(crate) use files::time;

mod files;

use std::collections::BTreeMap;

use lakebed_client::Client;
use lakebed_wire::v1;
use serde::Serialize;

use crate::args::{TopicArgs, TopicVerb};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::server::Server;

/// Most segments in one answer.
const PAGE_SIZE: i32 = 1000;

/// A topic as it is printed.
#[derive(Debug, Serialize)]
struct Topic {
    name: String,
    /// Empty if it would only be made.
    id: String,
    partition_count: i32,
    config: BTreeMap<String, String>,
}

impl From<v1::Topic> for Topic {
    fn from(topic: v1::Topic) -> Self {
        Self { name: topic.name, id: topic.id, partition_count: topic.partition_count, config: topic.config }
    }
}

#[derive(Debug, Serialize)]
struct Described {
    #[serde(flatten)]
    topic: Topic,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    earliest_offset: i64,
    latest_offset: i64,
}

impl From<v1::PartitionDescription> for Partition {
    fn from(partition: v1::PartitionDescription) -> Self {
        Self {
            partition: partition.partition,
            earliest_offset: partition.earliest_offset,
            latest_offset: partition.latest_offset,
        }
    }
}

/// Consecutive rows of one partition in one object.
#[derive(Debug, Serialize)]
struct Segment {
    partition: i32,
    base_offset: i64,
    last_offset: i64,
    row_count: i64,
    first_row: i64,
    object_bytes: Option<i64>,
    min_timestamp: Option<i64>,
    max_timestamp: Option<i64>,
    uri: String,
}

impl From<v1::Segment> for Segment {
    fn from(segment: v1::Segment) -> Self {
        Self {
            partition: segment.partition,
            base_offset: segment.base_offset,
            last_offset: segment.last_offset,
            row_count: segment.row_count,
            first_row: segment.first_row,
            object_bytes: segment.object_bytes,
            min_timestamp: segment.min_timestamp,
            max_timestamp: segment.max_timestamp,
            uri: segment.uri,
        }
    }
}

pub(crate) async fn run(args: TopicArgs, output: Output) -> Result<(), Failure> {
    let (client, server) = args.server.connect().await?;
    match args.verb {
        TopicVerb::Create { name, partitions, config, validate_only } => {
            let config = config.into_iter().collect();
            let request =
                v1::CreateTopicRequest { name: name.clone(), partition_count: partitions, config, validate_only };
            let made = client.create_topic_request(request).await;
            let topic =
                made.map_err(|error| Failure::call(format!("topic {name} was not created"), &server, &error))?;
            changed(if validate_only { "would create" } else { "created" }, topic, output)
        }
        TopicVerb::List => list(&client, &server, output).await,
        TopicVerb::Describe { name } => {
            let described = client.describe_topic(&name).await;
            let answer = described
                .map_err(|error| Failure::call(format!("topic {name} can't be described"), &server, &error))?;
            let described = Described {
                topic: answer.topic.unwrap_or_default().into(),
                partitions: answer.partitions.into_iter().map(Partition::from).collect(),
            };
            output.one(&described, || described.text())
        }
        TopicVerb::Alter { name, config, unset, partitions, validate_only } => {
            let request = alteration(name.clone(), config, unset, partitions, validate_only)?;
            let altered = client.alter_topic(request).await;
            let topic =
                altered.map_err(|error| Failure::call(format!("topic {name} is as it was"), &server, &error))?;
            changed(if validate_only { "would alter" } else { "altered" }, topic, output)
        }
        TopicVerb::Delete { name, validate_only } => {
            let request = v1::DeleteTopicRequest { name: name.clone(), id: None, validate_only };
            let deleted = client.delete_topic_request(request).await;
            let id =
                deleted.map_err(|error| Failure::call(format!("topic {name} was not deleted"), &server, &error))?;
            output.notice(format!("{} topic {name} ({id})", if validate_only { "would delete" } else { "deleted" }));
            output.one(&serde_json::json!({ "name": name, "id": id }), String::new)
        }
        TopicVerb::Files { name } => files::run(&client, &server, name, output).await,
        TopicVerb::Segments { name, partition, from_offset, to_offset, count } => {
            let request = v1::ListSegmentsRequest {
                topic: name,
                partition,
                from_offset,
                to_offset,
                ..v1::ListSegmentsRequest::default()
            };
            segments(&client, &server, request, count as usize, output).await
        }
    }
}

async fn list(client: &Client, server: &Server, output: Output) -> Result<(), Failure> {
    let topics = client.list_topics().await;
    let topics = topics.map_err(|error| Failure::call("topics can't be listed", server, &error))?;
    if topics.is_empty() {
        output.notice("there are no topics: make one with `lakebed topic create NAME`");
    }
    let topics: Vec<Topic> = topics.into_iter().map(Topic::from).collect();
    output.list("topics", &topics, ["name", "partitions", "id"], |topic| {
        [topic.name.clone(), topic.partition_count.to_string(), topic.id.clone()]
    })
}

fn changed(what: &str, topic: v1::Topic, output: Output) -> Result<(), Failure> {
    let partitions = if topic.partition_count == 1 { "partition" } else { "partitions" };
    output.notice(format!("{what} topic {} with {} {partitions}", topic.name, topic.partition_count));
    output.one(&Topic::from(topic), String::new)
}

/// A change of what is named, and of nothing else.
fn alteration(
    name: String,
    config: Vec<(String, String)>,
    unset: Vec<String>,
    partitions: Option<i32>,
    validate_only: bool,
) -> Result<v1::AlterTopicRequest, Failure> {
    let config: BTreeMap<String, String> = config.into_iter().collect();
    if let Some(both) = unset.iter().find(|name| config.contains_key(*name)) {
        return Err(Failure::usage(format!("{both} can't be set and unset at once")));
    }
    let mut paths: Vec<String> = config.keys().chain(&unset).map(|name| format!("config.{name}")).collect();
    paths.extend(partitions.map(|_| "partition_count".to_owned()));
    Ok(v1::AlterTopicRequest {
        name,
        id: None,
        update_mask: Some(prost_types::FieldMask { paths }),
        partition_count: partitions.unwrap_or_default(),
        config,
        validate_only,
    })
}

/// Prints at most `count` of the segments that `request` asks for, page by page.
async fn segments(
    client: &Client,
    server: &Server,
    mut request: v1::ListSegmentsRequest,
    count: usize,
    output: Output,
) -> Result<(), Failure> {
    let mut segments: Vec<Segment> = Vec::new();
    loop {
        request.page_size = i32::try_from(count - segments.len()).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let page = client.list_segments(request.clone()).await;
        let what = || format!("the segments of topic {} can't be listed", request.topic);
        let page = page.map_err(|error| Failure::call(what(), server, &error))?;
        segments.extend(page.segments.into_iter().map(Segment::from));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || segments.len() >= count {
            break;
        }
    }
    if segments.is_empty() {
        output.notice("there are no records there");
    } else if !request.page_token.is_empty() {
        output.notice(format!("there are more than these {count}: see --count, --from-offset and --partition"));
    }
    let columns = ["partition", "base offset", "last offset", "rows", "first row", "bytes", "uri"];
    output.list("segments", &segments, columns, |segment| {
        let Segment { partition, base_offset, last_offset, row_count, first_row, object_bytes, uri, .. } = segment;
        let numbers = [i64::from(*partition), *base_offset, *last_offset, *row_count, *first_row];
        let [partition, base, last, rows, first] = numbers.map(|number| number.to_string());
        let bytes = object_bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
        [partition, base, last, rows, first, bytes, uri.clone()]
    })
}

impl Described {
    fn text(&self) -> String {
        let Self { topic, partitions } = self;
        let mut text =
            format!("name        {}\nid          {}\npartitions  {}\n", topic.name, topic.id, topic.partition_count);
        for (name, value) in &topic.config {
            text += &format!("config      {name}={value}\n");
        }
        let columns = ["partition", "earliest offset", "latest offset"];
        let row = |partition: &Partition| {
            let Partition { partition, earliest_offset, latest_offset } = partition;
            [partition.to_string(), earliest_offset.to_string(), latest_offset.to_string()]
        };
        text + "\n" + &table(columns, partitions.iter().map(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_what_it_changes_and_nothing_else() {
        let config = vec![("retention.ms".to_owned(), "1".to_owned())];
        let change =
            alteration("t".to_owned(), config.clone(), vec!["max.message.bytes".to_owned()], Some(3), true).unwrap();
        let paths = change.update_mask.unwrap().paths;
        assert_eq!(paths, ["config.retention.ms", "config.max.message.bytes", "partition_count"]);
        assert_eq!((change.partition_count, change.validate_only), (3, true));
        assert_eq!(change.config.into_iter().collect::<Vec<_>>(), config);
        let only = alteration("t".to_owned(), Vec::new(), vec!["a".to_owned()], None, false).unwrap();
        assert_eq!(only.update_mask.unwrap().paths, ["config.a"]);
        let both = alteration("t".to_owned(), config, vec!["retention.ms".to_owned()], None, false);
        assert!(both.is_err_and(|failure| failure.to_string().contains("retention.ms")));
    }
}
