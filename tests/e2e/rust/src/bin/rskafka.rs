//! Crate rskafka at work for test_members.py: rskafka-client produce BROKER TOPIC CODEC | consume BROKER TOPIC COUNT | feed BROKER TOPIC |
//! admin BROKER TOPIC. It knows no groups and no idempotent producers. What they read and print stands in that file.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use futures::StreamExt;
use lakebed_rust_client_test::{Done, Line, PARTITIONS, numbers, records};
use rskafka::client::consumer::{StartOffset, StreamConsumerBuilder};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

#[tokio::main]
async fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["produce", broker, topic, codec] => produce(&connect(broker).await?, topic, codec).await,
        ["consume", broker, topic, count] => consume(&connect(broker).await?, topic, count.parse()?).await,
        ["feed", broker, topic] => feed(&connect(broker).await?, topic).await,
        ["admin", broker, topic] => admin(&connect(broker).await?, topic).await,
        _ => Err("unknown arguments".into()),
    }
}

async fn connect(broker: &str) -> Done<Client> {
    Ok(ClientBuilder::new(vec![broker.to_owned()]).build().await?)
}

async fn partition(client: &Client, topic: &str, partition: i32) -> Done<PartitionClient> {
    Ok(client.partition_client(topic, partition, UnknownTopicHandling::Error).await?)
}

async fn produce(client: &Client, topic: &str, codec: &str) -> Done<()> {
    let codec = match codec {
        "none" => Compression::NoCompression,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => return Err(other.into()),
    };
    let records = records()?.into_iter().map(|line| {
        let headers: BTreeMap<String, Vec<u8>> =
            line.headers.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect();
        let timestamp = DateTime::from_timestamp_millis(line.timestamp_ms).ok_or("no such time")?;
        Ok(Record { key: line.key, value: line.value, headers, timestamp })
    });
    let records: Done<Vec<Record>> = records.collect();
    for offset in partition(client, topic, 0).await?.produce(records?, codec).await? {
        println!("{offset}");
    }
    Ok(())
}

async fn consume(client: &Client, topic: &str, count: usize) -> Done<()> {
    let partition = Arc::new(partition(client, topic, 0).await?);
    let stream = StreamConsumerBuilder::new(partition, StartOffset::Earliest).build();
    let records: Vec<_> = stream.take(count).collect().await;
    for record in records {
        let (found, _) = record?;
        let headers = found.record.headers.into_iter().map(|(name, value)| (name, Some(value)));
        let line = Line {
            timestamp_ms: found.record.timestamp.timestamp_millis(),
            key: found.record.key,
            value: found.record.value,
            headers: headers.collect(),
        };
        println!("0 {} {line}", found.offset);
    }
    Ok(())
}

/// One record in each request, one request for each partition at a time: it has no other way to keep them in order.
async fn feed(client: &Client, topic: &str) -> Done<()> {
    let mut partitions = Vec::new();
    for index in 0..PARTITIONS {
        partitions.push(partition(client, topic, index).await?);
    }
    let mut numbers = numbers();
    let mut waiting = Vec::new();
    while numbers.recv_many(&mut waiting, PARTITIONS as usize).await > 0 {
        let sent = waiting.drain(..).map(|number| {
            let partition = &partitions[usize::try_from(number).expect("numbers are counted") % partitions.len()];
            let value = Some(number.to_string().into_bytes());
            let record = Record { key: None, value, headers: BTreeMap::new(), timestamp: DateTime::UNIX_EPOCH };
            async move { (number, partition.produce(vec![record], Compression::NoCompression).await) }
        });
        for (number, offsets) in futures::future::join_all(sent).await {
            println!("{number} {}", offsets?[0]);
        }
    }
    Ok(())
}

async fn admin(client: &Client, topic: &str) -> Done<()> {
    let controller = client.controller_client()?;
    controller.create_topic(topic, 3, 1, 60_000).await?;
    let listed = client.list_topics().await?;
    println!(
        "partitions={}",
        listed.iter().filter(|found| found.name == topic).map(|found| found.partitions.len()).sum::<usize>()
    );
    let partition = partition(client, topic, 0).await?;
    let record = |value: &str| Record {
        key: None,
        value: Some(value.as_bytes().to_vec()),
        headers: BTreeMap::new(),
        timestamp: DateTime::UNIX_EPOCH,
    };
    partition.produce((0..10).map(|number| record(&number.to_string())).collect(), Compression::NoCompression).await?;
    partition.delete_records(3, 60_000).await?;
    println!(
        "offsets={} to {}",
        partition.get_offset(OffsetAt::Earliest).await?,
        partition.get_offset(OffsetAt::Latest).await?
    );
    controller.delete_topic(topic, 60_000).await?;
    println!("topics left={}", client.list_topics().await?.len());
    Ok(())
}
