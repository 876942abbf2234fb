//! `lakebed topic create|list|describe|delete`.

use std::collections::BTreeMap;

use lakebed_wire::v1;
use serde::Serialize;

use crate::args::{TopicArgs, TopicVerb};
use crate::failure::Failure;
use crate::output::{Output, table};

/// A topic as it is printed.
#[derive(Debug, Serialize)]
struct Topic {
    name: String,
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

pub(crate) async fn run(args: TopicArgs, output: Output) -> Result<(), Failure> {
    let (client, server) = args.server.connect().await?;
    match args.verb {
        TopicVerb::Create { name, partitions, config } => {
            let made = client.create_topic(&name, partitions, config.into_iter().collect()).await;
            let topic =
                made.map_err(|error| Failure::call(format!("topic {name} was not created"), &server, &error))?;
            let partitions = if topic.partition_count == 1 { "partition" } else { "partitions" };
            output.notice(format!("created topic {} with {} {partitions}", topic.name, topic.partition_count));
            output.one(&Topic::from(topic), String::new)
        }
        TopicVerb::List => {
            let topics = client.list_topics().await;
            let topics = topics.map_err(|error| Failure::call("topics can't be listed", &server, &error))?;
            if topics.is_empty() {
                output.notice("there are no topics: make one with `lakebed topic create NAME`");
            }
            let topics: Vec<Topic> = topics.into_iter().map(Topic::from).collect();
            output.list("topics", &topics, ["name", "partitions", "id"], |topic| {
                [topic.name.clone(), topic.partition_count.to_string(), topic.id.clone()]
            })
        }
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
        TopicVerb::Delete { name } => {
            let deleted = client.delete_topic(&name).await;
            let id =
                deleted.map_err(|error| Failure::call(format!("topic {name} was not deleted"), &server, &error))?;
            output.notice(format!("deleted topic {name} ({id})"));
            output.one(&serde_json::json!({ "name": name, "id": id }), String::new)
        }
    }
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
            [
                partition.partition.to_string(),
                partition.earliest_offset.to_string(),
                partition.latest_offset.to_string(),
            ]
        };
        text + "\n" + &table(columns, partitions.iter().map(row))
    }
}
