//! `lakebed recover`: a cluster made anew from its tables.

use std::time::{SystemTime, UNIX_EPOCH};

use lakebed_broker::storage::recover::{RecoverError, RecoverOptions, Recovered, RecoveredTopic, recover};
use serde::Serialize;

use crate::args::RecoverArgs;
use crate::failure::{Exit, Failure, chain};
use crate::output::{Output, table};
use crate::{progress, storage};

/// What came of it, as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    store: String,
    cluster_id: String,
    written: bool,
    resumed: bool,
    topics: Vec<Topic>,
    left_out: Vec<LeftOut>,
    damaged: Vec<Damaged>,
}

#[derive(Debug, Serialize)]
struct Topic {
    name: String,
    id: String,
    row_count: u64,
    file_count: usize,
    superseded_count: usize,
    table_version: u32,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: u32,
    earliest_offset: u64,
    latest_offset: u64,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    table: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Damaged {
    key: String,
    what: String,
}

pub(crate) async fn run(args: RecoverArgs, output: Output) -> Result<(), Failure> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let options = RecoverOptions {
        dry_run: args.dry_run,
        skip_damaged: args.skip_damaged,
        now_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
        seed: rand::random(),
    };
    let bar = progress::of_bytes();
    let recovered = recover(&args.root.url, &options, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let recovered = recovered.await;
    bar.finish_and_clear();
    let shown = Shown::from(recovered.map_err(|error| failed(&error))?);
    output.one(&shown, || shown.text())?;
    if shown.written || args.dry_run && shown.left_out.is_empty() {
        let done = if shown.written { "the cluster stands: start a broker on it" } else { "nothing was written" };
        output.notice(done);
        return Ok(());
    }
    let left_out: Vec<&str> = shown.left_out.iter().map(|left_out| left_out.table.as_str()).collect();
    Err(Failure::new(format!("not all topics can be recovered: {}", left_out.join(", ")))
        .cause("nothing was written")
        .code("DAMAGE_FOUND", Exit::Failed)
        .remedy("put the files that are named back from a backup, or leave these topics out with --skip-damaged"))
}

fn failed(error: &RecoverError) -> Failure {
    let what = "the cluster can't be recovered";
    let failure = Failure::new(what).cause(chain(error));
    match error {
        RecoverError::Storage(error) => storage::failed(what, error),
        RecoverError::Found(_) => failure
            .code("LOG_STANDS", Exit::Conflict)
            .remedy("start a broker on it if it is whole; if it is lost, move lakebed.json and cells/ away first, and keep them: see docs/recovery.md"),
        RecoverError::Nothing { .. } => failure
            .code("TABLES_NOT_FOUND", Exit::NotFound)
            .remedy("check the URL: tables/ must stand below it"),
        RecoverError::Clusters { .. } | RecoverError::Cells { .. } => failure
            .code("TABLES_OF_OTHERS", Exit::Conflict)
            .remedy("leave the tables of one cluster below the root, and move the others away"),
    }
}

impl From<Recovered> for Shown {
    fn from(recovered: Recovered) -> Self {
        let topic = |topic: RecoveredTopic| Topic {
            name: topic.name,
            id: topic.id,
            row_count: topic.rows,
            file_count: topic.files,
            superseded_count: topic.superseded,
            table_version: topic.version,
            partitions: topic
                .partitions
                .into_iter()
                .map(|(partition, earliest_offset, latest_offset)| Partition {
                    partition,
                    earliest_offset,
                    latest_offset,
                })
                .collect(),
        };
        Self {
            store: recovered.url,
            cluster_id: recovered.cluster_id.to_string(),
            written: recovered.written,
            resumed: recovered.resumed,
            topics: recovered.topics.into_iter().map(topic).collect(),
            left_out: recovered.left_out.into_iter().map(|(table, why)| LeftOut { table, why }).collect(),
            damaged: recovered.damaged.into_iter().map(|(key, what)| Damaged { key, what }).collect(),
        }
    }
}

impl Shown {
    fn text(&self) -> String {
        let mut text = format!("cluster     {}\n", self.cluster_id);
        for damaged in &self.damaged {
            text += &format!("damaged     {}: {}\n", damaged.key, damaged.what);
        }
        for left_out in &self.left_out {
            text += &format!("left out    {}: {}\n", left_out.table, left_out.why);
        }
        let rows = self.topics.iter().map(|topic| {
            let Topic { name, row_count, file_count, superseded_count, partitions, .. } = topic;
            [
                name.clone(),
                partitions.len().to_string(),
                row_count.to_string(),
                file_count.to_string(),
                superseded_count.to_string(),
            ]
        });
        text + "\n" + &table(["topic", "partitions", "rows", "files", "superseded files"], rows)
    }
}
