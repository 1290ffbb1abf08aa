//! What the apiserver holds of our objects, in as few bytes as telling a difference takes.

use std::hash::{DefaultHasher, Hasher};

use serde::Serialize;

use crate::{
    api::{
        EvidenceEntry, StreamingNode, StreamingNodeSpec, StreamingNodeStatus, StreamingPolicyStatus,
    },
    cluster::NodeReport,
};

/// A `StreamingNode` as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Published {
    /// The resource version; what is older than a write of our own is an echo.
    pub version: u64,
    /// The digest of the spec and its owner.
    pub spec: u64,
    /// The digest of the status, the agent's part left out.
    pub status: u64,
    /// The spec; `None` where it cannot be read.
    pub stored: Option<StreamingNodeSpec>,
    /// The evidence entries, for their times.
    pub evidence: Vec<EvidenceEntry>,
    /// The verdict, to see transitions.
    pub verdict: String,
    /// What we wrote last, and what was stored after that.
    settled: Option<Settled>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Settled {
    wanted: (u64, u64),
    stored: (u64, u64),
}

/// What a `StreamingNode` ought to be, as digests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PublishedFlags {
    /// The digest of the spec and its owner; `None` where the node keeps what it has.
    pub spec: Option<u64>,
    /// The digest of the status.
    pub status: u64,
}

impl PublishedFlags {
    pub fn of(report: &NodeReport, owner: &str) -> Self {
        Self {
            spec: report.spec.as_ref().map(|spec| digest(&(spec, owner))),
            status: digest(&report.status),
        }
    }
}

impl Published {
    /// Reads a stored object.
    pub fn read(object: &StreamingNode) -> Self {
        let owners = object.metadata.owner_references.iter().flatten();
        let owner = owners.map(|owner| owner.uid.as_str()).next().unwrap_or_default();
        let status = object.status.clone().unwrap_or_default();
        Self {
            version: version(object.metadata.resource_version.as_deref()),
            spec: digest(&(&object.spec, owner)),
            status: digest(&StreamingNodeStatus { agent: None, change: None, ..status.clone() }),
            stored: Some(object.spec.clone()),
            evidence: status.evidence,
            verdict: status.verdict,
            settled: None,
        }
    }

    /// The policy that the node follows.
    pub fn follows(&self) -> Option<&str> {
        self.stored.as_ref()?.policy.as_deref()
    }

    /// An object that cannot be read differs from everything wanted.
    pub fn unreadable(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// The parts that have to be written: spec, status.
    ///
    /// A part that differs from what is wanted although it was written, and has not changed since,
    /// is one that the apiserver changes on its way: writing it again would never end.
    pub fn differs(&self, wanted: PublishedFlags) -> (bool, bool) {
        let spec = wanted.spec.unwrap_or(self.spec);
        let stored = (self.spec, self.status);
        if self.settled == Some(Settled { wanted: (spec, wanted.status), stored }) {
            return (false, false);
        }
        (spec != self.spec, wanted.status != self.status)
    }

    /// Remembers that what is stored is the answer to what was wanted.
    pub fn settle(&mut self, wanted: PublishedFlags) {
        let wanted = (wanted.spec.unwrap_or(self.spec), wanted.status);
        self.settled = Some(Settled { wanted, stored: (self.spec, self.status) });
    }

    /// Takes a newer state of the same object.
    pub fn replace(&mut self, newer: Self) {
        let settled = self.settled;
        *self = Self { settled, ..newer };
    }
}

/// A `StreamingPolicy` as it is stored, as far as its status is concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PublishedPolicy {
    /// The resource version; what is older than a write of our own is an echo.
    pub version: u64,
    settled: Option<(u64, u64)>,
    refused: Option<u64>,
}

impl PublishedPolicy {
    /// Whether this version of the policy is refused for the first time.
    pub fn first_refusal(&mut self) -> bool {
        self.refused.replace(self.version) != Some(self.version)
    }

    /// Remembers that what is stored is the answer to what was wanted.
    pub fn settle(
        &mut self,
        wanted: &StreamingPolicyStatus,
        stored: Option<&StreamingPolicyStatus>,
    ) {
        self.settled = Some((digest(wanted), digest(&stored)));
    }

    /// Whether this was written and became that already; see [`Published::differs`].
    pub fn is_settled(
        &self,
        wanted: &StreamingPolicyStatus,
        stored: Option<&StreamingPolicyStatus>,
    ) -> bool {
        self.settled == Some((digest(wanted), digest(&stored)))
    }
}

/// A resource version as a number. Since Kubernetes 1.35 that is promised; before, it has always
/// been so for what etcd stores. Anything else counts as new.
pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

/// A digest of a value, for comparison with another of the same type.
pub(super) fn digest(value: &impl Serialize) -> u64 {
    struct Sink(DefaultHasher);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(DefaultHasher::new());
    // Neither our types nor the sink can fail.
    let _ = serde_json::to_writer(&mut sink, value);
    sink.0.finish()
}
