//! The rule: an agent or a remediator writes its own part of the status of its own node's object,
//! and nothing else.
//!
//! All agents share one ServiceAccount, and all remediators another, so RBAC cannot tell one node's
//! from the next one's, nor the parts of a status. What can is the token: one that was issued for a
//! pod names that pod to the apiserver, which repeats it in the review as extras of the user. The
//! pod is then looked up, and its `spec.nodeName`, which no pod can choose or change for itself,
//! has to be the object's name. About everybody else RBAC alone decides.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The pod for which a token was issued, since Kubernetes 1.12.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// The pod's uid.
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// The pod's node, since Kubernetes 1.30. Nothing depends on its being there.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The part of a StreamingNode's status that is for one kind of program to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `status.agent`, the agents'.
    Agent,
    /// `status.change`, the remediators'.
    Change,
}

impl Part {
    /// The field's name in the status.
    pub fn field(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Change => "change",
        }
    }

    /// Whose it is, as a sentence begins.
    fn whose(self) -> &'static str {
        match self {
            Self::Agent => "an agent",
            Self::Change => "a remediator",
        }
    }
}

/// A ServiceAccount whose writes are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub account: String,
    /// All that it may write.
    pub part: Part,
}

/// The ServiceAccounts of Sluice's programs on the nodes. About a name that is there twice the first
/// entry decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// The namespace of the ServiceAccounts and of the pods.
    pub namespace: String,
    /// All of them.
    pub all: Vec<Account>,
}

impl Accounts {
    /// The one that this user is, if any.
    fn of(&self, user: &str) -> Option<&Account> {
        let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let is = |account: &&Account| account.account == name;
        (namespace == self.namespace).then(|| self.all.iter().find(is)).flatten()
    }
}

/// What somebody wants to do to a StreamingNode.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The user's name.
    pub user: &'a str,
    /// What the apiserver knows of the user besides.
    pub extra: &'a BTreeMap<String, Vec<String>>,
    /// What is done.
    pub operation: Operation,
    /// The part of the resource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// The object's name, which is its node's.
    pub name: &'a str,
    /// The object as it is stored.
    pub old: Option<&'a Value>,
    /// The object as it would be.
    pub new: Option<&'a Value>,
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is created, by whatever verb.
    Create,
    /// It is changed, by whatever verb.
    Update,
    /// It is deleted.
    Delete,
    /// Anything else.
    Other,
}

/// What a request needs before it can be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// Nothing: it is nobody's whose writes are judged.
    Nothing,
    /// A look at the pod that the token names, which has to run under this account.
    Pod(ClaimedPod, &'a Account),
}

/// The pod that a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedPod {
    /// Its name.
    pub name: String,
    /// Its uid: another pod may have the name by now.
    pub uid: String,
    /// Its node, where the apiserver says it.
    pub node: Option<String>,
}

/// What is known of the pod that a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Pod(Pod),
    /// There is no such pod in the accounts' namespace.
    Nothing,
    /// The apiserver did not say, for this reason.
    Unknown(String),
}

/// What counts of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// The ServiceAccount that it runs under.
    pub account: String,
    /// The node that it was assigned to.
    pub node: Option<String>,
}

/// Why an agent or a remediator may not do what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// It asks for something else than a change of the status.
    #[error("{} may only update the status of its own node's StreamingNode", .0.whose())]
    NotStatus(Part),
    /// The review lacks the object, before or after.
    #[error("the review does not hold the object before and after: it cannot be judged")]
    Incomplete,
    /// It changes what is not its own.
    #[error("{} may only change status.{}, and this changes {path}", part.whose(), part.field())]
    NotItsPart {
        /// What is its own.
        part: Part,
        /// What it changes.
        path: String,
    },
    /// The token was not issued for a pod.
    #[error(
        "the token names no pod: {} has to use a projected serviceAccountToken of its own pod, not \
         a Secret's",
        .0.whose()
    )]
    TokenUnbound(Part),
    /// The apiserver could not be asked for the pod.
    #[error("cannot look up the token's pod {pod}, and so refuse: {why}; try again")]
    PodUnknown {
        /// The pod's name.
        pod: String,
        /// Why not.
        why: String,
    },
    /// The pod is gone.
    #[error("the token's pod {0} does not exist any more")]
    PodGone(String),
    /// Another pod has the name.
    #[error("the token was issued for an earlier pod of the name {0}")]
    PodReplaced(String),
    /// The pod runs under another account.
    #[error("the token's pod {pod} runs under the ServiceAccount {account}, not {expected}")]
    OtherAccount {
        /// The pod's name.
        pod: String,
        /// The account that it runs under.
        account: String,
        /// The token's.
        expected: String,
    },
    /// The pod has no node yet.
    #[error("the token's pod {0} is on no node yet")]
    NoNode(String),
    /// The token and the pod name different nodes.
    #[error("the token names node {token}, and its pod is on node {pod}")]
    NodesDiffer {
        /// The token's node.
        token: String,
        /// The pod's node.
        pod: String,
    },
    /// The object is another node's.
    #[error("the token's pod is on node {own}: it may not write what is said of node {other}")]
    OtherNode {
        /// The pod's node.
        own: String,
        /// The object's.
        other: String,
    },
}

