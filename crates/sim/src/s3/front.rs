//! From a request to its answer: what the conduct makes of it, the clock, the operation, the bill.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, BodyStream};
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::{Method, Request, Response};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::service::S3Service;
use s3s::{S3Error, s3_error};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::bill::{Bill, Operation, Served};
use super::body::{AnswerBody, Broken, Pace, Shape, as_it_is, cut, shaped, whole};
use super::conduct::{Applied, Asked, Demeanour, Fault, Outage, Treatment};
use super::errors::quota_exceeded;
use super::late::Late;
use super::objects::{NotReceived, Objects, now};
use super::{Handle, access};

/// How far the clock of a request may be off, as S3 has it.
const SKEW_MAX: Duration = Duration::from_secs(15 * 60);
/// A body that has a rate is sent in pieces of this many bytes.
const PACED_BYTES: usize = 64 << 10;
/// Most requests that are left in silence at once, so that there are connections for others; one more is cut off at once.
const SILENT_MAX: usize = 512;

pub(crate) struct Front {
    service: S3Service,
    demeanour: Arc<Demeanour>,
    bill: Arc<Bill>,
    objects: Arc<Objects>,
    late: Arc<Late>,
    silent: Semaphore,
}

impl Front {
    pub(crate) fn new(service: S3Service, handle: &Handle, objects: Arc<Objects>) -> Self {
        let Handle { demeanour, bill, late, .. } = handle.clone();
        Self { service, demeanour, bill, objects, late, silent: Semaphore::new(SILENT_MAX) }
    }

    /// Answers a request of a client at `address`, and puts it on the bill.
    ///
    /// # Errors
    /// The connection is to be cut.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Result<Response<AnswerBody>, Broken> {
        let begun = Instant::now();
        let Named { operation, bucket, key } = classify(&request);
        let conditional = ["if-none-match", "if-match"].iter().any(|name| request.headers().contains_key(*name));
        let conditional = conditional && matches!(operation, Operation::Put | Operation::Complete);
        let access_key = access::claimed(&request);
        let asked = Asked { operation, bucket: &bucket, key: &key, conditional, access_key: &access_key, address };
        let treatment = self.demeanour.treat(&asked);
        let bytes_in = request.body().size_hint().lower();
        let course = Course { asked, treatment, begun, bytes_in };
        let answer = self.perform(request, &course).await;
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

    async fn perform(&self, request: Request<Incoming>, course: &Course<'_>) -> Result<Response<AnswerBody>, Broken> {
        let Course { asked, treatment, .. } = course;
        course.arrived().await;
        let unavailable = || s3_error!(ServiceUnavailable, "The service is unavailable. Please retry.");
        let not_applied = match treatment.fault {
            _ if treatment.outage == Outage::Unavailable => Some(Wrong::Answer(unavailable())),
            Some((fault, Applied::Never)) => wrong(fault),
            _ => None,
        };
        let too_skewed = || skewed(&request, treatment.clock_shift_seconds).then(|| Wrong::Answer(skew_error()));
        if let Some(wrong) = not_applied.or_else(too_skewed) {
            drain(request.into_body()).await;
            return self.instead(wrong, course).await;
        }
        if let Some((fault, Applied::After(wait))) = treatment.fault {
            let wrong = match self.put_off(request, course.bytes_in, wait).await? {
                // Nothing else takes the place of an answer that comes first.
                true => wrong(fault).unwrap_or(Wrong::Cut),
                false => Wrong::Answer(quota_exceeded()),
            };
            return self.instead(wrong, course).await;
        }
        let call = self.service.call(request.map(s3s::Body::from));
        let answer = call.await.map_err(|error| Broken::other(format!("{error:?}")))?;
        if let Some((fault, Applied::Before)) = treatment.fault
            && let Some(wrong) = wrong(fault)
        {
            return self.instead(wrong, course).await;
        }
        course.passed().await;
        if let Some((Fault::Delay { ms }, _)) = treatment.fault {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if let Some(wrong) = self.demeanour.cuts_off(asked).and_then(wrong) {
            return self.instead(wrong, course).await;
        }
        let misshapen = asked.operation == Operation::Get && answer.status().is_success();
        let shape = shape(treatment, misshapen);
        let mut answer = answer.map(|body| match shape {
            Some(shape) => shaped(body, shape),
            None => as_it_is(body),
        });
        let date = httpdate::fmt_http_date(shifted(treatment.clock_shift_seconds));
        answer.headers_mut().insert("date", date.parse().expect("a date is made of the characters of a header"));
        Ok(answer)
    }

    /// Has a request applied after `wait`, as it is now. Returns whether there is memory for it.
    async fn put_off(&self, request: Request<Incoming>, bytes_in: u64, wait: Duration) -> Result<bool, Broken> {
        let (head, body) = request.into_parts();
        let expected = usize::try_from(bytes_in).unwrap_or(usize::MAX);
        let held = match self.objects.receive(BodyStream::new(body).into_data_stream(), expected).await {
            Ok(held) => held,
            Err(NotReceived::Full) => return Ok(false),
            Err(NotReceived::Ended(error)) => return Err(Broken::other(error)),
        };
        let request = Request::from_parts(head, s3s::Body::from(held.bytes.clone()));
        self.late.apply_after(wait, self.service.clone(), request, held);
        Ok(true)
    }

    /// What takes the place of an answer, when it is due.
    async fn instead(&self, wrong: Wrong, course: &Course<'_>) -> Result<Response<AnswerBody>, Broken> {
        match wrong {
            Wrong::Answer(error) => {
                course.passed().await;
                let answer = error.to_http_response().map_err(|error| Broken::other(error.to_string()))?;
                Ok(answer.map(|mut body| whole(body.take_bytes().unwrap_or_default())))
            }
            Wrong::Cut => {
                course.passed().await;
                Err(cut())
            }
            Wrong::Silence => {
                if let Ok(_silent) = self.silent.try_acquire() {
                    self.demeanour.silence_ends(&course.asked).await;
                }
                Err(cut())
            }
        }
    }
}

/// A request on its way.
struct Course<'a> {
    asked: Asked<'a>,
    treatment: Treatment,
    begun: Instant,
    bytes_in: u64,
}

