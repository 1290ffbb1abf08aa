//! Rights to streams, as `sluice plan` judges them from files.

use serde_json::Value;

use super::{Ran, SAFE, apiserver, condition, items, plan, policy};

/// What every cluster has beside what a test is about: objects of each kind.
pub const BUILT_IN: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: cluster-admin}, rules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: cluster-admin}, roleRef: {kind: ClusterRole, name: cluster-admin}, subjects: [{kind: Group, name: 'system:masters'}]}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: x, namespace: kube-system}, rules: []}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: x, namespace: kube-system}, roleRef: {kind: Role, name: x}}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: x, namespace: kube-public}, rules: []}
- {apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: x, namespace: kube-public}, roleRef: {kind: Role, name: x}}
";

/// A Role with this rule, bound to a user and a ServiceAccount.
fn role(name: &str, resources: &str, verbs: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {name}, namespace: team}}
rules: [{{apiGroups: [''], resources: [{resources}], verbs: [{verbs}]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {name}, namespace: team}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}
subjects:
- {{kind: User, apiGroup: rbac.authorization.k8s.io, name: jane}}
- {{kind: ServiceAccount, name: ci, namespace: team}}
"
    )
}

fn cluster(version: &str, more: &[&str]) -> String {
    // What else an upgrade depends on is known, and good.
    let said = "{sluice.dev/streaming-gates: '', sluice.dev/streaming-url: Absolute}";
    let node = SAFE
        .replace("name: worker-1\n", &format!("name: worker-1\n  annotations: {said}\n"))
        .replace(
            "v1.20.15",
            &format!("{version}\n    containerRuntimeVersion: containerd://2.1.4"),
        );
    // A kubelet of 1.36 declares that it takes WebSockets.
    let node = if version.starts_with("v1.36") {
        node.replace("status:\n", "status:\n  declaredFeatures: [ExtendWebSocketsToKubelet]\n")
    } else {
        node
    };
    let mut all = vec![node, apiserver("cp", version, "")];
    all.extend(more.iter().map(|more| (*more).to_owned()));
    all.join("---\n")
}

/// A cluster of 1.34 that has these roles.
fn before(roles: &[&str]) -> String {
    cluster("v1.34.4", &[&[BUILT_IN], roles].concat())
}

fn upgraded(input: &str) -> Ran {
    plan(input, &["--target", "1.35"])
}

#[test]
fn who_has_get_only_keeps_an_upgrade_from_being_made() {
    let read = role("read", "pods, pods/log, pods/exec, pods/attach", "get, list");
    let input = before(&[&read]);
    let ran = upgraded(&input);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
    insta::assert_snapshot!("rights", ran.stdout);
    // Nothing asks for create at 1.34, and a target that is none asks nothing.
    for more in [&[][..], &["--target", "1.34"]] {
        let ran = plan(&input, more);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{more:?}");
        assert!(!ran.stdout.contains("Rights"), "{}", ran.stdout);
    }

    let items = items(&input, &["--target", "1.35"]);
    let ahead = condition(&items[0], "UpgradeSafe");
    assert_eq!((&ahead["status"], &ahead["reason"]), (&"False".into(), &"RightsUnsafe".into()));
    let of_kind = |kind: &str| items.iter().find(|item| item["kind"] == kind).unwrap();
    let rights = of_kind("StreamRights");
    assert_eq!((&rights["safe"], &rights["reason"]), (&false.into(), &"GetWithoutCreate".into()));
    let subjects: Vec<&Value> =
        rights["findings"].as_array().unwrap().iter().map(|f| &f["subject"]["name"]).collect();
    assert_eq!(subjects, ["jane", "ci"]);
    let rule = serde_json::json!({"apiGroups": [""], "resources": ["pods/attach", "pods/exec"], "verbs": ["create"]});
    assert_eq!(rights["changes"][0]["rules"], serde_json::json!([rule]));
    let steps = of_kind("UpgradePlan")["steps"].as_array().unwrap();
    let actions: Vec<&Value> = steps.iter().map(|step| &step["action"]).collect();
    assert_eq!(actions, ["AddCreateRight", "Upgrade"]);
    // What was printed can be read again, and says nothing new.
    let printed = plan(&input, &["--target", "1.35", "-o", "yaml"]).stdout;
    assert_eq!(upgraded(&format!("{input}---\n{printed}")).code, Some(2));

    // With the rule that is printed, nothing stands in the way.
    let rule = steps[0]["changes"][0]["becomes"].as_str().unwrap().replace('\n', "\n  ");
    let mended = read
        .replace("rules: [{", "rules:\n  - {")
        .replace("]}]\n---", &format!("]}}\n  {rule}\n---"));
    let ran = upgraded(&before(&[&mended]));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let verdict = "Rights to stream at 1.35: Safe: CreateIsThere. ";
    assert!(ran.stdout.contains(verdict), "{}", ran.stdout);
}

#[test]
fn who_reads_everything_is_told_of_and_keeps_nothing_back() {
    let ran = upgraded(&before(&[&role("read", "'*'", "get, list, watch")]));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    assert!(ran.stdout.contains("Safe: ReadOnlyStreams. "), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("Warns\n") && !ran.stdout.contains("AddCreateRight"),
        "{}",
        ran.stdout
    );
}

