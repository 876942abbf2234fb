//! `lakebed sql`: what other programs are told to read a topic as a table, ready to be pasted.
//!
//! 1. Every statement stands alone: it has the settings that its program needs for this store.
//! 2. No secret is printed; the programs take credentials from the environment, as the broker does.

use lakebed_broker::table_location;
use lakebed_wire::v1;
use serde::Serialize;

use crate::args::{Engine, SqlArgs};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// The runtime that Spark is given.
const SPARK_RUNTIME: &str =
    "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.11.0,org.apache.iceberg:iceberg-aws-bundle:1.11.0";

/// What is printed.
#[derive(Debug, Serialize)]
struct Sql {
    topic: String,
    table: String,
    location: String,
    statements: Vec<Statement>,
}

/// What one program is told for one way to the table.
#[derive(Debug, Serialize)]
struct Statement {
    engine: &'static str,
    /// `catalog`: everything that was acknowledged; `iceberg`: the last version that was published, without a broker; `files`: the Parquet
    /// files alone; `state`: the newest value of each key; `settings`: no statement, what its program is started with.
    way: &'static str,
    what: &'static str,
    text: String,
}

/// Where the table is.
struct Facts {
    /// The name of the table.
    table: String,
    /// The URI of the table's directory.
    location: String,
    /// The catalog.
    catalog: String,
    address: Option<v1::StoreAddress>,
    /// Whether the topic keeps the last value of each key.
    compacted: bool,
}

pub(crate) async fn run(args: SqlArgs, output: Output) -> Result<(), Failure> {
    let (client, server) = args.server.connect().await?;
    let described = client.describe_topic(&args.topic).await;
    let what = || format!("topic {} can't be described", args.topic);
    let topic = described.map_err(|error| Failure::call(what(), &server, &error))?.topic.unwrap_or_default();
    let info = client.cluster_info().await;
    let info = info.map_err(|error| Failure::call("the cluster can't be shown", &server, &error))?;
    let location = table_location(&info.store, &topic.name).ok_or_else(|| {
        Failure::new(format!("topic {} is in the memory of its broker, where no other program can read it", topic.name))
            .code("STORE_IN_MEMORY", Exit::Conflict)
            .remedy("start the broker on a directory or a bucket, with --store")
    })?;
    let http =
        if server.address.contains("://") { server.address.clone() } else { format!("http://{}", server.address) };
    let facts = Facts {
        table: location.rsplit('/').next().unwrap_or_default().to_owned(),
        location: location.clone(),
        catalog: format!("{}/iceberg", http.trim_end_matches('/')),
        address: info.store_address,
        compacted: topic.config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
    };
    let engines = match args.engine {
        Some(engine) => vec![engine],
        None => vec![Engine::Duckdb, Engine::Pyiceberg, Engine::Spark, Engine::Trino],
    };
    let statements = engines.into_iter().flat_map(|engine| facts.statements(engine)).collect();
    let sql = Sql { topic: topic.name, table: facts.table.clone(), location, statements };
    output.one(&sql, || sql.text())
}

