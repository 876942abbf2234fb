//! `lakebed storage usage|orphans|scrub`: what stands in a store, without a broker.

use lakebed_broker::storage::scrub::{Damage, ScrubOptions, Scrubbed, Told, Touched};
use lakebed_broker::storage::usage::{Amount, Amounts, Usage};
use lakebed_broker::storage::{Judged, Key, Kind, Storage, StorageError};
use serde::Serialize;

use crate::args::{StoreArgs, StoreVerb};
use crate::failure::{Exit, Failure, chain};
use crate::output::{Output, table};
use crate::progress;

pub(crate) async fn run(args: StoreArgs, output: Output) -> Result<(), Failure> {
    match args.verb {
        StoreVerb::Usage(root) => usage(&root.url, output).await,
        StoreVerb::Orphans { root, count } => orphans(&root.url, count as usize, output).await,
        StoreVerb::Scrub { root, topic, rate, after } => {
            let bytes_per_second = rate.map(|rate| rate as u64);
            let after =
                after.map(|after| Key::new(&*after).map_err(|error| Failure::usage(format!("--after: {error}"))));
            let after = after.transpose()?;
            scrub(&root.url, ScrubOptions { topic, bytes_per_second, after }, output).await
        }
    }
}

/// Why a store could not be looked at.
pub(crate) fn failed(what: &str, error: &StorageError) -> Failure {
    let exit = match error {
        StorageError::NoRoot { .. } | StorageError::UnknownTopic(_) => Exit::NotFound,
        StorageError::List(_) | StorageError::Read(_) => Exit::Unavailable,
        _ => Exit::Failed,
    };
    Failure::new(what).cause(chain(error)).code(error.code(), exit).remedy(error.remedy())
}

async fn open(url: &str) -> Result<Storage, Failure> {
    Storage::open(url).await.map_err(|error| failed("the store can't be looked at", &error))
}

/// How much is stored, as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    store: String,
    commits: u64,
    kinds: Vec<ShownKind>,
    tables: Vec<ShownTable>,
}

#[derive(Debug, Serialize)]
struct ShownKind {
    kind: &'static str,
    #[serde(flatten)]
    amounts: ShownAmounts,
}

#[derive(Debug, Serialize)]
struct ShownTable {
    table: String,
    topic: Option<String>,
    table_rows: u64,
    log_rows: u64,
    log_bytes: u64,
    #[serde(flatten)]
    amounts: ShownAmounts,
}

#[derive(Debug, Serialize)]
struct ShownAmounts {
    live: ShownAmount,
    waiting: ShownAmount,
    unreferenced: ShownAmount,
}

#[derive(Debug, Serialize)]
struct ShownAmount {
    objects: u64,
    bytes: u64,
}

impl From<Amounts> for ShownAmounts {
    fn from(amounts: Amounts) -> Self {
        let shown = |amount: Amount| ShownAmount { objects: amount.objects, bytes: amount.bytes };
        Self { live: shown(amounts.live), waiting: shown(amounts.waiting), unreferenced: shown(amounts.unreferenced) }
    }
}

impl ShownAmounts {
    fn cells(&self) -> [String; 4] {
        let Self { live, waiting, unreferenced } = self;
        [live.objects.to_string(), live.bytes.to_string(), waiting.bytes.to_string(), unreferenced.bytes.to_string()]
    }
}

impl Shown {
    fn new(storage: &Storage, usage: Usage) -> Self {
        let of_kind = |kind: Kind| usage.kinds.get(&kind).copied().unwrap_or_default();
        let kinds = Kind::ALL.into_iter();
        let kinds = kinds.map(|kind| ShownKind { kind: kind.name(), amounts: of_kind(kind).into() }).collect();
        let tables = usage.tables.into_iter().map(|(table, usage)| ShownTable {
            table,
            topic: usage.topic,
            table_rows: usage.table_rows,
            log_rows: usage.log_rows,
            log_bytes: usage.log_bytes,
            amounts: usage.table.into(),
        });
        let tables = tables.collect();
        Self { store: storage.url().to_owned(), commits: storage.commits(), kinds, tables }
    }

