//! Open streams as a table.

use jiff::Timestamp;

use super::Table;
use crate::agent::serve::Stream;

/// A row for each stream.
pub fn table(streams: &[Stream], now: Timestamp) -> String {
    let mut table = Table::new([
        "ID",
        "KIND",
        "AGE",
        "PEER",
        "REMOTE",
        "TO-RUNTIME",
        "TO-CLIENT",
        "THROTTLED",
        "DRAINING",
        "USER-AGENT",
    ]);
    let yes_or_no = |yes| if yes { "yes" } else { "no" };
    for Stream { info: stream, draining } in streams {
        table.add([
            stream.id.to_string().into(),
            stream.kind.as_str().into(),
            age(now.duration_since(stream.started).as_secs()).into(),
            stream.peer.to_string().into(),
            yes_or_no(stream.remote).into(),
            bytes(stream.to_runtime).into(),
            bytes(stream.to_client).into(),
            format!("{:.1}s", stream.throttled_millis as f64 / 1000.0).into(),
            yes_or_no(*draining).into(),
            stream.user_agent.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.render()
}

/// As kubectl shows ages: the two largest units at most.
fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if minutes < 2 => format!("{seconds}s"),
        () if hours < 2 => format!("{minutes}m{}s", seconds % 60),
        () if days < 2 => format!("{hours}h{}m", minutes % 60),
        () => format!("{days}d{}h", hours % 24),
    }
}

fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}TiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::{Kind, StreamInfo};

    #[test]
    fn a_table_of_streams() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let stream = StreamInfo {
            id: 7,
            kind: Kind::Exec,
            peer: "127.0.0.1:40000".parse().unwrap(),
            remote: false,
            user_agent: Some("kubectl/v1.20.2".into()),
            forwarded_for: None,
            started: at(1000),
            status: Some(101),
            to_runtime: 12,
            to_client: 3 << 20,
            throttled_millis: 1530,
        };
        let remote =
            StreamInfo { remote: true, user_agent: None, started: at(0), ..stream.clone() };
        let streams = [(stream, false), (remote, true)];
        let streams = streams.map(|(info, draining)| Stream { info, draining });
        insta::assert_snapshot!(table(&streams, at(1065)));
    }

    #[test]
    fn ages_and_bytes() {
        for (seconds, expected) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m0s"),
            (7199, "119m59s"),
            (7260, "2h1m"),
            (180_000, "2d2h"),
        ] {
            assert_eq!(age(seconds), expected);
        }
        for (number, expected) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (5 << 40, "5.0TiB")]
        {
            assert_eq!(bytes(number), expected);
        }
    }
}
