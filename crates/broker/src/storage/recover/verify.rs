//! Reading what stands of tables: every file down to the hash of each run, and the metadata.

use std::collections::BTreeMap;
use std::ops::Range;

use lakebed_lake::{NewestTable, StandingError, StandingTable};
use lakebed_model::{Cell, TableFileId, TopicId, TopicName};
use lakebed_segment::commit::Identity;
use lakebed_segment::layout;
use lakebed_segment::table::{DescribedRun, ValueFormat};
use lakebed_store::{Key, Store};

use super::super::fate::name_of;
use super::super::file::{ObjectError, TableFile};
use super::super::{Listing, StorageError, directory, tables_of};
use super::RecoverError;
use super::choose::{Candidate, FileRun};
use super::facts::Facts;
use crate::tables::told::Told;

/// Why a file can't be read, and which offsets of which partitions it has, if its footer tells.
#[derive(Debug, Clone)]
pub(super) struct Damaged {
    pub(super) what: String,
    pub(super) offsets: Option<Vec<(u32, Range<u64>)>>,
}

/// What was found of one table.
pub(super) struct Found {
    pub(super) table: String,
    /// Its newest version and all that this leads to, if that can be read.
    pub(super) standing: Option<StandingTable>,
    /// The metadata of its newest version alone.
    pub(super) newest: Option<NewestTable>,
    /// What that tells of the topic, or why it does not.
    pub(super) told: Result<Told, String>,
    /// Verified files, ascending.
    pub(super) files: Vec<Candidate>,
    pub(super) names: BTreeMap<TopicId, TopicName>,
    /// What the values of each topic are, as its newest file has them.
    pub(super) formats: BTreeMap<TopicId, ValueFormat>,
    pub(super) damaged: BTreeMap<TableFileId, Damaged>,
}

/// The files of a table: their ids, keys and sizes.
pub(super) type Listed = Vec<(TableFileId, Key, u64)>;

/// Reads files.
pub(super) struct Verifier<'a> {
    store: &'a Store,
    /// Whether an earlier recovery was interrupted: what it has written to close holes is not what was lost.
    resumed: bool,
    /// Whose files they are, by the first that was read.
    pub(super) identity: Option<(String, Identity)>,
    done: u64,
    total: u64,
}

/// What is read of a file.
struct Verified {
    candidate: Candidate,
    name: TopicName,
    format: ValueFormat,
}

/// Why a file is no candidate.
enum Unread {
    Damaged(String),
    Stop(RecoverError),
}

impl From<ObjectError> for Unread {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Damaged(what) => Self::Damaged(what),
            ObjectError::Store(error) => Self::Stop(error.into()),
        }
    }
}

impl<'a> Verifier<'a> {
    pub(super) fn new(store: &'a Store, resumed: bool) -> Self {
        Self { store, resumed, identity: None, done: 0, total: 0 }
    }

    /// The files of every table.
    pub(super) async fn list(&mut self) -> Result<Vec<(String, Listed)>, RecoverError> {
        let mut tables = Vec::new();
        for name in tables_of(self.store).await? {
            let mut files = Vec::new();
            let mut listing = Listing::of(self.store, directory(&layout::table_data_prefix(&name.table)));
            while let Some(page) = listing.next().await? {
                for listed in page {
                    if let Some((_, id)) = layout::parse_table_file_key(listed.key.as_str()) {
                        self.total += listed.size_bytes;
                        files.push((id, listed.key, listed.size_bytes));
                    }
                }
            }
            tables.push((name.table, files));
        }
        Ok(tables)
    }

