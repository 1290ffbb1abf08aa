//! Tables of manifests as kubeadm, RKE2, kops and people write them, and random ones.

use k8s_openapi::api::core::v1::Pod;
use proptest::{prelude::*, sample::select};
use serde_json::json;

use super::*;
use crate::{cluster::ApiserverPod, decision::apiserver::Unseen};

const GATE: &str = "StreamingProxyRedirects";

/// The manifest of kubeadm 1.20, with the given argument lines in place of `ARGS`.
const KUBEADM: &str = "\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 10.0.0.1:6443
  creationTimestamp: null
  labels:
    component: kube-apiserver
    tier: control-plane
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=10.0.0.1
    - --authorization-mode=Node,RBAC
ARGS    image: k8s.gcr.io/kube-apiserver:v1.20.2
    imagePullPolicy: IfNotPresent
    livenessProbe:
      failureThreshold: 8
      httpGet:
        host: 10.0.0.1
        path: /livez
        port: 6443
        scheme: HTTPS
    name: kube-apiserver
    volumeMounts:
    - mountPath: /etc/ssl/certs
      name: ca-certs
      readOnly: true
  hostNetwork: true
  priorityClassName: system-node-critical
  volumes:
  - hostPath:
      path: /etc/ssl/certs
      type: DirectoryOrCreate
    name: ca-certs
status: {}
";

/// RKE2's: the program in one list, the arguments in another, everything in quotes.
const RKE2: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
spec:
  containers:
  - args:
    - \"--allow-privileged=true\"
ARGS    command:
    - kube-apiserver
    env:
    - name: FILE_HASH
      value: 'a,b'
    name: kube-apiserver
";

fn kubeadm(args: &str) -> String {
    KUBEADM.replace("ARGS", args)
}

fn changed(text: &str, setting: Setting) -> String {
    agree(text);
    match set_gate(text, GATE, setting) {
        Ok(Edited::Changed(new)) => new,
        other => panic!("{other:?} for {setting:?} of\n{text}"),
    }
}

/// Compares what the edit reads in a manifest with what the plan reads of its pod: whatever either is
/// sure of, the other must not deny.
fn agree(text: &str) {
    let Ok(mut pod) = documents::first(text) else { return };
    if pod["kind"] != "Pod" || !pod["metadata"].is_object() || !pod["spec"].is_object() {
        return;
    }
    // As the kubelet shows it to the apiserver.
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "cp", "uid": "u"}]);
    pod["spec"]["nodeName"] = json!("cp");
    let Ok(pod) = serde_json::from_value::<Pod>(pod) else { return };
    let seen = ApiserverPod::read(&pod);
    let seen = seen.as_ref().map(ApiserverPod::apiserver);
    let gates = seen.and_then(|seen| seen.gates.as_ref());
    let readable = gates.filter(|gates| gates.unreadable().is_none());
    match gate(text, GATE) {
        Ok(named) => {
            let says = readable.map(|gates| gates.get(GATE));
            let named = named.map(|named| named.setting == Setting::On);
            assert_eq!(says, Some(named), "{text}");
        }
        Err(error) => match error.reason() {
            "HiddenCommand" => {
                assert_eq!(
                    seen.and_then(|s| s.unseen.clone()),
                    Some(Unseen::HiddenCommand),
                    "{text}"
                );
            }
            "FeatureGatesUnreadable" | "Variable" => {
                assert!(gates.is_some_and(|gates| gates.unreadable().is_some()), "{text}");
            }
            // It is the form that is not edited.
            "Syntax" | "Json" | "SeveralDocuments" | "Anchors" | "Unexpected" => {}
            other => panic!("{other}: {error}\n{text}"),
        },
    }
}

/// Every manifest among the cases, beside those of this file, which each test compares.
#[test]
fn the_plan_and_the_edit_read_the_same() {
    let mut count = 0;
    let mut folders = vec![std::path::PathBuf::from("tests/cases")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path)
                && text.contains("kind: Pod")
            {
                agree(&text);
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} manifests");
}

