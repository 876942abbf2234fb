//! Crate rdkafka at work for test_members.py: rdkafka-client produce BROKER TOPIC CODEC | group BROKER TOPIC GROUP COUNT | feed BROKER TOPIC |
//! member BROKER TOPIC GROUP | admin BROKER TOPIC. What they read and print stands in that file.

use std::time::Duration;

use futures::{StreamExt, future};
use lakebed_rust_client_test::{Done, Line, PARTITIONS, numbers, records};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{Message, Offset, TopicPartitionList};

const TIME_MAX: Duration = Duration::from_secs(60);
/// Records that may be on their way at a time.
const IN_FLIGHT: usize = 200;

#[tokio::main]
async fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["produce", broker, topic, codec] => produce(broker, topic, codec).await,
        ["group", broker, topic, group, count] => self::group(broker, topic, group, count.parse()?).await,
        ["feed", broker, topic] => feed(broker, topic).await,
        ["member", broker, topic, group] => member(broker, topic, group).await,
        ["admin", broker, topic] => admin(broker, topic).await,
        _ => Err("unknown arguments".into()),
    }
}

fn settings(broker: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", broker);
    settings
}

fn producer(broker: &str, codec: &str) -> Done<FutureProducer> {
    let mut settings = settings(broker);
    settings.set("enable.idempotence", "true").set("compression.type", codec).set("linger.ms", "5");
    settings.set("message.max.bytes", "10000000").set("reconnect.backoff.max.ms", "200");
    Ok(settings.create()?)
}

async fn produce(broker: &str, topic: &str, codec: &str) -> Done<()> {
    let producer = producer(broker, codec)?;
    let lines = records()?;
    let sent = lines.iter().map(|line| {
        let headers = line.headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header { key: name, value: value.as_ref() })
        });
        let mut record = FutureRecord::to(topic).partition(0).timestamp(line.timestamp_ms).headers(headers);
        record.key = line.key.as_ref();
        record.payload = line.value.as_ref();
        producer.send(record, TIME_MAX)
    });
    for delivered in future::join_all(sent).await {
        println!("{}", delivered.map_err(|(error, _)| error)?.offset);
    }
    Ok(())
}

async fn feed(broker: &str, topic: &str) -> Done<()> {
    let producer = producer(broker, "none")?;
    let numbers =
        futures::stream::unfold(numbers(), |mut numbers| async move { Some((numbers.recv().await?, numbers)) });
    let answers = numbers
        .map(|number| {
            let producer = &producer;
            async move {
                let value = number.to_string();
                let partition = i32::try_from(number % i64::from(PARTITIONS)).expect("it is below the divisor");
                let record: FutureRecord<'_, (), String> = FutureRecord::to(topic).partition(partition).payload(&value);
                (number, producer.send(record, Timeout::Never).await)
            }
        })
        .buffered(IN_FLIGHT);
    let mut answers = std::pin::pin!(answers);
    while let Some((number, delivered)) = answers.next().await {
        println!("{number} {}", delivered.map_err(|(error, _)| error)?.offset);
    }
    Ok(())
}

fn consumer(broker: &str, topic: &str, group: &str) -> Done<StreamConsumer> {
    let mut settings = settings(broker);
    settings.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    settings
        .set("session.timeout.ms", "3000")
        .set("heartbeat.interval.ms", "300")
        .set("reconnect.backoff.max.ms", "200");
    let consumer: StreamConsumer = settings.create()?;
    consumer.subscribe(&[topic])?;
    Ok(consumer)
}

async fn group(broker: &str, topic: &str, group: &str, count: usize) -> Done<()> {
    let consumer = consumer(broker, topic, group)?;
    let mut out = String::new();
    let mut next = TopicPartitionList::new();
    for _ in 0..count {
        let message = tokio::time::timeout(TIME_MAX, consumer.recv()).await??;
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let line = Line {
            timestamp_ms: message.timestamp().to_millis().ok_or("no time")?,
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        };
        out += &format!("{} {} {line}\n", message.partition(), message.offset());
        let at = Offset::Offset(message.offset() + 1);
        if next.set_partition_offset(topic, message.partition(), at).is_err() {
            next.add_partition_offset(topic, message.partition(), at)?;
        }
    }
    consumer.commit(&next, CommitMode::Sync)?;
    print!("{out}");
    Ok(())
}

async fn member(broker: &str, topic: &str, group: &str) -> Done<()> {
    let consumer = consumer(broker, topic, group)?;
    let mut numbers = numbers();
    loop {
        tokio::select! {
            // Nothing is said to it but the end.
            _ = numbers.recv() => break,
            message = consumer.recv() => match message {
                Ok(message) => {
                    let number = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                    println!("{} {} {number}", message.partition(), message.offset());
                    // A rebalance may have come between: then another sees it again.
                    let _ = consumer.commit_message(&message, CommitMode::Async);
                }
                // It goes on by itself.
                Err(error) => eprintln!("{error}"),
            },
        }
    }
    let _ = consumer.commit_consumer_state(CommitMode::Sync);
    Ok(())
}

async fn admin(broker: &str, topic: &str) -> Done<()> {
    let client: AdminClient<DefaultClientContext> = settings(broker).create()?;
    let options = AdminOptions::new();
    let new = NewTopic::new(topic, 3, TopicReplication::Fixed(1)).set("retention.ms", "1234");
    client.create_topics([&new], &options).await?.pop().ok_or("no answer")?.map_err(|(_, code)| code)?;
    client
        .create_partitions([&NewPartitions::new(topic, 4)], &options)
        .await?
        .pop()
        .ok_or("no answer")?
        .map_err(|(_, code)| code)?;
    let metadata = client.inner().fetch_metadata(Some(topic), TIME_MAX)?;
    println!("partitions={}", metadata.topics()[0].partitions().len());
    let resource = ResourceSpecifier::Topic(topic);
    let told = client.describe_configs([&resource], &options).await?.pop().ok_or("no answer")??;
    println!("retention.ms={}", told.get("retention.ms").and_then(|entry| entry.value.clone()).unwrap_or_default());
    let altered = AlterConfig::new(resource).set("max.message.bytes", "5000");
    client.alter_configs([&altered], &options).await?.pop().ok_or("no answer")?.map_err(|(_, code)| code)?;
    let told = client.describe_configs([&resource], &options).await?.pop().ok_or("no answer")??;
    println!(
        "max.message.bytes={}",
        told.get("max.message.bytes").and_then(|entry| entry.value.clone()).unwrap_or_default()
    );
    println!("groups={}", groups(&client, topic)?);
    client.delete_groups(&[topic], &options).await?.pop().ok_or("no answer")?.map_err(|(_, code)| code)?;
    println!("groups left={}", groups(&client, topic)?);
    client.delete_topics(&[topic], &options).await?.pop().ok_or("no answer")?.map_err(|(_, code)| code)?;
    let left = client.inner().fetch_metadata(None, TIME_MAX)?;
    println!("topics left={}", left.topics().len());
    Ok(())
}

/// A group that has committed an offset and has left: its name and state.
fn groups(client: &AdminClient<DefaultClientContext>, _group: &str) -> Done<String> {
    let list = client.inner().fetch_group_list(None, TIME_MAX)?;
    Ok(list.groups().iter().map(|group| format!("{} {}", group.name(), group.state())).collect::<Vec<_>>().join(","))
}
