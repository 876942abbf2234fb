//! `lakebed demo`: a broker, real records, and what they are as tables, with nothing but this binary.
//!
//! The records are public: a week of earthquakes (USGS) and ten thousand strikes of birds (FAA). What is shown is computed from the table
//! files that the broker has just written, and is what the SQL beside it answers.

mod queries;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::{ContentArrangement, Table, presets};
use flate2::read::GzDecoder;
use lakebed_broker::config::Mode;
use lakebed_broker::{Broker, Config, Rooms, table_location};
use lakebed_client::{Client, ClientError, Message};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::args::DemoArgs;
use crate::failure::{Exit, Failure, chain};
use crate::logging::Logging;
use crate::output::Output;
use crate::{progress, serve};
use queries::{Query, Records};

const EARTHQUAKES: &[u8] = include_bytes!("../../../tests/data/earthquakes.jsonl.gz");
const BIRDSTRIKES: &[u8] = include_bytes!("../../../tests/data/birdstrikes.jsonl.gz");
/// Partitions of the topics.
const PARTITIONS: i32 = 2;
/// How long a record waits for others.
const LINGER: Duration = Duration::from_millis(5);

/// What is shown.
#[derive(Debug, Serialize)]
struct Shown {
    store: String,
    kafka: String,
    http: String,
    topics: Vec<Topic>,
    results: Vec<Answer>,
    /// From the start of the process to here.
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Topic {
    name: &'static str,
    records: u64,
    files: usize,
    location: Option<String>,
}

/// A query with its answer.
#[derive(Debug, Serialize)]
struct Answer {
    sql: String,
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
}

#[derive(Debug, Serialize)]
struct Column {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

pub(crate) async fn run(args: DemoArgs, output: Output) -> Result<(), Failure> {
    let started = Instant::now();
    let temporary = match args.store {
        Some(_) => None,
        None => {
            let made = tempfile::Builder::new().prefix("lakebed-demo-").tempdir();
            Some(made.map_err(|error| Failure::file("no temporary directory can be made", &error))?)
        }
    };
    let store = match (&args.store, &temporary) {
        (Some(store), _) => store.clone(),
        (None, Some(directory)) => directory.path().display().to_string(),
        (None, None) => unreachable!("a directory is made where none is named"),
    };
    let config = Config {
        store: store.as_str().into(),
        kafka_listen: args.kafka_listen,
        http_listen: args.listen,
        log: "warn".to_owned(),
        ..Config::of(Mode::Dev)
    };
    let logging = Logging::start(&config)?;
    let broker = Broker::start(config).await.map_err(|error| {
        let failure = Failure::new("the broker can't start").cause(chain(&error)).code(error.code(), Exit::Failed);
        failure.remedy(error.remedy().unwrap_or_else(|| "name other addresses or another --store".to_owned()))
    })?;
    let asked_to_stop = serve::stop_signal();
    tokio::pin!(asked_to_stop);
    let rooms = Arc::clone(broker.rooms());
    let (kafka, http) = (broker.kafka_address().to_string(), broker.http_address().to_string());
    output.notice(format!("a broker serves {}: Kafka on {kafka}, gRPC and HTTP on {http}", broker.store_url()));
    let (stop, stopping) = oneshot::channel::<()>();
    let mut running = tokio::spawn(broker.run_until(async move { drop(stopping.await) }));
    let mut stopped = None;
    let shown = tokio::select! {
        biased;
        () = &mut asked_to_stop => Ok(()),
        shown = show(&rooms, (kafka, http), started) => shown.and_then(|shown| output.one(&shown, || shown.text(!args.exit))),
    };
    if shown.is_ok() && !args.exit {
        output.notice("the broker serves until Ctrl-C");
        // It may end by itself: another took its store over, or a disk is full.
        tokio::select! {
            biased;
            () = &mut asked_to_stop => {}
            ended = &mut running => stopped = Some(ended),
        }
    }
    drop(stop);
    let stopped = match stopped {
        Some(stopped) => stopped,
        None => running.await,
    };
    drop(rooms);
    logging.end().await;
    shown?;
    match stopped {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new("the broker has stopped").cause(error).code("BROKER_STOPPED", Exit::Failed)),
        Err(error) => Err(Failure::new("the broker has stopped").cause(error).code("BROKER_STOPPED", Exit::Failed)),
    }
}

/// Writes the records, and looks what they are as tables.
async fn show(rooms: &Rooms, (kafka, http): (String, String), started: Instant) -> Result<Shown, Failure> {
    let failed =
        |what: &str, error: &ClientError| Failure::new(what).cause(chain(error)).code("DEMO_FAILED", Exit::Failed);
    let client = Client::connect(&http).await.map_err(|error| failed("the broker can't be reached", &error))?;
    let mut shown = Shown {
        store: rooms.store.url().to_owned(),
        kafka,
        http,
        topics: Vec::new(),
        results: Vec::new(),
        seconds: 0.0,
    };
    for (name, packed, query) in
        [("earthquakes", EARTHQUAKES, Query::Earthquakes), ("birdstrikes", BIRDSTRIKES, Query::Birdstrikes)]
    {
        let written = write(&client, name, packed, query).await;
        written.map_err(|error| failed("the records can't be written", &error))?;
        let mut records = Records::of(query);
        let visited = rooms.visit_table(name, |value| records.take(value)).await;
        let files = visited.map_err(|error| {
            Failure::new(format!("the table of topic {name} can't be read"))
                .cause(chain(&error))
                .code("DEMO_FAILED", Exit::Failed)
        })?;
        let location = table_location(&shown.store, name);
        shown.topics.push(Topic { name, records: records.count, files, location: location.clone() });
        let from = location
            .map_or_else(|| name.to_owned(), |location| format!("iceberg_scan('{}')", location.replace('\'', "''")));
        shown.results.push(records.answer(&from));
    }
    shown.seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    Ok(shown)
}

/// Writes the records of a file, unless the topic has records already: those of a demo before.
async fn write(client: &Client, name: &str, packed: &[u8], query: Query) -> Result<(), ClientError> {
    let exists = client.list_topics().await?.iter().any(|topic| topic.name == name);
    if exists {
        let described = client.describe_topic(name).await?;
        if described.partitions.iter().any(|partition| partition.latest_offset > 0) {
            return Ok(());
        }
    } else {
        // They have the times at which they happened, which is longer ago than a topic keeps records by itself.
        let config = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        client.create_topic(name, Some(PARTITIONS), config).await?;
    }
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).expect("what is built in can be unpacked");
    let producer = client.producer(name).linger(LINGER).open().await?;
    let bar = progress::of_input(Some(text.len() as u64));
    let mut acks = Vec::new();
    for line in text.lines() {
        acks.push(producer.send(query.message(line)).await?);
        bar.inc(line.len() as u64 + 1);
    }
    producer.close().await?;
    for ack in acks {
        ack.await?;
    }
    bar.finish_and_clear();
    Ok(())
}

