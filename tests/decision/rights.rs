//! Rights to streams, against an authorizer that evaluates RBAC by brute force: request by request, as
//! Kubernetes' own does, over objects as an apiserver stores them.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};
use sluice::{
    cluster::{Added, RbacObject},
    decision::websockets::rights::{
        Question, Rbac, Report, RightsReason,
        change::Remedy,
        finding::{Concern, Finding},
        role::{Kind, Scope},
        rule::Names,
        subject::Subject,
    },
    kubernetes::version::Minor,
};

const GROUPS: [&str; 3] = ["", "*", "apps"];
const RESOURCES: [&str; 8] =
    ["*", "pods", "pods/exec", "pods/attach", "*/exec", "*/portforward", "pods/*", "*/*"];
const VERBS: [&str; 4] = ["get", "create", "*", "list"];
const SUBRESOURCES: [&str; 3] = ["attach", "exec", "portforward"];
/// The last of each is one that nothing names.
const PODS: [&str; 3] = ["x", "y", "other"];
const NAMESPACES: [&str; 3] = ["a", "b", "new"];

/// Everybody who asks: the user's name and the groups that the authenticator says.
const PEOPLE: [(&str, &[&str]); 3] = [
    ("jane", &["system:authenticated"]),
    (
        "system:serviceaccount:a:ci",
        &["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
    ),
    (
        "system:serviceaccount:b:ci",
        &["system:serviceaccounts", "system:serviceaccounts:b", "system:authenticated"],
    ),
];

/// Objects as an apiserver stores them.
#[derive(Clone, Debug)]
struct Stored {
    objects: Vec<Value>,
}

/// A request for a stream.
#[derive(Clone, Copy, Debug)]
struct Request<'a> {
    verb: &'a str,
    namespace: &'a str,
    subresource: &'a str,
    pod: &'a str,
}

fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn allows(rule: &Value, request: Request<'_>) -> bool {
    let combined = format!("pods/{}", request.subresource);
    let everywhere = format!("*/{}", request.subresource);
    let names = texts(&rule["resourceNames"]);
    texts(&rule["verbs"]).iter().any(|verb| *verb == "*" || *verb == request.verb)
        && texts(&rule["apiGroups"]).iter().any(|group| ["*", ""].contains(group))
        && texts(&rule["resources"])
            .iter()
            .any(|resource| [combined.as_str(), &everywhere, "*"].contains(resource))
        && (names.is_empty() || names.contains(&request.pod))
}

impl Stored {
    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The rules of a role; those of an aggregated one as the controller manager would fill them in.
    fn rules(&self, kind: &str, namespace: &Value, name: &Value) -> Vec<Value> {
        let found = self.of_kind(kind).find(|role| {
            let metadata = &role["metadata"];
            metadata["name"] == *name
                && (kind == "ClusterRole" || metadata["namespace"] == *namespace)
        });
        let rules = |role: &Value| role["rules"].as_array().cloned().unwrap_or_default();
        match found {
            None => Vec::new(),
            Some(role) if role["aggregationRule"].is_null() => rules(role),
            Some(_) => {
                let sources = self.of_kind("ClusterRole");
                let labelled = |role: &&Value| role["metadata"]["labels"]["aggregate"] == "yes";
                sources.filter(labelled).flat_map(rules).collect()
            }
        }
    }

    fn allowed(&self, (user, groups): (&str, &[&str]), request: Request<'_>) -> bool {
        let by = |binding: &Value, namespace: Option<&str>| {
            let applies = binding["subjects"].as_array().unwrap().iter().any(|subject| {
                let name = subject["name"].as_str().unwrap();
                match subject["kind"].as_str().unwrap() {
                    "User" => name == user,
                    "Group" => groups.contains(&name),
                    _ => match subject["namespace"].as_str().or(namespace) {
                        Some(of) => user == format!("system:serviceaccount:{of}:{name}"),
                        None => false,
                    },
                }
            });
            let reference = &binding["roleRef"];
            let kind = reference["kind"].as_str().unwrap();
            let rules = self.rules(kind, &binding["metadata"]["namespace"], &reference["name"]);
            applies && rules.iter().any(|rule| allows(rule, request))
        };
        self.of_kind("ClusterRoleBinding").any(|binding| by(binding, None))
            || self.of_kind("RoleBinding").any(|binding| {
                let namespace = binding["metadata"]["namespace"].as_str();
                namespace == Some(request.namespace) && by(binding, namespace)
            })
    }

