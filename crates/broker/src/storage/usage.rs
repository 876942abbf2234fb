//! How much is stored, for whom, and what of it nothing needs.

use std::collections::BTreeMap;

use lakebed_model::ObjectId;
use lakebed_store::Directory;

use super::fate::{Fate, Judge, Judged};
use super::names::Kind;
use super::{Listing, Storage, StorageError, Sums};

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// How large they are together.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// Amounts by what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// What is needed.
    pub live: Amount,
    /// What waits for its end.
    pub waiting: Amount,
    /// What nothing names.
    pub unreferenced: Amount,
}

impl Amounts {
    fn add(&mut self, judged: &Judged) {
        let amount = match judged.fate {
            Fate::Live => &mut self.live,
            Fate::Waiting => &mut self.waiting,
            Fate::Unreferenced => &mut self.unreferenced,
        };
        amount.add(judged.size_bytes);
    }
}

/// What stands for one topic, or in the directory of a table without one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableUsage {
    /// The topic; `None` if there is none (any more).
    pub topic: Option<String>,
    /// Files and metadata of the table.
    pub table: Amounts,
    /// Its rows that are in the log and not in the table yet.
    pub log_rows: u64,
    /// Bytes of keys, values and headers of these.
    pub log_bytes: u64,
    /// Its rows that are in table files.
    pub table_rows: u64,
}

/// How much is stored.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// By what it is.
    pub kinds: BTreeMap<Kind, Amounts>,
    /// By the name of the table.
    pub tables: Sums<TableUsage>,
}

impl Storage {
    /// Sums up what stands.
    ///
    /// # Errors
    /// [`StorageError`]
    /// # Cost
    /// One LIST per 1000 objects; GETs of two checkpoints and of the metadata of every table.
    pub async fn usage(&self) -> Result<Usage, StorageError> {
        let mut usage = Usage::default();
        let state = &self.log.state;
        for (id, topic) in state.topics() {
            let of_table = usage.tables.entry(topic.name.table_name()).or_default();
            of_table.topic = Some(topic.name.as_str().to_owned());
            for (_, _, run) in state.runs_of_topic(id) {
                if let ObjectId::Table(_) = run.object {
                    of_table.table_rows += run.rows;
                } else {
                    of_table.log_rows += run.rows;
                    of_table.log_bytes += run.bytes;
                }
            }
        }
        self.judge_all(|judged| {
            usage.kinds.entry(judged.kind).or_default().add(&judged);
            if let Some(table) = &judged.table {
                usage.tables.entry(table.clone()).or_default().table.add(&judged);
            }
        })
        .await?;
        Ok(usage)
    }

    /// Calls `visit` with every object that nothing needs, by key.
    ///
    /// # Errors
    /// [`StorageError`]
    /// # Cost
    /// As [`Storage::usage`].
    pub async fn orphans(&self, mut visit: impl FnMut(Judged)) -> Result<(), StorageError> {
        self.judge_all(|judged| {
            if judged.fate != Fate::Live {
                visit(judged);
            }
        })
        .await
    }

    async fn judge_all(&self, mut visit: impl FnMut(Judged)) -> Result<(), StorageError> {
        let mut judge = Judge::new(&self.store, &self.log).await?;
        let mut listing = Listing::of(&self.store, Directory::root());
        while let Some(page) = listing.next().await? {
            for listed in &page {
                visit(judge.judge(listed).await?);
            }
        }
        Ok(())
    }
}
