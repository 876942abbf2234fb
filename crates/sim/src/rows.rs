//! Reading a run through the state and the code under test: footer, ranges, rows.

use bytes::Bytes;
use lakebed_log::Log;
use lakebed_model::{ObjectId, Run, State, TopicId};
use lakebed_segment::footer::{Footer, Parsed};
use lakebed_segment::layout;
use lakebed_segment::row_set::RowSet;
use lakebed_segment::table::{ParsedTable, TableFooter};
use lakebed_store::{Key, ReadError, Store};

/// Why a run can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Its object is not there.
    #[error("it is not there")]
    Absent,
    /// The store gives no answer.
    #[error("the store gives no answer")]
    Store,
    /// Its object is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// The key of the object that holds a run.
pub(crate) fn object_key(log: &Log, state: &State, topic: TopicId, run: &Run) -> Option<Key> {
    let cell = log.identity().cell;
    let text = match run.object {
        ObjectId::Commit(number) => layout::commit_key(cell, state.place_of(number)?),
        ObjectId::Segment(id) => layout::segment_key(cell, id),
        ObjectId::Table(id) => layout::table_file_key(&state.topic(topic)?.name.table_name(), id),
    };
    Some(Key::new(text).expect("keys of the layout are valid"))
}

/// The rows of a run.
pub(crate) async fn read_run(store: &Store, key: &Key, run: &Run) -> Result<RowSet, RunError> {
    if matches!(run.object, ObjectId::Table(_)) {
        return read_table_run(store, key, run).await;
    }
    let footer = read_footer(store, key).await?;
    let rows = run.first_row..run.first_row + run.rows;
    let ranges = footer.ranges(rows.clone()).map_err(|error| RunError::Damaged(error.to_string()))?;
    let mut parts: Vec<(u64, Bytes)> = Vec::new();
    for range in ranges {
        parts.push((range.start, store.get_range(key, range).await.map_err(trouble)?));
    }
    let rows = footer.read(rows, &parts).map_err(|error| RunError::Damaged(error.to_string()))?;
    if rows.hash() == run.hash { Ok(rows) } else { Err(RunError::Damaged("the hash of its rows".to_owned())) }
}

async fn read_table_run(store: &Store, key: &Key, run: &Run) -> Result<RowSet, RunError> {
    let bytes = store.get(key).await.map_err(trouble)?;
    let damaged = |error: &dyn std::fmt::Display| RunError::Damaged(error.to_string());
    let footer = match TableFooter::parse(&bytes, bytes.len() as u64).map_err(|error| damaged(&error))? {
        ParsedTable::Whole(footer) => footer,
        ParsedTable::NeedsSuffix(_) => return Err(RunError::Damaged("its footer has no end".to_owned())),
    };
    let rows = footer.read(run.first_row..run.first_row + run.rows, &[(0, bytes)]).map_err(|error| damaged(&error))?;
    if rows.rows.hash() == run.hash { Ok(rows.rows) } else { Err(RunError::Damaged("the hash of its rows".to_owned())) }
}

async fn read_footer(store: &Store, key: &Key) -> Result<Footer, RunError> {
    let mut length = 4_096;
    loop {
        let suffix = store.get_suffix(key, length).await.map_err(trouble)?;
        match Footer::parse(&suffix.bytes, suffix.object_size_bytes)
            .map_err(|error| RunError::Damaged(error.to_string()))?
        {
            Parsed::Whole(footer) => return Ok(footer),
            Parsed::NeedsSuffix(needed) if needed > length => length = needed,
            Parsed::NeedsSuffix(_) => return Err(RunError::Damaged("its footer has no end".to_owned())),
        }
    }
}

fn trouble(error: ReadError) -> RunError {
    match error {
        ReadError::NotFound { .. } => RunError::Absent,
        _ => RunError::Store,
    }
}
