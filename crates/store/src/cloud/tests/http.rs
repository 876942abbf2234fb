//! What is made of real HTTP answers that no test server gives: a scripted server on a socket.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::variables;
use crate::cloud::{CloudBackend, settings};
use crate::{CreateError, Created, Directory, Key, ReadError, RetryPolicy, Store, StoreOptions};

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// A status, further header lines, and a body.
    Answer(u16, &'static str, &'static str),
    /// Fewer bytes of the body than were announced.
    Truncated(&'static str, usize),
    /// Reads the request and hangs up.
    HangUp,
}
use Reply::{Answer, HangUp, Truncated};

const PART_BYTES: usize = 70_000;
const STORED: Reply = Answer(200, "ETag: \"1\"\r\n", "");
const ABSENT: Reply = Answer(404, "", "<Error><Code>NoSuchKey</Code></Error>");
const OURS: Reply = Answer(206, RANGE_OF_FOUR, "ours");
const RANGE_OF_FOUR: &str =
    "Content-Range: bytes 0-3/4\r\nETag: \"1\"\r\nLast-Modified: Mon, 23 Nov 2026 01:00:00 GMT\r\n";

/// Serves the script, a request at a time, and then refuses; keeps the method of each request.
async fn serve(listener: TcpListener, script: Vec<Reply>, seen: Arc<Mutex<Vec<String>>>) {
    let mut script = VecDeque::from(script);
    while let Some(reply) = script.pop_front() {
        let (mut socket, _) = listener.accept().await.unwrap();
        let method = read_request(&mut socket).await;
        seen.lock().unwrap().push(method);
        let (head, body, announced) = match reply {
            Answer(status, headers, body) => (format!("HTTP/1.1 {status} X\r\n{headers}"), body, body.len()),
            Truncated(body, announced) => (format!("HTTP/1.1 206 X\r\n{RANGE_OF_FOUR}"), body, announced),
            HangUp => continue,
        };
        let answer = format!("{head}Content-Length: {announced}\r\nConnection: close\r\n\r\n{body}");
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.shutdown().await.ok();
    }
}

/// Reads one request to its end, and gives its method.
async fn read_request(socket: &mut TcpStream) -> String {
    let mut request = Vec::new();
    loop {
        let mut byte = [0; 4096];
        let count = socket.read(&mut byte).await.unwrap();
        request.extend_from_slice(&byte[..count]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse().unwrap() || count == 0 {
                let is_part = head.contains("partnumber=");
                let is_completion = head.starts_with("post") && !head.contains("?uploads");
                let is_create = head.starts_with("put") && !is_part || is_completion;
                assert_eq!(head.contains("if-none-match: *"), is_create, "{head}");
                assert!(!head.starts_with("put") || head.contains("unsigned-payload"), "{head}");
                return head.split(' ').next().unwrap().to_owned();
            }
        }
        assert!(count > 0, "half a request: {text}");
    }
}

