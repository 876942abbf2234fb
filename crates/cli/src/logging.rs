//! What a broker says while it serves: log lines on stderr, and traces to a collector if it is told of one.
//!
//! 1. Log lines are text on a terminal and JSON elsewhere, one object a line, unless told otherwise.
//! 2. Spans are made only if a collector is named: they have a target of their own, which no log filter lets through by itself.
//! 3. A collector that is away costs traces and nothing else: spans that find no room are dropped, and the end waits for it within a bound.
//!    It is told when that begins and when it is over, once each.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lakebed_broker::Config;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter as Exporter};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use crate::failure::{Exit, Failure};

/// How long the collector may take to accept the last spans.
const LAST_SPANS_MAX: Duration = Duration::from_secs(5);
/// How long it may take to accept some.
const EXPORT_MAX: Duration = Duration::from_secs(5);

/// Logs and traces of this process, until it ends.
pub(crate) struct Logging {
    traces: Option<SdkTracerProvider>,
}

impl Logging {
    /// Begins to log, and to trace if that is asked for.
    ///
    /// Must be called in a tokio runtime: the connection to the collector lives there.
    ///
    /// # Errors
    /// What is wrong with the filter or the address.
    pub(crate) fn start(config: &Config) -> Result<Self, Failure> {
        let filter = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| config.log.clone());
        let filter = EnvFilter::try_new(&filter).map_err(|error| {
            Failure::new(format!("the log filter {filter:?} is wrong"))
                .code("INVALID_CONFIG", Exit::Usage)
                .cause(error)
                .remedy("give --log (or LAKEBED_LOG, RUST_LOG) a level such as debug, or a filter such as info,lakebed_log=debug")
        })?;
        let is_text = match config.log_format.as_deref() {
            None => std::io::stderr().is_terminal(),
            Some(format) => format == "text",
        };
        let lines = fmt::layer().with_writer(std::io::stderr);
        let lines = if is_text { lines.boxed() } else { lines.json().boxed() };
        let traces = config.otlp_endpoint.as_deref().map(|url| provider(url, config.otlp_one_in)).transpose()?;
        let mut layers = vec![lines.with_filter(filter).boxed()];
        if let Some(traces) = &traces {
            let only_spans = Targets::new().with_target(lakebed_broker::TRACE_TARGET, LevelFilter::DEBUG);
            let spans = tracing_opentelemetry::layer().with_tracer(traces.tracer("lakebed"));
            layers.push(spans.with_filter(only_spans).boxed());
        }
        registry().with(layers).init();
        Ok(Self { traces })
    }

    /// Sends what was traced and not sent yet.
    pub(crate) async fn end(self) {
        let Some(traces) = self.traces else { return };
        // It waits on its own thread for one that needs this runtime.
        let ended = tokio::task::spawn_blocking(move || traces.shutdown_with_timeout(LAST_SPANS_MAX)).await;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces could not be sent: see that the collector runs"),
            Err(error) => tracing::warn!(%error, "the last traces could not be sent"),
        }
    }
}

/// An exporter that tells when its collector is lost, and when it is there again.
#[derive(Debug)]
struct Telling<E> {
    exporter: E,
    is_lost: AtomicBool,
}

impl<E: Exporter> Exporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let was_lost = self.is_lost.swap(exported.is_err(), Ordering::AcqRel);
        match &exported {
            Err(error) if !was_lost => {
                tracing::warn!(%error, "traces can't be sent, and are dropped meanwhile: see that the collector runs");
            }
            Ok(()) if was_lost => tracing::info!("traces are sent again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn provider(url: &str, one_in: u32) -> Result<SdkTracerProvider, Failure> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(url).with_timeout(EXPORT_MAX).build();
    let exporter = exporter.map_err(|error| {
        Failure::new(format!("traces can't be sent to {url:?}"))
            .code("INVALID_CONFIG", Exit::Usage)
            .cause(error)
            .remedy("give --otlp-endpoint (or LAKEBED_OTLP_ENDPOINT) the collector's address for gRPC, such as http://127.0.0.1:4317")
    })?;
    let exporter = Telling { exporter, is_lost: AtomicBool::new(false) };
    let resource = Resource::builder_empty()
        .with_service_name("lakebed")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(1.0 / f64::from(one_in))));
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_sampler(sampler);
    Ok(provider.with_resource(resource.build()).build())
}
