//! What the tests of this module play: a node's folders, a clock, and an apiserver that answers.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{
    cluster_reader::{ClusterReader, Error, Readiness},
    desired::DesiredChange,
    executor::{Executor, ExecutorTiming},
    file,
    gate::ApiserverGate,
    guard::{self, PullPolicy},
    journal::{Journal, Store},
    permit::{PermitInputs, Policy, Trust},
};
use crate::{
    api::{
        ApiserversStatus, Apply, Change, ChangeKind, ChangeReport, GateSetting, GateWish,
        NodesWish, Permit, Remediation, StreamingPolicy, StreamingPolicySpec,
        StreamingPolicyStatus,
    },
    node::host::Host,
};

pub const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

pub const ORIGINAL: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=10.0.0.1 # a comment
    image: k8s.gcr.io/kube-apiserver:v1.20.2
    name: kube-apiserver
";

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
}

/// The clock of this thread: so many seconds after an arbitrary time.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub fn now() -> Timestamp {
    at(NOW.get())
}

pub fn set_clock(second: i64) {
    NOW.set(second);
}

pub fn advance(seconds: i64) {
    NOW.set(NOW.get() + seconds);
}

pub fn timing() -> ExecutorTiming {
    ExecutorTiming { now, tick: Duration::from_millis(1), arming: Duration::from_secs(60) }
}

pub fn change(id: &str, kind: ChangeKind) -> Change {
    let gate = (kind == ChangeKind::ApiserverGate).then_some(GateSetting::Disabled);
    Change {
        id: id.to_owned(),
        kind,
        gate,
        policy: "cluster".to_owned(),
        verdict: Permit { resource_version: "70".to_owned(), generation: 3, at: Time(now()) },
        deadline_seconds: 180,
        confirmed: false,
    }
}

pub fn wants(change: &Change) -> DesiredChange {
    DesiredChange::Node { wanted: Some(Box::new(change.clone())), reported: None }
}

pub fn confirms(change: &Change) -> DesiredChange {
    wants(&Change { confirmed: true, ..change.clone() })
}

pub const NOTHING_WANTED: DesiredChange = DesiredChange::Node { wanted: None, reported: None };

/// A policy that permits all that is asked for.
pub fn policy() -> StreamingPolicy {
    let spec = StreamingPolicySpec {
        streaming_proxy_redirects: Some(GateWish::Disabled),
        apply: Apply::StaticPod,
        nodes: Some(NodesWish { remediation: Remediation::KubeletFlag, max_unavailable: 1 }),
        ..StreamingPolicySpec::default()
    };
    let mut policy = StreamingPolicy::new("cluster", spec);
    policy.metadata.generation = Some(3);
    policy.metadata.resource_version = Some("70".to_owned());
    policy.status = Some(StreamingPolicyStatus {
        conditions: vec![Condition {
            last_transition_time: Time(at(-100)),
            message: "No node redirects.".to_owned(),
            observed_generation: Some(3),
            reason: "NoNodeRedirects".to_owned(),
            status: "True".to_owned(),
            type_: "SafeToDisable".to_owned(),
        }],
        apiservers: ApiserversStatus {
            oldest: Some("1.20".to_owned()),
            newest: Some("1.20".to_owned()),
            count: 1,
            instances: Vec::new(),
        },
        ..StreamingPolicyStatus::default()
    });
    policy
}

/// What the apiserver answers; nothing while it is away.
#[derive(Clone)]
pub struct Answers(Arc<Mutex<Known>>);

pub struct Known {
    pub scene: Option<PermitInputs>,
    pub readiness: Option<Readiness>,
}

impl Answers {
    pub fn new() -> Self {
        let policy = Policy::Is(Box::new(policy()));
        Self(Arc::new(Mutex::new(Known {
            scene: Some(PermitInputs {
                policy,
                blocking: Vec::new(),
                unjudged: Vec::new(),
                trust: Trust::Given,
            }),
            readiness: Some(Readiness { ready: true, heartbeat: Some(at(-5)) }),
        })))
    }

    /// The apiserver is there, or is away.
    pub fn reach(&self, there: bool) {
        let known = there.then(|| Self::new().0.lock().unwrap().scene.take()).flatten();
        self.edit(|answers| answers.scene = known);
    }

    pub fn edit(&self, edit: impl FnOnce(&mut Known)) {
        edit(&mut self.0.lock().unwrap());
    }
}