    /// Reads and verifies all of a table.
    pub(super) async fn table(
        &mut self,
        table: String,
        listed: &Listed,
        damaged: &mut Vec<(String, String)>,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<Found, RecoverError> {
        let mut found = self.metadata(table, damaged).await?;
        let shown: Vec<TableFileId> = found.standing.iter().flat_map(super::plan::shown_ids).collect();
        for (id, key, size_bytes) in listed {
            match self.file(&found.table, *id, key).await {
                Ok(verified) => {
                    let Verified { candidate, name, format } = verified;
                    if !self.resumed || !candidate.closes_a_hole() || shown.contains(id) {
                        found.formats.insert(candidate.topic, format);
                        found.names.insert(candidate.topic, name);
                        found.files.push(candidate);
                    }
                }
                Err(Unread::Damaged(what)) => {
                    damaged.push((key.to_string(), what.clone()));
                    let footer = TableFile::open(self.store, key.clone()).await.ok().map(|file| file.footer);
                    let runs = footer.map(|footer| footer.described_runs().map(|run| offsets_of(&run)).collect());
                    found.damaged.insert(*id, Damaged { what, offsets: runs });
                }
                Err(Unread::Stop(error)) => return Err(error),
            }
            self.done += size_bytes;
            progress(self.done, self.total);
        }
        Ok(found)
    }

    async fn metadata(&mut self, table: String, damaged: &mut Vec<(String, String)>) -> Result<Found, RecoverError> {
        let failed = |source| StorageError::Table { table: table.clone(), source };
        let mut newest = lakebed_lake::newest(self.store, &name_of(&table)).await.map_err(failed)?;
        let mut standing = match lakebed_lake::standing(self.store, &name_of(&table)).await {
            Ok(standing) => standing,
            Err(StandingError::Damaged { key, what }) => {
                damaged.push((key, what));
                None
            }
            Err(source) => return Err(failed(source).into()),
        };
        if let Some(newest) = &mut newest
            && let Some(what) = foreign(newest, &table)
        {
            damaged.push((newest.key.to_string(), what.clone()));
            newest.told = Err(what);
            standing = None;
        }
        let told = match newest.as_ref().map(|newest| &newest.told) {
            None => Err("it has no metadata".to_owned()),
            Some(Err(why)) => Err(format!("its metadata can't be used: {why}")),
            Some(Ok((_, properties))) => Told::read(properties),
        };
        if let (Ok(told), Some(newest)) = (&told, &newest) {
            self.is_ours(&newest.key, Identity { cluster_id: told.cluster_id, cell: Cell::ZERO })?;
        }
        Ok(Found {
            table,
            standing,
            newest,
            told,
            files: Vec::new(),
            names: BTreeMap::new(),
            formats: BTreeMap::new(),
            damaged: BTreeMap::new(),
        })
    }

    /// Sees that everything is of one cluster.
    fn is_ours(&mut self, key: &Key, identity: Identity) -> Result<(), RecoverError> {
        if identity.cell != Cell::ZERO {
            return Err(RecoverError::Cells { file: key.to_string(), of: identity });
        }
        let (one, of_one) = self.identity.get_or_insert_with(|| (key.to_string(), identity)).clone();
        if of_one == identity {
            return Ok(());
        }
        Err(RecoverError::Clusters { one, of_one, other: key.to_string(), of_other: identity })
    }

    async fn file(&mut self, table: &str, id: TableFileId, key: &Key) -> Result<Verified, Unread> {
        let file = TableFile::open(self.store, key.clone()).await?;
        let name = file.footer.name.clone();
        if name.id != id || name.topic.table_name() != table {
            return Err(Unread::Damaged("it is not the file that its key says".to_owned()));
        }
        self.is_ours(key, file.footer.identity).map_err(Unread::Stop)?;
        let (mut runs, mut first_row) = (Vec::new(), 0);
        for described in file.footer.described_runs() {
            let DescribedRun { partition, base_offset: base, rows, span, is_clean: clean } = described;
            let facts = facts_of_run(&file, &described, first_row).await?;
            runs.push(FileRun { partition: partition.get(), base, rows, span, clean, first_row, facts });
            first_row += rows;
        }
        file.verify_the_rest().await?;
        let candidate = Candidate { id, topic: name.topic_id, runs };
        Ok(Verified { candidate, name: name.topic, format: file.footer.value_format })
    }
}

/// Whether the metadata that stands in the directory of a table is another table's.
fn foreign(newest: &NewestTable, table: &str) -> Option<String> {
    let (_, properties) = newest.told.as_ref().ok()?;
    let topic = TopicName::new(properties.get("lakebed.topic")?).ok();
    let is_its = topic.as_ref().is_some_and(|topic| topic.table_name() == table);
    (!is_its).then(|| format!("it is not that of table {table}"))
}

fn offsets_of(run: &DescribedRun) -> (u32, Range<u64>) {
    (run.partition.get(), run.base_offset.get()..run.base_offset.get() + run.span)
}

/// Reads a run of a file that begins with its row `first_row`.
pub(super) async fn facts_of_run(
    file: &TableFile<'_>,
    run: &DescribedRun,
    first_row: u64,
) -> Result<Facts, ObjectError> {
    let (mut facts, has_gaps) = (Facts::default(), run.span != run.rows);
    let (mut next, end) = (run.base_offset.get(), run.base_offset.get() + run.span);
    for part in file.parts(first_row..first_row + run.rows) {
        let read = file.rows(part).await?;
        let first = next;
        let mut is_next = |offset: u64| {
            let fits = if has_gaps { (next..end).contains(&offset) } else { offset == next };
            next = offset.saturating_add(1);
            fits
        };
        let same = read.partitions.iter().all(|found| *found == run.partition);
        if !same || !read.offsets.iter().all(|offset| is_next(offset.get())) {
            let (partition, base) = (run.partition, run.base_offset);
            let what = format!("its rows from {first} on are not those of partition {partition} from {base} on");
            return Err(ObjectError::Damaged(what));
        }
        facts.add(&read.rows, has_gaps.then_some(&read.offsets[..]));
    }
    Ok(facts)
}
