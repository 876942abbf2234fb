//! Checkpoints: a [`Snapshot`] in parts, of which those that did not change are not written again.
//!
//! One *base* part has everything but the partitions and the groups, which are dealt into a power-of-two number of *bucket* parts by a hash
//! of their keys, and of *groups* parts (none if there are no groups) by a hash of their ids. The *manifest* names the parts and is written last: a checkpoint without a manifest is none. Invariants:
//!
//! 1. A part's name holds a hash of its bytes (UUID v5), so a part of that name is that part, whichever checkpoint wrote it.
//! 2. The manifest has each part's size and CRC-32C, and ends with its own.
//! 3. Equal snapshots after equal manifests give equal bytes.

use bytes::Bytes;
use lakebed_model::snapshot::PartitionSnapshot;
use lakebed_model::{Cell, CommitNumber, Group, GroupId, PartitionKey, Snapshot};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::FORMAT;
use crate::checksum::{crc32c, open_json, seal_json};
use crate::commit::Identity;
use crate::error::{FormatError, malformed};
use crate::text::Text;

mod v1;

/// About how large a bucket should be: small enough that most stay unchanged, large enough that parts are few.
const BUCKET_BYTES: usize = 1 << 20;
/// What the name of a part with groups begins with.
const GROUPS: &str = "groups";
/// Most buckets.
const BUCKETS_MAX: usize = 4096;
/// Larger manifests and parts are not read: nothing that is written comes near.
const PART_BYTES_MAX: u64 = 1 << 32;

/// A checkpoint to be written: the parts first, in any order, then the manifest as [`crate::layout::MANIFEST`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The parts that are new, by their names; they stand beside the manifest.
    pub parts: Vec<(String, Bytes)>,
    /// The bytes of the manifest.
    pub manifest: Bytes,
}

/// The list of a checkpoint's parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Whose checkpoint it is.
    pub identity: Identity,
    /// How many commits it folds.
    pub number: CommitNumber,
    /// The base part first, then the buckets in order, then the groups in order.
    pub parts: Vec<Part>,
}

