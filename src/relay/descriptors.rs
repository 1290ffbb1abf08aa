//! How many descriptors there are, and so how many connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than a node has streams, ever; each takes a local port, of which there are 28,000.
const CONNECTIONS_MAX: u64 = 20_000;

/// Kept for all that is no stream's socket: pipes, listeners, and the rest of the agent.
const RESERVE: u64 = 512;

/// A connection's sockets: the client's and the runtime's.
const EACH: u64 = 2;

/// Lets this process have as many descriptors as it is allowed to ask for.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    // What is refused leaves fewer connections, of which there are still some.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// How many connections can be carried at once. A connection that is refused at once is better off
/// than one that nobody accepts.
pub fn connections() -> usize {
    possible(getrlimit(Resource::Nofile).current)
}

/// With so many descriptors; `None` is no limit.
fn possible(descriptors: Option<u64>) -> usize {
    let most = descriptors.map_or(CONNECTIONS_MAX, |all| all.saturating_sub(RESERVE) / EACH);
    usize::try_from(most.clamp(1, CONNECTIONS_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_there_are_descriptors_for() {
        for (descriptors, connections) in [
            (None, 20_000),
            (Some(u64::MAX), 20_000),
            (Some(1 << 20), 20_000),
            (Some(20_000), 9_744),
            (Some(1024), 256),
            (Some(0), 1),
        ] {
            assert_eq!(possible(descriptors), connections, "{descriptors:?}");
        }
    }
}
