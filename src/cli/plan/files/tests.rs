use super::*;
use crate::cli::plan::objects::PolicyObject;

fn objects(text: &str) -> Result<Objects, String> {
    let mut objects = Objects::default();
    add(&mut objects, "f.yaml", text);
    objects.unread.first().map_or(Ok(()), |unread| Err(unread.to_string()))?;
    Ok(objects)
}

#[test]
fn reads_every_shape_of_list() {
    for text in [
        "{apiVersion: v1, kind: Node, metadata: {name: n}}",
        "---\n# nothing\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n}\n---\n",
        "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Node, metadata: {name: n}}]",
        "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: n}}]}]",
        r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}"#,
        r#"{"apiVersion":"v1","kind":"NodeList","items":[{"metadata":{"name":"n"}}]}"#,
        "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"n\"}}\n{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}",
    ] {
        let names: Vec<_> = objects(text).unwrap().nodes.into_keys().collect();
        assert_eq!(names, ["n"], "{text}");
    }
}

/// What is found in a text that is read as a whole, and in one that is read in pieces.
#[test]
fn large_texts_hold_the_same_as_small_ones() {
    let node = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    a: b\n  annotations: null\nstatus:\n  nodeInfo:\n    kubeletVersion: v1.19.1\n  images:\n  - names: [a, b]\n"
        )
    };
    let item = |name: &str| format!("- {}", node(name).replace('\n', "\n  ")).trim_end().to_owned();
    let list = format!("apiVersion: v1\nitems:\n{}\n{}\nkind: List\n", item("a"), item("b"));
    let json = |texts: &[&str]| -> String {
        let values = texts.iter().flat_map(|text| documents::yaml(text).unwrap());
        values.map(|value| value.to_string()).collect()
    };
    let policy =
        "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {name: p}\nspec: {}\n";
    let typed = r#"{"kind":"NodeList","apiVersion":"v1","items":[{"metadata":{"name":"a"}},{"metadata":{}}]}"#;
    for text in [
        list.clone(),
        format!("\u{feff}---\n{list}---\n{policy}---\n{}", node("c")),
        json(&[&list, policy]),
        format!("{}\n---\n{policy}", json(&[&list])),
        list.replace("kubeletVersion: v1.19.1", "kubeletVersion: 1.19"),
        list.replace("    a: b", "    a: true"),
        list.replace("name: b", "name: ''"),
        list.replace("name: b", "name: a"),
        list.replace("name: b", "name: a").replacen("v1.19.1", "v1.18.1", 1),
        list.replace("kind: List", "kind: List\nmetadata:\n  continue: abc"),
        list.replace("kind: Node", "kind: Secret"),
        list.replace("\nkind: List", ""),
        list.replace("- names", "- : names: ["),
        typed.to_owned(),
    ] {
        let seen = [WHOLE, 64].map(|whole| {
            let mut objects = Objects::default();
            add_reader(&mut objects, "f", &mut text.as_bytes(), whole).unwrap();
            let mut told: Vec<_> = objects.unread.iter().map(Unread::to_string).collect();
            // Where exactly no YAML begins to be none, each tells in its own way.
            told.iter_mut()
                .filter(|text| !text.contains(", document"))
                .for_each(|text| text.truncate(2));
            told.dedup();
            (objects.nodes, objects.policies.len(), objects.skipped, objects.warnings, told)
        });
        // What cannot be read takes the whole document with it, or only itself.
        let [whole, pieces] = seen;
        assert_eq!(whole.4, pieces.4, "{text}");
        assert!(!whole.4.is_empty() || whole.0 == pieces.0, "{text}");
        assert_eq!((whole.1, whole.2, whole.3), (pieces.1, pieces.2, pieces.3), "{text}");
    }
    // An object whose kind is no list is no list, whatever it has.
    let mut objects = Objects::default();
    let odd = list.replace("kind: List", "kind: Odd");
    add_reader(&mut objects, "f", &mut odd.as_bytes(), 64).unwrap();
    let told = objects.unread[0].to_string();
    assert_eq!(told, "f, document 1: it has items, and its kind is no list");
}

