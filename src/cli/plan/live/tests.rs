use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::test_support::{self, failure};

/// A cluster that gives these answers. Only reads are let through.
async fn read_from(answers: &[(&str, u16, Value)]) -> Result<Objects, Error> {
    let (client, serving) = test_support::apiserver(answers);
    let objects = read(client, None).await;
    serving.await.unwrap();
    objects
}

fn nodes(names: &[&str], more: &str) -> Value {
    let items: Vec<Value> = names.iter().map(|name| json!({"metadata": {"name": name}})).collect();
    json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {"continue": more}, "items": items})
}

const NODES: &str = "/api/v1/nodes?&limit=500";
const VERSION: &str = "/version";
const POLICIES: &str = "/apis/sluice.dev/v1alpha1/streamingpolicies?&limit=500";
const PODS: &str =
    "/api/v1/namespaces/kube-system/pods?&fieldSelector=spec.serviceAccountName%3D&limit=500";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";

fn version() -> Value {
    json!({"major": "1", "minor": "21", "gitVersion": "v1.21.5-eks-1", "gitCommit": "",
        "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""})
}

#[tokio::test]
async fn a_cluster_without_our_kinds_has_nodes_in_pages_and_a_version() {
    let objects = read_from(&[
        (NODES, 200, nodes(&["a", "b"], "next")),
        ("/api/v1/nodes?&limit=500&continue=next", 200, nodes(&["c"], "")),
        (VERSION, 200, version()),
        (PODS, 200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []})),
    ])
    .await
    .unwrap();
    assert_eq!(objects.nodes.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((objects.policies.len(), objects.endpoints), (0, None));
    assert_eq!(objects.served.map(|minor| minor.0), Some(21));
    assert_eq!(objects.warnings, Vec::<String>::new());
}

#[tokio::test]
async fn pages_that_expire_are_asked_for_at_once() {
    let objects = read_from(&[
        (NODES, 200, nodes(&["a"], "next")),
        ("/api/v1/nodes?&limit=500&continue=next", 410, failure(410, "Expired")),
        ("/api/v1/nodes?", 200, nodes(&["b", "c"], "")),
    ])
    .await
    .unwrap();
    assert_eq!(objects.nodes.keys().collect::<Vec<_>>(), ["b", "c"], "one moment, not two");
}

#[tokio::test]
async fn what_must_not_be_seen_of_apiservers_is_a_warning() {
    let objects = read_from(&[
        (NODES, 200, nodes(&["a"], "")),
        (PODS, 403, failure(403, "Forbidden")),
        (ENDPOINTS, 403, failure(403, "Forbidden")),
        (VERSION, 200, version()),
    ])
    .await
    .unwrap();
    let told = [
        "the pods in kube-system cannot be read, so apiservers may stay unknown: Forbidden",
        "the endpoints of the Service kubernetes cannot be read, so apiservers may stay unknown: \
         Forbidden",
    ];
    assert_eq!(objects.warnings, told);
    assert!(objects.endpoints_hidden && objects.hint.unwrap().contains("sluice-reader"));
    assert_eq!(objects.served.map(|minor| minor.0), Some(21));
}

#[tokio::test]
async fn nodes_that_must_not_be_seen_are_an_error() {
    let refused = read_from(&[(NODES, 403, failure(403, "Forbidden"))]).await;
    assert_eq!(refused.map(|_| ()).map_err(|error| error.reason()), Err("Forbidden"));
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_kept_as_such() {
    let list = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicyList", "metadata": {},
    "items": [
        {"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
         "metadata": {"name": "bad"}, "spec": {"streamingProxyRedirects": "Perhaps"}},
        {"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingPolicy",
         "metadata": {"name": "good"}, "spec": {}},
    ]});
    let objects =
        read_from(&[(NODES, 200, nodes(&["a"], "")), (POLICIES, 200, list)]).await.unwrap();
    assert!(
        matches!(&objects.policies["bad"], PolicyObject::Unreadable { why, .. } if why.contains("Perhaps"))
    );
    assert!(matches!(&objects.policies["good"], PolicyObject::Readable(_)));
}

#[tokio::test]
async fn agents_that_have_reported_are_looked_for() {
    const KNOWN: &str = "/apis/sluice.dev/v1alpha1/streamingnodes?&limit=500";
    const AGENTS: &str = "/api/v1/pods?&labelSelector=app.kubernetes.io%2Fname%3Dsluice%2Capp.kubernetes.io%2Fcomponent%3Dagent&limit=500";
    let known = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNodeList",
    "metadata": {}, "items": [{
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode",
        "metadata": {"name": "a"}, "spec": {},
        "status": {"agent": {"flag": "Absent", "since": "2026-01-01T00:00:00Z"}},
    }]});
    let pods = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [{
        "metadata": {"name": "sluice-agent-x", "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "sluice-agent", "uid": "d",
            "controller": true,
        }]},
        "spec": {"nodeName": "a", "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }]});
    for (answer, agents, warnings) in [
        ((200, pods), BTreeMap::from([("a".to_owned(), true)]), 0),
        ((403, failure(403, "Forbidden")), BTreeMap::new(), 1),
    ] {
        let (code, body) = answer;
        let objects = read_from(&[
            (NODES, 200, nodes(&["a"], "")),
            (KNOWN, 200, known.clone()),
            (AGENTS, code, body),
        ])
        .await
        .unwrap();
        assert_eq!(objects.agents, agents);
        let said = objects.warnings.iter().filter(|warning| warning.contains("agents' pods"));
        assert_eq!(said.count(), warnings, "{:?}", objects.warnings);
    }
}

