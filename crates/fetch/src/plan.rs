//! From offsets to rows of objects: pure.
//!
//! The unit of reading is a [`Piece`]: rows of one run that make about one batch. A run is always cut at the same rows, whoever asks and for
//! whatever offset, so that all consumers of a place share its pieces.
//!
//! Which rows of a run with gaps have an offset, its object knows: its piece is the whole run, with the offset that is wanted, and how much of
//! it. As nobody knows where that will end, it is the last piece of its plan.

use lakebed_model::{ObjectId, Offset, PartitionKey, Run, State};

/// What a record takes in a batch beside key, value and headers: lengths and deltas.
const RECORD_OVERHEAD_BYTES: u64 = 16;
/// Header of a batch.
const BATCH_OVERHEAD_BYTES: u64 = 61;
/// Most pieces that one partition's part of an answer is made of: bounds what many tiny runs cost at once.
const PIECES_MAX: usize = 128;

/// Consecutive rows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    /// The partition.
    pub(crate) key: PartitionKey,
    /// The object that holds them.
    pub(crate) object: ObjectId,
    /// Index of the first row in the object.
    pub(crate) first_row: u64,
    /// How many.
    pub(crate) rows: u64,
    /// The first offset that they cover: that of the first row, unless the run has gaps.
    pub(crate) base_offset: Offset,
    /// How many offsets they cover: as many as they are, unless the run has gaps.
    pub(crate) span: u64,
    /// About how large a batch of them is.
    pub(crate) bytes: u64,
    /// Of a run with gaps, the offset from which on rows are wanted: those that make about `bytes`.
    pub(crate) from: Option<Offset>,
}

impl Piece {
    /// The offset behind the last that it covers.
    pub(crate) fn end(&self) -> Offset {
        Offset::new(self.base_offset.get() + self.span)
    }
}

/// The piece of a run that holds `offset`, or the first one if the run begins later; about `batch_bytes` large.
fn piece_at(key: PartitionKey, base: Offset, run: &Run, offset: Offset, batch_bytes: u64) -> Piece {
    let run_bytes = run.bytes + run.rows * RECORD_OVERHEAD_BYTES;
    let rows_each = (u128::from(batch_bytes) * u128::from(run.rows) / u128::from(run_bytes.max(1))) as u64;
    let rows_each = rows_each.clamp(1, run.rows);
    let before = offset.since(base) / rows_each * rows_each;
    let rows = rows_each.min(run.rows - before);
    let share = (u128::from(run_bytes) * u128::from(rows) / u128::from(run.rows)) as u64;
    Piece {
        key,
        object: run.object,
        first_row: run.first_row + before,
        rows,
        base_offset: Offset::new(base.get() + before),
        span: rows,
        bytes: share + BATCH_OVERHEAD_BYTES,
        from: None,
    }
}

/// A run with gaps from `offset` on, as far as about `bytes_max` go.
fn piece_with_gaps(key: PartitionKey, base: Offset, run: &Run, offset: Offset, bytes_max: u64) -> Piece {
    let run_bytes = run.bytes + run.rows * RECORD_OVERHEAD_BYTES;
    let ahead = run.end(base).since(offset);
    let share = (u128::from(run_bytes) * u128::from(ahead) / u128::from(run.span.max(1))) as u64;
    Piece {
        key,
        object: run.object,
        first_row: run.first_row,
        rows: run.rows,
        base_offset: base,
        span: run.span,
        bytes: (share + BATCH_OVERHEAD_BYTES).min(bytes_max),
        from: Some(offset),
    }
}

