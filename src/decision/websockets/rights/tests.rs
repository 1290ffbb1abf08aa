use std::slice;

use super::{
    change::Remedy,
    role::{LabelSelector, Operator, Requirement, Role},
    rule::Rule,
    *,
};
use crate::kubernetes::feature_gates::FeatureGates;

const EXEC: &str = "pods/exec";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn rule(resources: &[&str], verbs: &[&str]) -> Rule {
    Rule {
        api_groups: words(&[""]),
        resources: words(resources),
        resource_names: Vec::new(),
        verbs: words(verbs),
    }
}

fn of_pods(resources: &[&str], verbs: &[&str], names: &[&str]) -> Rule {
    Rule { resource_names: words(names), ..rule(resources, verbs) }
}

fn scope(namespace: &str) -> Scope {
    if namespace.is_empty() { Scope::Cluster } else { Scope::Namespace(namespace.to_owned()) }
}

/// A cluster of which all four kinds were read.
fn rbac() -> Rbac {
    Rbac { read: Kind::ALL.into(), whole: true, ..Rbac::default() }
}

impl Rbac {
    /// A ClusterRole of these rules.
    fn role(mut self, name: &str, rules: Vec<Rule>) -> Self {
        self.roles.insert(RoleName::cluster(name), Role { rules, ..Role::default() });
        self
    }

    fn edited(mut self, name: &str, edit: impl FnOnce(&mut Role)) -> Self {
        edit(self.roles.get_mut(&RoleName::cluster(name)).unwrap());
        self
    }

    /// Binds a ClusterRole in a namespace, or everywhere.
    fn bound(mut self, namespace: &str, role: &str, subjects: &[Subject]) -> Self {
        let name = format!("{role}-{}", self.bindings.len());
        let name = BindingName { scope: scope(namespace), name };
        let binding = Binding { role: RoleName::cluster(role), subjects: subjects.to_vec() };
        self.bindings.insert(name, binding);
        self
    }

    /// Who lacks create on exec, where, on which pods.
    fn lacking(&self) -> Vec<String> {
        let found = finding::findings(self);
        let line = |finding: &Finding| {
            let names = match finding.lacks.get(&Subresource::Exec) {
                None => return format!("{}: not exec", finding.subject),
                Some(Names::All) => String::new(),
                Some(Names::Only(names)) => format!(
                    " of {}",
                    names.iter().map(String::as_str).collect::<Vec<_>>().join(" and ")
                ),
            };
            let (scope, concern) = (&finding.binding.scope, finding.concern.as_str());
            format!("{} in {scope}{names}: {concern}", finding.subject)
        };
        found.iter().map(line).collect()
    }
}

fn jane() -> Subject {
    Subject::user("jane")
}

fn group(name: &str) -> Subject {
    Subject::Group(name.to_owned())
}

