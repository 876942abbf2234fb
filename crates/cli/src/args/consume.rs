//! What `consume` is told.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::ServerArgs;
use super::place::{FORMS, Place, parse_place};
use crate::consume::{FORMAT_HELP, Pattern};

#[derive(Debug, ClapArgs)]
#[command(before_help = "Examples:
  lakebed consume orders                              all there is, then what comes
  lakebed consume orders --from 100 --count 10 --partition 0
  lakebed consume orders --from @-1h --no-follow -o jsonl
  lakebed consume orders --from @2026-01-02T03:04:05Z --until @2026-01-03
  lakebed consume orders --format '%p:%o\\t%k\\t%v{base64}\\n'
  lakebed consume orders --resume orders.token        goes on where the last one ended
  lakebed consume orders --group billing              shares the topic, and commits what it has printed")]
#[command(after_help = FORMAT_HELP)]
pub(crate) struct ConsumeArgs {
    /// Name of the topic.
    pub(crate) topic: String,
    /// Where to begin: start, end, an offset, a time (@2026-01-02T03:04:05Z, @2026-01-02, or milliseconds since 1970), or how long ago (@-10m).
    #[arg(long, value_name = FORMS, default_value = "start", value_parser = parse_place)]
    pub(crate) from: Place,
    /// Where to stop, in the same forms: before that offset or time, or at the end as it is now [default: go on for ever].
    #[arg(long, value_name = FORMS, value_parser = parse_place)]
    pub(crate) until: Option<Place>,
    /// Stop at the end as it is now: the same as --until end.
    #[arg(long, conflicts_with = "until")]
    pub(crate) no_follow: bool,
    /// Stop after this many records.
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Read this partition only; may be repeated [default: all].
    #[arg(long, value_name = "N")]
    pub(crate) partition: Vec<i32>,
    /// Print the key, this, and the value.
    #[arg(long, value_name = "S", conflicts_with = "format")]
    pub(crate) key_separator: Option<String>,
    /// Print records by this pattern [default: '%v\n'].
    #[arg(short, long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(crate) format: Option<Pattern>,
    /// Go on where the token in this file says, and write into it where the next one goes on; if it does not exist, begin at --from.
    #[arg(long, value_name = "FILE", conflicts_with = "partition")]
    pub(crate) resume: Option<PathBuf>,
    /// As a member of this consumer group: reads its share of the partitions from what the group has committed (else from --from), and commits
    /// what it has printed, once a second and when it ends.
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["until", "no_follow", "partition", "resume"])]
    pub(crate) group: Option<String>,
    /// With --group: the name of a static member, whose partitions are kept for its session when it ends.
    #[arg(long, value_name = "NAME", requires = "group")]
    pub(crate) instance: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}
