//! `lakebed group list|describe|offsets|reset|delete`.

use std::io::Read;
use std::path::Path;

use lakebed_client::Client;
use lakebed_wire::v1;
use lakebed_wire::v1::reset_offsets_request::To;
use serde::Serialize;

use crate::args::{GroupArgs, GroupVerb, Place};
use crate::failure::{Exit, Failure};
use crate::output::{Output, table};
use crate::server::Server;

/// Largest file of offsets: the broker takes 10,000 at once.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A group as it is printed.
#[derive(Debug, Serialize)]
struct Group {
    name: String,
    /// `classic`, `consumer` or `grpc`; null as long as it had no members.
    kind: Option<String>,
    state: String,
    member_count: i32,
    generation: i32,
}

impl From<v1::Group> for Group {
    fn from(group: v1::Group) -> Self {
        let (kind, state) = (group.kind(), group.state());
        let kind = Some(words(kind.as_str_name(), "GROUP_KIND_")).filter(|_| kind != v1::GroupKind::Unspecified);
        let state = words(state.as_str_name(), "GROUP_STATE_");
        let v1::Group { name, member_count, generation, .. } = group;
        Self { name, kind, state, member_count, generation }
    }
}

/// `GROUP_STATE_PREPARING_REBALANCE` as `preparing-rebalance`.
fn words(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).replace('_', "-").to_lowercase()
}

#[derive(Debug, Serialize)]
struct Described {
    #[serde(flatten)]
    group: Group,
    assignor: String,
    members: Vec<Member>,
    partitions: Vec<Partition>,
}

#[derive(Debug, Serialize)]
struct Member {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    member_epoch: i32,
    assignment: Vec<TopicPartitions>,
}

#[derive(Debug, Serialize)]
struct TopicPartitions {
    topic: String,
    partitions: Vec<i32>,
}