    fn text(&self) -> String {
        let kinds = self.kinds.iter().map(|kind| {
            let [objects, live, waiting, unreferenced] = kind.amounts.cells();
            [kind.kind.to_owned(), objects, live, waiting, unreferenced]
        });
        let mut text = table(["kind", "live objects", "live bytes", "waiting bytes", "unreferenced bytes"], kinds);
        if !self.tables.is_empty() {
            let tables = self.tables.iter().map(|of_table| {
                let [objects, live, waiting, unreferenced] = of_table.amounts.cells();
                let ShownTable { table, topic, table_rows, log_rows, .. } = of_table;
                let topic = topic.clone().unwrap_or_else(|| "(deleted)".to_owned());
                [
                    topic,
                    table.clone(),
                    table_rows.to_string(),
                    log_rows.to_string(),
                    objects,
                    live,
                    waiting,
                    unreferenced,
                ]
            });
            text += "\n";
            text += &table(
                [
                    "topic",
                    "table",
                    "table rows",
                    "log rows",
                    "live objects",
                    "live bytes",
                    "waiting bytes",
                    "unreferenced bytes",
                ],
                tables,
            );
        }
        text
    }
}

async fn usage(url: &str, output: Output) -> Result<(), Failure> {
    let storage = open(url).await?;
    let usage = storage.usage().await.map_err(|error| failed("the store can't be summed up", &error))?;
    let shown = Shown::new(&storage, usage);
    output.one(&shown, || shown.text())
}

/// What nothing needs, as it is printed.
#[derive(Debug, Serialize)]
struct Orphan {
    key: String,
    kind: &'static str,
    fate: &'static str,
    bytes: u64,
    table: Option<String>,
    created_ms: Option<i64>,
    reclaimable_ms: Option<i64>,
    why: &'static str,
}

impl From<Judged> for Orphan {
    fn from(judged: Judged) -> Self {
        Self {
            key: judged.key.to_string(),
            kind: judged.kind.name(),
            fate: judged.fate.name(),
            bytes: judged.size_bytes,
            table: judged.table,
            created_ms: judged.created_ms,
            reclaimable_ms: judged.reclaimable_ms,
            why: judged.why,
        }
    }
}

async fn orphans(url: &str, count: usize, output: Output) -> Result<(), Failure> {
    let storage = open(url).await?;
    let (mut listed, mut more) = (Vec::new(), 0_usize);
    let found = storage.orphans(|judged| {
        if listed.len() < count {
            listed.push(Orphan::from(judged));
        } else {
            more += 1;
        }
    });
    found.await.map_err(|error| failed("the store can't be looked through", &error))?;
    if listed.is_empty() {
        output.notice("everything that stands is needed");
    } else if more > 0 {
        output.notice(format!("there are {more} more than these {count}: see --count"));
    }
    output.list("orphans", &listed, ["fate", "kind", "bytes", "made", "may go since", "key", "why"], |orphan| {
        let time = |time_ms: Option<i64>| time_ms.map_or_else(|| "-".to_owned(), crate::topic::time);
        [
            orphan.fate.to_owned(),
            orphan.kind.to_owned(),
            orphan.bytes.to_string(),
            time(orphan.created_ms),
            time(orphan.reclaimable_ms),
            orphan.key.clone(),
            orphan.why.to_owned(),
        ]
    })
}

