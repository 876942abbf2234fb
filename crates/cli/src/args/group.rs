//! What `group` is told.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Subcommand, ValueEnum};
use lakebed_wire::v1;

use super::ServerArgs;
use super::place::{FORMS, Place, parse_place};

#[derive(Debug, ClapArgs)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    pub(crate) verb: GroupVerb,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupVerb {
    /// List groups.
    #[command(before_help = "Examples:
  lakebed group list
  lakebed group list --state empty --kind classic --kind consumer
  lakebed group list -o jsonl | jq -r .name")]
    List {
        /// In this state only; may be repeated [default: in any].
        #[arg(long, value_name = "STATE", value_enum)]
        state: Vec<State>,
        /// Of this kind only; may be repeated [default: of any].
        #[arg(long, value_name = "KIND", value_enum)]
        kind: Vec<Kind>,
    },
    /// Show a group: its members, how far it has come in each partition, and how far it lags behind.
    #[command(before_help = "Examples:
  lakebed group describe billing
  lakebed group describe billing -o json | jq '[.partitions[].lag_records] | add'")]
    Describe {
        /// Its name.
        name: String,
    },
    /// List what a group has committed.
    #[command(before_help = "Examples:
  lakebed group offsets billing
  lakebed group offsets billing --topic orders:0,3 -o json")]
    Offsets {
        /// Name of the group.
        name: String,
        /// Of this topic only, or of these partitions of it; may be repeated [default: of all].
        #[arg(long, value_name = TOPIC, value_parser = parse_topic)]
        topic: Vec<v1::TopicPartitions>,
    },
    /// Move what a group has committed. It must have no members.
    #[command(before_help = "Examples:
  lakebed group reset billing --to start --validate-only         what would be moved
  lakebed group reset billing --to @-2h --topic orders           to what arrived two hours ago
  lakebed group reset billing --to 17 --topic orders:3
  lakebed group reset billing --shift-by -100                    a hundred records back
  lakebed group reset billing --file offsets.csv                 lines TOPIC,PARTITION,OFFSET")]
    #[command(group = ArgGroup::new("where").required(true).args(["to", "shift_by", "file"]))]
    Reset {
        /// Name of the group; it is made if it does not exist and topics are named.
        name: String,
        /// Where to: start, end, an offset, a time (@2026-01-02T03:04:05Z, @2026-01-02, or milliseconds since 1970), or how long ago (@-10m).
        #[arg(long, value_name = FORMS, value_parser = parse_place)]
        to: Option<Place>,
        /// So many records further, or back if it is negative; not beyond the start and the end.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        shift_by: Option<i64>,
        /// To the offsets in this file, one line TOPIC,PARTITION,OFFSET for each partition; - is standard input.
        #[arg(long, value_name = "FILE", conflicts_with = "topic")]
        file: Option<PathBuf>,
        /// In this topic only, or in these partitions of it; may be repeated [default: in all that is committed].
        #[arg(long, value_name = TOPIC, value_parser = parse_topic)]
        topic: Vec<v1::TopicPartitions>,
        /// Show what would be moved, but move nothing.
        #[arg(long)]
        validate_only: bool,
    },
    /// Delete a group that has no members, or forget what it has committed in some topics.
    #[command(before_help = "Examples:
  lakebed group delete billing
  lakebed group delete billing --validate-only
  lakebed group delete billing --topic orders      only what it has committed there")]
    Delete {
        /// Its name.
        name: String,
        /// Forget the offsets of this topic only, or of these partitions of it; may be repeated [default: delete the group].
        #[arg(long, value_name = TOPIC, value_parser = parse_topic)]
        topic: Vec<v1::TopicPartitions>,
        /// Check everything, but delete nothing.
        #[arg(long)]
        validate_only: bool,
    },
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Empty,
    Stable,
    Assigning,
    Reconciling,
    PreparingRebalance,
    CompletingRebalance,
}

impl From<State> for v1::GroupState {
    fn from(state: State) -> Self {
        match state {
            State::Empty => Self::Empty,
            State::Stable => Self::Stable,
            State::Assigning => Self::Assigning,
            State::Reconciling => Self::Reconciling,
            State::PreparingRebalance => Self::PreparingRebalance,
            State::CompletingRebalance => Self::CompletingRebalance,
        }
    }
}

/// Whose protocol the members of a group speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Kafka's JoinGroup.
    Classic,
    /// Kafka's ConsumerGroupHeartbeat.
    Consumer,
    /// The gRPC API.
    Grpc,
}

impl From<Kind> for v1::GroupKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Classic => Self::Classic,
            Kind::Consumer => Self::Consumer,
            Kind::Grpc => Self::Grpc,
        }
    }
}

/// How a topic and some of its partitions are said.
const TOPIC: &str = "TOPIC[:N,N…]";

/// `orders` or `orders:0,3`. Names of topics have no colon.
fn parse_topic(text: &str) -> Result<v1::TopicPartitions, String> {
    let (topic, partitions) = match text.split_once(':') {
        None => (text, Vec::new()),
        Some((topic, partitions)) => {
            let number = |number: &str| match number.trim().parse::<i32>() {
                Ok(number) if number >= 0 => Ok(number),
                _ => Err(format!("{number:?} is no partition: say {TOPIC}, such as orders:0,3")),
            };
            (topic, partitions.split(',').map(number).collect::<Result<_, _>>()?)
        }
    };
    if topic.is_empty() {
        return Err(format!("the name of the topic is missing: say {TOPIC}"));
    }
    Ok(v1::TopicPartitions { topic: topic.to_owned(), partitions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_said_with_or_without_partitions() {
        let said = |text: &str| parse_topic(text).map(|said| (said.topic, said.partitions));
        assert_eq!(said("orders"), Ok(("orders".to_owned(), Vec::new())));
        assert_eq!(said("orders:0,3"), Ok(("orders".to_owned(), vec![0, 3])));
        for wrong in ["", ":1", "orders:", "orders:x", "orders:-1", "orders:1,,2"] {
            assert!(said(wrong).is_err(), "{wrong}");
        }
    }
}
