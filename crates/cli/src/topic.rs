//! `lakebed topic create|list|describe|delete`.

use std::collections::BTreeMap;

use lakebed_client::Client;

use crate::args::{TopicArgs, TopicVerb};
use crate::failure::Failure;

pub(crate) async fn run(args: TopicArgs) -> Result<(), Failure> {
    let server = args.server.server;
    let connected = Client::connect(&server).await;
    let client = connected.map_err(|error| Failure::call("the broker can't be reached", &server, &error))?;
    match args.verb {
        TopicVerb::Create { name, partitions, config } => {
            let config: BTreeMap<String, String> = config.into_iter().collect();
            let made = client.create_topic(&name, partitions, config).await;
            let topic =
                made.map_err(|error| Failure::call(format!("topic {name} was not created"), &server, &error))?;
            let partitions = if topic.partition_count == 1 { "partition" } else { "partitions" };
            eprintln!("created topic {} with {} {partitions}", topic.name, topic.partition_count);
        }
        TopicVerb::List => {
            let topics = client.list_topics().await;
            for topic in topics.map_err(|error| Failure::call("topics can't be listed", &server, &error))? {
                println!("{}\t{}", topic.name, topic.partition_count);
            }
        }
        TopicVerb::Describe { name } => {
            let described = client.describe_topic(&name).await;
            let answer = described
                .map_err(|error| Failure::call(format!("topic {name} can't be described"), &server, &error))?;
            let topic = answer.topic.unwrap_or_default();
            eprintln!("topic {} ({})", topic.name, topic.id);
            for (name, value) in &topic.config {
                eprintln!("  {name}={value}");
            }
            println!("partition\tearliest\tlatest");
            for partition in &answer.partitions {
                println!("{}\t{}\t{}", partition.partition, partition.earliest_offset, partition.latest_offset);
            }
        }
        TopicVerb::Delete { name } => {
            let deleted = client.delete_topic(&name).await;
            let id =
                deleted.map_err(|error| Failure::call(format!("topic {name} was not deleted"), &server, &error))?;
            eprintln!("deleted topic {name} ({id})");
        }
    }
    Ok(())
}