impl Sql {
    fn text(&self) -> String {
        let block = |statement: &Statement| {
            let comment = if statement.engine == "pyiceberg" || statement.way == SETTINGS { "#" } else { "--" };
            format!("{comment} {}: {}\n{}\n", statement.engine, statement.what, statement.text)
        };
        self.statements.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

const FRESH: &str = "all that is acknowledged, through the broker";
const PUBLISHED: &str = "as it was last published, without the broker";
const FILES: &str = "the Parquet files alone; for an hour after files were rewritten, the former ones are read too";
const STATE: &str = "the newest value of each key, through the broker";
/// How an engine is told of the catalog, where that is no statement.
const SETTINGS: &str = "settings";
const STARTED_WITH: &str = "settings to start it with";

impl Facts {
    fn statements(&self, engine: Engine) -> Vec<Statement> {
        match engine {
            Engine::Duckdb => self.duckdb(),
            Engine::Pyiceberg => self.pyiceberg(),
            Engine::Spark => self.spark(),
            Engine::Trino => self.trino(),
        }
    }

    /// The statement of the newest values, if the topic is about those.
    ///
    /// A key's records are in the one partition that its producers choose, so that offsets say which is the newest.
    fn newest(&self, from: &str, key: &str) -> String {
        format!(
            "SELECT * FROM (\n  SELECT *, row_number() OVER (PARTITION BY _kafka_partition, {key} ORDER BY _kafka_offset DESC) AS age FROM {from}\n) AS newest\nWHERE age = 1 AND key IS NOT NULL AND value IS NOT NULL;"
        )
    }

    fn duckdb(&self) -> Vec<Statement> {
        let statement = |way, what, text: String| Statement { engine: "duckdb", way, what, text };
        let setup = format!("INSTALL iceberg; LOAD iceberg;\n{}", self.duckdb_store());
        let attach = format!(
            "{setup}ATTACH 'lakebed' AS lake (TYPE iceberg, ENDPOINT {}, AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none');\n",
            sql_text(&self.catalog)
        );
        let table = format!("lake.\"default\".\"{}\"", self.table);
        let location = |rest: &str| sql_text(&format!("{}{rest}", self.location));
        let mut statements = vec![
            statement("catalog", FRESH, format!("{attach}SELECT * FROM {table} LIMIT 10;")),
            statement("iceberg", PUBLISHED, format!("{setup}SELECT * FROM iceberg_scan({}) LIMIT 10;", location(""))),
            statement(
                "files",
                FILES,
                format!("{}SELECT * FROM read_parquet({}) LIMIT 10;", self.duckdb_store(), location("/data/*.parquet")),
            ),
        ];
        if self.compacted {
            statements.push(statement("state", STATE, format!("{attach}{}", self.newest(&table, "key"))));
        }
        statements
    }

    /// What DuckDB needs to reach the store, a statement a line.
    fn duckdb_store(&self) -> String {
        let scheme = self.location.split(':').next().unwrap_or_default();
        match (&self.address, scheme) {
            (Some(address), _) => {
                let mut text = String::from("INSTALL httpfs; LOAD httpfs;\n");
                text += &format!("SET s3_region = {};\n", sql_text(&address.region));
                if let Some((scheme, host)) = address.endpoint.as_deref().and_then(|url| url.split_once("://")) {
                    let style = if address.path_style { "path" } else { "vhost" };
                    text += &format!("SET s3_endpoint = {};\n", sql_text(host.trim_end_matches('/')));
                    text += &format!("SET s3_use_ssl = {};\nSET s3_url_style = '{style}';\n", scheme == "https");
                }
                text
            }
            (None, "az") => {
                "INSTALL azure; LOAD azure;\nCREATE SECRET (TYPE azure, PROVIDER credential_chain);\n".to_owned()
            }
            (None, "gs") => "INSTALL httpfs; LOAD httpfs;\n".to_owned(),
            (None, _) => String::new(),
        }
    }

    fn pyiceberg(&self) -> Vec<Statement> {
        let statement = |way, what, text: String| Statement { engine: "pyiceberg", way, what, text };
        let mut properties = vec![("py-io-impl", "pyiceberg.io.pyarrow.PyArrowFileIO".to_owned())];
        if let Some(address) = &self.address {
            properties.push(("s3.region", address.region.clone()));
            properties.extend(address.endpoint.clone().map(|endpoint| ("s3.endpoint", endpoint)));
        }
        let properties: Vec<String> =
            properties.iter().map(|(name, value)| format!("{}: {}", python_text(name), python_text(value))).collect();
        let properties = format!("{{{}}}", properties.join(", "));
        let load = format!(
            "from pyiceberg.catalog.rest import RestCatalog\ncatalog = RestCatalog(\"lakebed\", uri={}, **{properties})\ntable = catalog.load_table({})\n",
            python_text(&self.catalog),
            python_text(&format!("default.{}", self.table))
        );
        let local = self.location.strip_prefix("file://").unwrap_or(&self.location);
        let read_hint = format!(
            "from pyiceberg.io import load_file_io\nfrom pyiceberg.table import StaticTable\nproperties = {properties}\nlocation = {}\nwith load_file_io(properties, location).new_input(f\"{{location}}/metadata/version-hint.text\").open() as hint:\n    version = hint.read().decode()\ntable = StaticTable.from_metadata(f\"{{location}}/metadata/v{{version}}.metadata.json\", properties)\n",
            python_text(local)
        );
        let scan = "print(table.scan(limit=10).to_arrow())";
        let mut statements = vec![
            statement("catalog", FRESH, format!("{load}{scan}")),
            statement("iceberg", PUBLISHED, format!("{read_hint}{scan}")),
        ];
        if self.compacted {
            let newest = "rows = table.scan().to_arrow().sort_by([(\"_kafka_partition\", \"ascending\"), (\"_kafka_offset\", \"ascending\")])\n\
                          newest = {(row[\"_kafka_partition\"], row[\"key\"]): row for row in rows.to_pylist()}\n\
                          print([row for row in newest.values() if row[\"key\"] is not None and row[\"value\"] is not None])";
            statements.push(statement("state", STATE, format!("{load}{newest}")));
        }
        statements
    }

    fn spark(&self) -> Vec<Statement> {
        let statement = |way, what, text: String| Statement { engine: "spark", way, what, text };
        let mut settings = vec![
            ("spark.jars.packages".to_owned(), SPARK_RUNTIME.to_owned()),
            ("spark.sql.catalog.lake".to_owned(), "org.apache.iceberg.spark.SparkCatalog".to_owned()),
            ("spark.sql.catalog.lake.type".to_owned(), "rest".to_owned()),
            ("spark.sql.catalog.lake.uri".to_owned(), self.catalog.clone()),
        ];
        let mut of_catalog =
            |name: &str, value: String| settings.push((format!("spark.sql.catalog.lake.{name}"), value));
        if let Some(address) = &self.address {
            of_catalog("io-impl", "org.apache.iceberg.aws.s3.S3FileIO".to_owned());
            of_catalog("client.region", address.region.clone());
            if let Some(endpoint) = &address.endpoint {
                of_catalog("s3.endpoint", endpoint.clone());
                of_catalog("s3.path-style-access", address.path_style.to_string());
            }
        }
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let table = format!("lake.`default`.`{}`", self.table);
        let mut statements = vec![
            statement(SETTINGS, STARTED_WITH, settings.join("\n")),
            statement("catalog", FRESH, format!("SELECT * FROM {table} LIMIT 10;")),
        ];
        if self.compacted {
            statements.push(statement("state", STATE, self.newest(&table, "`key`")));
        }
        statements
    }

    fn trino(&self) -> Vec<Statement> {
        let statement = |way, what, text: String| Statement { engine: "trino", way, what, text };
        let mut properties = vec![
            "connector.name=iceberg".to_owned(),
            "iceberg.catalog.type=rest".to_owned(),
            format!("iceberg.rest-catalog.uri={}", self.catalog),
        ];
        match (&self.address, self.location.split(':').next().unwrap_or_default()) {
            (Some(address), _) => {
                properties.push("fs.native-s3.enabled=true".to_owned());
                properties.push(format!("s3.region={}", address.region));
                if let Some(endpoint) = &address.endpoint {
                    properties.push(format!("s3.endpoint={endpoint}"));
                    properties.push(format!("s3.path-style-access={}", address.path_style));
                }
            }
            (None, "gs") => properties.push("fs.native-gcs.enabled=true".to_owned()),
            (None, "az") => properties.push("fs.native-azure.enabled=true".to_owned()),
            (None, _) => properties.push("fs.hadoop.enabled=true".to_owned()),
        }
        let table = format!("lake.\"default\".\"{}\"", self.table);
        let mut statements = vec![
            statement(SETTINGS, "etc/catalog/lake.properties", properties.join("\n")),
            statement("catalog", FRESH, format!("SELECT * FROM {table} LIMIT 10;")),
        ];
        if self.compacted {
            statements.push(statement("state", STATE, self.newest(&table, "key")));
        }
        statements
    }
}

/// A text in SQL.
fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text in Python, which reads the escapes of JSON.
fn python_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(location: &str, address: Option<v1::StoreAddress>, compacted: bool) -> Facts {
        let table = location.rsplit('/').next().unwrap().to_owned();
        Facts { table, location: location.to_owned(), catalog: "http://h:1/iceberg".to_owned(), address, compacted }
    }

    const ENGINES: [Engine; 4] = [Engine::Duckdb, Engine::Pyiceberg, Engine::Spark, Engine::Trino];

    #[test]
    fn a_store_of_ones_own_is_named_with_its_endpoint_region_and_style() {
        let endpoint = Some("http://127.0.0.1:9000".to_owned());
        let address = v1::StoreAddress { endpoint, region: "eu-1".to_owned(), path_style: true };
        let facts = facts("s3://bucket/root/tables/default/orders", Some(address), false);
        for engine in ENGINES {
            let statements = facts.statements(engine);
            let text: String = statements.iter().map(|statement| statement.text.as_str()).collect();
            for part in ["127.0.0.1:9000", "eu-1", "orders", "http://h:1/iceberg"] {
                assert!(text.contains(part), "{engine:?}: {part} is missing in {text}");
            }
            assert!(statements.iter().all(|statement| statement.way != "state"), "{engine:?}");
        }
        let text = &facts.duckdb()[0].text;
        assert!(text.contains("s3_url_style = 'path'") && text.contains("s3_use_ssl = false"), "{text}");
    }

    #[test]
    fn a_compacted_topic_has_the_query_of_its_state_for_every_engine() {
        let facts = facts("file:///it's here/tables/default/orders", None, true);
        for engine in ENGINES {
            assert!(facts.statements(engine).iter().any(|statement| statement.way == "state"), "{engine:?}");
        }
        assert!(facts.duckdb()[1].text.contains("'file:///it''s here/tables/default/orders'"));
    }
}