/// Runs `client` against a server that follows `script`; gives its result and the methods that were used.
async fn against<T>(script: Vec<Reply>, client: impl AsyncFnOnce(Store) -> T) -> (T, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = tokio::spawn(serve(listener, script, seen.clone()));
    let retry = RetryPolicy { attempts_max: 3, ..RetryPolicy::default() };
    let variables = variables(&[
        ("AWS_ENDPOINT_URL_S3", &endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]);
    let backend = cloud_backend(&variables);
    let options = StoreOptions { retry, seed: 3, part_bytes: Some(PART_BYTES), ..StoreOptions::default() };
    let result = client(Store::new("s3://bucket", Arc::new(backend), &options)).await;
    server.abort();
    let methods = seen.lock().unwrap().join(" ");
    (result, methods)
}

fn key() -> Key {
    Key::new("a").unwrap()
}

async fn create(script: Vec<Reply>) -> (Result<Created, CreateError>, String) {
    against(script, async |store| store.create(&key(), "ours").await).await
}

fn error(status: u16) -> Reply {
    Answer(status, "", "<Error><Code>Some</Code><Message>InternalError</Message></Error>")
}

#[tokio::test]
async fn one_put_is_one_request_and_nobody_repeats_it_but_us() {
    let (created, methods) = create(vec![STORED]).await;
    assert_eq!((created.unwrap(), methods.as_str()), (Created::New, "put"));
    for status in [500, 503, 429, 409, 412] {
        let (created, methods) = create(vec![error(status), OURS]).await;
        assert_eq!((created.unwrap(), methods.as_str()), (Created::Mine, "put get"), "{status}");
    }
}

#[tokio::test]
async fn a_conflict_with_nothing_there_is_sent_again() {
    for status in [409, 412, 500, 503] {
        let (created, methods) = create(vec![error(status), ABSENT, STORED]).await;
        assert_eq!((created.unwrap(), methods.as_str()), (Created::New, "put get put"), "{status}");
    }
}

#[tokio::test]
async fn a_connection_cut_after_the_request_is_doubt() {
    let (created, methods) = create(vec![HangUp, OURS]).await;
    assert_eq!((created.unwrap(), methods.as_str()), (Created::Mine, "put get"));
    let lost = vec![HangUp, ABSENT, HangUp, ABSENT, HangUp, ABSENT];
    assert!(matches!(create(lost).await.0, Err(CreateError::Unknown { attempts: 3, .. })));
}

#[tokio::test]
async fn a_refusal_or_a_refused_connection_is_not_done() {
    for status in [400, 403, 404, 501] {
        let (created, methods) = create(vec![error(status)]).await;
        assert!(matches!(created, Err(CreateError::NotDone { attempts: 1, .. })), "{status}: {created:?}");
        assert_eq!(methods, "put");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let variables = variables(&[
        ("AWS_ENDPOINT_URL_S3", &format!("http://{closed}")),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]);
    let backend = cloud_backend(&variables);
    let retry = RetryPolicy { attempts_max: 2, ..RetryPolicy::default() };
    let store =
        Store::new("s3://bucket", Arc::new(backend), &StoreOptions { retry, seed: 3, ..StoreOptions::default() });
    assert!(matches!(store.create(&key(), "ours").await, Err(CreateError::NotDone { attempts: 2, .. })));
}

#[tokio::test]
async fn a_body_cut_short_is_read_again_and_never_given_out() {
    let script = vec![Truncated("ou", 4), OURS];
    let (read, methods) = against(script, async |store| store.get_range(&key(), 0..4).await).await;
    assert_eq!(&read.unwrap()[..], b"ours");
    assert_eq!(methods, "get get");
    let short = Answer(206, RANGE_OF_FOUR, "ou");
    let (read, _) = against(vec![short; 3], async |store| store.get_range(&key(), 0..4).await).await;
    assert!(matches!(read, Err(ReadError::Unavailable { attempts: 3, .. })), "{read:?}");
}

#[tokio::test]
async fn a_store_that_ignores_ranges_gives_no_wrong_bytes() {
    let whole = Answer(200, "ETag: \"1\"\r\nLast-Modified: Mon, 23 Nov 2026 01:00:00 GMT\r\n", "the whole object");
    let script = vec![whole.clone(), whole.clone(), whole.clone(), whole.clone(), whole.clone(), whole];
    let (read, _) = against(script, async |store| store.get_range(&key(), 0..4).await).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn an_object_that_is_absent_or_refused_costs_one_request() {
    for script in [ABSENT, error(403)] {
        let (read, methods) = against(vec![script.clone()], async |store| store.get(&key()).await.map(|_| ())).await;
        assert_eq!(methods, "get", "{read:?}");
        let part = against(vec![script.clone()], async |store| store.get_range(&key(), 0..4).await.map(|_| ())).await;
        assert_eq!(part.1, "get", "{:?}", part.0);
        let end = against(vec![script], async |store| store.get_suffix(&key(), 4).await.map(|_| ())).await;
        assert_eq!(end.1, "get", "{:?}", end.0);
        for read in [read, part.0, end.0] {
            assert!(matches!(read, Err(ReadError::NotFound { .. } | ReadError::Refused { .. })), "{read:?}");
        }
    }
}

#[tokio::test]
async fn a_range_behind_the_end_costs_a_look_at_the_size() {
    const SIZE: Reply = Answer(200, "ETag: \"1\"\r\nLast-Modified: Mon, 23 Nov 2026 01:00:00 GMT\r\n", "ours");
    let script = vec![Answer(416, "", "<Error><Code>InvalidRange</Code></Error>"), SIZE];
    let (read, methods) = against(script, async |store| store.get_range(&key(), 9..12).await).await;
    assert!(matches!(read, Err(ReadError::OutOfRange { size_bytes: 4, .. })), "{read:?}");
    assert_eq!(methods, "get head");
}

const BEGUN: Reply =
    Answer(200, "", "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>");
const COMPLETED: Reply =
    Answer(200, "", "<CompleteMultipartUploadResult><ETag>\"2\"</ETag></CompleteMultipartUploadResult>");
const NO_SUCH_UPLOAD: Reply = Answer(404, "", "<Error><Code>NoSuchUpload</Code></Error>");

/// Creates an object of two parts, the last of them short, against a script that begins where the parts are stored.
async fn create_in_parts(script: Vec<Reply>) -> (Result<Created, CreateError>, String) {
    let script = [vec![BEGUN, STORED, STORED], script].concat();
    let (created, methods) = against(script, async |store| {
        let mut upload = store.create_in_parts(&key());
        upload.push(vec![b'x'; store.part_bytes()].into()).await?;
        upload.push("ours".into()).await?;
        upload.finish().await
    })
    .await;
    (created, methods.strip_prefix("post put put ").unwrap_or("none").to_owned())
}

#[tokio::test]
async fn a_completion_is_one_request_and_only_where_nothing_stands() {
    let (created, methods) = create_in_parts(vec![COMPLETED]).await;
    assert_eq!((created.unwrap(), methods.as_str()), (Created::New, "post"));
    const OTHER: Reply = Answer(206, RANGE_OF_FOUR, "them");
    for answer in [error(412), error(409)] {
        let (created, methods) = create_in_parts(vec![answer, OTHER]).await;
        assert_eq!((created.unwrap(), &methods[..8]), (Created::Other, "post get"));
    }
}

#[tokio::test]
async fn a_completion_in_doubt_is_looked_for_and_repeated() {
    let trouble = Answer(200, "", "<Error><Code>InternalError</Code><Message>later</Message></Error>");
    for answer in [error(500), error(503), HangUp, trouble] {
        let (created, methods) = create_in_parts(vec![answer, ABSENT, COMPLETED]).await;
        assert_eq!((created.unwrap(), methods.as_str()), (Created::New, "post get post"));
    }
    const SIZE: &str =
        "Content-Range: bytes 4468-70003/70004\r\nETag: \"1\"\r\nLast-Modified: Mon, 23 Nov 2026 01:00:00 GMT\r\n";
    let end: &'static str = Box::leak(format!("{}ours", "x".repeat((64 << 10) - 4)).into_boxed_str());
    for answer in [error(500), HangUp, NO_SUCH_UPLOAD, error(412)] {
        let (created, methods) = create_in_parts(vec![answer, Answer(206, SIZE, end)]).await;
        assert_eq!((created.unwrap(), methods.as_str()), (Created::Mine, "post get"));
    }
}

#[tokio::test]
async fn parts_that_are_refused_or_gone_are_not_done() {
    let (created, methods) = create_in_parts(vec![NO_SUCH_UPLOAD, ABSENT]).await;
    assert!(matches!(created, Err(CreateError::NotDone { .. })), "{created:?}");
    assert_eq!(&methods[..8], "post get");
    let refused = Answer(400, "", "<Error><Code>EntityTooSmall</Code></Error>");
    let (created, _) = create_in_parts(vec![refused]).await;
    assert!(matches!(created, Err(CreateError::NotDone { attempts: 1, .. })), "{created:?}");
    for status in [403, 404] {
        let (created, methods) = against(vec![error(status)], async |store| {
            store.create_in_parts(&key()).push(vec![0; store.part_bytes() + 1].into()).await
        })
        .await;
        assert!(matches!(created, Err(CreateError::NotDone { attempts: 1, .. })), "{created:?}");
        assert_eq!(methods, "post");
    }
}

fn cloud_backend(variables: &settings::Variables) -> CloudBackend {
    let dates = Arc::default();
    let bucket = settings::s3("bucket", variables, &dates).unwrap();
    CloudBackend::new(bucket, Directory::root(), dates).completing_if_absent()
}