#[test]
fn kubeadms_manifest() {
    use Setting::{Default, Off, On};
    let off = "    - --feature-gates=StreamingProxyRedirects=false\n";
    for (before, setting, after) in [
        ("", Off, off),
        ("", On, "    - --feature-gates=StreamingProxyRedirects=true\n"),
        (
            "    - --tls-min=1 # note\n    # below\n",
            Off,
            &*format!("    - --tls-min=1 # note\n{off}    # below\n"),
        ),
        (off, Default, ""),
        (off, On, "    - --feature-gates=StreamingProxyRedirects=true\n"),
        (
            "    - --feature-gates=A=true # ours\n    - --v=2\n",
            Off,
            "    - --feature-gates=A=true,StreamingProxyRedirects=false # ours\n    - --v=2\n",
        ),
        (
            "    - --feature-gates=A=true,StreamingProxyRedirects=true,B=false\n",
            Default,
            "    - --feature-gates=A=true,B=false\n",
        ),
        (
            "    - \"--feature-gates=StreamingProxyRedirects=true,B=false\" # why\n",
            Off,
            "    - \"--feature-gates=StreamingProxyRedirects=false,B=false\" # why\n",
        ),
        (
            "    - '--feature-gates=A=true'\n",
            Off,
            "    - '--feature-gates=A=true,StreamingProxyRedirects=false'\n",
        ),
        (
            "    - --feature-gates\n    - A=true\n    - --v=2\n",
            Off,
            "    - --feature-gates\n    - A=true,StreamingProxyRedirects=false\n    - --v=2\n",
        ),
        (
            "    - --feature-gates\n    - StreamingProxyRedirects=1\n    - --v=2\n",
            Default,
            "    - --v=2\n",
        ),
        (
            "    - --feature_gates=StreamingProxyRedirects=true\n",
            Off,
            "    - --feature_gates=StreamingProxyRedirects=false\n",
        ),
        // Several lists add up; one of them says it then.
        (
            "    - --feature-gates=StreamingProxyRedirects=true,A=true\n    - --feature-gates=StreamingProxyRedirects=true\n",
            Off,
            "    - --feature-gates=A=true\n    - --feature-gates=StreamingProxyRedirects=false\n",
        ),
        (
            "    - --feature-gates=StreamingProxyRedirects=true,A=true\n    - --feature-gates=StreamingProxyRedirects=false\n",
            Default,
            "    - --feature-gates=A=true\n",
        ),
        // The last of what is there is a value: the new flag comes after it.
        ("    - --v\n    - '2'\n", Off, &*format!("    - --v\n    - '2'\n{off}")),
        (
            "    - \"--v=2\"\n",
            Off,
            "    - \"--v=2\"\n    - \"--feature-gates=StreamingProxyRedirects=false\"\n",
        ),
        (
            "    -   '--v=2'\n",
            Off,
            "    -   '--v=2'\n    -   '--feature-gates=StreamingProxyRedirects=false'\n",
        ),
        // Not the gate: another one, and another flag.
        (
            "    - --feature-gates=XStreamingProxyRedirects=true\n    - --x=StreamingProxyRedirects=true\n",
            Off,
            "    - --feature-gates=XStreamingProxyRedirects=true,StreamingProxyRedirects=false\n    - --x=StreamingProxyRedirects=true\n",
        ),
        ("    - --service-host=$(HOST)\n", Off, &*format!("    - --service-host=$(HOST)\n{off}")),
    ] {
        let (text, expected) = (kubeadm(before), kubeadm(after));
        assert_eq!(changed(&text, setting), expected, "{before}{setting:?}");
        assert_eq!(set_gate(&expected, GATE, setting), Ok(Edited::Unchanged));
        // The same with the other line ends.
        let (text, expected) = (text.replace('\n', "\r\n"), expected.replace('\n', "\r\n"));
        assert_eq!(changed(&text, setting), expected, "{before}{setting:?}, CRLF");
    }
}