#[test]
fn what_can_be_read_is_there_beside_what_cannot() {
    let mut objects = Objects::default();
    let node = |name: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}");
    let list = format!("{{apiVersion: v1, kind: List, items: [{}, 7, {}]}}", node("a"), node("b"));
    add(&mut objects, "1.yaml", &format!("{list}\n---\nkind: Node\n---\n{}", node("c")));
    add(&mut objects, "2.yaml", "a: [");
    add(&mut objects, "3.yaml", &node("d"));
    let names: Vec<_> = objects.nodes.keys().collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    let unread: Vec<_> = objects.unread.iter().map(Unread::to_string).collect();
    assert_eq!(unread.len(), 3, "{unread:?}");
    assert_eq!(unread[0], "1.yaml, document 1, items[1]: not an object");
    assert!(unread[2].starts_with("2.yaml: "), "{unread:?}");
}

#[test]
fn a_document_that_is_no_yaml_hides_no_other() {
    let mut objects = Objects::default();
    let node = |name: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}");
    let text = format!("---\n{}\n---\na: [\n--- \n{}\n---\nkind: Node\n", node("a"), node("b"));
    add(&mut objects, "f.yaml", &text);
    assert_eq!(objects.nodes.keys().collect::<Vec<_>>(), ["a", "b"]);
    let unread: Vec<_> = objects.unread.iter().map(Unread::to_string).collect();
    assert!(unread[0].contains("line 4"), "{unread:?}");
    assert!(unread[1].starts_with("f.yaml, document 4: "), "{unread:?}");
    assert_eq!(unread.len(), 2, "{unread:?}");
}

#[test]
fn other_kinds_are_counted() {
    let text = "apiVersion: apps/v1\nkind: Node\n---\napiVersion: v1\nkind: Secret\ndata: {a: b}\n";
    let seen = objects(text).unwrap();
    assert_eq!((seen.skipped, seen.nodes.len()), (2, 0));
}

/// What is told of a text that is read as a whole, and of one that is read in pieces.
fn told(text: &str) -> [(Objects, Vec<String>); 2] {
    [WHOLE, 16].map(|whole| {
        let mut objects = Objects::default();
        add_reader(&mut objects, "f", &mut text.as_bytes(), whole).unwrap();
        let told = objects.unread.iter().map(Unread::to_string).collect();
        (objects, told)
    })
}

