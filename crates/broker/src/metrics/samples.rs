//! The numbers of one page, gathered before they are written: each belongs to a metric of the table.

use std::collections::BTreeMap;

use lakebed_store::histogram::Counted;

use super::table::{Kind, METRICS};

/// Names of labels with their values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// One number, or one histogram.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Count(u64),
    /// A count of what has fractions: seconds, dollars.
    Sum(f64),
    Level(f64),
    Histogram(Counted),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) by_metric: BTreeMap<&'static str, Vec<(Labels, Value)>>,
}

impl Samples {
    pub(super) fn count(&mut self, metric: &'static str, labels: &[(&'static str, &str)], count: u64) {
        self.add(metric, labels, Value::Count(count));
    }

    pub(super) fn sum(&mut self, metric: &'static str, labels: &[(&'static str, &str)], sum: f64) {
        self.add(metric, labels, Value::Sum(sum));
    }

    pub(super) fn level(&mut self, metric: &'static str, labels: &[(&'static str, &str)], level: f64) {
        self.add(metric, labels, Value::Level(level));
    }

    pub(super) fn histogram(&mut self, metric: &'static str, labels: &[(&'static str, &str)], counted: Counted) {
        self.add(metric, labels, Value::Histogram(counted));
    }

    fn add(&mut self, metric: &'static str, labels: &[(&'static str, &str)], value: Value) {
        let described = METRICS.iter().find(|described| described.name == metric);
        let described = described.unwrap_or_else(|| panic!("{metric} stands in the table of metrics"));
        let fits = match value {
            Value::Count(_) | Value::Sum(_) => described.kind == Kind::Counter,
            Value::Level(_) => described.kind == Kind::Gauge,
            Value::Histogram(_) => described.kind == Kind::Histogram,
        };
        assert!(fits, "{metric} is what the table says");
        assert!(described.labels.iter().eq(labels.iter().map(|(name, _)| name)), "{metric} has the table's labels");
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.by_metric.entry(described.name).or_default().push((labels, value));
    }
}
