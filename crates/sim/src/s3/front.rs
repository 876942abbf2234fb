//! From a request to its answer: what the conduct makes of it, the clock, the operation, the bill.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, Response};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::service::S3Service;
use s3s::{S3Error, s3_error};

use super::bill::{Bill, Operation, Served};
use super::body::{AnswerBody, Broken, Shape, as_it_is, cut, shaped, whole};
use super::conduct::{Asked, Demeanour, Fault, Outage, Treatment};
use super::objects::now;

/// How far the clock of a request may be off, as S3 has it.
const SKEW_MAX: Duration = Duration::from_secs(15 * 60);
/// A body that has a rate is sent in pieces of this many bytes.
const PACED_BYTES: usize = 64 << 10;

pub(crate) struct Front {
    service: S3Service,
    demeanour: Arc<Demeanour>,
    bill: Arc<Bill>,
}

impl Front {
    pub(crate) fn new(service: S3Service, demeanour: Arc<Demeanour>, bill: Arc<Bill>) -> Self {
        Self { service, demeanour, bill }
    }

    /// Answers a request, and puts it on the bill.
    ///
    /// # Errors
    /// The connection is to be cut.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Broken> {
        let (operation, key) = classify(&request);
        let conditional = ["if-none-match", "if-match"].iter().any(|name| request.headers().contains_key(*name));
        let conditional = conditional && matches!(operation, Operation::Put | Operation::Complete);
        let treatment = self.demeanour.treat(&Asked { operation, key: &key, conditional });
        let bytes_in = request.body().size_hint().lower();
        let answer = self.perform(request, operation, &treatment, bytes_in).await;
        let cut_after = match treatment.fault {
            Some((Fault::CutBody { bytes }, _)) if operation == Operation::Get => bytes,
            _ => u64::MAX,
        };
        let length = |answer: &Response<AnswerBody>| answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let bytes_out = match &answer {
            Ok(_) if operation == Operation::Head => 0,
            Ok(answer) => length(answer).unwrap_or_else(|| answer.body().size_hint().lower()).min(cut_after),
            Err(_) => 0,
        };
        let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
        self.bill.add(Served { operation, status, bytes_in, bytes_out });
        answer
    }

    async fn perform(
        &self,
        request: Request<Incoming>,
        operation: Operation,
        treatment: &Treatment,
        bytes_in: u64,
    ) -> Result<Response<AnswerBody>, Broken> {
        let seconds = treatment.bytes_per_second.map_or(0.0, |rate| bytes_in as f64 / rate as f64);
        wait(treatment.wait + Duration::from_secs_f64(seconds)).await;
        let not_applied = match treatment.fault {
            _ if treatment.outage == Outage::Unavailable => {
                Some(Wrong::Answer(s3_error!(ServiceUnavailable, "The service is unavailable. Please retry.")))
            }
            Some((fault, false)) => wrong(fault),
            _ => None,
        };
        let too_skewed = || skewed(&request, treatment.clock_shift_seconds).then(|| Wrong::Answer(skew_error()));
        if let Some(wrong) = not_applied.or_else(too_skewed) {
            drain(request.into_body()).await;
            wait(treatment.wait).await;
            return wrong.answer();
        }
        let call = self.service.call(request.map(s3s::Body::from));
        let answer = call.await.map_err(|error| Broken::other(format!("{error:?}")))?;
        wait(treatment.wait).await;
        if let Some(wrong) = treatment.fault.filter(|(_, applied)| *applied).and_then(|(fault, _)| wrong(fault)) {
            return wrong.answer();
        }
        if let Some((Fault::Delay { ms }, _)) = treatment.fault {
            wait(Duration::from_millis(ms)).await;
        }
        let misshapen = operation == Operation::Get && answer.status().is_success();
        let shape = shape(treatment, misshapen);
        let mut answer = answer.map(|body| match shape {
            Some(shape) => shaped(body, shape),
            None => as_it_is(body),
        });
        let date = httpdate::fmt_http_date(shifted(treatment.clock_shift_seconds));
        answer.headers_mut().insert("date", date.parse().expect("a date is made of the characters of a header"));
        Ok(answer)
    }
}

/// An answer that has nothing to do with the operation.
enum Wrong {
    Answer(S3Error),
    Cut,
}

