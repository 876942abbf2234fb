//! Errors as a user meets them: what is wrong, why, and what to do; and as a program does, when the output is JSON.

mod exit;

use std::fmt;
use std::io::Write;

use anstyle::{AnsiColor, Style};
use lakebed_client::ClientError;
use serde_json::{Value, json};

pub(crate) use exit::Exit;

use crate::output::Format;
use crate::server::Server;

const RED: Style = AnsiColor::Red.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default().bold();

/// A verb that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    // Boxed: every result has room for it, and almost none fails.
    facts: Box<Facts>,
    /// How the process ends.
    pub(crate) exit: Exit,
}

#[derive(Debug)]
struct Facts {
    what: String,
    cause: Option<String>,
    remedy: Option<String>,
    code: String,
    /// One by one, where several things are wrong at once: what is printed, and the facts of it.
    problems: Vec<(String, Value)>,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let code = "FAILED".to_owned();
        let facts = Facts { what: what.into(), cause: None, remedy: None, code, problems: Vec::new() };
        Self { facts: Box::new(facts), exit: Exit::Failed }
    }

    /// What was said on the command line can't be done.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(what).code("USAGE", Exit::Usage)
    }

    pub(crate) fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.facts.cause = Some(cause.to_string());
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.facts.remedy = Some(remedy.into());
        self
    }

    /// A stable name for programs, and how the process ends.
    pub(crate) fn code(mut self, code: &str, exit: Exit) -> Self {
        code.clone_into(&mut self.facts.code);
        self.exit = exit;
        self
    }

    /// What is wrong one by one, with the facts of each for programs.
    pub(crate) fn problems(mut self, problems: Vec<(String, Value)>) -> Self {
        self.facts.problems = problems;
        self
    }

    /// A file or directory that can't be read or written.
    pub(crate) fn file(what: impl Into<String>, error: &std::io::Error) -> Self {
        let failure = Self::new(what).cause(error);
        match error.kind() {
            std::io::ErrorKind::NotFound => failure.code("FILE_NOT_FOUND", Exit::NotFound),
            _ => failure.code("FILE_FAILED", Exit::Failed),
        }
    }

    /// A call to a broker that failed.
    pub(crate) fn call(what: impl Into<String>, server: &Server, error: &ClientError) -> Self {
        let failure = Self::new(what).cause(error);
        let failure = match error {
            ClientError::Refused { code, reason, .. } => {
                let name = if reason.is_empty() { exit::name(*code) } else { reason };
                failure.code(name, Exit::of(*code, reason))
            }
            ClientError::NotConnected { .. } => failure.code("NOT_CONNECTED", Exit::Unavailable),
            ClientError::Lost { .. } => failure.code("CONNECTION_LOST", Exit::Failed),
            ClientError::Closed => failure.code("CLOSED", Exit::Failed),
        };
        match (error, error.reason()) {
            (ClientError::NotConnected { .. }, _) => failure.remedy(server.when_not_connected()),
            (_, "TOPIC_NOT_FOUND") => {
                failure.remedy("see what there is with `lakebed topic list`, or `lakebed topic create NAME`")
            }
            (_, "PARTITION_NOT_FOUND") => failure.remedy("see its partitions with `lakebed topic describe NAME`"),
            (_, "OFFSET_OUT_OF_RANGE") => {
                failure.remedy("see the offsets with `lakebed topic describe NAME`, or use --from start")
            }
            (_, "GROUP_NOT_FOUND") => failure.remedy("see what there is with `lakebed group list`"),
            (_, "GROUP_NOT_EMPTY") => failure.remedy("stop its members, which `lakebed group describe NAME` shows"),
            (_, "GROUP_SUBSCRIBED") => failure.remedy("stop the members that `lakebed group describe NAME` shows"),
            (_, "GROUP_KIND_MISMATCH") => failure.remedy("use another group, or stop its members first"),
            (_, "TOPIC_ALREADY_EXISTS") => failure.remedy("choose another name, or use the topic as it is"),
            _ if error.may_have_happened() => {
                failure.remedy("the request may have taken effect: look before sending it again")
            }
            _ if error.is_retriable() => failure.remedy("nothing happened: try again"),
            _ => failure,
        }
    }

    /// Prints it on stderr: for people, or one line of JSON.
    pub(crate) fn print(&self, format: Format) {
        let mut stderr = anstream::stderr().lock();
        let printed = match format {
            Format::Table => write!(stderr, "{self}"),
            Format::Json | Format::Jsonl => writeln!(stderr, "{}", self.to_json()),
        };
        // There is nowhere else to say it.
        drop(printed.and_then(|()| stderr.flush()));
    }

    fn to_json(&self) -> Value {
        let Facts { what, cause, remedy, code, problems } = &*self.facts;
        let mut error = json!({ "code": code, "message": what, "cause": cause, "hint": remedy });
        if !problems.is_empty() {
            error["problems"] = problems.iter().map(|(_, facts)| facts.clone()).collect();
        }
        json!({ "error": error })
    }
}

/// With colours; whoever prints it takes them away where there is no terminal.
/// An error with its sources, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { what, cause, remedy, problems, .. } = &*self.facts;
        writeln!(f, "{RED}error:{RED:#} {what}")?;
        for (line, _) in problems {
            writeln!(f, "  {line}")?;
        }
        if let Some(cause) = cause {
            writeln!(f, "  cause: {cause}")?;
        }
        if let Some(remedy) = remedy {
            writeln!(f, "  {CYAN}try:{CYAN:#} {remedy}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_to_people_and_to_programs() {
        let failure = Failure::new("it broke").cause("the disk").remedy("another disk").code("BROKEN", Exit::Conflict);
        let text = anstream::adapter::strip_str(&failure.to_string()).to_string();
        assert_eq!(text, "error: it broke\n  cause: the disk\n  try: another disk\n");
        let expected = json!({ "error": { "code": "BROKEN", "message": "it broke", "cause": "the disk", "hint": "another disk" } });
        assert_eq!(failure.to_json(), expected);
        let bare = Failure::new("it broke");
        assert_eq!(bare.to_json()["error"]["hint"], Value::Null, "every field is always there");
        assert_eq!(bare.exit, Exit::Failed);
    }
}
