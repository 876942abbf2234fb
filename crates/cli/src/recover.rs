//! `lakebed recover`: a cluster made anew from its tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use lakebed_broker::storage::recover::{
    FoundError, Missing, RecoverError, RecoverOptions, Recovered, RecoveredTopic, recover,
};
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
    missing: Vec<ShownMissing>,
    wrong: Vec<Wrong>,
    set_aside: Vec<SetAside>,
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
    config: BTreeMap<String, String>,
    notes: Vec<String>,
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

#[derive(Debug, Serialize)]
struct ShownMissing {
    topic: String,
    partition: u32,
    base_offset: u64,
    last_offset: u64,
    sure: bool,
    why: String,
}

#[derive(Debug, Serialize)]
struct Wrong {
    topic: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct SetAside {
    key: String,
    to: String,
}

pub(crate) async fn run(args: RecoverArgs, output: Output) -> Result<(), Failure> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let options = RecoverOptions {
        dry_run: args.dry_run,
        set_aside: args.set_aside,
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
    let recovered = recovered.map_err(|error| failed(&error))?;
    let is_whole = recovered.is_whole();
    let shown = Shown::from(recovered);
    output.one(&shown, || shown.text())?;
    match (shown.written, is_whole) {
        (true, true) => output.notice("the cluster stands: start a broker on it"),
        (true, false) => output.notice("the cluster stands, without what is named above: start a broker on it"),
        (false, true) => output.notice("nothing was written"),
        (false, false) if args.set_aside => {
            output.notice("nothing was written: it would stand without what is named above")
        }
        (false, false) => return Err(incomplete(&shown)),
    }
    Ok(())
}

/// Not everything comes back, and nobody has said that the rest should.
fn incomplete(shown: &Shown) -> Failure {
    let of_tables = shown.left_out.iter().map(|left_out| left_out.table.as_str());
    let of_missing = shown.missing.iter().map(|missing| missing.topic.as_str());
    let of_wrong = shown.wrong.iter().map(|wrong| wrong.topic.as_str());
    let names: BTreeSet<&str> = of_tables.chain(of_missing).chain(of_wrong).collect();
    let names: Vec<&str> = names.into_iter().collect();
    Failure::new(format!("not everything can be recovered of {}", names.join(", ")))
        .cause("nothing was written")
        .code("DAMAGE_FOUND", Exit::Failed)
        .remedy("put the files that are named back from a backup, and recover again; or have the rest recovered without them: --set-aside")
}

fn failed(error: &RecoverError) -> Failure {
    let what = "the cluster can't be recovered";
    let failure = Failure::new(what).cause(chain(error));
    match error {
        RecoverError::Storage(error) => storage::failed(what, error),
        RecoverError::Found(FoundError::Root | FoundError::Log { .. }) => failure
            .code("LOG_STANDS", Exit::Conflict)
            .remedy("start a broker on it if it is whole; if it is lost, move lakebed.json and cells/ away first, and keep them: see docs/recovery.md"),
        RecoverError::Nothing { .. } => failure
            .code("TABLES_NOT_FOUND", Exit::NotFound)
            .remedy("check the URL: tables/ must stand below it"),
        RecoverError::Found(_) | RecoverError::NotMended { .. } => failure
            .code("NOT_RECOVERED", Exit::Failed)
            .remedy("nothing counts of what was written: see what the store says, and recover again"),
        RecoverError::NotDeleted(_) => failure
            .code("NOT_DELETED", Exit::Failed)
            .remedy("start a broker on it, which deletes in time what nothing names"),
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
            config: topic.config,
            notes: topic.notes,
        };
        Self {
            store: recovered.url,
            cluster_id: recovered.cluster_id.to_string(),
            written: recovered.written,
            resumed: recovered.resumed,
            topics: recovered.topics.into_iter().map(topic).collect(),
            left_out: recovered.left_out.into_iter().map(|(table, why)| LeftOut { table, why }).collect(),
            damaged: recovered.damaged.into_iter().map(|(key, what)| Damaged { key, what }).collect(),
            missing: recovered.missing.into_iter().map(ShownMissing::from).collect(),
            wrong: recovered.wrong.into_iter().map(|(topic, what)| Wrong { topic, what }).collect(),
            set_aside: recovered.set_aside.into_iter().map(|(key, to)| SetAside { key, to }).collect(),
        }
    }
}

impl From<Missing> for ShownMissing {
    fn from(missing: Missing) -> Self {
        let Missing { topic, partition, first_offset: base_offset, last_offset, is_sure: sure, why } = missing;
        Self { topic, partition, base_offset, last_offset, sure, why }
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
        for ShownMissing { topic, partition, base_offset, last_offset, sure, why } in &self.missing {
            let perhaps = if *sure { "" } else { "perhaps " };
            text += &format!(
                "missing     {topic}, partition {partition}, {perhaps}offsets {base_offset} to {last_offset}: {why}\n"
            );
        }
        for Wrong { topic, what } in &self.wrong {
            text += &format!("wrong       {topic}: {what}\n");
        }
        for SetAside { key, to } in &self.set_aside {
            text += &format!("set aside   {key}, which is {to} now\n");
        }
        for topic in &self.topics {
            for note in &topic.notes {
                text += &format!("note        {}: {note}\n", topic.name);
            }
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