#[test]
fn nothing_to_do() {
    use Setting::{Default, Off, On};
    for (args, setting) in [
        ("", Default),
        ("    - --feature-gates=A=true\n", Default),
        ("    - --feature-gates=StreamingProxyRedirects=f\n", Off),
        ("    - --feature-gates=StreamingProxyRedirects=false,StreamingProxyRedirects=true\n", On),
    ] {
        assert_eq!(set_gate(&kubeadm(args), GATE, setting), Ok(Edited::Unchanged), "{args}");
    }
}

#[test]
fn two_lists_of_arguments() {
    let text = RKE2.replace("ARGS", "    - \"--tls=a,b\"\n");
    let expected = RKE2.replace(
        "ARGS",
        "    - \"--tls=a,b\"\n    - \"--feature-gates=StreamingProxyRedirects=false\"\n",
    );
    assert_eq!(changed(&text, Setting::Off), expected);
    assert_eq!(changed(&expected, Setting::Default), text);
    // A wrapper that shows what it starts.
    let kops = "kind: Pod\nspec:\n  containers:\n  - args:\n    - --v=2\n    command: [/go-runner, --log-file=/x, /usr/local/bin/kube-apiserver]\n    name: kube-apiserver\n";
    assert_eq!(
        changed(kops, Setting::Off),
        kops.replace("--v=2\n", "--v=2\n    - --feature-gates=StreamingProxyRedirects=false\n")
    );
}

#[test]
fn lists_in_brackets() {
    let pod = |list: &str| {
        format!(
            "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: {list} # c\n"
        )
    };
    let flag = "--feature-gates=StreamingProxyRedirects=false";
    for (without, with) in [
        ("[kube-apiserver]", format!("[kube-apiserver, {flag}]")),
        ("[ kube-apiserver, --v=2 ]", format!("[ kube-apiserver, --v=2, {flag} ]")),
        ("[\"kube-apiserver\", \"--v=2\"]", format!("[\"kube-apiserver\", \"--v=2\", \"{flag}\"]")),
        (
            "[kube-apiserver, '--feature-gates=A=true']",
            "[kube-apiserver, '--feature-gates=A=true,StreamingProxyRedirects=false']".to_owned(),
        ),
        (
            // A comma would end it.
            "[kube-apiserver, --feature-gates=A=true]",
            format!("[kube-apiserver, --feature-gates=A=true, {flag}]"),
        ),
        (
            "[kube-apiserver,\n      --v=2,\n    ]",
            format!("[kube-apiserver,\n      --v=2, {flag},\n    ]"),
        ),
    ] {
        assert_eq!(changed(&pod(without), Setting::Off), pod(&with));
        assert_eq!(changed(&pod(&with), Setting::Default), pod(without));
    }
    let refused = pod(&format!("[kube-apiserver, # a\n      {flag}]"));
    assert_eq!(set_gate(&refused, GATE, Setting::Default).unwrap_err().reason(), "Style");
}

#[test]
fn the_last_line_of_a_file() {
    for end in ["", "\n", "\n\n", "\n# end", "\r\n"] {
        let text = format!(
            "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command:\n    - kube-apiserver\n    - --v=2{end}"
        );
        let with = changed(&text, Setting::Off);
        assert_eq!(changed(&with, Setting::Default), text);
    }
}

#[test]
fn many_comments() {
    let comments = "    # one of many\n".repeat(500);
    let text = kubeadm(&format!("{comments}    - --v=2\n{comments}"));
    let with = changed(&text, Setting::Off);
    assert_eq!(changed(&with, Setting::Default), text);
}

