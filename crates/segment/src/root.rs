//! `lakebed.json`: created once, read by everybody, never changed.

use lakebed_model::Directory;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::FORMAT;
use crate::checksum::{open_json, seal_json};
use crate::error::{FormatError, malformed};
use crate::text::Text;

/// What `lakebed.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The cluster whose root this is; in every object under it.
    pub cluster_id: Uuid,
    /// Directory 0 of the commit log of each cell; a cell is named by its index.
    pub cells: Vec<Directory>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootV1 {
    format: u32,
    cluster: Text<Uuid>,
    cells: Vec<CellV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CellV1 {
    directory: Text<Directory>,
}

impl Root {
    /// The bytes of `lakebed.json`.
    pub fn encode(&self) -> Vec<u8> {
        let cells = self.cells.iter().map(|directory| CellV1 { directory: Text(*directory) });
        seal_json(&RootV1 { format: FORMAT, cluster: Text(self.cluster_id), cells: cells.collect() })
    }

    /// Reads `lakebed.json`.
    ///
    /// # Errors
    /// [`FormatError::Newer`] if the root is of a newer format: touch nothing under it. Others: it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let root: RootV1 = open_json("lakebed.json", bytes)?;
        let cells: Vec<Directory> = root.cells.iter().map(|cell| cell.directory.0).collect();
        if root.format != FORMAT || cells.is_empty() || cells.len() > usize::from(u16::MAX) {
            return Err(malformed(format!("lakebed.json: format {} with {} cells", root.format, cells.len())));
        }
        Ok(Self { cluster_id: root.cluster.0, cells })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Root {
        Root { cluster_id: Uuid::from_u128(7), cells: vec!["0000000000-0123456789abcdef".parse().unwrap()] }
    }

    #[test]
    fn a_root_is_read_back() {
        assert_eq!(Root::decode(&root().encode()), Ok(root()));
    }

    #[test]
    fn a_newer_root_says_so() {
        let newer = br#"{"format":2,"anything":["else"]}"#;
        assert_eq!(Root::decode(newer), Err(FormatError::Newer { found: 2, supported: 1 }));
    }

    #[test]
    fn a_root_with_any_byte_flipped_or_cut_is_refused() {
        let bytes = root().encode();
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 1;
            assert!(Root::decode(&flipped).is_err(), "flip at {index}");
            assert!(Root::decode(&bytes[..index]).is_err(), "cut at {index}");
        }
    }
}
