//! Points in time, as the database keeps them and as the APIs print them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time the system's clock shows. Call it at the rim and pass the value inwards.
    pub fn now() -> Timestamp {
        SystemTime::now().into()
    }

    /// Whole seconds since the epoch, as JWT claims count.
    pub fn unix_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// From whole seconds since the epoch.
    pub fn from_unix_secs(secs: i64) -> Timestamp {
        Timestamp(secs.saturating_mul(1_000_000))
    }

    /// This time and `d` more.
    pub fn plus(self, d: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier`; zero when it was not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    fn datetime(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// `2026-11-20T10:00:00.1234560Z`: seven fractional digits, as ACR's data plane prints.
    pub fn rfc3339_7(self) -> String {
        let f = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");
        self.datetime().format(&f).unwrap_or_default()
    }

    /// `2026-11-20T10:00:00.123456+00:00`, as ARM prints.
    pub fn rfc3339_arm(self) -> String {
        let f = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]+00:00");
        self.datetime().format(&f).unwrap_or_default()
    }

    /// `2026-11-20T10:00:00.123456Z`, as OCI documents have it.
    pub fn rfc3339(self) -> String {
        let f = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
        self.datetime().format(&f).unwrap_or_default()
    }

    /// Parse any RFC 3339 time whose year has four digits in UTC too.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let t = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let year = t.checked_to_offset(time::UtcOffset::UTC)?.year();
        if !(0..=9999).contains(&year) {
            return None;
        }
        i64::try_from(t.unix_timestamp_nanos().div_euclid(1000)).ok().map(Timestamp)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(t: SystemTime) -> Timestamp {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Timestamp(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)),
            Err(e) => Timestamp(-i64::try_from(e.duration().as_micros()).unwrap_or(i64::MAX)),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Timestamp::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let t = Timestamp::parse("2026-11-20T10:00:00.123456Z").unwrap();
        assert_eq!(t.rfc3339_7(), "2026-11-20T10:00:00.1234560Z");
        assert_eq!(t.rfc3339_arm(), "2026-11-20T10:00:00.123456+00:00");
        assert_eq!(Timestamp::parse(&t.rfc3339()), Some(t));
        assert_eq!(Timestamp::from_unix_secs(t.unix_secs()).unix_secs(), t.unix_secs());
    }
}