#[test]
fn what_is_not_certain_is_refused() {
    let pod = |args: &str| kubeadm(args);
    let plain = kubeadm("");
    for (text, reason) in [
        (String::new(), "Syntax"),
        ("a: [".to_owned(), "Syntax"),
        ("{\"kind\": \"Pod\"}".to_owned(), "Json"),
        (format!("{plain}---\n{plain}"), "SeveralDocuments"),
        (plain.replace("kind: Pod", "kind: &kind Pod"), "Anchors"),
        (plain.replace("kind: Pod", "kind: !!str Pod"), "Anchors"),
        (plain.replace("kind: Pod", "kind: PodList"), "Unexpected"),
        (plain.replace("name: kube-apiserver\n    vol", "name: other\n    vol"), "Unexpected"),
        (plain.replace("    image:", "    command: [x]\n    image:"), "Unexpected"),
        (plain.replace("- kube-apiserver\n", "- /bin/sh\n    - -c\n"), "HiddenCommand"),
        (plain.replace("- kube-", "- sh\n    - -c\n    - kube-"), "HiddenCommand"),
        (plain.replace("- kube-", "- sh\n    - -ec\n    - exec /bin/kube-"), "HiddenCommand"),
        (pod("    - --feature-gates\n"), "FeatureGatesUnreadable"),
        (pod("    - --feature-gates=A\n"), "FeatureGatesUnreadable"),
        (pod("    - --feature-gates=$(GATES)\n"), "FeatureGatesUnreadable"),
        (pod("    - $(EXTRA)\n"), "Variable"),
        (pod("    - --\n"), "Style"),
        (pod("    - {a: b}\n"), "Unexpected"),
        (pod("    - >-\n      --v=2\n"), "Style"),
        (pod("    -\n      --v=2\n"), "Style"),
    ] {
        agree(&text);
        let refused = set_gate(&text, GATE, Setting::Off).unwrap_err();
        assert_eq!(refused.reason(), reason, "{text}");
        assert!(refused.to_string().starts_with("the apiserver's manifest, line "), "{refused}");
    }
    // The gate itself is spelled in a way that is not edited.
    for line in [
        "    - \"--feature-gates=StreamingProxyRedirects\\x3dtrue\"\n",
        "    - \"--feature-gates=A=true,\\\n      StreamingProxyRedirects=true\"\n",
        "    - |-\n      --feature-gates=StreamingProxyRedirects=true\n",
    ] {
        let refused = set_gate(&pod(line), GATE, Setting::Off).unwrap_err();
        assert_eq!(refused.reason(), "Style", "{line}");
    }
}

#[test]
fn the_gate_is_named_with_its_line() {
    let at = |args: &str| gate(&kubeadm(args), GATE).unwrap();
    assert_eq!(at("    - --feature-gates=A=true\n"), None);
    let named = GateLine {
        setting: Setting::On,
        line: 18,
        text: "- --feature-gates=A=true,StreamingProxyRedirects=true # ours".to_owned(),
    };
    assert_eq!(
        at("    - --feature-gates=A=true,StreamingProxyRedirects=true # ours\n"),
        Some(named)
    );
    let named = at(
        "    - --feature-gates=StreamingProxyRedirects=true\n    - --feature-gates\n    - StreamingProxyRedirects=false\n",
    );
    let expected = GateLine {
        setting: Setting::Off,
        line: 20,
        text: "- StreamingProxyRedirects=false".to_owned(),
    };
    assert_eq!(named, Some(expected));
    assert_eq!(
        gate(&kubeadm("    - --feature-gates=A\n"), GATE).unwrap_err().reason(),
        "FeatureGatesUnreadable"
    );
}

