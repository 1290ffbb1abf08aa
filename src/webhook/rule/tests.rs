//! Every way to be refused, and the few not to be.

use std::sync::LazyLock;

use serde_json::json;

use super::*;

const AGENT: &str = "system:serviceaccount:sluice-system:sluice-agent";
const REMEDIATOR: &str = "system:serviceaccount:sluice-system:sluice-remediator";

static ACCOUNTS: LazyLock<Accounts> = LazyLock::new(|| {
    let of = [("sluice-agent", Part::Agent), ("sluice-remediator", Part::Change)];
    let all = of.map(|(name, part)| Account { account: name.to_owned(), part }).into();
    Accounts { namespace: "sluice-system".to_owned(), all }
});

fn extra(of: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    of.iter().map(|(key, values)| ((*key).to_owned(), owned(values))).collect()
}

fn bound() -> BTreeMap<String, Vec<String>> {
    extra(&[(POD_NAME, &["agent-x"]), (POD_UID, &["u1"])])
}

fn stored() -> Value {
    json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "StreamingNode",
        "metadata": {
            "name": "a", "uid": "n", "resourceVersion": "1", "generation": 1,
            "labels": {"team": "x"}, "managedFields": [{"manager": "sluice-controller"}],
        },
        "spec": {"policy": "gate"},
        "status": {"verdict": "Safe", "agent": {"flag": "On"}},
    })
}

/// The stored object with one value set.
fn with(pointer: &str, value: Value) -> Value {
    let mut object = stored();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

fn account(part: Part) -> &'static Account {
    ACCOUNTS.all.iter().find(|account| account.part == part).unwrap()
}

fn named() -> ClaimedPod {
    ClaimedPod { name: "agent-x".to_owned(), uid: "u1".to_owned(), node: None }
}

/// What an agent, or whoever has this part, is let go on with.
fn let_on(part: Part) -> Result<Question<'static>, Denial> {
    Ok(Question::Pod(named(), account(part)))
}

fn not_its_part(part: Part, path: &str) -> Result<Question<'static>, Denial> {
    Err(Denial::NotItsPart { part, path: path.to_owned() })
}

/// Asks as an agent that updates a status, with what `change` makes of that.
fn asked<'a>(
    new: &'a Value,
    change: impl FnOnce(&mut Request<'a>),
) -> Result<Question<'static>, Denial> {
    static EXTRA: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(bound);
    static OLD: LazyLock<Value> = LazyLock::new(stored);
    let mut request = Request {
        user: AGENT,
        extra: &EXTRA,
        operation: Operation::Update,
        subresource: "status",
        name: "a",
        old: Some(&OLD),
        new: Some(new),
    };
    change(&mut request);
    ask(&ACCOUNTS, &request)
}

#[test]
fn nobody_but_the_programs_on_the_nodes_is_judged() {
    for user in [
        "",
        "admin",
        "sluice-agent",
        "system:serviceaccount:sluice-system:sluice-controller",
        "system:serviceaccount:other:sluice-agent",
        "system:serviceaccount:sluice-system:sluice-agent:x",
        "system:serviceaccount:sluice-system:sluice-agent2",
        "system:serviceaccount:other:sluice-remediator",
        "system:serviceaccount:sluice-system",
        "system:node:a",
    ] {
        let (object, nothing) = (stored(), BTreeMap::new());
        let answer = asked(&object, |request| {
            request.user = user;
            request.extra = &nothing;
            request.operation = Operation::Delete;
            request.subresource = "";
            (request.old, request.new) = (None, None);
        });
        assert_eq!(answer, Ok(Question::Nothing), "{user}");
    }
    assert_eq!(asked(&stored(), |_| {}), let_on(Part::Agent));
    assert_eq!(asked(&stored(), |request| request.user = REMEDIATOR), let_on(Part::Change));
}

#[test]
fn only_updates_of_the_status_are_theirs() {
    for (operation, subresource) in [
        (Operation::Create, ""),
        (Operation::Create, "status"),
        (Operation::Update, ""),
        (Operation::Update, "scale"),
        (Operation::Update, "Status"),
        (Operation::Delete, ""),
        (Operation::Delete, "status"),
        (Operation::Other, "status"),
    ] {
        for (user, part) in [(AGENT, Part::Agent), (REMEDIATOR, Part::Change)] {
            let answer = asked(&stored(), |request| {
                (request.operation, request.subresource) = (operation, subresource);
                request.user = user;
            });
            assert_eq!(answer, Err(Denial::NotStatus(part)), "{operation:?} {subresource}");
        }
    }
    let incomplete = Err(Denial::Incomplete);
    assert_eq!(asked(&stored(), |request| request.old = None), incomplete);
    assert_eq!(asked(&stored(), |request| request.new = None), incomplete);
}

