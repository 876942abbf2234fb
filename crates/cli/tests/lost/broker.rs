//! A broker as a process of its own, and what is in it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use lakebed_client::{Client, Retry};
use lakebed_wire::v1;
use std::time::Duration;

/// A running broker. It is killed when it goes.
pub(crate) struct Broker {
    process: Option<Child>,
    store: String,
    /// Its gRPC address.
    pub(crate) address: String,
}

impl Broker {
    pub(crate) fn start(store: &str) -> Self {
        let mut broker = Self { process: None, store: store.to_owned(), address: "127.0.0.1:0".to_owned() };
        broker.start_again();
        broker
    }

    /// Starts it where it was.
    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lakebed"));
        command.args(["serve", "--store", &self.store, "--kafka-listen", "127.0.0.1:0", "--listen", &self.address]);
        command.args(["--memory", "256MiB"]).env("RUST_LOG", "error").stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("it says that it is ready");
        self.address = ready["http"].as_str().unwrap().to_owned();
        self.process = Some(process);
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let asked = Command::new("kill").arg(process.id().to_string()).status().unwrap();
        assert!(asked.success());
        assert!(process.wait().unwrap().success(), "it ends well");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Attempts that follow one another at once, and for long: what is tested is that they succeed.
pub(crate) fn eager() -> Retry {
    Retry {
        first: Duration::from_millis(2),
        wait_max: Duration::from_millis(50),
        give_up_after: Duration::from_secs(60),
    }
}

/// The values of a partition in order of their offsets, as text.
pub(crate) async fn values(client: &Client, topic: &str, partition: i32) -> Vec<String> {
    let mut values = Vec::new();
    let mut offset = 0;
    loop {
        let request = v1::FetchRequest { topic: topic.to_owned(), partition, offset, ..v1::FetchRequest::default() };
        let fetched = client.fetch(request).await.unwrap();
        let Some(v1::fetch_response::Payload::Records(records)) = fetched.payload else { panic!("no records") };
        values.extend(records.records.into_iter().map(|record| text(record.value)));
        if fetched.next_offset == fetched.high_watermark {
            return values;
        }
        offset = fetched.next_offset;
    }
}

pub(crate) fn text(bytes: Option<Bytes>) -> String {
    String::from_utf8(bytes.unwrap().to_vec()).unwrap()
}
