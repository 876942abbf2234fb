//! Rows of every shape, from a seed.

use lakebed_segment::batch::TimestampType;
use lakebed_segment::rows::RowSource;

/// A small generator of numbers; its seed is in the test that makes it.
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) ^ (self.0 << 20 >> 33)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

type Header = (Vec<u8>, Option<Vec<u8>>);

struct Row {
    timestamp_ms: i64,
    timestamp_type: TimestampType,
    ingest_time_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Header>,
}

pub(crate) struct TestRows(Vec<Row>);

impl TestRows {
    pub(crate) fn random(random: &mut Lcg, count: usize) -> Self {
        let optional = |random: &mut Lcg, most: u64| match random.below(6) {
            0 => None,
            1 => Some(Vec::new()),
            _ => {
                let length = random.below(most) as usize;
                Some(random.bytes(length))
            }
        };
        let rows = (0..count).map(|_| Row {
            timestamp_ms: if random.below(5) == 0 { -1 } else { random.below(1 << 45) as i64 },
            timestamp_type: if random.below(3) == 0 { TimestampType::LogAppend } else { TimestampType::Create },
            ingest_time_ms: random.below(1 << 45) as i64,
            key: optional(random, 20),
            value: optional(random, 120),
            headers: (0..random.below(4))
                .map(|_| (format!("h{}", random.below(3)).into_bytes(), optional(random, 9)))
                .collect(),
        });
        Self(rows.collect())
    }

    pub(crate) fn set_key(&mut self, row: usize, key: Vec<u8>) {
        self.0[row].key = Some(key);
    }

    pub(crate) fn set_value(&mut self, row: usize, value: Vec<u8>) {
        self.0[row].value = Some(value);
    }
}

impl RowSource for TestRows {
    fn row_count(&self) -> usize {
        self.0.len()
    }

    fn timestamp_ms(&self, row: usize) -> i64 {
        self.0[row].timestamp_ms
    }

    fn timestamp_type(&self, row: usize) -> TimestampType {
        self.0[row].timestamp_type
    }

    fn ingest_time_ms(&self, row: usize) -> i64 {
        self.0[row].ingest_time_ms
    }

    fn key(&self, row: usize) -> Option<&[u8]> {
        self.0[row].key.as_deref()
    }

    fn value(&self, row: usize) -> Option<&[u8]> {
        self.0[row].value.as_deref()
    }

    fn headers(&self, row: usize) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> + Clone {
        self.0[row].headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref()))
    }
}