fn account(namespace: &str, name: &str) -> Subject {
    Subject::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn question(minor: u16) -> Question {
    Question { minor: Minor(minor), today: false, gate_off: false }
}

/// Roles with each right.
fn roles() -> Rbac {
    rbac()
        .role("get", vec![rule(&[EXEC], &["get"])])
        .role("create", vec![rule(&[EXEC], &["create"])])
        .role(
            "create-any",
            vec![rule(&["pods/exec", "pods/attach", "pods/portforward"], &["create"])],
        )
        .role("both", vec![rule(&[EXEC], &["get", "create"])])
        .role("all-verbs", vec![rule(&[EXEC], &["*"])])
        .role("any-exec", vec![rule(&["*/exec"], &["get"])])
        .role("read-only", vec![rule(&["*"], &["get", "list", "watch"])])
        .role("no-wildcard", vec![rule(&["pods/*", "*/*"], &["get"])])
        .role("two-pods", vec![of_pods(&[EXEC], &["get"], &["a", "b"])])
        .role("create-a", vec![of_pods(&[EXEC], &["create"], &["a"])])
        .role("create-b", vec![of_pods(&[EXEC], &["create"], &["b"])])
}

#[test]
fn each_form_of_a_right() {
    for (role, expected) in [
        ("get", &["User jane in all namespaces: Blocks"][..]),
        ("create", &[]),
        ("both", &[]),
        ("all-verbs", &[]),
        ("any-exec", &["User jane in all namespaces: Blocks"]),
        ("read-only", &["User jane in all namespaces: Warns"]),
        ("no-wildcard", &[]),
        ("two-pods", &["User jane in all namespaces of a and b: Blocks"]),
        ("not-there", &[]),
    ] {
        assert_eq!(roles().bound("", role, &[jane()]).lacking(), expected, "{role}");
    }
}

#[test]
fn what_heals_a_right_and_what_does_not() {
    for (bound, expected) in [
        ([("", "get"), ("", "create")], &[] as &[&str]),
        ([("a", "get"), ("", "create")], &[]),
        ([("a", "get"), ("a", "create")], &[]),
        ([("a", "get"), ("b", "create")], &["User jane in namespace a: Blocks"]),
        // Other namespaces are there, or come.
        ([("", "get"), ("a", "create")], &["User jane in all namespaces: Blocks"]),
        ([("", "read-only"), ("", "create-any")], &[]),
        ([("", "read-only"), ("", "create")], &["User jane: not exec"]),
        ([("", "two-pods"), ("", "create-a")], &["User jane in all namespaces of b: Blocks"]),
        ([("", "get"), ("", "create-a")], &["User jane in all namespaces: Blocks"]),
        ([("", "two-pods"), ("a", "create")], &["User jane in all namespaces of a and b: Blocks"]),
    ] {
        let rbac = bound.iter().fold(roles(), |rbac, (at, role)| rbac.bound(at, role, &[jane()]));
        assert_eq!(rbac.lacking(), expected, "{bound:?}");
    }
    let three = roles().bound("a", "two-pods", &[jane()]).bound("", "create-a", &[jane()]).bound(
        "a",
        "create-b",
        &[jane()],
    );
    assert_eq!(three.lacking(), Vec::<String>::new());
}

#[test]
fn rights_through_groups_count() {
    let ci = || account("a", "ci");
    for (holder, healer, healed) in [
        (ci(), "system:serviceaccounts", true),
        (ci(), "system:serviceaccounts:a", true),
        (ci(), "system:serviceaccounts:b", false),
        (ci(), "system:authenticated", true),
        (jane(), "system:authenticated", true),
        (jane(), "system:serviceaccounts", false),
        (jane(), "devs", false),
        (group("devs"), "system:authenticated", true),
        (group("system:serviceaccounts:a"), "system:serviceaccounts", true),
        (group("system:serviceaccounts"), "system:serviceaccounts:a", false),
        (Subject::user("system:anonymous"), "system:authenticated", false),
        (Subject::user("system:anonymous"), "system:unauthenticated", true),
    ] {
        let rbac = roles().bound("", "get", slice::from_ref(&holder)).bound(
            "",
            "create",
            &[group(healer)],
        );
        assert_eq!(rbac.lacking().is_empty(), healed, "{holder} and {healer}");
    }
    // It is the group's, and not said of each member again.
    let by_group = roles().bound("", "get", &[group("system:authenticated")]);
    let by_group = by_group.bound("", "create", &[jane()]);
    assert_eq!(by_group.lacking(), ["Group system:authenticated in all namespaces: Blocks"]);
    // The apiserver lets these through before it looks.
    let masters = roles().bound("", "get", &[group("system:masters")]);
    assert_eq!(masters.lacking(), Vec::<String>::new());
}

#[test]
fn controllers_that_read_everything_stream_nothing() {
    let rbac = |name: &str| {
        let rbac = rbac().role(name, vec![rule(&["*"], &["get"])]);
        rbac.edited(name, |role| role.reconciled = true).bound(
            "",
            name,
            &[account("kube-system", "x")],
        )
    };
    assert_eq!(rbac("system:controller:x").lacking(), Vec::<String>::new());
    // What is aggregated into view is everybody's.
    assert_eq!(rbac("view").lacking(), ["ServiceAccount kube-system/x in all namespaces: Warns"]);
}

#[test]
fn a_rule_names_the_role_in_which_it_stands() {
    let aggregates = |role: &mut Role| {
        let requirement = Requirement {
            key: "to-top".to_owned(),
            operator: Operator::Exists,
            values: Vec::new(),
        };
        role.aggregation = Some(vec![LabelSelector { requirements: vec![requirement] }]);
    };
    let labelled = |role: &mut Role| drop(role.labels.insert("to-top".to_owned(), String::new()));
    let exec = || vec![rule(&[EXEC], &["get"])];
    // The controller manager has filled in `top`, and would overwrite what is written there.
    let rbac = rbac()
        .role("top", exec())
        .edited("top", aggregates)
        .role("a-other", vec![rule(&["pods/log"], &["get"])])
        .edited("a-other", labelled)
        .role("source", exec())
        .edited("source", labelled)
        .bound("", "top", &[jane()]);
    let report = Report::of(&rbac, question(35), true);
    let [change] = report.changes.as_slice() else { panic!("{:?}", report.changes) };
    assert_eq!(change.remedy, Remedy::Add(RoleName::cluster("source")));
    assert_eq!(change.aggregated, BTreeSet::from([RoleName::cluster("top")]));
    assert_eq!(change.rules, [rule(&[EXEC], &["create"])]);
    let steps = steps::steps(&report);
    assert!(steps[0].message.contains("aggregated into ClusterRole top"), "{}", steps[0].message);

    // Where the source is Kubernetes' own, nothing that is there is edited.
    let own = rbac.edited("source", |role| role.reconciled = true);
    let own = own.role("streams:top", vec![]);
    let report = Report::of(&own, question(35), true);
    let make = "streams:top-2".to_owned();
    let remedy = Remedy::Bind { beside: RoleName::cluster("top"), make };
    assert_eq!(report.changes[0].remedy, remedy, "a name that is free");
}

#[test]
fn each_role_gets_what_it_lacks_and_no_more() {
    let labelled = |role: &mut Role| drop(role.labels.insert("k".to_owned(), "v".to_owned()));
    let selector =
        Requirement { key: "k".to_owned(), operator: Operator::In, values: vec!["v".to_owned()] };
    let aggregation = Some(vec![LabelSelector { requirements: vec![selector] }]);
    let rbac = rbac()
        .role("top", vec![])
        .edited("top", |role| role.aggregation = aggregation)
        .role("a", vec![of_pods(&[EXEC], &["get"], &["a"])])
        .edited("a", labelled)
        .role("b", vec![of_pods(&[EXEC], &["get"], &["b"])])
        .edited("b", labelled)
        .bound("", "top", &[jane()]);
    let changes = Report::of(&rbac, question(35), true).changes;
    let seen: Vec<_> = changes.iter().map(|c| (c.remedy.to_string(), &c.rules[..])).collect();
    let rules = ["a", "b"].map(|pod| [of_pods(&[EXEC], &["create"], &[pod])]);
    let expected =
        [("ClusterRole a".to_owned(), &rules[0][..]), ("ClusterRole b".to_owned(), &rules[1][..])];
    assert_eq!(seen, expected);
}

#[test]
fn a_role_of_kubernetes_gets_another_beside_it() {
    let rbac = rbac().role("system:mine", vec![of_pods(&[EXEC], &["get"], &["12e5"])]).bound(
        "a",
        "system:mine",
        &[jane(), account("b", "ci")],
    );
    let report = Report::of(&rbac, question(35), true);
    let expected = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: \"streams:system:mine\"}
rules:
- apiGroups: [\"\"]
  resources: [\"pods/exec\"]
  resourceNames: [\"12e5\"]
  verbs: [\"create\"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: \"a\", name: \"streams:system:mine-0\"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: \"streams:system:mine\"}
subjects:
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: \"jane\"}
- {kind: ServiceAccount, namespace: \"b\", name: \"ci\"}
";
    assert_eq!(report.changes[0].manifest, expected);
}

#[test]
fn roles_of_one_name_get_one_each() {
    let mut rbac = rbac();
    for namespace in ["a", "b"] {
        let role = RoleName { scope: scope(namespace), name: "system:r".to_owned() };
        let name = BindingName { scope: scope(namespace), name: "b".to_owned() };
        let rules = vec![of_pods(&[EXEC], &["get"], &[namespace])];
        rbac.roles.insert(role.clone(), Role { rules, ..Role::default() });
        rbac.bindings.insert(name, Binding { role, subjects: vec![jane()] });
    }
    let changes = Report::of(&rbac, question(35), true).changes;
    let made: Vec<_> = changes.iter().map(|change| change.remedy.to_string()).collect();
    let expected = ["a new ClusterRole streams:a:system:r", "a new ClusterRole streams:b:system:r"];
    assert_eq!(made, expected);
}

#[test]
fn one_rule_for_the_pods_that_are_alike() {
    let both = [EXEC, "pods/attach"];
    let rbac = rbac()
        .role("r", vec![rule(&both, &["get"]), of_pods(&["pods/portforward"], &["get"], &["a"])])
        .bound("", "r", &[jane()])
        .bound("a", "r", &[account("a", "ci")]);
    let report = Report::of(&rbac, question(35), true);
    let [change] = report.changes.as_slice() else { panic!("{:?}", report.changes) };
    let expected = [
        rule(&["pods/attach", EXEC], &["create"]),
        of_pods(&["pods/portforward"], &["create"], &["a"]),
    ];
    assert_eq!(change.rules, expected);
    assert_eq!(change.bindings.len(), 2);
}

#[test]
fn what_the_rights_come_to() {
    let judged = |rbac: &Rbac, all_read| Report::of(rbac, question(35), all_read).reason;
    let good = || roles().bound("", "both", &[jane()]);
    assert_eq!(judged(&good(), true), RightsReason::CreateIsThere);
    assert_eq!(judged(&good(), false), RightsReason::RightsUnknown);
    assert_eq!(judged(&Rbac::default(), true), RightsReason::RightsUnknown);
    assert_eq!(judged(&good().bound("", "get", &[jane()]), true), RightsReason::CreateIsThere);
    let bad = good().bound("", "get", &[group("devs")]);
    assert_eq!(judged(&bad, true), RightsReason::GetWithoutCreate);
    assert_eq!(judged(&bad, false), RightsReason::GetWithoutCreate);
    let warned = good().bound("", "read-only", &[group("devs")]);
    assert_eq!(judged(&warned, true), RightsReason::ReadOnlyStreams);
    for kind in Kind::ALL {
        let mut some = good();
        some.read.remove(&kind);
        assert_eq!(judged(&some, true), RightsReason::RightsUnknown, "{kind:?}");
    }
    let off = Question { gate_off: true, ..question(36) };
    assert_eq!(Report::of(&bad, off, true).reason, RightsReason::CreateGateOff);
    assert!(!steps::steps(&Report::of(&bad, off, true))[0].needed);
    assert_eq!(Report::of(&good(), off, true).reason, RightsReason::CreateIsThere);
}

#[test]
fn a_role_that_is_bound_and_missing() {
    let mut rbac = roles().bound("", "not-there", &[jane()]);
    let whole = Report::of(&rbac, question(35), true);
    // An apiserver that was asked for all of them has none, so it gives nothing.
    assert_eq!(whole.reason, RightsReason::CreateIsThere);
    let message = whole.message();
    assert!(message.contains("ClusterRole not-there is bound by"), "{message}");
    assert_eq!(whole.gaps(), Vec::<String>::new(), "and that is all that there is to know");
    rbac.whole = false;
    let files = Report::of(&rbac, question(35), true);
    assert_eq!(files.reason, RightsReason::RightsUnknown);
    assert!(files.message().contains("not among what was given"), "{}", files.message());
    rbac.read.clear();
    let unread = Report::of(&rbac, question(35), true);
    assert_eq!(unread.gaps().len(), 1, "not each of what was not read: {:?}", unread.gaps());
}

#[test]
fn another_authorizer_heals_what_it_confirms() {
    let mut rbac = roles().bound("a", "two-pods", &[jane(), account("a", "ci")]);
    let confirm = |rbac: &mut Rbac, subresource, name: &str| {
        let names = Names::Only(BTreeSet::from([name.to_owned()]));
        let (subject, scope) = (jane(), scope("a"));
        rbac.confirmed.push(Confirmed { subject, subresource, scope, names });
    };
    confirm(&mut rbac, Subresource::Attach, "a");
    confirm(&mut rbac, Subresource::Exec, "b");
    let others = "ServiceAccount a/ci in namespace a of a and b: Blocks";
    assert_eq!(rbac.lacking(), ["User jane in namespace a of a: Blocks", others]);
    confirm(&mut rbac, Subresource::Exec, "a");
    assert_eq!(rbac.lacking(), [others]);
}

#[test]
fn when_create_is_asked_for() {
    let instance = |minor: Option<u16>, args: &str| Apiserver {
        name: "cp".to_owned(),
        minor: minor.map(Minor),
        gates: Some(FeatureGates::from_args([args])),
        unseen: None,
    };
    let hidden = Apiserver { gates: None, ..instance(Some(35), "") };
    const OFF: &str = "--feature-gates=AuthorizePodWebsocketUpgradeCreatePermission=false";
    const ALL_OFF: &str = "--feature-gates=AllBeta=false";
    for (target, instances, expected) in [
        (Some(34), vec![instance(Some(33), "")], None),
        (Some(35), vec![instance(Some(34), "")], Some((35, false, false))),
        (Some(35), vec![], Some((35, false, false))),
        (Some(36), vec![instance(None, "")], Some((36, false, false))),
        (None, vec![instance(Some(34), "")], None),
        (None, vec![], None),
        (None, vec![instance(Some(35), ""), instance(Some(34), "")], Some((35, true, false))),
        (Some(36), vec![instance(Some(35), OFF)], Some((36, false, true))),
        (Some(36), vec![instance(Some(35), OFF), instance(Some(35), "")], Some((36, true, false))),
        (Some(36), vec![instance(Some(34), ALL_OFF)], Some((36, false, true))),
        // It is planned to be locked.
        (Some(38), vec![instance(Some(37), OFF)], Some((38, false, false))),
        (Some(36), vec![hidden.clone()], Some((36, true, false))),
    ] {
        let question = Question::of(target.map(Minor), &instances);
        let seen = question.map(|q| (q.minor.0, q.today, q.gate_off));
        assert_eq!(seen, expected, "{target:?} {instances:?}");
    }
}

#[test]
fn what_is_said_names_who_what_where_and_when() {
    let rbac = roles().bound("a", "get", &[jane(), account("b", "ci")]);
    for (today, when) in [(true, "today"), (false, "at 1.36")] {
        let question = Question { today, ..question(36) };
        let report = Report::of(&rbac, question, true);
        let message = report.message();
        for word in ["ServiceAccount b/ci and User jane", when, "Add create to ClusterRole get."] {
            assert!(message.contains(word), "{word}: {message}");
        }
        let step = &steps::steps(&report)[0];
        assert!(step.needed);
        for word in ["ClusterRole get", "pods/exec in namespace a", "RoleBinding a/get-0"] {
            assert!(step.message.contains(word), "{word}: {}", step.message);
        }
    }
}
