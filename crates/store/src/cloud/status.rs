//! The HTTP status of answers that decide something, kept for the one who must decide.
//!
//! `object_store` hides the status of an answer in an error that can't be looked into. So the answers that this crate
//! judges itself are turned into errors that carry it, before `object_store` sees them: those to a conditional PUT, those to a
//! ranged GET, and all that S3 gives to a signed request. Other requests (for credentials among them) pass as they are.

use async_trait::async_trait;
use futures::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

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

/// Makes clients that keep the status.
#[derive(Debug, Default)]
pub(crate) struct StatusConnector;

#[derive(Debug)]
struct StatusClient(HttpClient);

impl HttpConnector for StatusConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(StatusClient(ReqwestConnector::default().connect(options)?)))
    }
}

#[async_trait]
impl HttpService for StatusClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let headers = request.headers();
        let conditional =
            ["if-none-match", "x-goog-if-generation-match"].iter().any(|name| headers.contains_key(*name));
        let ranged = headers.contains_key("range");
        // What asks for credentials does not have it, and is judged by `object_store`.
        let signed = headers.contains_key("x-amz-content-sha256");
        let response = self.0.execute(request).await?;
        let status = response.status().as_u16();
        let expected = match ranged {
            // 200 is the whole object: the answer of some stores to a range of an empty one.
            true => status == 206,
            false => response.status().is_success() || !(conditional || signed),
        };
        if expected {
            return Ok(response);
        }
        let text = beginning(response).await;
        Err(HttpError::new(HttpErrorKind::Unknown, Answered::new(status, &text)))
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
