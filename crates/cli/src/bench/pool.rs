//! Batches that are encoded once and sent many times.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use text::Stream;

use crate::args::BenchValues;
use crate::failure::Failure;

/// How many different batches there are: enough that no cache of one batch helps.
const BATCHES: usize = 16;

/// Pre-encoded batches of equal shape.
pub(crate) struct Pool {
    /// The batches, as a client sends them (base offset 0).
    pub(crate) batches: Vec<Bytes>,
    /// The values in them.
    pub(crate) values: Vec<Vec<Bytes>>,
    /// The hash of the values of each batch.
    hashes: Vec<u64>,
    /// Records of each batch.
    pub(crate) records: u32,
    /// Bytes of values in each batch.
    pub(crate) value_bytes: u64,
}

impl Pool {
    /// Makes batches of at most `batch_bytes` with values of `record_bytes`.
    pub(crate) fn new(record_bytes: usize, batch_bytes: usize, values: BenchValues) -> Result<Self, Failure> {
        let records = (batch_bytes / (record_bytes + 12)).max(1);
        let mut stream = Stream::new(0x1ace_bed0);
        let mut pool = Self {
            batches: Vec::new(),
            values: Vec::new(),
            hashes: Vec::new(),
            records: u32::try_from(records).map_err(|_| Failure::new("a batch of too many records"))?,
            value_bytes: (records * record_bytes) as u64,
        };
        for _ in 0..BATCHES {
            let mut value = || match values {
                BenchValues::Text => stream.text(record_bytes),
                BenchValues::Random => stream.random(record_bytes),
            };
            let values: Vec<Bytes> = (0..records).map(|_| value()).collect();
            pool.batches.push(encode(&values)?);
            pool.hashes.push(super::hash::of_values(&values));
            pool.values.push(values);
        }
        Ok(pool)
    }

    /// The batch that is sent as the `index`-th of a partition.
    pub(crate) fn batch(&self, index: u64) -> &Bytes {
        &self.batches[(index % BATCHES as u64) as usize]
    }

    /// The hash of the values of the batch that is sent as the `index`-th.
    pub(crate) fn hash(&self, index: u64) -> u64 {
        self.hashes[(index % BATCHES as u64) as usize]
    }

    /// The value that record `offset` of a partition has.
    pub(crate) fn value(&self, offset: u64) -> &Bytes {
        let batch = (offset / u64::from(self.records)) % BATCHES as u64;
        &self.values[batch as usize][(offset % u64::from(self.records)) as usize]
    }
}

fn encode(values: &[Bytes]) -> Result<Bytes, Failure> {
    let now_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let records: Vec<Record> =
        (0_i64..).zip(values).map(|(offset, value)| record(offset, now_ms, value.clone())).collect();
    let mut buffer = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut buffer, &records, &options)
        .map_err(|error| Failure::new("a batch can't be encoded").cause(error))?;
    Ok(buffer.freeze())
}

fn record(offset: i64, timestamp: i64, value: Bytes) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        // The encoder begins a new batch where sequences do not follow one another; a batch without a producer begins at -1.
        sequence: (offset - 1) as i32,
        timestamp,
        key: None,
        value: Some(value),
        headers: Default::default(),
    }
}

mod text {
    //! A small seeded stream, the same in every run.

    use bytes::Bytes;

    pub(super) struct Stream(u64);

    impl Stream {
        pub(super) fn new(seed: u64) -> Self {
            Self(seed)
        }

        /// SplitMix64 (Steele, Lea, Flood 2014).
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// Printable text of a length.
        pub(super) fn text(&mut self, length: usize) -> Bytes {
            const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let mut text = Vec::with_capacity(length + 8);
            while text.len() < length {
                let word = self.next();
                text.extend((0..10).map(|i| LETTERS[(word >> (6 * i)) as usize & 63]));
            }
            text.truncate(length);
            Bytes::from(text)
        }

        /// Bytes of a length that can't be compressed.
        pub(super) fn random(&mut self, length: usize) -> Bytes {
            let mut bytes = Vec::with_capacity(length + 8);
            while bytes.len() < length {
                bytes.extend(self.next().to_le_bytes());
            }
            bytes.truncate(length);
            Bytes::from(bytes)
        }
    }
}