impl Course<'_> {
    /// Returns when the request has reached what applies it.
    async fn arrived(&self) {
        self.takes(self.treatment.latency.wait / 2).await;
    }

    /// Returns when its answer is due.
    async fn passed(&self) {
        self.takes(self.treatment.latency.wait).await;
    }

    /// By the time since it began, of which what is done in between is a part.
    async fn takes(&self, wait: Duration) {
        let all = wait + self.treatment.latency.carrying(self.bytes_in);
        if !all.is_zero() {
            tokio::time::sleep_until(self.begun + all).await;
        }
    }
}

/// What takes the place of an answer.
enum Wrong {
    Answer(S3Error),
    Cut,
    Silence,
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
        Fault::Silence => Some(Wrong::Silence),
        Fault::CutBody { .. } | Fault::SlowBody { .. } | Fault::Delay { .. } => None,
    }
}

fn shape(treatment: &Treatment, misshapen: bool) -> Option<Shape> {
    let paced = treatment.latency.bytes_per_second.map(|rate| Shape {
        piece_bytes: PACED_BYTES,
        pace: Pace::BytesPerSecond(rate),
        cut_after: None,
    });
    let plain = paced.unwrap_or(Shape { piece_bytes: usize::MAX, pace: Pace::Every(Duration::ZERO), cut_after: None });
    match treatment.fault {
        Some((Fault::CutBody { bytes }, _)) if misshapen => Some(Shape { cut_after: Some(bytes), ..plain }),
        Some((Fault::SlowBody { bytes, every_ms }, _)) if misshapen => Some(Shape {
            piece_bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            pace: Pace::Every(Duration::from_millis(every_ms)),
            cut_after: None,
        }),
        _ => paced,
    }
}

/// What a request is about, as it stands in its URL.
struct Named {
    operation: Operation,
    bucket: String,
    /// Of LIST, the prefix.
    key: String,
}

fn classify(request: &Request<Incoming>) -> Named {
    let path = request.uri().path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let query = request.uri().query().unwrap_or_default();
    let has = |name: &str| query.split('&').any(|part| part == name || part.starts_with(&format!("{name}=")));
    let operation = match (request.method(), key.is_empty()) {
        (&Method::POST, false) if has("uploads") => Operation::Begin,
        (&Method::PUT, false) if has("uploadId") => Operation::Part,
        (&Method::POST, false) if has("uploadId") => Operation::Complete,
        (&Method::DELETE, false) if has("uploadId") => Operation::Abort,
        (&Method::PUT, false) => Operation::Put,
        (&Method::GET, false) if has("uploadId") => Operation::List,
        (&Method::GET, false) => Operation::Get,
        (&Method::HEAD, false) => Operation::Head,
        (&Method::GET, true) if !bucket.is_empty() && (has("uploads") || lists(query)) => Operation::List,
        (&Method::DELETE, false) => Operation::Delete,
        (&Method::POST, true) if has("delete") => Operation::Delete,
        _ => Operation::Other,
    };
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix="));
    let key = match operation {
        Operation::List if key.is_empty() => prefix.unwrap_or_default().replace("%2F", "/"),
        _ => key.to_owned(),
    };
    Named { operation, bucket: bucket.to_owned(), key }
}

/// Whether a GET of a bucket asks for its keys (by either version of the request), and not for what is set of it.
fn lists(query: &str) -> bool {
    let is_of_listings = |part: &str| {
        let name = part.split('=').next().unwrap_or_default();
        matches!(name, "" | "prefix" | "delimiter" | "marker" | "max-keys" | "encoding-type" | "x-id" | "list-type")
    };
    query.split('&').any(|part| part.starts_with("list-type=")) || query.split('&').all(is_of_listings)
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