impl Denial {
    /// Every reason.
    pub const REASONS: [&str; 11] = [
        "NotStatus",
        "Incomplete",
        "NotItsPart",
        "TokenUnbound",
        "PodUnknown",
        "PodGone",
        "PodReplaced",
        "OtherAccount",
        "NoNode",
        "NodesDiffer",
        "OtherNode",
    ];

    /// A short, stable name for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotStatus(_) => "NotStatus",
            Self::Incomplete => "Incomplete",
            Self::NotItsPart { .. } => "NotItsPart",
            Self::TokenUnbound(_) => "TokenUnbound",
            Self::PodUnknown { .. } => "PodUnknown",
            Self::PodGone(_) => "PodGone",
            Self::PodReplaced(_) => "PodReplaced",
            Self::OtherAccount { .. } => "OtherAccount",
            Self::NoNode(_) => "NoNode",
            Self::NodesDiffer { .. } => "NodesDiffer",
            Self::OtherNode { .. } => "OtherNode",
        }
    }

    /// Whether the same request may be allowed a moment later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::PodUnknown { .. })
    }
}

/// What has to be known before the request can be judged. What needs no look at a pod is refused
/// here, so that no token makes the apiserver look up anything for a request that is wrong anyway.
///
/// # Errors
/// Where an agent or a remediator asks for what none may do.
pub fn ask<'a>(accounts: &'a Accounts, request: &Request<'_>) -> Result<Question<'a>, Denial> {
    let Some(account) = accounts.of(request.user) else { return Ok(Question::Nothing) };
    let part = account.part;
    if request.operation != Operation::Update || request.subresource != "status" {
        return Err(Denial::NotStatus(part));
    }
    let (Some(old), Some(new)) = (request.old, request.new) else {
        return Err(Denial::Incomplete);
    };
    if let Some(path) = difference(old, new, part) {
        return Err(Denial::NotItsPart { part, path });
    }
    let (Some(name), Some(uid)) = (one(request.extra, POD_NAME), one(request.extra, POD_UID))
    else {
        return Err(Denial::TokenUnbound(part));
    };
    let node = match request.extra.get(NODE_NAME) {
        None => None,
        Some(_) => Some(one(request.extra, NODE_NAME).ok_or(Denial::TokenUnbound(part))?),
    };
    let [name, uid] = [name, uid].map(str::to_owned);
    Ok(Question::Pod(ClaimedPod { name, uid, node: node.map(str::to_owned) }, account))
}

/// Whether the pod that the token names may write the object of this name.
///
/// # Errors
/// Where it may not, or where it is not known whether it may.
pub fn judge(
    account: &Account,
    object: &str,
    named: &ClaimedPod,
    found: &Found,
) -> Result<(), Denial> {
    let name = || named.name.clone();
    let pod = match found {
        Found::Pod(pod) => pod,
        Found::Nothing => return Err(Denial::PodGone(name())),
        Found::Unknown(why) => {
            return Err(Denial::PodUnknown { pod: name(), why: why.clone() });
        }
    };
    if pod.uid != named.uid {
        return Err(Denial::PodReplaced(name()));
    }
    if pod.account != account.account {
        let (account, expected) = (pod.account.clone(), account.account.clone());
        return Err(Denial::OtherAccount { pod: name(), account, expected });
    }
    let Some(node) = pod.node.as_deref().filter(|node| !node.is_empty()) else {
        return Err(Denial::NoNode(name()));
    };
    if let Some(token) = named.node.as_deref().filter(|token| *token != node) {
        return Err(Denial::NodesDiffer { token: token.to_owned(), pod: node.to_owned() });
    }
    if node != object {
        return Err(Denial::OtherNode { own: node.to_owned(), other: object.to_owned() });
    }
    Ok(())
}

/// The extra's value, where there is exactly one.
fn one<'a>(extra: &'a BTreeMap<String, Vec<String>>, key: &str) -> Option<&'a str> {
    match extra.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// Where the two objects differ besides this part of the status and the apiserver's own bookkeeping.
fn difference(old: &Value, new: &Value, part: Part) -> Option<String> {
    for field in keys(old, new) {
        let (old, new) = (old.get(field), new.get(field));
        let path = match field {
            "metadata" => {
                within(old, new, "metadata", &["managedFields", "resourceVersion", "generation"])
            }
            "status" => within(old, new, "status", &[part.field()]),
            _ => (old != new).then(|| field.to_owned()),
        };
        if path.is_some() {
            return path;
        }
    }
    None
}

/// Where two parts differ, some of their fields left aside. A part that is not there is like one
/// that is empty: a program may be the first to write a status.
fn within(old: Option<&Value>, new: Option<&Value>, part: &str, aside: &[&str]) -> Option<String> {
    let nothing = Value::Object(serde_json::Map::new());
    let full = |value: Option<&Value>| match value {
        None | Some(Value::Null) => nothing.clone(),
        Some(value) => value.clone(),
    };
    let (old, new) = (full(old), full(new));
    if !old.is_object() || !new.is_object() {
        return (old != new).then(|| part.to_owned());
    }
    let changed = |field: &&str| !aside.contains(field) && old.get(*field) != new.get(*field);
    keys(&old, &new).into_iter().find(changed).map(|field| format!("{part}.{field}"))
}

fn keys<'a>(old: &'a Value, new: &'a Value) -> BTreeSet<&'a str> {
    [old, new].into_iter().filter_map(Value::as_object).flatten().map(|(key, _)| &**key).collect()
}

#[cfg(test)]
mod tests;
