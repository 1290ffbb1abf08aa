//! What has to be done before an upgrade, as every migration says it.

use super::apiserver::Apiserver;
use crate::kubernetes::version::Minor;

/// The manifest from which a kubeadm control plane starts its apiserver.
pub const KUBEADM_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Have a runtime stream in a way that the kubelet trusts.
    TrustRuntime,
    /// Find out how a kubelet is started.
    LookAtKubelet,
    /// Take the flag off a kubelet.
    RemoveKubeletFlag,
    /// Upgrade a kubelet that no flag keeps from redirecting.
    UpgradeKubelet,
    /// Find out how an apiserver is started.
    LookAtApiserver,
    /// Take the gate out of an apiserver's arguments.
    RemoveGate,
    /// Add `create` to a role that gives `get` on streams.
    AddCreateRight,
    /// Find out with which URL a runtime answers a stream.
    LookAtRuntime,
    /// Upgrade a runtime that answers a stream with a URL without a scheme.
    UpgradeRuntime,
    /// Set a gate of a kubelet, while that kubelet is upgraded.
    SetKubeletGate,
    /// Take a gate out of a kubelet's configuration.
    RemoveKubeletGate,
    /// Upgrade.
    Upgrade,
}

impl Action {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrustRuntime => "TrustRuntime",
            Self::LookAtKubelet => "LookAtKubelet",
            Self::RemoveKubeletFlag => "RemoveKubeletFlag",
            Self::UpgradeKubelet => "UpgradeKubelet",
            Self::LookAtApiserver => "LookAtApiserver",
            Self::RemoveGate => "RemoveGate",
            Self::AddCreateRight => "AddCreateRight",
            Self::LookAtRuntime => "LookAtRuntime",
            Self::UpgradeRuntime => "UpgradeRuntime",
            Self::SetKubeletGate => "SetKubeletGate",
            Self::RemoveKubeletGate => "RemoveKubeletGate",
            Self::Upgrade => "Upgrade",
        }
    }
}

/// An argument, or a line of a file, that changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArgumentChange {
    /// What stands there: exactly, or the flag alone where its value is not known. `None` where
    /// nothing does.
    pub argument: Option<String>,
    /// What is left of it, or comes there; `None` where it goes.
    pub becomes: Option<String>,
}

impl ArgumentChange {
    /// Something that goes.
    pub fn gone(argument: String) -> Self {
        Self { argument: Some(argument), becomes: None }
    }

    /// Something that comes.
    pub fn added(line: String) -> Self {
        Self { argument: None, becomes: Some(line) }
    }
}

impl From<(String, Option<String>)> for ArgumentChange {
    fn from((argument, becomes): (String, Option<String>)) -> Self {
        Self { argument: Some(argument), becomes }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// Without it the upgrade breaks something. Otherwise it may be done.
    pub needed: bool,
    /// The nodes, by name; for an apiserver of which no node is known, its address.
    pub nodes: Vec<String>,
    /// The files that may have to be edited.
    pub files: Vec<String>,
    /// The arguments that change.
    pub changes: Vec<ArgumentChange>,
    /// What to do and why. Never empty.
    pub message: String,
}

/// Who is started with gates, too, and is nobody's that is judged.
const NOT_JUDGED: &str = "The feature gates of kube-scheduler, kube-controller-manager and kube-proxy \
                          are not judged, and may keep these from starting as well: look at them before.";

/// The upgrade itself, which is the last step.
pub fn upgrade(instances: &[Apiserver], target: Minor) -> Step {
    let behind = |i: &&Apiserver| i.minor.is_none_or(|minor| minor < target);
    let nodes: Vec<String> = instances.iter().filter(behind).map(|i| i.name.clone()).collect();
    let message = if nodes.is_empty() && !instances.is_empty() {
        format!("The apiservers run {target}. Upgrade the kubelets. {NOT_JUDGED}")
    } else {
        format!(
            "Upgrade the apiservers to {target}, one minor after the other, and after them the \
             kubelets. {NOT_JUDGED}"
        )
    };
    let (files, changes) = (Vec::new(), Vec::new());
    Step { action: Action::Upgrade, needed: true, nodes, files, changes, message }
}

/// The steps of all migrations as one list: each migration's own in their order, then the upgrade.
pub fn together(migrations: impl IntoIterator<Item = Vec<Step>>) -> Vec<Step> {
    let mut last = None;
    let mut all: Vec<Step> = Vec::new();
    for step in migrations.into_iter().flatten() {
        match step.action {
            Action::Upgrade => last = Some(step),
            _ => all.push(step),
        }
    }
    all.extend(last);
    all
}