/// What came of a scrub, as it is printed.
#[derive(Debug, Serialize)]
struct ScrubShown {
    store: String,
    objects: u64,
    bytes: u64,
    rows: u64,
    damaged: Vec<ShownDamage>,
    complete: bool,
    after: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownDamage {
    key: String,
    kind: &'static str,
    what: String,
    touched: Vec<ShownTouched>,
    remedy: &'static str,
}

#[derive(Debug, Serialize)]
struct ShownTouched {
    topic: String,
    partition: u32,
    base_offset: u64,
    last_offset: u64,
}

impl From<Damage> for ShownDamage {
    fn from(damage: Damage) -> Self {
        let touched = |touched: Touched| ShownTouched {
            topic: touched.topic,
            partition: touched.partition,
            base_offset: touched.base_offset,
            last_offset: touched.last_offset,
        };
        Self {
            key: damage.key,
            kind: damage.kind.name(),
            what: damage.what,
            touched: damage.touched.into_iter().map(touched).collect(),
            remedy: damage.remedy,
        }
    }
}

impl ScrubShown {
    fn new(store: String, scrubbed: Scrubbed) -> Self {
        let Scrubbed { objects, bytes, rows, damaged, stopped_after } = scrubbed;
        let damaged = damaged.into_iter().map(ShownDamage::from).collect();
        let complete = stopped_after.is_none();
        let after = stopped_after.flatten().map(|key| key.to_string());
        Self { store, objects, bytes, rows, damaged, complete, after }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for damage in &self.damaged {
            text += &format!("{}\n  what    {}\n", damage.key, damage.what);
            for touched in &damage.touched {
                let ShownTouched { topic, partition, base_offset, last_offset } = touched;
                text += &format!("  holds   {topic}, partition {partition}, offsets {base_offset} to {last_offset}\n");
            }
            text += &format!("  remedy  {}\n\n", damage.remedy);
        }
        let Self { store, objects, bytes, rows, damaged, .. } = self;
        text + &format!(
            "{store}: {objects} objects of {bytes} bytes were read, {rows} rows compared; {} damaged\n",
            damaged.len()
        )
    }
}

async fn scrub(url: &str, options: ScrubOptions, output: Output) -> Result<(), Failure> {
    let storage = open(url).await?;
    let bar = progress::of_bytes();
    let mut last = options.after.clone();
    let notice = |text: String| bar.suspend(|| output.notice(text));
    let scrubbed = storage.scrub(&options, crate::serve::stop_signal(), |told| match told {
        Told::Read(key, at) => {
            last = last.take().max(Some(key.clone()));
            bar.set_length(at.bytes_total);
            bar.set_position(at.bytes);
        }
        Told::Damaged(damage) => notice(format!("looks damaged: {}: {}", damage.key, damage.what)),
        // Where there is no bar, somebody may look it up after the process was killed.
        Told::Page(key) if bar.is_hidden() => notice(format!("read up to {key}")),
        Told::Page(_) => {}
    });
    let scrubbed = scrubbed.await;
    bar.finish_and_clear();
    let scrubbed = scrubbed.map_err(|error| {
        let failure = failed("the store can't be verified", &error);
        let on = last.filter(|_| !matches!(error, StorageError::UnknownTopic(_)));
        match on {
            Some(last) => failure.remedy(format!("{}; {}", error.remedy(), go_on(storage.url(), &options, &last))),
            None => failure,
        }
    })?;
    let stopped_after = scrubbed.stopped_after.clone();
    let shown = ScrubShown::new(storage.url().to_owned(), scrubbed);
    output.one(&shown, || shown.text())?;
    if let Some(after) = stopped_after {
        let remedy = after.map_or_else(|| "begin again".to_owned(), |after| go_on(storage.url(), &options, &after));
        return Err(Failure::new("it was stopped before its end").code("INTERRUPTED", Exit::Failed).remedy(remedy));
    }
    match shown.damaged.len() {
        0 => Ok(()),
        count => {
            let objects =
                if count == 1 { "1 object is damaged".to_owned() } else { format!("{count} objects are damaged") };
            Err(Failure::new(objects)
                .code("DAMAGE_FOUND", Exit::Failed)
                .remedy("see what is said of each, and docs/recovery.md"))
        }
    }
}

/// How a scrub is gone on with.
fn go_on(storage_url: &str, options: &ScrubOptions, after: &Key) -> String {
    let topic = options.topic.as_ref().map_or_else(String::new, |topic| format!(" --topic {topic}"));
    format!("go on with `lakebed storage scrub {}{topic} --after {after}`", storage_url)
}
