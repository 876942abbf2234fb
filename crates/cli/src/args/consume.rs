//! What `consume` is told.

use clap::Args as ClapArgs;

use super::ServerArgs;

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed consume orders                              all there is, then what comes
  lakebed consume orders --from 100 --count 10 --partition 0")]
pub(crate) struct ConsumeArgs {
    /// Name of the topic.
    pub(crate) topic: String,
    /// Where to begin: start, end, or an offset.
    #[arg(long, value_name = "start|end|OFFSET", default_value = "start", value_parser = parse_from)]
    pub(crate) from: From,
    /// Stop after this many records [default: go on for ever].
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Read this partition only [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<i32>,
    /// Print the key, this, and the value.
    #[arg(long, value_name = "S")]
    pub(crate) key_separator: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    Start,
    End,
    Offset(i64),
}

fn parse_from(text: &str) -> Result<From, String> {
    match text {
        "start" => Ok(From::Start),
        "end" => Ok(From::End),
        _ => match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(From::Offset(offset)),
            _ => Err("must be start, end, or an offset of 0 or more".to_owned()),
        },
    }
}
