//! The HTTP status of answers that decide something, kept for the one who must decide.
//!
//! `object_store` hides the status of an answer in an error that can't be looked into. So the answers that this crate
//! judges itself are turned into errors that carry it, before `object_store` sees them: those to a conditional PUT, those to a
//! ranged GET, those to objects in parts, and all that S3 gives to a signed request. Other requests pass as they are.
//!
//! S3 completes an object in parts only where none stands, if it is asked with `If-None-Match: *`. `object_store` can't be told to ask so, and what
//! it signs need not have that header (its own conditional copies add it behind the signature, too): it is added here.
//!
//! What asks a machine for the credentials of its role is watched: a machine without a role, or none of a cloud, does not get one by
//! being asked again. After [`ROLE_TIME_MAX`] without any such request says so ([`NoRole`]), and is not repeated. A machine that has
//! ever given credentials is waited for, as a store is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use futures::StreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue};
use tokio::time::Instant;

use crate::backend::StoreDate;

/// How long a machine may take to give the first credentials of its role: its service may begin after the broker.
const ROLE_TIME_MAX: Duration = Duration::from_secs(3);
/// Where paths begin by which machines are asked for it: those of AWS, Google and Azure.
const ROLE_PATHS: [&str; 3] = ["/latest/", "/computeMetadata/", "/metadata/identity/"];
/// The date of an answer that comes so soon after another is not looked at: it has whole seconds.
const DATES_APART: Duration = Duration::from_secs(1);
/// Bytes of an answer's text that a message shows.
const SHOWN_BYTES_MAX: usize = 600;

/// An answer that is not the one that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the store answered {status} {code}{}{text}", if code.is_empty() || text.is_empty() { "" } else { ": " })]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// S3's name of the error, such as `NoSuchBucket`; empty if the answer has none.
    pub(crate) code: String,
    /// What it says for a person, or its beginning.
    text: String,
}

impl Answered {
    pub(crate) fn new(status: u16, body: &str) -> Self {
        let code = element(body, "Code").unwrap_or_default().to_owned();
        let text = element(body, "Message").unwrap_or(body);
        Self { status, code, text: text.to_owned() }
    }
}

/// The text of an element of S3's error document, which is flat.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    Some(rest.split('<').next().unwrap_or_default().trim())
}

/// There are no credentials: none were given, and the machine has no role.
#[derive(Debug, thiserror::Error)]
#[error("there are no credentials, and this machine has no role that gives some: {why}")]
pub(crate) struct NoRole {
    why: String,
}

/// Makes clients that keep the status. The clients of one store know together whether its machine has a role.
#[derive(Debug)]
pub(crate) struct StatusConnector {
    role: Arc<Role>,
    dates: Arc<Dates>,
    completes_if_absent: bool,
}

impl StatusConnector {
    /// Clients that write down in `dates` what the store says of its clock.
    pub(crate) fn new(dates: &Arc<Dates>) -> Self {
        Self { role: Arc::default(), dates: Arc::clone(dates), completes_if_absent: false }
    }

    /// The same of S3, which is asked to complete objects in parts only where none stands.
    pub(crate) fn completing_if_absent(self) -> Self {
        Self { completes_if_absent: true, ..self }
    }
}

/// What a store said last of its clock, by the `Date` of its answers (RFC 9110, 6.6.1).
#[derive(Debug, Default)]
pub(crate) struct Dates(Mutex<Option<StoreDate>>);

impl Dates {
    pub(crate) fn last(&self) -> Option<StoreDate> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, response: &HttpResponse) {
        let at = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| at.duration_since(last.at) < DATES_APART) {
            return;
        }
        let date = response.headers().get("date").and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let since = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
        if let Some(ms) = since.and_then(|since| i64::try_from(since.as_millis()).ok()) {
            *last = Some(StoreDate { ms, at });
        }
    }
}

/// What is known of the machine's role.
#[derive(Debug, Default)]
struct Role {
    asked: OnceLock<Instant>,
    is_there: AtomicBool,
}

#[derive(Debug)]
struct StatusClient {
    client: HttpClient,
    role: Arc<Role>,
    dates: Arc<Dates>,
    completes_if_absent: bool,
}

impl HttpConnector for StatusConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let (role, dates) = (Arc::clone(&self.role), Arc::clone(&self.dates));
        Ok(HttpClient::new(StatusClient { client, role, dates, completes_if_absent: self.completes_if_absent }))
    }
}

#[async_trait]
impl HttpService for StatusClient {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if ROLE_PATHS.iter().any(|path| request.uri().path().starts_with(path)) {
            return self.ask_for_role(request).await;
        }
        let parts = of_parts(&request);
        if self.completes_if_absent && parts == Some(Step::Complete) {
            request.headers_mut().insert("if-none-match", HeaderValue::from_static("*"));
        }
        let headers = request.headers();
        let conditional =
            ["if-none-match", "x-goog-if-generation-match"].iter().any(|name| headers.contains_key(*name));
        let ranged = headers.contains_key("range");
        // What asks for credentials does not have it, and is judged by `object_store`.
        let signed = headers.contains_key("x-amz-content-sha256");
        let response = self.client.execute(request).await?;
        self.dates.take(&response);
        let status = response.status().as_u16();
        let expected = match ranged {
            // 200 is the whole object: the answer of some stores to a range of an empty one.
            true => status == 206,
            false => response.status().is_success() || !(conditional || signed || parts.is_some()),
        };
        if expected {
            return Ok(response);
        }
        let text = beginning(response).await;
        Err(HttpError::new(HttpErrorKind::Unknown, Answered::new(status, &text)))
    }
}

/// What a request does to an object in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Complete,
    Other,
}

/// `None` if it is about none.
fn of_parts(request: &HttpRequest) -> Option<Step> {
    let mut pairs = request.uri().query()?.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    let is_of_azure = request.uri().query()?.contains("comp=block");
    match pairs.find(|name| matches!(*name, "uploadId" | "uploads")) {
        Some("uploadId") if request.method().as_str() == "POST" => Some(Step::Complete),
        found => (found.is_some() || is_of_azure).then_some(Step::Other),
    }
}

impl StatusClient {
    /// Passes a request on to the machine's own service.
    async fn ask_for_role(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = *self.role.asked.get_or_init(Instant::now);
        // A session is no credentials yet: machines without a role open them, too.
        let is_session = request.method().as_str() == "PUT";
        let answer = self.client.execute(request).await;
        let why = match &answer {
            Ok(response) if response.status().is_success() => {
                self.role.is_there.fetch_or(!is_session, Ordering::AcqRel);
                return answer;
            }
            Ok(response) => format!("asked for them, it answers {}", response.status().as_u16()),
            Err(error) => format!("asked for them, it does not answer: {error}"),
        };
        if self.role.is_there.load(Ordering::Acquire) || asked.elapsed() < ROLE_TIME_MAX {
            return answer;
        }
        Err(HttpError::new(HttpErrorKind::Unknown, NoRole { why }))
    }
}

/// The beginning of an answer's text, on one line.
async fn beginning(response: HttpResponse) -> String {
    let mut text = Vec::new();
    let mut body = response.into_body().bytes_stream();
    while let Some(Ok(bytes)) = body.next().await {
        text.extend_from_slice(&bytes[..bytes.len().min(SHOWN_BYTES_MAX - text.len())]);
        if text.len() == SHOWN_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&text).chars().filter(|letter| !letter.is_control()).collect()
}