#[test]
fn two_of_one_name_say_the_same_or_are_no_evidence() {
    let rbac = "apiVersion: rbac.authorization.k8s.io/v1\nkind";
    let reference =
        "roleRef: {kind: ClusterRole, name: view}\nsubjects: [{kind: User, name: old}]\n";
    let rules = "rules: [{apiGroups: [''], resources: [pods/exec], verbs: [old]}]\n";
    let ours = "apiVersion: sluice.dev/v1alpha1\nkind";
    for text in [
        "apiVersion: v1\nkind: Node\nmetadata: {name: n, resourceVersion: '1'}\nstatus: {nodeInfo: {kubeletVersion: old}}\n".to_owned(),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: n, namespace: kube-system, annotations: {kubernetes.io/config.mirror: x}, ownerReferences: [{apiVersion: v1, kind: Node, name: cp, uid: u}]}\nspec: {nodeName: cp, containers: [{name: kube-apiserver, image: 'k/kube-apiserver:v1.21.0', command: [kube-apiserver, --feature-gates=old=true]}]}\n".to_owned(),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: n, namespace: sluice, labels: {app.kubernetes.io/name: sluice, app.kubernetes.io/component: agent}, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: a, uid: u, controller: true}]}\nspec: {nodeName: old, containers: []}\n".to_owned(),
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: kubernetes, namespace: default}\nsubsets: [{addresses: [{ip: old}]}]\n".to_owned(),
        format!("{ours}: StreamingPolicy\nmetadata: {{name: n}}\nspec: {{overrides: [{{node: old, reason: r, expires: '2030-01-01T00:00:00Z'}}]}}\n"),
        format!("{ours}: StreamingNode\nmetadata: {{name: n}}\nspec: {{policy: old}}\n"),
        format!("{rbac}: Role\nmetadata: {{name: n, namespace: a}}\n{rules}"),
        format!("{rbac}: ClusterRole\nmetadata: {{name: n}}\n{rules}"),
        format!("{rbac}: RoleBinding\nmetadata: {{name: n, namespace: a}}\n{reference}"),
        format!("{rbac}: ClusterRoleBinding\nmetadata: {{name: n}}\n{reference}"),
    ] {
        let after = |other: &str| told(&format!("{text}---\n{other}"));
        for other in [&text, &text.replace("resourceVersion: '1'", "resourceVersion: '2'")] {
            for (objects, told) in after(other) {
                assert_eq!((objects.warnings.len(), told.len()), (0, 0), "{text}: {told:?}");
                assert_eq!(objects.skipped, 0, "{text}");
            }
        }
        for (objects, told) in after(&text.replace("old", "new")) {
            assert_eq!(told.len(), 1, "{text}");
            assert!(told[0].starts_with("f, document 2: ") && told[0].contains(object::TWICE), "{told:?}");
            assert!(objects.nodes.values().all(|node| node.kubelet_version == "old"), "{text}");
        }
    }
}

/// Somebody's file beside what the apiserver has made of it.
#[test]
fn a_policy_may_be_there_as_written_and_as_stored() {
    let written =
        "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {name: p}\nspec: {}\n";
    let stored = written.replace("{name: p}", "{name: p, uid: u}");
    let other = written.replace("{name: p}", "{name: p, uid: other}");
    for (first, second, count) in
        [(written, &*stored, 0), (&stored, written, 0), (&stored, &other, 1)]
    {
        for (objects, told) in told(&format!("{first}---\n{second}")) {
            assert_eq!(told.len(), count, "{told:?}");
            let Some(PolicyObject::Readable(policy)) = objects.policies.get("p") else { panic!() };
            assert_eq!(policy.metadata.uid.as_deref(), Some("u"));
        }
    }
}