impl ClusterReader for Answers {
    async fn scene(&self, _: &Change) -> Result<PermitInputs, Error> {
        self.0.lock().unwrap().scene.clone().ok_or(Error::Timeout)
    }

    async fn readiness(&self) -> Result<Readiness, Error> {
        self.0.lock().unwrap().readiness.ok_or(Error::Timeout)
    }
}

/// A node with an apiserver's manifest.
pub struct Node {
    folder: TempDir,
    pub answers: Answers,
    pub told: watch::Sender<Option<ChangeReport>>,
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (told, _) = watch::channel(None);
        let node = Self { folder, answers: Answers::new(), told };
        node.write(MANIFEST, ORIGINAL);
        node
    }

    pub fn host(&self) -> Host {
        Host::new(self.folder.path().join("host"))
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.host().path(path)
    }

    /// Writes a file of the node as an administrator's editor does: a new one takes its place.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let next = path.with_extension("editor");
        fs::write(&next, text).unwrap();
        fs::rename(next, path).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// All names in the folder of a file of the node.
    pub fn names_beside(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path).parent().unwrap()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn store(&self, kind: ChangeKind) -> Store {
        Store::open(&self.state(), kind, self.host()).unwrap()
    }

    pub fn journal(&self, kind: ChangeKind) -> Option<Journal> {
        self.store(kind).load().unwrap()
    }

    /// What was said last.
    pub fn report(&self) -> Option<ChangeReport> {
        self.told.borrow().clone()
    }

    /// The phase and the reason that were said last.
    pub fn said(&self) -> String {
        let Some(report) = self.report() else { return String::new() };
        let (phase, reason) = (report.phase.as_str(), report.reason.as_str());
        assert!(ChangeReport::PHASES.contains(&phase), "{phase}");
        assert!(ChangeReport::REASONS.contains(&reason), "{reason}");
        format!("{} {}", report.phase, report.reason)
    }

    /// A remediator for the manifest that has just been started.
    pub fn gate_remediator(&self) -> Executor<ApiserverGate, Answers> {
        self.gate_remediator_with(timing())
    }

    pub fn gate_remediator_with(&self, timing: ExecutorTiming) -> Executor<ApiserverGate, Answers> {
        let store = self.store(ChangeKind::ApiserverGate);
        let handler = ApiserverGate {
            manifest: MANIFEST.to_owned(),
            host: self.host(),
            state: store.folder().to_owned(),
            guard: guard::Template {
                image: "sluice:1".to_owned(),
                pull_policy: PullPolicy::Never,
                state: "/var/lib/sluice/remediator".to_owned(),
                manifests: "/etc/kubernetes/manifests".to_owned(),
                log: "info".to_owned(),
                log_format: "json".to_owned(),
            },
        };
        let (answers, told) = (self.answers.clone(), self.told.clone());
        Executor::new(store, handler, answers, "cp1".to_owned(), timing, told)
    }

    /// Whether the guard's manifest is in the folder.
    pub fn guard_is_placed(&self) -> bool {
        self.guard_manifest().exists()
    }

    pub fn guard_manifest(&self) -> PathBuf {
        self.path(MANIFEST).with_file_name(guard::MANIFEST)
    }

    /// The guard that the kubelet starts from the manifest, if there is one.
    pub fn guard(&self) -> Option<guard::Guard> {
        let text = fs::read_to_string(self.guard_manifest()).ok()?;
        let pod: serde_json::Value = serde_json::from_str(&text).unwrap();
        let change = pod["metadata"]["annotations"]["sluice.dev/change"].as_str().unwrap();
        Some(guard::Guard {
            store: self.store(ChangeKind::ApiserverGate),
            host: self.host(),
            settings: guard::GuardSettings {
                change: change.to_owned(),
                state: self.state(),
                manifests: folder(&self.path(MANIFEST)),
                host: self.path("/"),
                tick: Duration::from_millis(1),
                leave: Duration::from_secs(60),
            },
            began: Instant::now(),
            clock: now,
        })
    }
}

fn folder(path: &Path) -> PathBuf {
    path.parent().unwrap().to_owned()
}

/// Turns until there is nothing to do.
pub async fn settle<T: super::handler::ChangeHandler>(
    remediator: &mut Executor<T, Answers>,
    desired: &DesiredChange,
) {
    while remediator.turn(desired).await.unwrap() {}
}

/// No fault befalls this thread, and its clock is at the beginning.
pub fn fresh() {
    file::fault::script(file::fault::Fault::None);
    set_clock(0);
}
