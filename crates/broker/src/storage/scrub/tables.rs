//! The metadata of tables: whether the newest version can be read, and every file that it shows stands with the size and the rows that it says.

use std::collections::BTreeMap;

use lakebed_lake::{StandingError, StandingTable};
use lakebed_segment::layout;
use lakebed_store::Key;

use super::super::fate::name_of;
use super::super::file::{ObjectError, TableFile};
use super::super::names::Kind;
use super::super::{Listing, StorageError, directory, tables_of};
use super::Scrub;

impl Scrub<'_> {
    /// Follows the metadata of every table, or of the one that is meant.
    pub(super) async fn tables(&mut self) -> Result<(), StorageError> {
        let only = self.only.and_then(|topic| self.state().topic(topic)).map(|topic| topic.name.table_name());
        for name in tables_of(&self.storage.store).await? {
            if only.as_ref().is_none_or(|table| *table == name.table) {
                self.table(&name.table).await?;
            }
        }
        Ok(())
    }

    async fn table(&mut self, table: &str) -> Result<(), StorageError> {
        let store = &self.storage.store;
        let standing = match lakebed_lake::standing(store, &name_of(table)).await {
            Ok(Some(standing)) => standing,
            // Never published, or withdrawn: the files stand alone.
            Ok(None) => return Ok(()),
            Err(StandingError::Damaged { key, what }) => {
                self.damaged(&super::super::key(&key), Kind::TableMetadata, what, None);
                return Ok(());
            }
            Err(source) => return Err(StorageError::Table { table: table.to_owned(), source }),
        };
        for (key, what) in &standing.damaged_earlier {
            self.damaged(&super::super::key(key), Kind::TableMetadata, what.clone(), None);
        }
        self.files_of(table, &standing).await?;
        let is_known = self.state().topic_of_table(table).is_some();
        let newest = standing.versions.last().copied();
        if is_known && standing.hint > newest {
            let hint = lakebed_lake::layout::hint_key(&name_of(table));
            self.damaged(&hint, Kind::TableMetadata, "it names a version that does not stand".to_owned(), None);
        }
        Ok(())
    }

    /// Compares what the newest version shows with what stands.
    async fn files_of(&mut self, table: &str, standing: &StandingTable) -> Result<(), StorageError> {
        let store = &self.storage.store;
        let mut sizes: BTreeMap<Key, u64> = BTreeMap::new();
        let mut listing = Listing::of(store, directory(&layout::table_data_prefix(table)));
        while let Some(page) = listing.next().await? {
            sizes.extend(page.into_iter().map(|listed| (listed.key, listed.size_bytes)));
        }
        for shown in &standing.files {
            let found = sizes.iter().find(|(key, _)| shown.uri.ends_with(key.as_str()));
            let Some((key, size_bytes)) = found else {
                let name = shown.uri.rsplit('/').next().unwrap_or_default();
                let key = super::super::key(&format!("{}{name}", layout::table_data_prefix(table)));
                let what = "nothing stands there, but the table's newest version shows it".to_owned();
                // One that the log names was told of; of this one only queries want anything.
                if !self.done.damaged.iter().any(|damage| damage.key == key.as_str()) {
                    self.damaged(&key, Kind::TableMetadata, what, None);
                }
                continue;
            };
            let (key, size_bytes) = (key.clone(), *size_bytes);
            let rows = match TableFile::open(store, key.clone()).await {
                Ok(file) => file.footer.rows,
                // It was told of as an object.
                Err(ObjectError::Damaged(_)) => continue,
                Err(ObjectError::Store(error)) => return Err(error.into()),
            };
            if (rows, size_bytes) != (shown.rows, shown.size_bytes) {
                let what = format!(
                    "the metadata of its table says {} rows in {} bytes, and there are {rows} in {size_bytes}",
                    shown.rows, shown.size_bytes
                );
                self.damaged(&key, Kind::TableMetadata, what, None);
            }
        }
        Ok(())
    }
}
