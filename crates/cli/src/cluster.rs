//! `lakebed cluster info|health`.

use std::collections::BTreeMap;
use std::time::Duration;

use lakebed_client::{Client, ClientError};
use lakebed_wire::v1;
use serde::Serialize;
use serde_json::Value;

use crate::args::{ClusterArgs, ClusterVerb};
use crate::failure::{Exit, Failure};
use crate::output::{Output, table};
use crate::server::Server;

/// The services of a broker; the empty name is all of it.
const SERVICES: [&str; 4] = ["", "lakebed.v1.ProduceService", "lakebed.v1.ConsumeService", "lakebed.v1.AdminService"];
const SERVING: &str = "SERVING";
/// How long a broker may take to say how it is: supervisors ask every few seconds.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Info {
    cluster_id: String,
    store: String,
    format: i32,
    topic_count: i64,
    partition_count: i64,
    cells: Vec<Cell>,
    brokers: Vec<Broker>,
}

#[derive(Debug, Serialize)]
struct Cell {
    name: String,
    epoch: i64,
    commit_number: i64,
    feature_level: i32,
}

#[derive(Debug, Serialize)]
struct Broker {
    id: i32,
    kafka_address: String,
    http_address: String,
    version: String,
    #[serde(rename = "self")]
    is_self: bool,
    uptime_ms: i64,
    zone: String,
    leader: bool,
}

/// How a broker is.
#[derive(Debug, Serialize)]
struct Health {
    server: String,
    /// Whether it serves and is ready.
    healthy: bool,
    /// What each service says of itself.
    services: BTreeMap<&'static str, &'static str>,
    ready: bool,
    /// Its answer on `/readyz`: JSON, or text.
    readyz: Value,
}

pub(crate) async fn run(args: ClusterArgs, output: Output) -> Result<(), Failure> {
    match args.verb {
        ClusterVerb::Info => {
            let (client, server) = args.server.connect().await?;
            let info = client.cluster_info().await;
            let info = info.map_err(|error| Failure::call("the cluster can't be shown", &server, &error))?;
            let info = Info::from(info);
            output.one(&info, || info.text())
        }
        ClusterVerb::Health { exit_code } => {
            let server = args.server.find()?;
            let health = match tokio::time::timeout(HEALTH_TIME_MAX, health(&server)).await {
                Ok(health) => health?,
                Err(_) => {
                    let what = format!("the broker did not say how it is within {} s", HEALTH_TIME_MAX.as_secs());
                    return Err(Failure::new(what).cause(server).code("DEADLINE_EXCEEDED", Exit::Unavailable));
                }
            };
            output.one(&health, || health.text())?;
            if exit_code && !health.healthy {
                return Err(Failure::new("the broker is not healthy")
                    .cause(health.why())
                    .code("NOT_HEALTHY", Exit::Unavailable));
            }
            Ok(())
        }
    }
}

async fn health(server: &Server) -> Result<Health, Failure> {
    let client = server.connect().await?;
    let failed = |error: &ClientError| Failure::call("the broker did not say how it is", server, error);
    ask(&client, server).await.map_err(|error| failed(&error))
}

async fn ask(client: &Client, server: &Server) -> Result<Health, ClientError> {
    let mut services = BTreeMap::new();
    for service in SERVICES {
        services.insert(if service.is_empty() { "broker" } else { service }, client.health(service).await?);
    }
    let readiness = client.ready().await?;
    let healthy = readiness.ready && services.values().all(|status| *status == SERVING);
    let readyz = serde_json::from_str(&readiness.answer).unwrap_or(Value::String(readiness.answer));
    Ok(Health { server: server.address.clone(), healthy, services, ready: readiness.ready, readyz })
}

impl Health {
    fn text(&self) -> String {
        let mut rows: Vec<[String; 2]> =
            self.services.iter().map(|(service, status)| [(*service).to_owned(), (*status).to_owned()]).collect();
        let ready = match (self.ready, self.readyz.get("warnings")) {
            (true, None) => "READY".to_owned(),
            (true, Some(_)) => format!("READY: {}", self.told("warnings")),
            (false, _) => format!("NOT_READY: {}", self.told("reasons")),
        };
        rows.push(["/readyz".to_owned(), ready]);
        table(["part", "status"], rows.into_iter())
    }

