//! Why bytes from the bucket can't be used.

/// Why an object can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It is written in a format that this version does not know.
    #[error("format {found} is newer than {supported}, the newest that this version reads")]
    Newer {
        /// The format of the object.
        found: u32,
        /// The newest that is read.
        supported: u32,
    },
    /// Bytes are not those that were written.
    #[error("damaged: checksum of {what} is {found:08x}, not {expected:08x}")]
    Checksum {
        /// Which bytes.
        what: String,
        /// The checksum that was written with them.
        expected: u32,
        /// The checksum that they have.
        found: u32,
    },
    /// The bytes do not follow the format.
    #[error("damaged or foreign: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// Rows were asked for that the object does not hold.
    #[error("rows {start}..{end} of an object of {rows} rows")]
    RowsOutOfRange {
        /// The first row asked for.
        start: u64,
        /// The end of the rows asked for.
        end: u64,
        /// How many there are.
        rows: u64,
    },
    /// Bytes that are needed were not handed in.
    #[error("bytes {start}..{end} of the object are missing")]
    Missing {
        /// Where they begin.
        start: u64,
        /// Where they end.
        end: u64,
    },
}

/// Shorthand for a [`FormatError::Malformed`].
pub(crate) fn malformed(what: impl Into<String>) -> FormatError {
    FormatError::Malformed { what: what.into() }
}
