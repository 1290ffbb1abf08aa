//! A rate in bytes per second, written as a Kubernetes quantity.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Below this a handshake takes longer than its time-out: 1 KiB/s, the least that the apiserver's
/// limiter keeps.
const MIN: u64 = 1 << 10;
/// Above this a number is a mistake: 1 TiB/s.
const MAX: u64 = 1 << 40;

/// Bytes per second as a quantity, such as `1Mi`, `500k` or `1048576`; 0 is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ByteRate {
    /// A plain number.
    Number(i64),
    /// A quantity with a suffix.
    Text(String),
}

/// Why a rate cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a quantity.
    #[error("{0:?} is not a quantity of bytes per second such as 1Mi or 500k")]
    Malformed(String),
    /// Below 0, below 1 KiB/s or above 1 TiB/s.
    #[error("{0} is out of range: 0 for no limit, or 1Ki to 1Ti bytes per second")]
    OutOfRange(String),
}

impl Error {
    /// A short, stable name for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "RateMalformed",
            Self::OutOfRange(_) => "RateOutOfRange",
        }
    }
}

impl Default for ByteRate {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl ByteRate {
    /// Bytes per second; 0 is no limit.
    ///
    /// # Errors
    /// Where it is no quantity, or one that no stream could live with.
    pub fn bytes_per_sec(&self) -> Result<u64, Error> {
        let text = match self {
            Self::Number(number) => Cow::Owned(number.to_string()),
            Self::Text(text) => Cow::Borrowed(text.as_str()),
        };
        let (negative, bare) = match text.strip_prefix('-') {
            Some(bare) => (true, bare),
            None => (false, &*text),
        };
        let bytes = parse(bare).ok_or_else(|| Error::Malformed(text.clone().into_owned()))?;
        match u64::try_from(bytes) {
            Ok(0) => Ok(0),
            Ok(bytes) if !negative && (MIN..=MAX).contains(&bytes) => Ok(bytes),
            _ => Err(Error::OutOfRange(text.into_owned())),
        }
    }
}

/// Reads the quantities that the schema lets through, rounding up as `resource.Quantity` does.
/// Numbers too long for 128 bits come out as the largest one.
fn parse(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit: u128 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |d: &str| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u128 = whole.parse().unwrap_or(u128::MAX);
    // Beyond 18 decimals there is less than a byte, whatever the unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = fraction.parse::<u128>().ok()? * unit;
    Some(whole.saturating_mul(unit).saturating_add(part.div_ceil(scale)))
}

impl JsonSchema for ByteRate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteRate".into()
    }

    /// As upstream writes quantities, but never negative.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "pattern": "^[0-9]+(\\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("1Ki", Ok(1024)),
            ("1Mi", Ok(1 << 20)),
            ("1.5Mi", Ok(3 << 19)),
            ("500k", Ok(500_000)),
            ("1048576", Ok(1 << 20)),
            ("1Ti", Ok(1 << 40)),
            ("-1", Err("RateOutOfRange")),
            ("-1Mi", Err("RateOutOfRange")),
            ("1", Err("RateOutOfRange")),
            ("1023", Err("RateOutOfRange")),
            ("2Ti", Err("RateOutOfRange")),
            ("999999999999999999999999", Err("RateOutOfRange")),
            ("-fast", Err("RateMalformed")),
            ("", Err("RateMalformed")),
            (".5Mi", Err("RateMalformed")),
            ("1.Mi", Err("RateMalformed")),
            ("1.2.3", Err("RateMalformed")),
            ("fast", Err("RateMalformed")),
            ("1MB", Err("RateMalformed")),
            ("1Mi/s", Err("RateMalformed")),
        ] {
            let seen = ByteRate::Text(text.to_owned()).bytes_per_sec().map_err(|e| e.reason());
            assert_eq!(seen, expected, "{text}");
        }
        assert_eq!(ByteRate::Number(2048).bytes_per_sec(), Ok(2048));
        assert_eq!(
            ByteRate::Number(-5).bytes_per_sec().map_err(|e| e.reason()),
            Err("RateOutOfRange")
        );
    }
}