    /// What stands in the way, in one line.
    fn why(&self) -> String {
        let services = self.services.iter().filter(|(_, status)| **status != SERVING);
        let mut why: Vec<String> = services.map(|(service, status)| format!("{service} is {status}")).collect();
        if !self.ready {
            why.push(format!("it is not ready: {}", self.told("reasons")));
        }
        why.join("; ")
    }

    /// What the broker tells of itself, in one line.
    fn told(&self, what: &str) -> String {
        let reasons = self.readyz.get(what).and_then(Value::as_array);
        let told = |reason: &Value| {
            let part = |name| reason.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
            format!("{} ({})", part("reason"), part("message"))
        };
        match (reasons, &self.readyz) {
            (Some(reasons), _) => reasons.iter().map(told).collect::<Vec<_>>().join(", "),
            (None, Value::String(text)) => text.clone(),
            (None, other) => other.to_string(),
        }
    }
}

impl From<v1::GetClusterInfoResponse> for Info {
    fn from(info: v1::GetClusterInfoResponse) -> Self {
        let cell = |cell: v1::Cell| Cell {
            name: cell.name,
            epoch: cell.epoch,
            commit_number: cell.commit_number,
            feature_level: cell.feature_level,
        };
        let broker = |broker: v1::BrokerInfo| Broker {
            id: broker.id,
            kafka_address: broker.kafka_address,
            http_address: broker.http_address,
            version: broker.version,
            is_self: broker.self_,
            uptime_ms: broker.uptime_ms,
            zone: broker.zone,
            leader: broker.leader,
        };
        Self {
            cluster_id: info.cluster_id,
            store: info.store,
            format: info.format,
            topic_count: info.topic_count,
            partition_count: info.partition_count,
            cells: info.cells.into_iter().map(cell).collect(),
            brokers: info.brokers.into_iter().map(broker).collect(),
        }
    }
}

impl Info {
    fn text(&self) -> String {
        let Self { cluster_id, store, format, topic_count, partition_count, cells, brokers } = self;
        let facts = format!(
            "cluster     {cluster_id}\nstore       {store}\nformat      {format}\ntopics      {topic_count}\npartitions  {partition_count}\n"
        );
        let cells = table(
            ["cell", "epoch", "last commit", "feature level"],
            cells.iter().map(|cell| {
                let numbers = [cell.epoch.to_string(), cell.commit_number.to_string(), cell.feature_level.to_string()];
                let [epoch, commit, level] = numbers;
                [cell.name.clone(), epoch, commit, level]
            }),
        );
        let brokers = table(
            ["broker", "leads", "Kafka", "gRPC and HTTP", "zone", "version", "up"],
            brokers.iter().map(|broker| {
                let id = if broker.is_self { format!("{} (asked)", broker.id) } else { broker.id.to_string() };
                let up = Duration::from_secs(u64::try_from(broker.uptime_ms).unwrap_or_default() / 1000).as_secs();
                let up = if broker.is_self { format!("{up} s") } else { "-".to_owned() };
                let zone = if broker.zone.is_empty() { "-".to_owned() } else { broker.zone.clone() };
                let leads = if broker.leader { "yes" } else { "no" }.to_owned();
                let Broker { kafka_address, http_address, version, .. } = broker;
                [id, leads, kafka_address.clone(), http_address.clone(), zone, version.clone(), up]
            }),
        );
        format!("{facts}\n{cells}\n{brokers}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(ready: bool, readyz: Value) -> Health {
        let services = BTreeMap::from([("broker", if ready { SERVING } else { "NOT_SERVING" })]);
        Health { server: "h:1".to_owned(), healthy: ready, services, ready, readyz }
    }

    #[test]
    fn what_stands_in_the_way_is_told_as_the_broker_says_it() {
        let reasons =
            serde_json::json!({ "ready": false, "reasons": [{ "reason": "FENCED", "message": "another took over" }] });
        let told = health(false, reasons);
        assert_eq!(told.why(), "broker is NOT_SERVING; it is not ready: FENCED (another took over)");
        assert!(told.text().contains("NOT_READY: FENCED (another took over)"), "{}", told.text());
        assert!(health(false, Value::String("gone".to_owned())).why().ends_with("it is not ready: gone"));
        assert!(health(true, Value::Null).text().contains("READY"));
        let warned =
            serde_json::json!({ "ready": true, "warnings": [{ "reason": "CLOCK_SKEW", "message": "set it" }] });
        assert!(health(true, warned).text().contains("READY: CLOCK_SKEW (set it)"));
    }
}