/// A line of arguments: what it looks like in a file.
fn argument() -> impl Strategy<Value = String> {
    let gates = vec!["A", "B", GATE, "StreamingProxyRedirect", "CSIMigration"];
    let word = vec!["true", "false", "T", "0"];
    let pair = (select(gates), select(word), select(&["", " "][..]))
        .prop_map(|(gate, on, space)| format!("{space}{gate}={on}"));
    let list = prop::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join(","));
    let name = select(&["--feature-gates", "--feature_gates"][..]);
    let gates = (name, list, any::<bool>()).prop_map(|(name, list, one)| {
        if one { vec![format!("{name}={list}")] } else { vec![name.to_owned(), list] }
    });
    let other = select(
        &["--v=2", "--etcd-servers=https://[::1]:2379,https://b:2379", "--x=a: b", "--y=#"][..],
    );
    let words = prop_oneof![gates, other.prop_map(|word| vec![word.to_owned()])];
    let style = (select(&["", "'", "\""][..]), select(&["", "  # note", " #"][..]));
    let aside = select(&["", "    # ein Käse, 日本\n", "\n"][..]);
    (words, style, aside).prop_map(|(words, (quote, note), aside)| {
        let quoted = |word: &String| {
            // What plain style cannot hold gets quotes.
            let needs = word.contains([':', '#', ' ']) || word.is_empty();
            let quote = if needs && quote.is_empty() { "'" } else { quote };
            format!("    - {quote}{word}{quote}{note}\n")
        };
        words.iter().map(quoted).chain([aside.to_owned()]).collect()
    })
}

fn manifest() -> impl Strategy<Value = String> {
    let args = prop::collection::vec(argument(), 0..6);
    (args, any::<bool>()).prop_map(|(args, crlf)| {
        let text = kubeadm(&args.concat());
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

fn setting() -> impl Strategy<Value = Setting> {
    select(&[Setting::Default, Setting::Off, Setting::On][..])
}

/// The arguments of a manifest, as a YAML parser sees them.
fn arguments(text: &str) -> Vec<String> {
    let mut pod: Value = serde_saphyr::from_str(text).unwrap();
    take_arguments(&mut pod).unwrap()
}

proptest! {
    #[test]
    fn only_the_gate_changes(text in manifest(), setting in setting()) {
        agree(&text);
        let now = gate(&text, GATE).unwrap().map_or(Setting::Default, |named| named.setting);
        let new = match set_gate(&text, GATE, setting).unwrap() {
            Edited::Unchanged => {
                prop_assert_eq!(now, setting);
                return Ok(());
            }
            Edited::Changed(new) => new,
        };
        prop_assert_ne!(now, setting);
        let says = gate(&new, GATE).unwrap().map_or(Setting::Default, |named| named.setting);
        prop_assert_eq!(says, setting);
        prop_assert_eq!(set_gate(&new, GATE, setting), Ok(Edited::Unchanged));
        // Without the gate, both are the same words, and it is said at most once.
        let strip = |text: &str| {
            let args = Arguments::of(arguments(text));
            let pairs = args.lists.iter().flat_map(|list| list.split(',')).map(str::trim);
            let pairs = pairs.filter(|pair| !pair.is_empty()).map(str::to_owned);
            let (gate, others): (Vec<String>, Vec<String>) =
                pairs.partition(|pair| pair.starts_with(&format!("{GATE}=")));
            (gate.len(), others, args.others)
        };
        let (before, after) = (strip(&text), strip(&new));
        prop_assert_eq!(after.0, usize::from(setting != Setting::Default));
        prop_assert_eq!((before.1, before.2), (after.1, after.2));
        // Every line that does not name a gate list is there as it was.
        let others = |text: &str| -> Vec<String> {
            let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
            lines.retain(|line| !line.contains('=') && !line.contains("feature"));
            lines
        };
        let (old, new) = (others(&text), others(&new));
        prop_assert!(new.iter().all(|line| old.contains(line)));
    }

    #[test]
    fn a_gate_that_was_not_there_leaves_no_trace(text in manifest(), setting in setting()) {
        let text = text.replace(GATE, "Other");
        if let Edited::Changed(new) = set_gate(&text, GATE, setting).unwrap() {
            prop_assert_eq!(changed(&new, Setting::Default), text);
        }
    }

    #[test]
    fn any_text_is_edited_or_refused(text in "[ a-z:#\\-\\[\\]{}'\",&*|>\n]{0,80}", setting in setting()) {
        let _ = set_gate(&text, GATE, setting);
        let manifest = kubeadm(&format!("    - {text}\n"));
        let _ = set_gate(&manifest, GATE, setting);
        agree(&manifest);
    }
}
