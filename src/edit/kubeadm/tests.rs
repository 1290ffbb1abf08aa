//! Tables of configurations as kubeadm writes them into its ConfigMap, and random ones.

use proptest::{prelude::*, sample::select};

use super::*;

const GATE: &str = "StreamingProxyRedirects";

/// What kubeadm 1.20 stores, with `APISERVER` for the section.
const V1BETA2: &str = "\
APISERVERapiVersion: kubeadm.k8s.io/v1beta2
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns:
  type: CoreDNS
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: k8s.gcr.io
kind: ClusterConfiguration
kubernetesVersion: v1.20.2
networking:
  dnsDomain: cluster.local
  serviceSubnet: 10.96.0.0/12
scheduler: {}
";

fn map(section: &str) -> String {
    V1BETA2.replace("APISERVER", section)
}

fn list(section: &str) -> String {
    map(section).replace("v1beta2", "v1beta4")
}

fn changed(text: &str, setting: Setting) -> String {
    match set_gate(text, GATE, setting) {
        Ok(Edited::Changed(new)) => new,
        other => panic!("{other:?} for {setting:?} of\n{text}"),
    }
}

/// Checks an edit and that making it again changes nothing, with both line ends.
fn check(before: &str, setting: Setting, after: &str) {
    assert_eq!(changed(before, setting), after);
    assert_eq!(set_gate(after, GATE, setting), Ok(Edited::Unchanged));
    let (before, after) = (before.replace('\n', "\r\n"), after.replace('\n', "\r\n"));
    assert_eq!(changed(&before, setting), after, "CRLF");
}

#[test]
fn arguments_that_are_a_map() {
    use Setting::{Default, Off, On};
    let args = "apiServer:\n  extraArgs:\n    authorization-mode: Node,RBAC\n  timeoutForControlPlane: 4m0s\n";
    let off = "apiServer:\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=false\n    authorization-mode: Node,RBAC\n  timeoutForControlPlane: 4m0s\n";
    let with =
        |list: &str| args.replace("    auth", &format!("    feature-gates: {list}\n    auth"));
    for (before, setting, after) in [
        (args, Off, off),
        (off, Default, args),
        (off, On, &*off.replace("=false", "=true")),
        (&*with("A=true # ours"), Off, &*with("A=true,StreamingProxyRedirects=false # ours")),
        (&*with("\"A=true\""), Off, &*with("\"A=true,StreamingProxyRedirects=false\"")),
        (&*with("'StreamingProxyRedirects=true,A=true'"), Default, &*with("'A=true'")),
        (&*with("\"\""), Off, &*with("StreamingProxyRedirects=false")),
        // Sections that are not there.
        (
            "apiServer:\n  timeoutForControlPlane: 4m0s\n",
            Off,
            "apiServer:\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=false\n  timeoutForControlPlane: 4m0s\n",
        ),
        (
            "apiServer:\n    certSANs:\n    - a\n",
            Off,
            "apiServer:\n    extraArgs:\n      feature-gates: StreamingProxyRedirects=false\n    certSANs:\n    - a\n",
        ),
        (
            "apiServer: {} # none\n",
            Off,
            "apiServer: # none\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=false\n",
        ),
        (
            "apiServer:\n",
            Off,
            "apiServer:\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=false\n",
        ),
        (
            "apiServer:\n  extraArgs: {}\n  certSANs: [a]\n",
            Off,
            "apiServer:\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=false\n  certSANs: [a]\n",
        ),
        ("", Off, "apiServer:\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=false\n"),
        // Sections that become empty.
        (
            "apiServer:\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=true\n  certSANs: [a]\n",
            Default,
            "apiServer:\n  certSANs: [a]\n",
        ),
        (
            "apiServer:\n  extraArgs:\n    feature-gates: StreamingProxyRedirects=true\n",
            Default,
            "apiServer: {}\n",
        ),
        // In braces the value is edited, and nothing taken away.
        (
            "apiServer: {extraArgs: {feature-gates: \"StreamingProxyRedirects=true\"}}\n",
            Off,
            "apiServer: {extraArgs: {feature-gates: \"StreamingProxyRedirects=false\"}}\n",
        ),
    ] {
        check(&map(before), setting, &map(after));
    }
}