#[test]
fn rights_that_were_not_given_are_not_safe() {
    let none = cluster("v1.34.4", &[]);
    let ran = upgraded(&none);
    assert_eq!(ran.code, Some(2));
    for text in [&ran.stderr, &ran.stdout] {
        assert!(
            text.contains("kubectl get roles,clusterroles,rolebindings,clusterrolebindings -A"),
            "{text}"
        );
    }
    assert!(ran.stdout.contains("Refused: RightsUnknown"), "{}", ran.stdout);
    // As a part is not: every cluster has all four kinds.
    let some = BUILT_IN.replace("kind: RoleBinding", "kind: Binding");
    let ran = upgraded(&cluster("v1.34.4", &[&some]));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.starts_with("warning: No rolebindings were given"), "{}", ran.stderr);
    // Nor is a namespace, though the ClusterRoles are those of all.
    let both = role("both", "pods/exec", "get, create");
    for namespace in ["team", "kube-system"] {
        let of_one = BUILT_IN.replace("kube-system", namespace).replace("kube-public", namespace);
        let ran = upgraded(&cluster("v1.34.4", &[&of_one, &both.replace("team", namespace)]));
        assert_eq!(ran.code, Some(2));
        let warning = "warning: Not all roles and rolebindings were given, as those of kube-system and kube-public, ";
        assert!(ran.stderr.starts_with(warning), "{}", ran.stderr);
        assert!(
            ran.stderr
                .contains("kubectl get roles,clusterroles,rolebindings,clusterrolebindings -A")
        );
        assert!(ran.stdout.contains("Refused: RightsUnknown"), "{}", ran.stdout);
    }
    let unread = items(
        &cluster("v1.34.4", &[&BUILT_IN.replace("kube-public", "team")]),
        &["--target", "1.35"],
    );
    let rights = unread.iter().find(|item| item["kind"] == "StreamRights").unwrap();
    assert_eq!(rights["unread"], serde_json::json!(["Role", "RoleBinding"]));
    // A role that is bound and not there may give anything.
    let bound =
        BUILT_IN.replacen("roleRef: {kind: Role, name: x}", "roleRef: {kind: Role, name: y}", 1);
    let ran = upgraded(&cluster("v1.34.4", &[&bound]));
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("Role kube-system/y is bound by"), "{}", ran.stderr);
    // Where the policy names the target, it is judged, and the exit code is about the gate.
    let policy = policy("{targetVersion: '1.35'}");
    let ran = plan(&cluster("v1.34.4", &[&policy]), &[]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stdout.contains("Refused: RightsUnknown"), "{}", ran.stdout);
}

#[test]
fn what_cannot_be_read_of_rights_is_an_error() {
    for (mistake, message) in [
        ("rules: [{verbs: get}]", "Role bad: rules[0].verbs: "),
        ("rules: {}", "Role bad: rules: "),
        (
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: bad, namespace: a}\nrules: [{verbs: [get]}]",
            "Role bad: it is there twice",
        ),
        (
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBindingList\nmetadata: {continue: x}\nitems: []",
            "RoleBindingList is a part of a list",
        ),
    ] {
        let bad = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: bad, namespace: a}}\n{mistake}\n"
        );
        let ran = upgraded(&before(&[&bad]));
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains(message), "{}", ran.stderr);
        assert!(ran.stdout.contains("Refused: RightsUnknown"), "{}", ran.stdout);
    }
    let old = BUILT_IN.replace("k8s.io/v1,", "k8s.io/v1alpha1,");
    let ran = upgraded(&cluster("v1.34.4", &[&old]));
    assert_eq!(ran.code, Some(1));
    let message = "apiVersion: only rbac.authorization.k8s.io/v1 is known";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
    let bound =
        BUILT_IN.replace("{kind: ClusterRole, name: cluster-admin}", "{kind: Secret, name: a}");
    let ran = upgraded(&cluster("v1.34.4", &[&bound]));
    assert_eq!(ran.code, Some(1));
    let message = "ClusterRoleBinding cluster-admin: roleRef.kind: \"Secret\" is no kind of role";
    assert!(ran.stderr.contains(message), "{}", ran.stderr);
}

#[test]
fn what_is_refused_already_is_said_of_today() {
    let get = role("read", "pods/exec", "get");
    let input = cluster("v1.36.3", &[BUILT_IN, &get]);
    let ran = plan(&input, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
    let verdict = "Rights to stream, today: Refused: GetWithoutCreate\n";
    assert!(ran.stdout.contains(verdict), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("So that these streams are not refused:\n  1. AddCreateRight"),
        "{}",
        ran.stdout
    );
    let ran = plan(&input, &["--target", "1.37"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stdout.contains("refuses these streams today"), "{}", ran.stdout);
    // Where nothing is wrong, or nobody gave any, nothing is said.
    for more in [&[BUILT_IN][..], &[]] {
        let ran = plan(&cluster("v1.36.3", more), &[]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert!(!ran.stdout.contains("Rights"), "{}", ran.stdout);
    }
    let off = cluster("v1.36.3", &[BUILT_IN, &get]).replace(
        "--feature-gates=",
        "--feature-gates=AuthorizePodWebsocketUpgradeCreatePermission=false",
    );
    let ran = plan(&off, &["--target", "1.37"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("Safe: CreateGateOff. "), "{}", ran.stdout);
}

#[test]
fn many_roles_are_counted_and_scripts_have_them_all() {
    let roles: Vec<String> =
        (0..12).map(|number| role(&format!("r{number:02}"), "pods/exec", "get")).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    let input = before(&roles);
    let shown = upgraded(&input).stdout;
    for line in [
        "\n14 more; -o json shows them.\n",
        "  10. AddCreateRight: Add the rule below to Role team/r09,",
        "  11. Upgrade on cp: ",
        "\n2 more roles lack create; -o json shows them.\n",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let all = items(&input, &["--target", "1.35"]);
    let rights = all.iter().find(|item| item["kind"] == "StreamRights").unwrap();
    assert_eq!(rights["findings"].as_array().unwrap().len(), 24);
    assert_eq!(rights["changes"].as_array().unwrap().len(), 12);
}
