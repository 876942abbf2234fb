//! What `sql` is told.

use clap::{Args as ClapArgs, ValueEnum};

use super::ServerArgs;

/// A program that reads tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// DuckDB: SQL.
    Duckdb,
    /// pyiceberg: Python.
    Pyiceberg,
    /// Spark: settings, and SQL.
    Spark,
    /// Trino: a catalog's properties, and SQL.
    Trino,
}

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed sql orders                     for all of them
  lakebed sql orders --engine duckdb
  lakebed sql orders --engine duckdb -o json | jq -r '.statements[0].text' | duckdb")]
pub(crate) struct SqlArgs {
    /// Name of the topic.
    pub(crate) topic: String,
    /// For this program only [default: all].
    #[arg(long, value_name = "ENGINE", value_enum)]
    pub(crate) engine: Option<Engine>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