#[test]
fn arguments_that_are_a_list() {
    use Setting::{Default, Off};
    let args = "apiServer:\n  extraArgs:\n  - name: authorization-mode\n    value: Node,RBAC\n";
    let off = "apiServer:\n  extraArgs:\n  - name: feature-gates\n    value: StreamingProxyRedirects=false\n  - name: authorization-mode\n    value: Node,RBAC\n";
    for (before, setting, after) in [
        (args, Off, off),
        (off, Default, args),
        (
            "apiServer:\n  extraArgs:\n    - name: v\n      value: \"2\"\n",
            Off,
            "apiServer:\n  extraArgs:\n    - name: feature-gates\n      value: StreamingProxyRedirects=false\n    - name: v\n      value: \"2\"\n",
        ),
        (
            "apiServer: {}\n",
            Off,
            "apiServer:\n  extraArgs:\n  - name: feature-gates\n    value: StreamingProxyRedirects=false\n",
        ),
        (
            "apiServer:\n  extraArgs:\n  - {name: feature-gates, value: StreamingProxyRedirects=true}\n  - {name: v, value: \"2\"}\n",
            Default,
            "apiServer:\n  extraArgs:\n  - {name: v, value: \"2\"}\n",
        ),
        // Two lists add up.
        (
            "apiServer:\n  extraArgs:\n  - name: feature-gates\n    value: StreamingProxyRedirects=true\n  - name: feature-gates\n    value: A=true,StreamingProxyRedirects=true\n",
            Off,
            "apiServer:\n  extraArgs:\n  - name: feature-gates\n    value: A=true,StreamingProxyRedirects=false\n",
        ),
    ] {
        check(&list(before), setting, &list(after));
    }
}

#[test]
fn what_is_not_certain_is_refused() {
    let args = "apiServer:\n  extraArgs:\n    v: \"2\"\n";
    for (text, reason) in [
        (map(args).replace("kind: ClusterConfiguration", "kind: InitConfiguration"), "Unexpected"),
        (map(args).replace("v1beta2", "v1alpha3"), "Unexpected"),
        (map("apiServer:\n  extraArgs: [a]\n"), "Unexpected"),
        (map("apiServer:\n  extraArgs: text\n"), "Unexpected"),
        (list(args), "Unexpected"),
        (list("apiServer:\n  extraArgs:\n  - name: feature-gates\n"), "Unexpected"),
        (map("apiServer:\n  extraArgs: &args\n    v: \"2\"\n"), "Anchors"),
        (map("apiServer:\n  extraArgs: {v: \"2\"}\n"), "Style"),
        (map("apiServer:\n  extraArgs:\n    feature-gates: $(X)\n"), "FeatureGatesUnreadable"),
        (map("apiServer:\n  extraArgs:\n    feature-gates:\n    - A=true\n"), "Unexpected"),
        (map("apiServer:\n  extraArgs:\n    v: '2'\n    v: '3'\n"), "Unexpected"),
        (format!("{}---\nkind: InitConfiguration\n", map(args)), "SeveralDocuments"),
        ("{\"kind\": \"ClusterConfiguration\"}".to_owned(), "Json"),
    ] {
        let refused = set_gate(&text, GATE, Setting::Off).unwrap_err();
        assert_eq!(refused.reason(), reason, "{text}");
        assert!(refused.to_string().starts_with("the ClusterConfiguration, line "), "{refused}");
    }
    for section in [
        "apiServer:\n  extraArgs: {feature-gates: \"StreamingProxyRedirects=true\"}\n",
        "apiServer:\n  extraArgs:\n    feature-gates:\n      StreamingProxyRedirects=true\n",
        "apiServer:\n  extraArgs:\n    ? feature-gates\n    : StreamingProxyRedirects=true\n",
    ] {
        let refused = set_gate(&map(section), GATE, Setting::Default).unwrap_err();
        assert_eq!(refused.reason(), "Style", "{section}");
    }
}

