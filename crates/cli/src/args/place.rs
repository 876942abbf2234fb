//! Places in a log as they are said: `start`, `end`, an offset, a time, or how long ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What can be said.
pub(super) const FORMS: &str = "start|end|OFFSET|@TIME|@-AGO";

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The first record that is kept.
    Start,
    /// Behind the last record.
    End,
    /// An offset.
    Offset(i64),
    /// The first record of this time (milliseconds since 1970) or later.
    Time(i64),
}

/// `start`, `end`, `17`, `@2026-01-02T03:04:05Z`, `@2026-01-02`, `@1700000000000` (milliseconds since 1970), `@-10m`.
pub(super) fn parse_place(text: &str) -> Result<Place, String> {
    let now_ms = since_1970(SystemTime::now());
    parse_place_at(text, now_ms)
}

fn parse_place_at(text: &str, now_ms: i64) -> Result<Place, String> {
    match (text, text.strip_prefix('@')) {
        ("start", _) => Ok(Place::Start),
        ("end", _) => Ok(Place::End),
        (_, Some(time)) => parse_time(time, now_ms).map(Place::Time),
        (_, None) => match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(Place::Offset(offset)),
            _ => Err("must be start, end, an offset of 0 or more, @TIME, or @-AGO such as @-10m".to_owned()),
        },
    }
}

/// Milliseconds since 1970.
fn parse_time(text: &str, now_ms: i64) -> Result<i64, String> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago = humantime::parse_duration(ago)
            .map_err(|error| format!("{ago:?} is no duration such as 90s, 10m, 2h or 7d: {error}"))?;
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(now_ms.saturating_sub(ago_ms).max(0));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| "is later than any time".to_owned());
    }
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339_weak(&full).map_err(|error| {
        format!("{text:?} is no time such as 2026-01-02T03:04:05Z, 2026-01-02 or milliseconds since 1970: {error}")
    })?;
    Ok(since_1970(time))
}

fn since_1970(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_said_in_five_ways() {
        let now_ms = 1_700_000_600_000;
        let cases = [
            ("start", Place::Start),
            ("end", Place::End),
            ("0", Place::Offset(0)),
            ("@1700000000000", Place::Time(1_700_000_000_000)),
            ("@2026-01-02T03:04:05Z", Place::Time(1_767_323_045_000)),
            ("@2026-01-02T03:04:05.678Z", Place::Time(1_767_323_045_678)),
            ("@2026-01-02 03:04:05", Place::Time(1_767_323_045_000)),
            ("@2026-01-02", Place::Time(1_767_312_000_000)),
            ("@-10m", Place::Time(1_700_000_000_000)),
            ("@-100years", Place::Time(0)),
        ];
        for (text, place) in cases {
            assert_eq!(parse_place_at(text, now_ms), Ok(place), "{text}");
        }
        for wrong in ["", "middle", "-1", "@", "@-", "@-10", "@tomorrow", "@2026-13-01", "@99999999999999999999"] {
            assert!(parse_place_at(wrong, now_ms).is_err(), "{wrong}");
        }
    }
}