#[derive(Debug, Serialize)]
struct Partition {
    topic: String,
    partition: i32,
    committed_offset: Option<i64>,
    metadata: String,
    earliest_offset: i64,
    latest_offset: i64,
    lag_records: Option<i64>,
    lag_seconds: Option<f64>,
    member_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Committed {
    topic: String,
    partition: i32,
    offset: i64,
    metadata: String,
    leader_epoch: Option<i32>,
    commit_time: i64,
}

#[derive(Debug, Serialize)]
struct Moved {
    topic: String,
    partition: i32,
    old_offset: Option<i64>,
    new_offset: i64,
}

impl From<v1::TopicPartitions> for TopicPartitions {
    fn from(of_topic: v1::TopicPartitions) -> Self {
        Self { topic: of_topic.topic, partitions: of_topic.partitions }
    }
}

impl From<v1::GroupMember> for Member {
    fn from(member: v1::GroupMember) -> Self {
        let v1::GroupMember { member_id, instance_id, client_id, client_host, assignment, member_epoch } = member;
        let instance_id = Some(instance_id).filter(|id| !id.is_empty());
        let assignment = assignment.into_iter().map(TopicPartitions::from).collect();
        Self { member_id, instance_id, client_id, client_host, member_epoch, assignment }
    }
}

impl From<v1::GroupPartition> for Partition {
    fn from(partition: v1::GroupPartition) -> Self {
        Self {
            topic: partition.topic,
            partition: partition.partition,
            committed_offset: partition.committed_offset,
            metadata: partition.metadata,
            earliest_offset: partition.earliest_offset,
            latest_offset: partition.latest_offset,
            lag_records: partition.lag_records,
            lag_seconds: partition.lag_seconds,
            member_id: Some(partition.member_id).filter(|id| !id.is_empty()),
        }
    }
}

impl From<v1::CommittedOffset> for Committed {
    fn from(committed: v1::CommittedOffset) -> Self {
        let v1::CommittedOffset { topic, partition, offset, metadata, leader_epoch, commit_time } = committed;
        Self { topic, partition, offset, metadata, leader_epoch, commit_time }
    }
}

pub(crate) async fn run(args: GroupArgs, output: Output) -> Result<(), Failure> {
    let (client, server) = args.server.connect().await?;
    match args.verb {
        GroupVerb::List { state, kind } => {
            let kinds: Vec<v1::GroupKind> = kind.into_iter().map(Into::into).collect();
            let states: Vec<v1::GroupState> = state.into_iter().map(Into::into).collect();
            list(&client, &server, &kinds, &states, output).await
        }
        GroupVerb::Describe { name } => {
            let described = client.describe_group(&name).await;
            let answer = described
                .map_err(|error| Failure::call(format!("group {name} can't be described"), &server, &error))?;
            let described = Described {
                group: answer.group.unwrap_or_default().into(),
                assignor: answer.assignor,
                members: answer.members.into_iter().map(Member::from).collect(),
                partitions: answer.partitions.into_iter().map(Partition::from).collect(),
            };
            output.one(&described, || described.text())
        }
        GroupVerb::Offsets { name, topic } => offsets(&client, &server, &name, topic, output).await,
        GroupVerb::Reset { name, to, shift_by, file, topic, validate_only } => {
            let to = target(to, shift_by, file.as_deref())?;
            let request = v1::ResetOffsetsRequest { group: name, partitions: topic, to: Some(to), validate_only };
            reset(&client, &server, request, output).await
        }
        GroupVerb::Delete { name, topic, validate_only } if topic.is_empty() => {
            let deleted = client.delete_group(&name, validate_only).await;
            deleted.map_err(|error| Failure::call(format!("group {name} was not deleted"), &server, &error))?;
            output.notice(format!("{} group {name}", if validate_only { "would delete" } else { "deleted" }));
            output.one(&serde_json::json!({ "name": name, "topics": null }), String::new)
        }
        GroupVerb::Delete { name, topic, validate_only } => {
            let request = v1::DeleteOffsetsRequest { group: name.clone(), partitions: topic, validate_only };
            forget(&client, &server, request, output).await
        }
    }
}

async fn list(
    client: &Client,
    server: &Server,
    kinds: &[v1::GroupKind],
    states: &[v1::GroupState],
    output: Output,
) -> Result<(), Failure> {
    let groups = client.list_groups(kinds, states).await;
    let groups = groups.map_err(|error| Failure::call("groups can't be listed", server, &error))?;
    if groups.is_empty() {
        output.notice(match kinds.is_empty() && states.is_empty() {
            true => "there are no groups",
            false => "there are no such groups",
        });
    }
    let groups: Vec<Group> = groups.into_iter().map(Group::from).collect();
    output.list("groups", &groups, ["name", "kind", "state", "members", "generation"], |group| {
        let kind = group.kind.clone().unwrap_or_else(|| "-".to_owned());
        let (members, generation) = (group.member_count.to_string(), group.generation.to_string());
        [group.name.clone(), kind, group.state.clone(), members, generation]
    })
}

async fn offsets(
    client: &Client,
    server: &Server,
    group: &str,
    topics: Vec<v1::TopicPartitions>,
    output: Output,
) -> Result<(), Failure> {
    let what = |error| Failure::call(format!("the offsets of group {group} can't be listed"), server, &error);
    let offsets = client.fetch_offsets(group, topics).await.map_err(what)?;
    if offsets.is_empty() {
        output.notice(format!("group {group} has committed nothing there"));
    }
    let offsets: Vec<Committed> = offsets.into_iter().map(Committed::from).collect();
    output.list("offsets", &offsets, ["topic", "partition", "offset", "committed at", "metadata"], |committed| {
        let Committed { topic, partition, offset, metadata, commit_time, .. } = committed;
        [topic.clone(), partition.to_string(), offset.to_string(), time(*commit_time), metadata.clone()]
    })
}

/// Milliseconds since 1970 as `2026-01-02T03:04:05Z`.
fn time(time_ms: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(time_ms).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}

/// Where a reset goes; clap sees to it that one of them is said.
fn target(to: Option<Place>, shift_by: Option<i64>, file: Option<&Path>) -> Result<To, Failure> {
    match (to, shift_by, file) {
        (Some(Place::Start), ..) => Ok(To::Earliest(v1::ResetToEarliest {})),
        (Some(Place::End), ..) => Ok(To::Latest(v1::ResetToLatest {})),
        (Some(Place::Offset(offset)), ..) => Ok(To::Offset(offset)),
        (Some(Place::Time(timestamp_ms)), ..) => Ok(To::Timestamp(timestamp_ms)),
        (None, Some(by), _) => Ok(To::ShiftBy(by)),
        (None, None, Some(file)) => Ok(To::Offsets(v1::OffsetList { offsets: read_offsets(file)? })),
        (None, None, None) => Err(Failure::usage("say where to: --to, --shift-by or --file")),
    }
}

/// The offsets that a file names.
fn read_offsets(path: &Path) -> Result<Vec<v1::CommittedOffset>, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file(format!("{} (from --file) can't be read", path.display()), &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let what = format!("{} (from --file) is larger than {FILE_BYTES_MAX} bytes", path.display());
        return Err(Failure::usage(what).remedy("move fewer partitions at a time"));
    }
    parse_offsets(&text).map_err(|(line, cause)| {
        let place = line.map_or_else(String::new, |line| format!("line {line} of "));
        Failure::new(format!("{place}{} (from --file) can't be used", path.display()))
            .cause(cause)
            .remedy("write lines TOPIC,PARTITION,OFFSET, such as orders,0,17")
            .code("OFFSETS_INVALID", Exit::Usage)
    })
}

/// Lines `TOPIC,PARTITION,OFFSET`; empty ones and those that begin with # are passed over. An error says in which line, if it
/// is in one.
fn parse_offsets(text: &str) -> Result<Vec<v1::CommittedOffset>, (Option<usize>, String)> {
    let mut offsets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |cause: String| (Some(index + 1), cause);
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        let [topic, partition, offset] = parts[..] else {
            return Err(fail(format!("{line:?} has {} parts, not 3", parts.len())));
        };
        let partition = partition.parse::<u32>().ok().and_then(|partition| i32::try_from(partition).ok());
        let partition = partition.ok_or_else(|| fail(format!("{line:?} names no partition in its second part")))?;
        let offset = offset.parse::<i64>().ok().filter(|offset| *offset >= 0);
        let offset = offset.ok_or_else(|| fail(format!("{line:?} names no offset in its third part")))?;
        offsets.push(v1::CommittedOffset { topic: topic.to_owned(), partition, offset, ..Default::default() });
    }
    if offsets.is_empty() { Err((None, "no line names an offset".to_owned())) } else { Ok(offsets) }
}