    /// What the code under test reads of it.
    fn read(&self) -> Rbac {
        let mut rbac = Rbac { read: Kind::ALL.into(), whole: true, ..Rbac::default() };
        for object in &self.objects {
            let object = object.clone();
            let again = match object["kind"].as_str().unwrap() {
                "Role" => serde_json::from_value::<Role>(object).unwrap().add_to(&mut rbac),
                "ClusterRole" => {
                    serde_json::from_value::<ClusterRole>(object).unwrap().add_to(&mut rbac)
                }
                "RoleBinding" => {
                    serde_json::from_value::<RoleBinding>(object).unwrap().add_to(&mut rbac)
                }
                _ => {
                    serde_json::from_value::<ClusterRoleBinding>(object).unwrap().add_to(&mut rbac)
                }
            };
            assert_eq!(again, Ok(Added::New), "nothing hides anything");
        }
        rbac
    }

    fn report(&self) -> Report {
        let question = Question { minor: Minor(35), today: false, gate_off: false };
        Report::of(&self.read(), question, true)
    }

    /// Does what the report says.
    fn mended(&self, report: &Report) -> Self {
        let mut after = self.clone();
        for change in &report.changes {
            match &change.remedy {
                Remedy::Bind { .. } => {
                    assert!(!change.manifest.is_empty());
                    after.objects.extend(yaml(&change.manifest));
                }
                Remedy::Add(role) => {
                    let namespace = role.scope.namespace();
                    let edited = after.objects.iter_mut().find(|object| {
                        object["kind"] == role.kind().as_str()
                            && object["metadata"]["name"] == role.name.as_str()
                            && object["metadata"]["namespace"].as_str() == namespace
                    });
                    let edited = edited.expect("the role is there");
                    assert!(edited["aggregationRule"].is_null(), "it would be overwritten");
                    assert!(edited["metadata"]["annotations"].is_null(), "it would be put back");
                    let rules = edited["rules"].as_array_mut().unwrap();
                    for rule in &change.rules {
                        let read = yaml(&rule.to_string());
                        rules.extend(read[0].as_array().unwrap().iter().cloned());
                    }
                }
            }
        }
        after
    }
}

fn any_rule() -> impl Strategy<Value = Value> {
    (
        subsequence(&GROUPS[..], 1..=2),
        subsequence(&RESOURCES[..], 1..=3),
        subsequence(&PODS[..2], 0..=2),
        subsequence(&VERBS[..], 1..=2),
    )
        .prop_map(|(groups, resources, names, verbs)| {
            json!({"apiGroups": groups, "resources": resources, "resourceNames": names,
                "verbs": verbs})
        })
}

fn any_rules() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(any_rule(), 0..3)
}

/// Who may be bound; one of them has no namespace of its own.
fn any_subjects() -> impl Strategy<Value = Vec<Value>> {
    let group = |name: &str| json!({"kind": "Group", "name": name});
    let all = vec![
        json!({"kind": "User", "name": "jane"}),
        json!({"kind": "User", "name": "system:serviceaccount:a:ci"}),
        json!({"kind": "ServiceAccount", "namespace": "a", "name": "ci"}),
        json!({"kind": "ServiceAccount", "namespace": "b", "name": "ci"}),
        json!({"kind": "ServiceAccount", "name": "ci"}),
        group("system:serviceaccounts"),
        group("system:serviceaccounts:a"),
        group("system:authenticated"),
    ];
    subsequence(all, 1..=2)
}

fn any_stored() -> impl Strategy<Value = Stored> {
    let cluster_role = (any_rules(), any::<bool>(), prop::bool::weighted(0.2));
    let binding = (0..2usize, 0..6usize, any_subjects());
    (
        prop::collection::vec(cluster_role, 3),
        prop::collection::vec(any_rules(), 2),
        prop::collection::vec(binding, 1..6),
    )
        .prop_map(|(cluster_roles, roles, bindings)| {
            let mut objects = Vec::new();
            for (at, (rules, labelled, built_in)) in cluster_roles.into_iter().enumerate() {
                let mut role = json!({"kind": "ClusterRole", "metadata": {"name": format!("c{at}")},
                    "rules": rules});
                if labelled {
                    role["metadata"]["labels"] = json!({"aggregate": "yes"});
                }
                if built_in {
                    role["metadata"]["annotations"] =
                        json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
                }
                objects.push(role);
            }
            objects.push(json!({"kind": "ClusterRole", "metadata": {"name": "all"}, "rules": [],
                "aggregationRule":
                    {"clusterRoleSelectors": [{"matchLabels": {"aggregate": "yes"}}]}}));
            for (namespace, rules) in NAMESPACES.iter().zip(roles) {
                objects.push(json!({"kind": "Role", "rules": rules,
                    "metadata": {"name": "r", "namespace": namespace}}));
            }
            let names = ["c0", "c1", "c2", "all", "missing", "r"];
            for (at, (namespace, role, subjects)) in bindings.into_iter().enumerate() {
                // The Role can be bound only where it is.
                let own = names[role] == "r";
                let kind = if own { "Role" } else { "ClusterRole" };
                let mut binding = json!({"kind": "RoleBinding", "subjects": subjects,
                    "roleRef": {"kind": kind, "name": names[role]},
                    "metadata": {"name": format!("b{at}"), "namespace": NAMESPACES[namespace]}});
                if !own && at % 2 == 0 {
                    binding["kind"] = "ClusterRoleBinding".into();
                    binding["metadata"] = json!({"name": format!("b{at}")});
                }
                objects.push(binding);
            }
            Stored { objects }
        })
}