/// The pieces of a partition that hold `offset..end`, in order, until they make `bytes_max`; at least one if there is any.
pub(crate) fn pieces(
    state: &State,
    key: PartitionKey,
    offsets: std::ops::Range<Offset>,
    bytes_max: u64,
    batch_bytes: u64,
) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut bytes = 0;
    for (base, run) in state.runs_from(key, offsets.start) {
        let end = run.end(base);
        let mut at = offsets.start.max(base);
        if run.has_gaps() {
            let left = bytes_max.saturating_sub(bytes);
            if at < offsets.end && (pieces.is_empty() || left > 0) && pieces.len() < PIECES_MAX {
                pieces.push(piece_with_gaps(key, base, &run, at, left));
            }
            return pieces;
        }
        while at < end {
            let piece = piece_at(key, base, &run, at, batch_bytes);
            bytes += piece.bytes;
            let enough = !pieces.is_empty() && bytes > bytes_max;
            if at >= offsets.end || enough || pieces.len() == PIECES_MAX {
                return pieces;
            }
            at = piece.end();
            pieces.push(piece);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use lakebed_model::{
        BatchFacts, Change, Directory, Draft, Epoch, FlushBody, FlushId, FlushProposal, Nonce, PartitionIndex,
        ProposedRun, RowsHash, Takeover, TopicId, TopicName,
    };

    use super::*;

    const WRITER: Nonce = Nonce::new(7);

    fn key() -> PartitionKey {
        PartitionKey::new(TopicId::new(Default::default()), PartitionIndex::ZERO)
    }

    /// A state with a run of so many rows and bytes for each pair.
    fn state(runs: &[(u32, u64)]) -> State {
        let directory = |epoch| Directory { epoch: Epoch::new(epoch), nonce: WRITER };
        let takeover = Takeover { next: directory(1), address: String::new() };
        let (_, mut state) = Draft::takeover(&State::new(directory(0)), takeover, WRITER, 0).unwrap();
        let mut draft = Draft::after(&state);
        let name = TopicName::new("t").unwrap();
        draft.change(Change::CreateTopic { id: key().topic, name, partitions: 1, config: Default::default() }).unwrap();
        state = draft.seal(WRITER, 0).1;
        for (index, (rows, bytes)) in runs.iter().enumerate() {
            let facts = BatchFacts {
                rows: *rows,
                bytes: *bytes,
                timestamps: None,
                hash: RowsHash::EMPTY,
                producer: None,
                expected_next_offset: None,
            };
            let mut draft = Draft::after(&state);
            let flush = FlushProposal {
                id: FlushId::new((index as u128 + 1).into()),
                broker: WRITER,
                previous: None,
                body: FlushBody::Inline,
                ingest_time_ms: 0,
                runs: vec![ProposedRun { partition: key(), first_row: 0, batches: vec![facts] }],
            };
            draft.flush(&flush).unwrap();
            state = draft.seal(WRITER, 0).1;
        }
        state
    }

    fn offsets(start: u64, end: u64) -> std::ops::Range<Offset> {
        Offset::new(start)..Offset::new(end)
    }

    fn spans(pieces: &[Piece]) -> Vec<(u64, u64)> {
        pieces.iter().map(|piece| (piece.base_offset.get(), piece.end().get())).collect()
    }

    #[test]
    fn a_run_is_cut_at_the_same_rows_for_every_offset_and_the_pieces_tile_it() {
        let state = state(&[(10, 100), (1000, 1000 * 84), (7, 70)]);
        let all = pieces(&state, key(), offsets(0, 1017), u64::MAX, 10_000);
        assert_eq!(all.first().unwrap().base_offset, Offset::ZERO);
        assert_eq!(all.last().unwrap().end(), Offset::new(1017));
        assert!(all.windows(2).all(|pair| pair[0].end() == pair[1].base_offset));
        assert!(all.len() > 5 && all.iter().all(|piece| piece.bytes <= 10_100));
        for offset in 0..1017 {
            let first = pieces(&state, key(), offsets(offset, 1017), 0, 10_000);
            let holds = all.iter().find(|piece| (piece.base_offset..piece.end()).contains(&Offset::new(offset)));
            assert_eq!(first, [*holds.unwrap()], "offset {offset}");
        }
    }

    #[test]
    fn a_plan_ends_at_its_limits() {
        let state = state(&[(10, 100); 200]);
        assert_eq!(spans(&pieces(&state, key(), offsets(5, 2000), 900, 10_000)), [(0, 10), (10, 20)]);
        assert_eq!(spans(&pieces(&state, key(), offsets(5, 15), u64::MAX, 10_000)), [(0, 10), (10, 20)]);
        assert_eq!(pieces(&state, key(), offsets(0, 2000), u64::MAX, 10_000).len(), PIECES_MAX);
        assert!(pieces(&state, key(), offsets(2000, 2000), u64::MAX, 10_000).is_empty());
    }

    #[test]
    fn rows_without_bytes_and_rows_larger_than_a_batch_still_make_pieces() {
        let state = state(&[(3, 0), (2, 50_000_000)]);
        assert_eq!(spans(&pieces(&state, key(), offsets(0, 5), u64::MAX, 1024)), [(0, 3), (3, 4), (4, 5)]);
    }
}