#[test]
fn its_own_part_and_the_bookkeeping_may_change() {
    let without_agent = {
        let mut object = stored();
        object["status"].as_object_mut().unwrap().remove("agent");
        object
    };
    for new in [
        stored(),
        with("/status/agent", json!({"flag": "Off", "since": "2026-01-01T00:00:00Z"})),
        with("/status/agent", Value::Null),
        without_agent,
        with("/metadata/managedFields", json!([])),
        with("/metadata/resourceVersion", json!("2")),
        with("/metadata/generation", json!(2)),
    ] {
        assert_eq!(asked(&new, |_| {}), let_on(Part::Agent), "{new}");
    }
}

#[test]
fn agents_and_remediators_keep_to_their_own_parts() {
    let change = json!({"id": "c1", "phase": "Applied"});
    let changed = with("/status/change", change.clone());
    let reported = with("/status/agent", json!({"flag": "Off"}));
    let mut both = reported.clone();
    both["status"]["change"] = change;
    let wished = with("/spec/change", json!({"id": "c2"}));
    for (user, new, expected) in [
        (REMEDIATOR, &changed, let_on(Part::Change)),
        (REMEDIATOR, &reported, not_its_part(Part::Change, "status.agent")),
        (REMEDIATOR, &both, not_its_part(Part::Change, "status.agent")),
        (REMEDIATOR, &wished, not_its_part(Part::Change, "spec")),
        (AGENT, &reported, let_on(Part::Agent)),
        (AGENT, &changed, not_its_part(Part::Agent, "status.change")),
        (AGENT, &both, not_its_part(Part::Agent, "status.change")),
    ] {
        assert_eq!(asked(new, |request| request.user = user), expected, "{user} {new}");
    }
    // Nor may what is there be taken away.
    let answer = asked(&stored(), |request| request.old = Some(&changed));
    assert_eq!(answer, not_its_part(Part::Agent, "status.change"));
}

#[test]
fn an_agent_may_be_the_first_to_write_a_status() {
    for none in [None, Some(Value::Null), Some(json!({}))] {
        let mut old = stored();
        match none {
            Some(none) => old["status"] = none,
            None => drop(old.as_object_mut().unwrap().remove("status")),
        }
        let mut new = old.clone();
        new["status"] = json!({"agent": {"flag": "On"}});
        assert_eq!(asked(&new, |request| request.old = Some(&old)), let_on(Part::Agent), "{old}");
        new["status"]["verdict"] = json!("Safe");
        let answer = asked(&new, |request| request.old = Some(&old));
        assert_eq!(answer, not_its_part(Part::Agent, "status.verdict"), "{old}");
    }
}

#[test]
fn nothing_else_may_change() {
    let mut without_status = stored();
    without_status.as_object_mut().unwrap().remove("status");
    let mut without_verdict = stored();
    without_verdict["status"].as_object_mut().unwrap().remove("verdict");
    for (new, path) in [
        (with("/status/verdict", json!("Blocks")), "status.verdict"),
        (with("/status/agents", json!({})), "status.agents"),
        (with("/status", json!("agent")), "status"),
        (without_status, "status.verdict"),
        (without_verdict, "status.verdict"),
        (with("/spec/policy", json!("other")), "spec"),
        (with("/spec/proxy", json!({"mode": "Streams"})), "spec"),
        (with("/metadata/labels", json!({"team": "y"})), "metadata.labels"),
        (with("/metadata/annotations", json!({"a": "b"})), "metadata.annotations"),
        (with("/metadata/finalizers", json!(["a/b"])), "metadata.finalizers"),
        (with("/metadata/ownerReferences", json!([])), "metadata.ownerReferences"),
        (with("/metadata/name", json!("b")), "metadata.name"),
        (with("/kind", json!("StreamingPolicy")), "kind"),
        (with("/more", json!(1)), "more"),
        (json!("text"), "apiVersion"),
    ] {
        assert_eq!(asked(&new, |_| {}), not_its_part(Part::Agent, path), "{new}");
    }
}