impl Wrong {
    fn answer(self) -> Result<Response<AnswerBody>, Broken> {
        match self {
            Self::Answer(error) => {
                let answer = error.to_http_response().map_err(|error| Broken::other(error.to_string()))?;
                Ok(answer.map(|mut body| whole(body.take_bytes().unwrap_or_default())))
            }
            Self::Cut => Err(cut()),
        }
    }
}

fn wrong(fault: Fault) -> Option<Wrong> {
    match fault {
        Fault::Conflict => Some(Wrong::Answer(s3_error!(
            ConditionalRequestConflict,
            "A conflicting conditional operation is currently in progress against this resource. Please try again."
        ))),
        Fault::InternalError => {
            Some(Wrong::Answer(s3_error!(InternalError, "We encountered an internal error. Please try again.")))
        }
        Fault::SlowDown => Some(Wrong::Answer(s3_error!(SlowDown, "Please reduce your request rate."))),
        Fault::CutConnection => Some(Wrong::Cut),
        Fault::CutBody { .. } | Fault::SlowBody { .. } | Fault::Delay { .. } => None,
    }
}

fn shape(treatment: &Treatment, misshapen: bool) -> Option<Shape> {
    let paced = treatment.bytes_per_second.map(|rate| Shape {
        piece_bytes: PACED_BYTES,
        pause: Duration::from_secs_f64(PACED_BYTES as f64 / rate as f64),
        cut_after: None,
    });
    let plain = paced.unwrap_or(Shape { piece_bytes: usize::MAX, pause: Duration::ZERO, cut_after: None });
    match treatment.fault {
        Some((Fault::CutBody { bytes }, _)) if misshapen => Some(Shape { cut_after: Some(bytes), ..plain }),
        Some((Fault::SlowBody { bytes, every_ms }, _)) if misshapen => Some(Shape {
            piece_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            pause: Duration::from_millis(every_ms),
            cut_after: None,
        }),
        _ => paced,
    }
}

/// The kind of a request, and its key as it stands in the URL; of LIST, the prefix.
fn classify(request: &Request<Incoming>) -> (Operation, String) {
    let path = request.uri().path().trim_start_matches('/');
    let key = path.split_once('/').map_or("", |(_, key)| key);
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|part| part == name || part.starts_with(&format!("{name}=")));
    let operation = match (request.method(), key.is_empty()) {
        (&Method::POST, false) if has("uploads") => Operation::Begin,
        (&Method::PUT, false) if has("uploadId") => Operation::Part,
        (&Method::POST, false) if has("uploadId") => Operation::Complete,
        (&Method::DELETE, false) if has("uploadId") => Operation::Abort,
        (&Method::PUT, false) => Operation::Put,
        (&Method::GET, false) => Operation::Get,
        (&Method::HEAD, false) => Operation::Head,
        (&Method::GET, true) if has("list-type") => Operation::List,
        (&Method::DELETE, false) => Operation::Delete,
        (&Method::POST, true) if has("delete") => Operation::Delete,
        _ => Operation::Other,
    };
    if operation == Operation::List {
        let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix="));
        return (operation, prefix.unwrap_or_default().replace("%2F", "/"));
    }
    (operation, key.to_owned())
}

/// The server's time.
fn shifted(clock_shift_seconds: i64) -> SystemTime {
    let shift = Duration::from_secs(clock_shift_seconds.unsigned_abs());
    if clock_shift_seconds < 0 { now() - shift } else { now() + shift }
}

/// Whether the time that a request was signed at is too far from the server's.
fn skewed<B>(request: &Request<B>, clock_shift_seconds: i64) -> bool {
    let header = request.headers().get("x-amz-date").and_then(|value| value.to_str().ok());
    let Some(signed) = header.and_then(parse_time) else { return false };
    let server = shifted(clock_shift_seconds);
    signed < Timestamp::from(server - SKEW_MAX) || signed > Timestamp::from(server + SKEW_MAX)
}

/// `20261123T073336Z`; nothing for another text, which the check of the signature refuses.
fn parse_time(text: &str) -> Option<Timestamp> {
    let part = |start: usize, end: usize| text.get(start..end);
    let time = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        part(13, 15)?
    );
    Timestamp::parse(TimestampFormat::DateTime, &time).ok()
}

fn skew_error() -> S3Error {
    s3_error!(RequestTimeTooSkewed, "The difference between the request time and the current time is too large.")
}

/// Reads a body to its end: a client that is still sending would not read the answer.
async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}