/// A section as people write them: arguments, comments, other keys.
fn section(listed: bool) -> impl Strategy<Value = String> {
    let names = vec!["authorization-mode", "v", "feature-gates", "audit-log-path"];
    let value = select(vec!["Node,RBAC", "\"2\"", "'a: b'", "/x # note"]);
    let gates = select(vec![
        "A=true",
        "\"A=true,StreamingProxyRedirects=true\"",
        "StreamingProxyRedirects=false",
        "'StreamingProxyRedirects=T, B=0'",
    ]);
    let aside = select(vec!["", "    # Käse\n"]);
    let argument = (value, gates, aside);
    let arguments = prop::collection::vec(argument, names.len());
    let chosen = prop::sample::subsequence(names, 0..=4);
    let after = select(vec!["", "  timeoutForControlPlane: 4m0s\n", "  certSANs:\n  - a\n"]);
    (arguments, chosen, after).prop_map(move |(arguments, names, after)| {
        let mut text = String::new();
        for (name, (value, gates, aside)) in names.iter().zip(arguments) {
            let value = if *name == "feature-gates" { gates } else { value };
            text += aside;
            text += &if listed {
                format!("  - name: {name}\n    value: {value}\n")
            } else {
                format!("    {name}: {value}\n")
            };
        }
        let section = if text.is_empty() { String::new() } else { format!("  extraArgs:\n{text}") };
        match section + after {
            empty if empty.is_empty() => "apiServer: {}\n".to_owned(),
            section => format!("apiServer:\n{section}"),
        }
    })
}

fn configuration() -> impl Strategy<Value = String> {
    prop_oneof![section(false).prop_map(|s| map(&s)), section(true).prop_map(|s| list(&s))]
}

proptest! {
    #[test]
    fn only_the_gate_changes(
        text in configuration(),
        setting in select(&[Setting::Default, Setting::Off, Setting::On][..]),
    ) {
        let new = match set_gate(&text, GATE, setting).unwrap() {
            Edited::Unchanged => text.clone(),
            Edited::Changed(new) => new,
        };
        prop_assert_eq!(set_gate(&new, GATE, setting), Ok(Edited::Unchanged));
        prop_assert_eq!(verify(&text, &new, GATE, setting), Ok(()));
        // Comments, and lines that are about something else, are there as they were.
        let others = |text: &str| -> Vec<String> {
            let about = ["feature-gates", "Gate", "A=", "B=0", "Redirects", "apiServer", "extraArgs"];
            let lines = text.lines().filter(|line| !about.iter().any(|word| line.contains(word)));
            lines.map(str::to_owned).collect()
        };
        prop_assert_eq!(others(&text), others(&new));
        // And the way back leaves no trace.
        if !text.contains(GATE) && new != text {
            prop_assert_eq!(changed(&new, Setting::Default), text);
        }
    }
}

#[test]
fn the_endpoint_of_all_apiservers_is_read() {
    for (line, url) in [
        ("controlPlaneEndpoint: 10.0.0.9:6443", Some("https://10.0.0.9:6443")),
        ("controlPlaneEndpoint: \"api.example.com\"", Some("https://api.example.com:6443")),
        ("controlPlaneEndpoint: \"[fd00::9]:8443\"", Some("https://[fd00::9]:8443")),
        ("controlPlaneEndpoint: \"\"", None),
        ("controlPlaneEndpoint: a b", None),
        ("clusterName: c", None),
    ] {
        let text =
            format!("apiVersion: kubeadm.k8s.io/v1beta2\n{line}\nkind: ClusterConfiguration\n");
        assert_eq!(endpoint(&text).as_deref(), url, "{line}");
    }
    assert_eq!(endpoint("["), None);
}