async fn reset(
    client: &Client,
    server: &Server,
    request: v1::ResetOffsetsRequest,
    output: Output,
) -> Result<(), Failure> {
    let (group, validate_only) = (request.group.clone(), request.validate_only);
    let moved = client.reset_offsets(request).await;
    let moved = moved.map_err(|error| {
        let failure = Failure::call(format!("the offsets of group {group} are as they were"), server, &error);
        match error.reason() {
            "OFFSET_OUT_OF_RANGE" => {
                failure.remedy("see the offsets with `lakebed topic describe NAME`, or use --to start or --to end")
            }
            _ => failure,
        }
    })?;
    let partitions = if moved.len() == 1 { "partition" } else { "partitions" };
    let what = if validate_only { "would move" } else { "moved" };
    output.notice(format!("{what} group {group} in {} {partitions}", moved.len()));
    let moved = moved.into_iter().map(|moved| {
        let v1::ResetOffset { topic, partition, old_offset, new_offset } = moved;
        Moved { topic, partition, old_offset, new_offset }
    });
    let moved: Vec<Moved> = moved.collect();
    output.list("offsets", &moved, ["topic", "partition", "old offset", "new offset"], |moved| {
        let Moved { topic, partition, old_offset, new_offset } = moved;
        [topic.clone(), partition.to_string(), or_dash(*old_offset), new_offset.to_string()]
    })
}

async fn forget(
    client: &Client,
    server: &Server,
    request: v1::DeleteOffsetsRequest,
    output: Output,
) -> Result<(), Failure> {
    let (name, validate_only) = (request.group.clone(), request.validate_only);
    let forgotten = client.delete_offsets(request).await;
    let forgotten = forgotten
        .map_err(|error| Failure::call(format!("the offsets of group {name} are as they were"), server, &error))?;
    let topics: Vec<TopicPartitions> = forgotten.into_iter().map(TopicPartitions::from).collect();
    let count: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    let partitions = if count == 1 { "partition" } else { "partitions" };
    let what = if validate_only { "would forget" } else { "forgot" };
    output.notice(format!("{what} what group {name} has committed in {count} {partitions}"));
    output.one(&serde_json::json!({ "name": name, "topics": topics }), String::new)
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Described {
    fn text(&self) -> String {
        let Self { group, assignor, members, partitions } = self;
        let mut text = format!(
            "name        {}\nkind        {}\nstate       {}\ngeneration  {}\n",
            group.name,
            or_dash(group.kind.as_ref()),
            group.state,
            group.generation
        );
        if !assignor.is_empty() {
            text += &format!("assignor    {assignor}\n");
        }
        if !members.is_empty() {
            let columns = ["member", "instance", "client", "host", "epoch", "partitions"];
            text += "\n";
            text += &table(columns, members.iter().map(Member::row));
        }
        if !partitions.is_empty() {
            let columns = ["topic", "partition", "committed", "latest", "lag", "lag time", "member"];
            text += "\n";
            text += &table(columns, partitions.iter().map(Partition::row));
        }
        text
    }
}

impl Member {
    fn row(&self) -> [String; 6] {
        let count: usize = self.assignment.iter().map(|topic| topic.partitions.len()).sum();
        let instance = or_dash(self.instance_id.as_ref());
        let epoch = or_dash((self.member_epoch > 0).then_some(self.member_epoch));
        let (client, host) = (self.client_id.clone(), self.client_host.clone());
        [self.member_id.clone(), instance, client, host, epoch, count.to_string()]
    }
}

impl Partition {
    fn row(&self) -> [String; 7] {
        let lag_time = self.lag_seconds.map(|seconds| format!("{seconds:.1} s"));
        [
            self.topic.clone(),
            self.partition.to_string(),
            or_dash(self.committed_offset),
            self.latest_offset.to_string(),
            or_dash(self.lag_records),
            or_dash(lag_time),
            or_dash(self.member_id.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_offsets_has_a_line_for_each_partition() {
        let read = parse_offsets("# a comment\n\norders,0,17\n returns , 3 , 0 \n").unwrap();
        let read: Vec<_> = read.iter().map(|one| (one.topic.as_str(), one.partition, one.offset)).collect();
        assert_eq!(read, [("orders", 0, 17), ("returns", 3, 0)]);
        for (wrong, line) in [
            ("#", None),
            ("orders,0", Some(1)),
            ("orders,0,1\norders,x,1", Some(2)),
            ("a,0,-1", Some(1)),
            ("a,-1,1", Some(1)),
        ] {
            assert_eq!(parse_offsets(wrong).map_err(|(line, _)| line).map(drop), Err(line), "{wrong}");
        }
    }
}