/// One part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The checkpoint that wrote it; the part stands under that one's prefix.
    pub number: CommitNumber,
    /// Its name there.
    pub name: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestV1 {
    format: u32,
    cluster: Text<Uuid>,
    cell: u16,
    number: u64,
    parts: Vec<PartV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartV1 {
    checkpoint: u64,
    name: String,
    bytes: u64,
    crc32c: u32,
}

impl Part {
    /// The key of the part.
    pub fn key(&self, cell: Cell) -> String {
        crate::layout::checkpoint_key(cell, self.number, &self.name)
    }

    fn holds_groups(&self) -> bool {
        self.name.strip_prefix(GROUPS).is_some_and(|rest| rest.starts_with('-'))
    }

    fn check(&self, bytes: &[u8]) -> Result<(), FormatError> {
        if bytes.len() as u64 != self.bytes {
            return Err(malformed(format!("{} has {} bytes, not {}", self.name, bytes.len(), self.bytes)));
        }
        let found = crc32c(bytes);
        if found == self.crc32c {
            Ok(())
        } else {
            Err(FormatError::Checksum { what: self.name.clone(), expected: self.crc32c, found })
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`FormatError::Newer`] if it is of a newer format; others if it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let manifest: ManifestV1 = open_json("the manifest of a checkpoint", bytes)?;
        if manifest.format != FORMAT || manifest.parts.len() < 2 || manifest.parts.len() > 1 + BUCKETS_MAX {
            return Err(malformed(format!("format {} with {} parts", manifest.format, manifest.parts.len())));
        }
        let identity = Identity { cluster_id: manifest.cluster.0, cell: Cell::new(manifest.cell) };
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for part in manifest.parts {
            let legal = !part.name.contains('/') && part.bytes <= PART_BYTES_MAX && part.checkpoint <= manifest.number;
            if !legal {
                return Err(malformed(format!("a part {:?} of {} bytes", part.name, part.bytes)));
            }
            let number = CommitNumber::new(part.checkpoint);
            parts.push(Part { number, name: part.name, bytes: part.bytes, crc32c: part.crc32c });
        }
        Ok(Self { identity, number: CommitNumber::new(manifest.number), parts })
    }

    fn encode(&self) -> Bytes {
        let parts = self.parts.iter().map(|part| PartV1 {
            checkpoint: part.number.get(),
            name: part.name.clone(),
            bytes: part.bytes,
            crc32c: part.crc32c,
        });
        let manifest = ManifestV1 {
            format: FORMAT,
            cluster: Text(self.identity.cluster_id),
            cell: self.identity.cell.get(),
            number: self.number.get(),
            parts: parts.collect(),
        };
        seal_json(&manifest).into()
    }
}

/// Encodes a snapshot. A part that stands in `previous` already is named there and not written again.
///
/// # Cost
/// Serializes the whole snapshot; take it off the async threads when it is large.
pub fn encode(identity: &Identity, snapshot: &Snapshot, previous: Option<&Manifest>) -> Checkpoint {
    let mut writer = PartWriter { number: snapshot.number, previous, parts: Vec::new(), new: Vec::new() };
    writer.add("base", v1::encode_base(snapshot));
    for bucket in v1::encode_buckets(&deal(&snapshot.partitions, previous)) {
        writer.add("bucket", bucket);
    }
    for groups in deal_groups(&snapshot.groups, previous) {
        writer.add(GROUPS, v1::encode_groups(&groups));
    }
    let manifest = Manifest { identity: *identity, number: snapshot.number, parts: writer.parts };
    Checkpoint { parts: writer.new, manifest: manifest.encode() }
}

/// What one part of a checkpoint holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece(PieceKind);

#[derive(Debug, Clone, PartialEq)]
enum PieceKind {
    Base(Box<Snapshot>),
    Bucket(Vec<PartitionSnapshot>),
    Groups(Vec<(GroupId, Group)>),
}

/// Decodes one part, the `index`-th of [`Manifest::parts`].
///
/// # Errors
/// [`FormatError`] if it is damaged, or not that part.
///
/// # Cost
/// Parses the part, about a mebibyte: take it off the async threads.
pub fn decode_part(manifest: &Manifest, index: usize, bytes: &[u8]) -> Result<Piece, FormatError> {
    let part = manifest.parts.get(index).ok_or_else(|| malformed(format!("a checkpoint without part {index}")))?;
    part.check(bytes)?;
    if index == 0 {
        return Ok(Piece(PieceKind::Base(Box::new(v1::decode_base(bytes)?))));
    }
    if part.holds_groups() {
        return Ok(Piece(PieceKind::Groups(v1::decode_groups(bytes)?)));
    }
    let mut partitions = Vec::new();
    v1::decode_bucket(bytes, &mut partitions)?;
    Ok(Piece(PieceKind::Bucket(partitions)))
}

/// Puts the decoded parts of a checkpoint together, in the order of [`Manifest::parts`].
///
/// # Errors
/// [`FormatError`] if they are not those of this checkpoint.
pub fn assemble(manifest: &Manifest, pieces: Vec<Piece>) -> Result<Snapshot, FormatError> {
    if pieces.len() != manifest.parts.len() {
        return Err(malformed(format!("{} parts of a checkpoint of {}", pieces.len(), manifest.parts.len())));
    }
    let mut pieces = pieces.into_iter();
    let Some(Piece(PieceKind::Base(mut snapshot))) = pieces.next() else {
        return Err(malformed("a checkpoint without its base part"));
    };
    for piece in pieces {
        match piece.0 {
            PieceKind::Bucket(partitions) => snapshot.partitions.extend(partitions),
            PieceKind::Groups(groups) => snapshot.groups.extend(groups),
            PieceKind::Base(_) => return Err(malformed("a checkpoint with two base parts")),
        }
    }
    snapshot.partitions.sort_unstable_by_key(|partition| partition.key);
    if snapshot.partitions.windows(2).any(|pair| pair[0].key == pair[1].key) {
        return Err(malformed("a partition stands twice in a checkpoint"));
    }
    snapshot.groups.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    if snapshot.groups.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(malformed("a group stands twice in a checkpoint"));
    }
    if snapshot.number != manifest.number {
        return Err(malformed(format!("state as of {} in a checkpoint of {}", snapshot.number, manifest.number)));
    }
    Ok(*snapshot)
}