/// Who may only read nodes.
#[tokio::test]
async fn what_must_not_be_read_of_our_kinds_is_hidden_where_they_are_installed() {
    const KNOWN: &str = "/apis/sluice.dev/v1alpha1/streamingnodes?&limit=500";
    const GROUP: &str = "/apis/sluice.dev/v1alpha1";
    let group = json!({
        "kind": "APIResourceList", "groupVersion": "sluice.dev/v1alpha1", "resources": [{
            "name": "streamingnodes", "singularName": "", "namespaced": false,
            "kind": "StreamingNode", "verbs": ["list"],
        }],
    });
    for (code, answer, hidden) in [
        (200, group, &["StreamingPolicies", "StreamingNodes"][..]),
        (404, failure(404, "NotFound"), &[]),
    ] {
        let objects = read_from(&[
            (NODES, 200, nodes(&["a"], "")),
            (POLICIES, 403, failure(403, "Forbidden")),
            (KNOWN, 403, failure(403, "Forbidden")),
            (GROUP, code, answer),
        ])
        .await
        .unwrap();
        assert_eq!(objects.hidden, hidden);
        let said = objects.warnings.iter().filter(|text| text.contains("nothing is found safe"));
        assert_eq!(said.count(), hidden.len(), "{:?}", objects.warnings);
    }
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// The answers about all four kinds: jane has `get` on exec in a namespace, and nothing else.
fn rights() -> [(String, u16, Value); 4] {
    let list = |kind: &str, items: Value| {
        let version = "rbac.authorization.k8s.io/v1";
        json!({"apiVersion": version, "kind": format!("{kind}List"), "metadata": {}, "items": items})
    };
    let role = json!([{"metadata": {"name": "r", "namespace": "a"},
        "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]}]);
    let binding = json!([{"metadata": {"name": "b", "namespace": "a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "jane"}]}]);
    [
        (format!("{RBAC}/roles?&limit=500"), 200, list("Role", role)),
        (format!("{RBAC}/clusterroles?&limit=500"), 200, list("ClusterRole", json!([]))),
        (format!("{RBAC}/rolebindings?&limit=500"), 200, list("RoleBinding", binding)),
        (
            format!("{RBAC}/clusterrolebindings?&limit=500"),
            200,
            list("ClusterRoleBinding", json!([])),
        ),
    ]
}

/// Reads a cluster of 1.34 with an upgrade in mind, or without. What POST is answered with is last.
async fn read_rights(target: u16, forbidden: &str, review: Option<(u16, Value)>) -> Objects {
    let mut answers = vec![(NODES.to_owned(), 200, nodes(&["a"], ""))];
    for (path, code, body) in rights() {
        let denied = !forbidden.is_empty() && path.contains(forbidden);
        answers.push(match denied {
            true => (path, 403, failure(403, "Forbidden")),
            false => (path, code, body),
        });
    }
    let (client, serving) = match review {
        Some((code, body)) => test_support::apiserver_with(&borrowed(&answers), (code, body)),
        None => test_support::apiserver(&borrowed(&answers)),
    };
    let objects = read(client, Some(Minor(target))).await;
    serving.await.unwrap();
    objects.unwrap()
}

fn borrowed(answers: &[(String, u16, Value)]) -> Vec<(&str, u16, Value)> {
    answers.iter().map(|(path, code, body)| (path.as_str(), *code, body.clone())).collect()
}

fn reviewed(allowed: bool) -> Option<(u16, Value)> {
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {}, "status": {"allowed": allowed}});
    Some((201, body))
}

#[tokio::test]
async fn roles_are_read_where_create_is_asked_for() {
    let before = read_rights(34, "", None).await;
    assert!(before.rights.is_untouched(), "an apiserver of 1.34 asks for no create");
    let objects = read_rights(35, "", reviewed(false)).await;
    let rights = &objects.rights;
    assert_eq!((rights.roles.len(), rights.bindings.len()), (1, 1));
    assert!(rights.whole && rights.unread().is_empty() && rights.confirmed.is_empty());
    assert_eq!(objects.notes.len(), 1, "{:?}", objects.notes);
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_is_unread() {
    let objects = read_rights(35, "/roles?", None).await;
    let rights = &objects.rights;
    assert_eq!(rights.unread().len(), 1);
    assert_eq!(rights.refused.values().collect::<Vec<_>>(), ["Forbidden"]);
    assert_eq!(rights.bindings.len(), 1);
}

#[tokio::test]
async fn another_authorizer_is_asked_where_it_may_be() {
    for (review, confirmed) in
        [(reviewed(true), 1), (reviewed(false), 0), (Some((403, failure(403, "Forbidden"))), 0)]
    {
        let objects = read_rights(35, "", review).await;
        assert_eq!(objects.rights.confirmed.len(), confirmed, "{:?}", objects.notes);
        assert_eq!(objects.notes.len(), 1);
    }
}

/// Its agent may say that the node redirects, and nobody hears it.
#[tokio::test]
async fn a_node_of_ours_that_cannot_be_read_may_stand_in_the_way() {
    let bad = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNode", "metadata": {"name": "a"},
        "spec": {"change": "yes"},
    });
    let list = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "StreamingNodeList",
        "metadata": {}, "items": [bad.clone(), bad]});
    const KNOWN: &str = "/apis/sluice.dev/v1alpha1/streamingnodes?&limit=500";
    let objects = read_from(&[(NODES, 200, nodes(&["a"], "")), (KNOWN, 200, list)]).await.unwrap();
    assert_eq!(objects.hidden, ["StreamingNodes"]);
}
