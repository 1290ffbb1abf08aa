//! The rules, in nft's own language: what an administrator sees with `nft list table ip sluice`.
//!
//! `tproxy` (Linux 4.19) hands the first packet of a connection to the relay's socket and leaves it
//! as it is: its address stays the runtime's, there is no NAT and no entry of conntrack. Where nobody
//! listens any more it does nothing, and the connection reaches the runtime. So streams pass a dead
//! agent by at once.
//!
//! | set       | elements | new connections to them |
//! |-----------|----------|-------------------------|
//! | `live`    | expire   | are brought to the relay |
//! | `runtime` | stay     | are brought to the relay if they are the agent's probes; are refused unless the relay takes them, where the failure policy is `Closed` |
//!
//! An element comes to `live`, and stays there, by the last packet of a probe that was answered: the
//! packet has a mark, and a rule sees it pass. No other program's long transaction can hold that up.
//!
//! Pure: what to say to nft, not saying it.

use std::{net::SocketAddr, time::Duration};

use crate::api::FailurePolicy;

/// The mark on the relay's own connections to the runtime, which pass every rule by, and on the
/// socket at which it takes streams.
///
/// kube-proxy and the kubelet have claimed 0x4000 and 0x8000, Cilium 0x0f00, the AWS CNI 0x80, and
/// Calico and Weave the upper half; none of those bits are in it.
pub const RELAY_MARK: u32 = 0x51;

/// The mark on the agent's probes: they go through the relay before anybody else does, and their last
/// packet brings everybody else there.
pub const PROBE_MARK: u32 = 0x53;

/// How long an element of `live` stays: streams pass an agent that hangs by after at most so long.
pub const LIFETIME: Duration = Duration::from_secs(8);

/// An address family, by its names in nft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    table: &'static str,
    address: &'static str,
}

impl Family {
    /// Both: a kernel without IPv6 refuses a table of the two together.
    pub const ALL: [Self; 2] =
        [Self { table: "ip", address: "ipv4_addr" }, Self { table: "ip6", address: "ipv6_addr" }];

    /// The family of an address.
    pub fn of(address: SocketAddr) -> Self {
        Self::ALL[usize::from(address.is_ipv6())]
    }
}

/// The table, its chains and the addresses of the runtime, all of one family. In one transaction it
/// takes the place of whatever an agent has left there before, also one of an older release. Only a
/// probe may bring an address to `live`: `proven` are those that one has brought there, each with the
/// time that it has left.
pub fn install(
    servers: &[SocketAddr],
    relay: SocketAddr,
    failure: FailurePolicy,
    proven: &[(SocketAddr, Duration)],
) -> String {
    let Family { table, address } = Family::of(relay);
    let to = format!("{table} daddr . tcp dport");
    let take = format!("tproxy to {relay}");
    let addresses = format!("type {address} . inet_service");
    let lifetime = LIFETIME.as_secs();
    let runtime = elements(servers.iter().copied().map(element));
    let live = elements(proven.iter().map(|(server, left)| {
        format!("{} timeout {}ms", element(*server), left.as_millis().max(1))
    }));
    let refuse = match failure {
        FailurePolicy::Open => String::new(),
        FailurePolicy::Closed => refuse(&to),
    };
    format!(
        "{}\
table {table} sluice {{
  set live {{ {addresses}; flags dynamic, timeout; {live}}}
  set runtime {{ {addresses}; {runtime}}}
  chain take {{
    type filter hook prerouting priority mangle;
    {PASS}
    {NEW} meta mark {PROBE_MARK:#x} {to} @runtime {take}
    {NEW} {to} @live {take}
  }}
  chain renew {{
    type filter hook output priority mangle;
    meta mark {PROBE_MARK:#x} tcp flags & fin == fin {to} @runtime \
update @live {{ {to} timeout {lifetime}s }}
  }}
{refuse}}}
",
        remove(Family::of(relay)),
    )
}

/// The first packet of a connection.
const NEW: &str = "tcp flags & (syn | ack) == syn";

/// What the relay itself sends to the runtime.
const PASS: &str = "meta mark 0x51 return";

/// Refuses what comes to the runtime and was not taken. A packet that `tproxy` has handed to the
/// relay's socket belongs to that socket here already, and nothing else does: the mark of a socket is
/// not told of one that is only left over from a connection (TIME_WAIT), which `tproxy` finds, too. No
/// connection tracking is needed for that. (The match of marks came with Linux 4.20.)
fn refuse(to: &str) -> String {
    format!(
        "  chain enter {{
    type filter hook input priority filter;
    {NEW} {to} @runtime goto refuse
  }}
  chain refuse {{
    {PASS}
    socket mark {RELAY_MARK:#x} return
    reject with tcp reset
  }}
"
    )
}

/// Brings no more streams of this address to the relay, whether it did or not.
pub fn pass_by(server: SocketAddr) -> String {
    let (table, element) = (Family::of(server).table, element(server));
    format!(
        "add element {table} sluice live {{ {element} timeout 1s }}\n\
         delete element {table} sluice live {{ {element} }}\n"
    )
}

/// Brings no more streams to the relay; whatever else the rules say stays.
pub fn forget(family: Family) -> String {
    format!("flush set {} sluice live\n", family.table)
}

/// Leaves nothing behind, whether something was there or not. Connections that the relay has taken
/// stay with it.
pub fn remove(family: Family) -> String {
    let table = family.table;
    format!("add table {table} sluice\ndelete table {table} sluice\n")
}

fn elements(elements: impl Iterator<Item = String>) -> String {
    let all = elements.collect::<Vec<_>>().join(", ");
    if all.is_empty() { all } else { format!("elements = {{ {all} }} ") }
}

fn element(address: SocketAddr) -> String {
    format!("{} . {}", address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_node() {
        let servers = ["127.0.0.1:34567".parse().unwrap()];
        let relay = "127.0.0.1:15190".parse().unwrap();
        insta::assert_snapshot!(install(&servers, relay, FailurePolicy::Open, &[]));
        let servers = ["[fd00::12]:10010", "[::1]:10010"].map(|server| server.parse().unwrap());
        let relay = "[::1]:15190".parse().unwrap();
        let proven = [(servers[1], Duration::from_millis(4_321))];
        insta::assert_snapshot!(install(&servers, relay, FailurePolicy::Closed, &proven));
        insta::assert_snapshot!(pass_by(servers[1]));
        insta::assert_snapshot!(remove(Family::ALL[0]));
    }

    /// kube-proxy masquerades what has the first bit, the kubelet drops what has the second.
    #[test]
    fn the_marks_are_nobody_elses() {
        for mark in [RELAY_MARK, PROBE_MARK] {
            assert_eq!(mark & (0x4000 | 0x8000 | 0x0f00 | 0x80 | 0xffff_0000), 0, "{mark:#x}");
        }
        assert_ne!(RELAY_MARK, PROBE_MARK);
        assert_eq!(PASS, format!("meta mark {RELAY_MARK:#x} return"));
    }
}