#[test]
fn a_token_has_to_name_its_pod_once() {
    let both = [(POD_NAME, &["agent-x"][..]), (POD_UID, &["u1"][..])];
    for of in [
        extra(&[]),
        extra(&both[..1]),
        extra(&both[1..]),
        extra(&[(POD_NAME, &[]), both[1]]),
        extra(&[(POD_NAME, &[""]), both[1]]),
        extra(&[(POD_NAME, &["agent-x", "agent-y"]), both[1]]),
        extra(&[both[0], (POD_UID, &["u1", "u2"])]),
        extra(&[both[0], both[1], (NODE_NAME, &[])]),
        extra(&[both[0], both[1], (NODE_NAME, &["a", "b"])]),
    ] {
        let object = stored();
        let answer = asked(&object, |request| request.extra = &of);
        assert_eq!(answer, Err(Denial::TokenUnbound(Part::Agent)), "{of:?}");
    }
    let of = extra(&[both[0], both[1], (NODE_NAME, &["a"])]);
    let node = Some("a".to_owned());
    let object = stored();
    let answer = asked(&object, |request| request.extra = &of);
    assert_eq!(answer, Ok(Question::Pod(ClaimedPod { node, ..named() }, account(Part::Agent))));
}

#[test]
fn the_pod_decides() {
    let pod = |uid: &str, account: &str, node: Option<&str>| {
        let node = node.map(str::to_owned);
        Found::Pod(Pod { uid: uid.to_owned(), account: account.to_owned(), node })
    };
    let here = pod("u1", "sluice-agent", Some("a"));
    let token = |node: &str| ClaimedPod { node: Some(node.to_owned()), ..named() };
    for (object, named, found, expected) in [
        ("a", named(), here.clone(), ""),
        ("a", token("a"), here.clone(), ""),
        ("b", named(), here.clone(), "OtherNode"),
        ("", named(), here.clone(), "OtherNode"),
        ("b", token("b"), here.clone(), "NodesDiffer"),
        ("a", token("b"), here.clone(), "NodesDiffer"),
        ("a", named(), Found::Nothing, "PodGone"),
        ("a", named(), Found::Unknown("no answer".to_owned()), "PodUnknown"),
        ("a", named(), pod("u2", "sluice-agent", Some("a")), "PodReplaced"),
        ("a", named(), pod("", "sluice-agent", Some("a")), "PodReplaced"),
        ("a", named(), pod("u1", "default", Some("a")), "OtherAccount"),
        ("a", named(), pod("u1", "sluice-remediator", Some("a")), "OtherAccount"),
        ("a", named(), pod("u1", "", Some("a")), "OtherAccount"),
        ("a", named(), pod("u1", "sluice-agent", None), "NoNode"),
        ("", named(), pod("u1", "sluice-agent", Some("")), "NoNode"),
    ] {
        let denial = judge(account(Part::Agent), object, &named, &found).err();
        let reason = denial.as_ref().map_or("", Denial::reason);
        assert_eq!(reason, expected, "{object:?} {named:?} {found:?}");
        let passing = denial.as_ref().is_some_and(Denial::is_passing);
        assert_eq!(passing, reason == "PodUnknown", "{denial:?}");
    }
}

#[test]
fn messages_say_what_is_wrong() {
    let other = Denial::OtherNode { own: "a".to_owned(), other: "b".to_owned() };
    assert_eq!(
        other.to_string(),
        "the token's pod is on node a: it may not write what is said of node b"
    );
    for (denial, message) in [
        (
            Denial::NotStatus(Part::Change),
            "a remediator may only update the status of its own node's StreamingNode",
        ),
        (
            Denial::NotItsPart { part: Part::Change, path: "status.agent".to_owned() },
            "a remediator may only change status.change, and this changes status.agent",
        ),
        (
            Denial::TokenUnbound(Part::Agent),
            "the token names no pod: an agent has to use a projected serviceAccountToken of its own \
             pod, not a Secret's",
        ),
    ] {
        assert_eq!(denial.to_string(), message);
    }
    let unknown = Denial::PodUnknown { pod: "agent-x".to_owned(), why: "no answer".to_owned() };
    assert_eq!(
        unknown.to_string(),
        "cannot look up the token's pod agent-x, and so refuse: no answer; try again"
    );
}
