//! Snapshots that go in come out.