fn speaks_of(finding: &Finding, request: Request<'_>) -> bool {
    let there = Scope::Namespace(request.namespace.to_owned());
    let lacks = finding.lacks.iter().find(|(sub, _)| sub.as_str() == request.subresource);
    finding.binding.scope.covers(&there)
        && lacks.is_some_and(|(_, names)| match names {
            Names::All => true,
            Names::Only(names) => names.contains(request.pod),
        })
}

fn requests<'a>() -> impl Iterator<Item = Request<'a>> {
    NAMESPACES.into_iter().flat_map(|namespace| {
        SUBRESOURCES.into_iter().flat_map(move |subresource| {
            let request = move |pod| Request { verb: "get", namespace, subresource, pod };
            PODS.into_iter().map(request)
        })
    })
}

/// A request that a finding says will be refused, in a namespace that nobody has named where it is
/// about all of them.
fn refused(finding: &Finding) -> Vec<Request<'_>> {
    let namespace = finding.binding.scope.namespace().unwrap_or(NAMESPACES[2]);
    let mut requests = Vec::new();
    for (subresource, names) in &finding.lacks {
        let subresource = subresource.as_str();
        let pods: Vec<&str> = match names {
            Names::All => vec![PODS[2]],
            Names::Only(names) => names.iter().map(String::as_str).collect(),
        };
        let get = |pod| Request { verb: "get", namespace, subresource, pod };
        requests.extend(pods.into_iter().map(get));
    }
    requests
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Nobody loses a stream who is not named, himself or by a group.
    #[test]
    fn whoever_loses_a_stream_is_found(stored in any_stored()) {
        let findings = stored.report().findings;
        for person in PEOPLE {
            let (user, groups) = person;
            let mut names = BTreeSet::from([Subject::user(user)]);
            names.extend(groups.iter().map(|group| Subject::Group((*group).to_owned())));
            for get in requests() {
                let create = Request { verb: "create", ..get };
                if !stored.allowed(person, get) || stored.allowed(person, create) {
                    continue;
                }
                let found =
                    findings.iter().any(|f| names.contains(&f.subject) && speaks_of(f, get));
                prop_assert!(found, "{user} loses {get:?}: {findings:?}");
            }
        }
    }

    /// Whoever is named himself loses what is said.
    #[test]
    fn whoever_is_found_loses_a_stream(stored in any_stored()) {
        for finding in stored.report().findings {
            for person in PEOPLE.into_iter().filter(|(user, _)| finding.subject == Subject::user(user)) {
                for get in refused(&finding) {
                    let create = Request { verb: "create", ..get };
                    prop_assert!(stored.allowed(person, get), "{finding:?} {get:?}");
                    prop_assert!(!stored.allowed(person, create), "{finding:?} {get:?}");
                }
            }
        }
    }

    /// What is said to be added mends all that blocks, and gives nobody a stream that he has not.
    #[test]
    fn what_is_added_mends(stored in any_stored()) {
        let report = stored.report();
        let after = stored.mended(&report);
        let mended = after.report();
        prop_assert!(mended.reason != RightsReason::GetWithoutCreate, "{:?}", mended.findings);
        for finding in report.findings.iter().filter(|f| f.concern == Concern::Blocks) {
            for person in PEOPLE.into_iter().filter(|(user, _)| finding.subject == Subject::user(user)) {
                for get in refused(finding) {
                    let create = Request { verb: "create", ..get };
                    prop_assert!(after.allowed(person, create), "{finding:?} {get:?}");
                }
            }
        }
        for person in PEOPLE {
            for get in requests() {
                let create = Request { verb: "create", ..get };
                let new = after.allowed(person, create) && !stored.allowed(person, create);
                prop_assert!(!new || stored.allowed(person, get), "{person:?} {create:?}");
            }
        }
    }
}
