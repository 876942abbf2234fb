//! The built-in queries: each is SQL for people, and the same computed here from the values of the rows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Answer, Column};

/// Rows of an answer.
const ROWS_MAX: usize = 6;

/// A query over one of the topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Earthquakes,
    Birdstrikes,
}

/// The rows that a query has seen, grouped.
#[derive(Debug)]
pub(super) struct Records {
    query: Query,
    pub(super) count: u64,
    groups: BTreeMap<String, Group>,
}

#[derive(Debug, Default)]
struct Group {
    records: u64,
    strongest: f64,
    dollars: u64,
}

impl Records {
    pub(super) fn of(query: Query) -> Self {
        Self { query, count: 0, groups: BTreeMap::new() }
    }

    /// Counts the value of a row. What is no document of the kind is counted, and is in no group.
    pub(super) fn take(&mut self, value: Option<&[u8]>) {
        self.count += 1;
        let Some(document) = value.and_then(|value| serde_json::from_slice::<Value>(value).ok()) else { return };
        let group = match self.query {
            Query::Earthquakes => &document["properties"]["type"],
            Query::Birdstrikes => &document["Wildlife Species"],
        };
        let Some(group) = group.as_str() else { return };
        let group = self.groups.entry(group.to_owned()).or_default();
        group.records += 1;
        group.strongest = document["properties"]["mag"].as_f64().unwrap_or(0.0).max(group.strongest);
        group.dollars += document["Cost Total $"].as_str().and_then(|dollars| dollars.parse().ok()).unwrap_or(0);
    }

    /// The answer of the query, as SQL over `from` gives it.
    pub(super) fn answer(self, from: &str) -> Answer {
        let column = |name, kind| Column { name, kind };
        let (sql, columns) = match self.query {
            Query::Earthquakes => (
                format!(
                    "SELECT decode(value)->'properties'->>'type' AS type, count(*) AS records,\n       max((decode(value)->'properties'->>'mag')::DOUBLE) AS strongest\nFROM {from}\nGROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {ROWS_MAX};"
                ),
                vec![column("type", "varchar"), column("records", "int64"), column("strongest", "double")],
            ),
            Query::Birdstrikes => (
                format!(
                    "SELECT decode(value)->>'Wildlife Species' AS species, count(*) AS strikes,\n       sum((decode(value)->>'Cost Total $')::BIGINT)::BIGINT AS dollars\nFROM {from}\nGROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {ROWS_MAX};"
                ),
                vec![column("species", "varchar"), column("strikes", "int64"), column("dollars", "int64")],
            ),
        };
        let mut groups: Vec<(String, Group)> = self.groups.into_iter().collect();
        groups.sort_by(|(one, of_one), (other, of_other)| of_other.records.cmp(&of_one.records).then(one.cmp(other)));
        let row = |(name, group): (String, Group)| {
            let last = match self.query {
                Query::Earthquakes => json!(group.strongest),
                Query::Birdstrikes => json!(group.dollars),
            };
            vec![json!(name), json!(group.records), last]
        };
        Answer { sql, columns, rows: groups.into_iter().take(ROWS_MAX).map(row).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_and_the_largest_comes_first() {
        let mut records = Records::of(Query::Birdstrikes);
        for (species, dollars) in [("Gull", "5"), ("Crow", "1"), ("Gull", "7"), ("Owl", "x")] {
            let document = json!({"Wildlife Species": species, "Cost Total $": dollars}).to_string();
            records.take(Some(document.as_bytes()));
        }
        records.take(None);
        records.take(Some(b"no document"));
        assert_eq!(records.count, 6);
        let answer = records.answer("birdstrikes");
        assert_eq!(
            answer.rows,
            [
                vec![json!("Gull"), json!(2), json!(12)],
                vec![json!("Crow"), json!(1), json!(1)],
                vec![json!("Owl"), json!(1), json!(0)],
            ]
        );
    }
}