/// Decodes a checkpoint. `parts` are the bytes of [`Manifest::parts`], in their order.
///
/// # Errors
/// [`FormatError`] if a part is damaged, or not one of this checkpoint.
///
/// # Cost
/// Parses every part, one after another; with [`decode_part`] several can be parsed at once.
pub fn decode(manifest: &Manifest, parts: &[Bytes]) -> Result<Snapshot, FormatError> {
    let pieces = parts.iter().enumerate().map(|(index, bytes)| decode_part(manifest, index, bytes));
    assemble(manifest, pieces.collect::<Result<_, _>>()?)
}

struct PartWriter<'a> {
    number: CommitNumber,
    previous: Option<&'a Manifest>,
    parts: Vec<Part>,
    new: Vec<(String, Bytes)>,
}

impl PartWriter<'_> {
    fn add(&mut self, kind: &str, bytes: Vec<u8>) {
        let name = format!("{kind}-{}.json", Uuid::new_v5(&Uuid::nil(), &bytes).simple());
        let known = self.previous.and_then(|manifest| manifest.parts.iter().find(|part| part.name == name));
        if let Some(part) = known {
            self.parts.push(part.clone());
            return;
        }
        let crc32c = crc32c(&bytes);
        self.parts.push(Part { number: self.number, name: name.clone(), bytes: bytes.len() as u64, crc32c });
        // Two buckets without partitions have the same bytes and the same name: one object stands for both.
        if self.new.iter().all(|(other, _)| *other != name) {
            self.new.push((name, bytes.into()));
        }
    }
}

/// Deals partitions into buckets. Their number stays that of the previous checkpoint unless they are much too large or too small,
/// because every part changes with it.
fn deal<'a>(partitions: &'a [PartitionSnapshot], previous: Option<&Manifest>) -> Vec<Vec<&'a PartitionSnapshot>> {
    let bytes: usize = partitions.iter().map(v1::estimate_bytes).sum();
    let kept = previous.map(|manifest| manifest.parts.iter().skip(1).filter(|part| !part.holds_groups()).count());
    let count = bucket_count(bytes, kept);
    let mut buckets = vec![Vec::new(); count];
    for partition in partitions {
        buckets[bucket_of(partition.key) as usize & (count - 1)].push(partition);
    }
    buckets
}

/// As [`deal`], of groups: no part at all if there are none.
fn deal_groups<'a>(groups: &'a [(GroupId, Group)], previous: Option<&Manifest>) -> Vec<Vec<&'a (GroupId, Group)>> {
    if groups.is_empty() {
        return Vec::new();
    }
    let bytes: u64 = groups.iter().map(|(id, group)| group.bytes(id)).sum();
    let kept = previous.map(|manifest| manifest.parts.iter().filter(|part| part.holds_groups()).count());
    let count = bucket_count(usize::try_from(bytes).unwrap_or(usize::MAX), kept);
    let mut parts = vec![Vec::new(); count];
    for group in groups {
        parts[crc_fast::crc64_nvme(group.0.as_str().as_bytes()) as usize & (count - 1)].push(group);
    }
    parts
}

/// How many parts so many bytes are dealt into: as many as before, if that is about right.
fn bucket_count(bytes: usize, kept: Option<usize>) -> usize {
    let wanted = bytes.div_ceil(BUCKET_BYTES).next_power_of_two().clamp(1, BUCKETS_MAX);
    kept.filter(|kept| kept.is_power_of_two() && *kept <= wanted * 4 && wanted <= *kept * 2).unwrap_or(wanted)
}

/// The low bits choose the bucket: the CRC-64/NVME of the topic's id and the partition in little endian.
fn bucket_of(key: PartitionKey) -> u64 {
    let mut bytes = [0_u8; 20];
    bytes[..16].copy_from_slice(key.topic.uuid().as_bytes());
    bytes[16..].copy_from_slice(&key.partition.get().to_le_bytes());
    crc_fast::crc64_nvme(&bytes)
}