#[test]
fn a_part_of_a_list_is_told() {
    let list = |version: &str, kind: &str, metadata: &str, items: &str| {
        [
            format!(
                r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":{items}}}"#
            ),
            format!("apiVersion: {version}\nitems:\n- {{}}\nkind: {kind}\nmetadata: {metadata}\n"),
            format!(
                r#"{{"kind":"List","apiVersion":"v1","items":[{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":{items}}}]}}"#
            ),
        ]
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let ours = "sluice.dev/v1alpha1";
    for (version, kind, counts) in [
        ("v1", "List", true),
        ("v1", "NodeList", true),
        ("v1", "PodList", true),
        ("v1", "EndpointsList", true),
        (ours, "StreamingPolicyList", true),
        (ours, "StreamingNodeList", true),
        (rbac, "RoleList", true),
        (rbac, "ClusterRoleList", true),
        (rbac, "RoleBindingList", true),
        (rbac, "ClusterRoleBindingList", true),
        ("v1", "SecretList", false),
        ("apps/v1", "NodeList", false),
    ] {
        for (metadata, says) in [
            (
                r#"{"resourceVersion":"1","continue":"abc","remainingItemCount":7}"#,
                Some("continue"),
            ),
            (r#"{"remainingItemCount":1}"#, Some("remainingItemCount")),
            (r#"{"continue":"abc"}"#, Some("continue")),
            (r#"{"continue":"","remainingItemCount":0}"#, None),
            (r#"{"continue":null}"#, None),
            ("{}", None),
            ("null", None),
        ] {
            for items in ["[]", "null", r#"[{"metadata":{"name":"n","namespace":"n"}}]"#] {
                for text in list(version, kind, metadata, items) {
                    for (_, told) in told(&text) {
                        let part = told.iter().find(|told| told.contains("part of a list"));
                        let expected = says.filter(|_| counts);
                        assert_eq!(part.is_some(), expected.is_some(), "{text}: {told:?}");
                        let (Some(part), Some(field)) = (part, expected) else { continue };
                        assert!(part.contains(&format!("{kind} is a part")), "{part}");
                        assert!(part.contains(&format!("metadata.{field} says")), "{part}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_mistake_is_named_with_its_place() {
    let policy = |spec: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
        )
    };
    for (text, expected) in [
        (
            policy("{streamingProxyRedirect: Disabled}"),
            "spec.streamingProxyRedirect: unknown field",
        ),
        (policy("{proxy: {mod: Streams}}"), "spec.proxy.mod: unknown field"),
        (policy("{streamingProxyRedirects: Off}"), "spec.streamingProxyRedirects: unknown variant"),
        (
            policy("{proxy: {maxConnectionBytesPerSec: -5}}"),
            "spec.proxy.maxConnectionBytesPerSec: -5 is out of range",
        ),
        (
            policy("{proxy: {maxConnectionBytesPerSec: fast}}"),
            "spec.proxy.maxConnectionBytesPerSec: \"fast\" is not a quantity",
        ),
        (policy("{targetVersion: 1.24}"), "spec.targetVersion: invalid type: floating point"),
        (policy("{targetVersion: \"2.0\"}"), "spec.targetVersion: \"2.0\" is not a version"),
        (
            policy("{overrides: [{node: n, reason: '', expires: 2030-01-01T00:00:00Z}]}"),
            "spec.overrides[0].reason: ",
        ),
        (
            policy("{overrides: [{node: n, expires: 2030-01-01T00:00:00Z}]}"),
            "missing field `reason`",
        ),
        (policy("{}\nspecs: {}"), "specs: unknown field"),
    ] {
        let error = objects(&format!("---\n{text}")).unwrap_err();
        assert!(error.starts_with("f.yaml, document 1: StreamingPolicy p: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    for (text, expected) in [
        ("a: [", "f.yaml: "),
        ("just words", "f.yaml, document 1: not an object"),
        ("a: b", "f.yaml, document 1: no kind"),
        (
            "apiVersion: v1\nkind: NodeList\nitems: {a: b}",
            "f.yaml, document 1: its items are no list",
        ),
        ("apiVersion: v1\nkind: Node\nmetadata: {}", "f.yaml, document 1: Node: metadata.name: "),
        (
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Node, metadata: {name: 7}}]",
            "f.yaml, document 1, items[0]: Node: metadata.name: ",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: n, labels: {a: true}}",
            "f.yaml, document 1: Node n: metadata.labels",
        ),
        (
            "apiVersion: sluice.dev/v9\nkind: StreamingPolicy\nmetadata: {name: p}",
            "f.yaml, document 1: StreamingPolicy p: apiVersion: ",
        ),
    ] {
        let error = objects(text).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn only_the_apiservers_pods_are_read() {
    let pod = |namespace: &str, component: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: kube-apiserver-cp, namespace: {namespace}, labels: {{component: {component}}}, annotations: {{kubernetes.io/config.mirror: x}}, ownerReferences: [{{apiVersion: v1, kind: Node, name: cp, uid: u}}]}}\nspec: {{nodeName: cp, containers: [{{name: kube-apiserver, image: 'k/kube-apiserver:v1.21.0', command: [kube-apiserver]}}]}}\n"
        )
    };
    for (namespace, component, count) in [
        ("kube-system", "kube-apiserver", 1),
        // Whatever its labels say, it runs one.
        ("kube-system", "etcd", 1),
        ("other", "kube-apiserver", 0),
    ] {
        let seen = objects(&pod(namespace, component)).unwrap();
        assert_eq!(seen.pods.len(), count, "{namespace} {component}");
    }
}