impl Query {
    /// The record of a line: with its natural key and time, if it has them.
    fn message(self, line: &str) -> Message {
        let message = Message::new(line.as_bytes().to_vec());
        let document: Value = serde_json::from_str(line).unwrap_or_default();
        match (document["id"].as_str(), document["properties"]["time"].as_i64()) {
            (Some(id), Some(time_ms)) => message.key(id.as_bytes().to_vec()).timestamp_ms(time_ms),
            _ => message,
        }
    }
}

impl Shown {
    fn text(&self, goes_on: bool) -> String {
        let mut text = String::new();
        for (topic, answer) in self.topics.iter().zip(&self.results) {
            let Topic { name, records, files, .. } = topic;
            let files = if *files == 1 { "1 Parquet file".to_owned() } else { format!("{files} Parquet files") };
            text += &format!("\nTopic {name}: {records} records in {files}\n\n{}\n{}\n", answer.sql, answer.boxed());
        }
        let Self { kafka, http, seconds, .. } = self;
        text += &format!("\nShown {seconds} s after the start.\n");
        if !goes_on {
            return text;
        }
        text += "Try:\n";
        text += &format!("  lakebed sql earthquakes --server {http}\n");
        text += &format!("  lakebed topic files birdstrikes --server {http}\n");
        text += &format!("  kcat -C -b {kafka} -t earthquakes -o beginning -c 3\n");
        if let Some(location) = self.topics[0].location.as_ref().filter(|location| location.starts_with("file:")) {
            text += &format!("  duckdb -c \"SELECT count(*) FROM read_parquet('{location}/data/*.parquet')\"\n");
        }
        text
    }
}

impl Answer {
    /// As DuckDB shows it.
    fn boxed(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns.iter().map(|column| format!("{}\n{}", column.name, column.kind)));
        let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        table.add_rows(self.rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>()));
        table.to_string()
    }
}
