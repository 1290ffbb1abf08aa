//! The rules, in nft's own language: what an administrator sees with `nft list table ip sluice`.
//!
//! Sets hold the addresses, so that the rules themselves never change while the agent runs.
//!
//! | set       | elements        | connections to them |
//! |-----------|-----------------|---------------------|
//! | `live`    | expire          | are sent to the relay |
//! | `runtime` | stay            | are sent to the relay if they are the agent's probes |
//! | `closed`  | stay            | are refused unless they were sent to the relay (failure policy `Closed`) |
//!
//! Pure: what to say to nft, not saying it.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::api::FailurePolicy;

/// The mark on the relay's own connections to the runtime: they pass every rule by.
///
/// kube-proxy and the kubelet have claimed 0x4000 and 0x8000, Cilium 0x0f00, the AWS CNI 0x80, and
/// Calico and Weave the upper half; none of those bits are in it.
pub const RELAY_MARK: u32 = 0x51;

/// The mark on the agent's probes: they go through the relay before anybody else does.
pub const PROBE_MARK: u32 = 0x53;

/// How long an element of `live` stays. With the agent gone, streams go straight to the runtime
/// again after at most so long.
pub const LIFETIME: Duration = Duration::from_secs(8);

/// An address family, by its names in nft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    table: &'static str,
    address: &'static str,
}

impl Family {
    /// Both: `inet` tables can translate addresses only since Linux 5.2.
    pub const ALL: [Self; 2] =
        [Self { table: "ip", address: "ipv4_addr" }, Self { table: "ip6", address: "ipv6_addr" }];

    /// The family of an address.
    pub fn of(address: SocketAddr) -> Self {
        Self::ALL[usize::from(address.is_ipv6())]
    }

    /// The other one.
    pub fn other(self) -> Self {
        Self::ALL[usize::from(self == Self::ALL[0])]
    }
}

/// Everything but the live address, which only a probe may bring: the table, its chains and the
/// runtime's address. Safe to say again, and over what another version of this program has said.
pub fn install(runtime: SocketAddr, relay_port: u16, failure: FailurePolicy) -> String {
    let Family { table, address } = Family::of(runtime);
    let to = format!("{table} daddr . tcp dport");
    let redirect = format!("redirect to :{relay_port}");
    let element = element(runtime);
    let mut script = format!(
        "add table {table} sluice\n\
         add set {table} sluice live {{ type {address} . inet_service ; flags timeout ; }}\n\
         add set {table} sluice runtime {{ type {address} . inet_service ; }}\n\
         add set {table} sluice closed {{ type {address} . inet_service ; }}\n\
         add chain {table} sluice output {{ type nat hook output priority -110 ; }}\n\
         add chain {table} sluice prerouting {{ type nat hook prerouting priority -110 ; }}\n\
         add chain {table} sluice refuse_output {{ type filter hook output priority 0 ; }}\n\
         add chain {table} sluice refuse_input {{ type filter hook input priority 0 ; }}\n\
         flush table {table} sluice\n\
         add rule {table} sluice output meta mark {RELAY_MARK:#x} return\n\
         add rule {table} sluice output meta mark {PROBE_MARK:#x} {to} @runtime {redirect}\n\
         add rule {table} sluice output {to} @live {redirect}\n\
         add rule {table} sluice prerouting {to} @live {redirect}\n\
         add rule {table} sluice refuse_output meta mark != {RELAY_MARK:#x} {to} @closed \
         ct state new reject with tcp reset\n\
         add rule {table} sluice refuse_input iifname != \"lo\" {to} @closed \
         ct state new reject with tcp reset\n\
         flush set {table} sluice runtime\n\
         add element {table} sluice runtime {{ {element} }}\n\
         flush set {table} sluice closed\n"
    );
    if failure == FailurePolicy::Closed {
        let _ = writeln!(script, "add element {table} sluice closed {{ {element} }}");
    }
    script
}

/// Sends streams to the relay for another [`LIFETIME`]. (An element that is there keeps its old
/// time when it is added once more; flushed and added in one transaction it is never gone.)
pub fn renew(runtime: SocketAddr) -> String {
    let table = Family::of(runtime).table;
    format!(
        "flush set {table} sluice live\n\
         add element {table} sluice live {{ {} timeout {}s }}\n",
        element(runtime),
        LIFETIME.as_secs()
    )
}

/// Sends no more streams to the relay; whatever else the rules say stays.
pub fn forget(family: Family) -> String {
    format!("flush set {} sluice live\n", family.table)
}

/// Leaves nothing behind, whether something was there or not. Connections that were sent to the
/// relay already stay with it: the kernel remembers where each leads.
pub fn remove(family: Family) -> String {
    let table = family.table;
    format!("add table {table} sluice\ndelete table {table} sluice\n")
}

fn element(address: SocketAddr) -> String {
    format!("{} . {}", address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_a_node() {
        insta::assert_snapshot!(install(
            "127.0.0.1:34567".parse().unwrap(),
            15190,
            FailurePolicy::Open
        ));
        insta::assert_snapshot!(install(
            "[fd00::12]:10010".parse().unwrap(),
            15190,
            FailurePolicy::Closed
        ));
        insta::assert_snapshot!(renew("[::1]:34567".parse().unwrap()));
        insta::assert_snapshot!(remove(Family::ALL[0]));
    }

    #[test]
    fn the_families_are_each_others_other() {
        for family in Family::ALL {
            assert_ne!(family.other(), family);
            assert_eq!(family.other().other(), family);
        }
    }

    /// kube-proxy masquerades what has the first bit, the kubelet drops what has the second.
    #[test]
    fn the_marks_are_nobody_elses() {
        for mark in [RELAY_MARK, PROBE_MARK] {
            assert_eq!(mark & (0x4000 | 0x8000 | 0x0f00 | 0x80 | 0xffff_0000), 0, "{mark:#x}");
        }
        assert_ne!(RELAY_MARK, PROBE_MARK);
    }
}
