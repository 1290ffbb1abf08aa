//! Small inputs of kinds that public clusters have and that were judged wrongly once, or nearly. Each
//! is a file below `tests/cases`.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;
use sluice::{
    decision::canary::{Probe, classify, failures},
    edit::{Edited, environment, manifest},
    kubernetes::{arguments::kubelet::FlagValue, feature_gates::Setting},
    node::host::Host,
};

use super::{Ran, condition, run};

const GATE: &str = "StreamingProxyRedirects";
const FLAG: &str = "redirect-container-streaming";

/// Apiservers that nobody sees, with the gate on by default.
const UNSEEN: [&str; 2] = ["--apiserver-version=1.21", "--apiserver-feature-gates="];
const NODES: &str = "nodes.yaml";

fn plan(files: &[&str], more: &[&str]) -> Ran {
    let files: Vec<String> =
        files.iter().map(|file| format!("--filename=tests/cases/{file}")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    run(&[&["plan"][..], &files, more].concat(), "")
}

/// The exit code, the gate, the reasons of SafeToDisable and UpgradeSafe (where a target is asked
/// about), and of each node whether it redirects; of an error its words.
fn judged(files: &[&str], more: &[&str]) -> String {
    let ran = plan(files, &[more, &["-o", "json"]].concat());
    let code = ran.code.unwrap();
    let Ok(list) = serde_json::from_str::<Value>(&ran.stdout) else {
        return format!("{code} {}", ran.stderr.trim_end());
    };
    let items = list["items"].as_array().unwrap();
    let policy = &items[0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut words = vec![code.to_string(), text(&policy["status"]["gate"])];
    words.push(text(&condition(policy, "SafeToDisable")["reason"]));
    if more.iter().any(|arg| arg.starts_with("--target")) {
        words.push(text(&condition(policy, "UpgradeSafe")["reason"]));
    }
    let nodes = items.iter().filter(|item| item["kind"] == "StreamingNode");
    words.extend(nodes.map(|node| text(&node["status"]["redirects"])));
    words.join(" ")
}

fn unseen(target: &'static str) -> Vec<&'static str> {
    [&UNSEEN[..], &[target]].concat()
}

#[test]
fn arguments_of_k3s_and_rke2() {
    for (file, expected) in [
        ("underscores", "2 Enabled NodesRedirectWhileLagging On"),
        ("rke2-one-underscore", "2 Enabled NodesRedirectWhileLagging On"),
        ("both-spellings", "2 Enabled NodesRedirectWhileLagging On"),
        ("dashes", "2 Enabled NodesRedirectWhileLagging On"),
        ("another-flag", "0 Enabled NoNodeRedirects Off"),
        ("underscores-off", "0 Enabled NoNodeRedirects Off"),
    ] {
        let file = format!("k3s-node-args/{file}.yaml");
        assert_eq!(judged(&[&file], &UNSEEN), expected, "{file}");
    }
    assert_eq!(
        judged(&["k3s-node-args/underscores-off.yaml"], &unseen("--target=1.24")),
        "2 Enabled NoNodeRedirects KubeletRefusesFlag Off"
    );
}

#[test]
fn mirror_pods_with_other_labels_or_none() {
    for file in ["k8s-app", "no-labels"] {
        let files = [NODES, &format!("kops-mirror-pods/{file}.yaml")];
        assert_eq!(
            judged(&files, &["--target=1.24"]),
            "2 Enabled NoNodeRedirects ApiserverRefusesGate Ignored Ignored",
            "{file}"
        );
        assert_eq!(
            judged(&files, &unseen("--target=1.24")),
            format!(
                "1 error: --apiserver-feature-gates contradicts the command line of cp-1 about {GATE}"
            ),
            "{file}"
        );
    }
    let files = [NODES, "kops-mirror-pods/no-mirror.yaml"];
    assert_eq!(
        judged(&files, &["--target=1.24"]),
        "2 Unknown ApiserversUnknown ApiserverUnknown Ignored Ignored"
    );
    let ran = plan(&files, &unseen("--target=1.24"));
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("is no mirror pod of its node"), "{}", ran.stderr);
}

#[test]
fn scalars_that_only_look_like_numbers() {
    for (file, expected) in [
        ("label-12e5678", "0 Removed GateRemoved Ignored"),
        ("label-123e456", "0 Removed GateRemoved Ignored"),
        ("name-12e5678", "0 Removed GateRemoved Ignored"),
        ("plain-words", "0 Removed GateRemoved Ignored"),
    ] {
        let file = format!("scalars/{file}.yaml");
        assert_eq!(judged(&[&file], &["--apiserver-version=1.24"]), expected, "{file}");
    }
    let named = plan(&["scalars/name-12e5678.yaml"], &["--apiserver-version=1.24"]);
    assert!(named.stdout.contains("\n12e5678 "), "{}", named.stdout);
}

#[test]
fn versions_of_images() {
    for (file, expected) in [
        ("underscore", "0 Disabled NoNodeRedirects Ignored Ignored"),
        ("underscore-digest", "0 Enabled NoNodeRedirects Ignored Ignored"),
        ("no-version", "2 Unknown ApiserversUnknown Ignored Ignored"),
    ] {
        assert_eq!(judged(&[NODES, &format!("image-tags/{file}.yaml")], &[]), expected, "{file}");
    }
    let ran = plan(&[NODES, "image-tags/no-version.yaml"], &["--target=1.24"]);
    for words in ["stable_2", "--apiserver-version"] {
        assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
    }
    assert!(!ran.stdout.contains("command line"), "{}", ran.stdout);
}

#[test]
fn versions_of_kubelets() {
    for (file, expected) in [
        ("prereleases/kubelet-1.20-alpha", "2 Enabled NodesRedirectWhileLagging On"),
        ("prereleases/kubelet-1.20-beta", "2 Enabled NodesRedirectWhileLagging On"),
        ("prereleases/vendor-suffix", "0 Enabled NoNodeRedirects Ignored"),
        ("prereleases/vendor-suffix-of-dot-zero", "0 Enabled NoNodeRedirects Ignored"),
        ("unreadable-versions/virtual-kubelet-false", "0 Enabled NoNodeRedirects Off"),
        ("unreadable-versions/virtual-kubelet-true", "2 Enabled NodesRedirectWhileLagging On"),
        ("unreadable-versions/fake-false", "2 Enabled NodesUnknown Unknown"),
        ("unreadable-versions/kwok-false", "2 Enabled NodesUnknown Unknown"),
        ("skew/kubelet-newer", "0 Enabled NoNodeRedirects Impossible Impossible"),
    ] {
        assert_eq!(judged(&[&format!("{file}.yaml")], &UNSEEN), expected, "{file}");
    }
    // By its provider, and not where somebody says that it redirects.
    let excepted = "unreadable-versions/kwok-excepted.yaml";
    let target = unseen("--target=1.24");
    // That exec may fail is accepted; whether a kubelet starts there is another question.
    for file in [excepted, "unreadable-versions/excepted-by-name.yaml"] {
        let expected = "2 Enabled OnlyOverriddenNodes KubeletFlagUnknown Unknown";
        assert_eq!(judged(&[file], &target), expected, "{file}");
    }
    let both = [excepted, "unreadable-versions/kwok-redirects.yaml"];
    assert_eq!(judged(&both, &UNSEEN), "2 Enabled NodesRedirect Unknown On");
    // No advice that changes nothing.
    for file in ["fake-false", "kwok-false"] {
        let ran = plan(&[&format!("unreadable-versions/{file}.yaml")], &unseen("--target=1.24"));
        assert_eq!(ran.code, Some(2));
        assert!(!ran.stdout.contains("annotate"), "{}", ran.stdout);
        assert!(ran.stdout.contains("only an override of the policy"), "{}", ran.stdout);
        assert!(ran.stdout.contains("its provider"), "{}", ran.stdout);
    }
    let skewed = plan(&["skew/kubelet-newer.yaml"], &UNSEEN);
    assert!(skewed.stdout.contains("Degraded: KubeletNewer"), "{}", skewed.stdout);
}

#[test]
fn files_that_the_unit_names() {
    let next_start = |root: &str| {
        let found = Host::new(format!("tests/cases/env-files/{root}").into()).next_start(FLAG);
        (found.says, found.files)
    };
    let file = "/etc/kubernetes/kubelet.env";
    assert_eq!(next_start("other-path/root"), (FlagValue::On, vec![file.to_owned()]));
    assert_eq!(next_start("latin1/root"), (FlagValue::On, vec!["/etc/default/kubelet".to_owned()]));
    let path = format!("tests/cases/env-files/other-path/root{file}");
    let edited = environment::remove_flag(&fs::read_to_string(path).unwrap(), FLAG);
    assert!(matches!(edited, Ok(Edited::Changed(_))), "{edited:?}");

    let steps = |node: &str| {
        let ran = plan(&[&format!("env-files/other-path/{node}.yaml")], &unseen("--target=1.24"));
        assert_eq!(ran.code, Some(2));
        ran.stdout
    };
    let told = steps("node-with-files");
    assert!(told.contains(&format!("takes --{FLAG} from {file}")), "{told}");
    let untold = steps("node");
    assert!(untold.contains("EnvironmentFile="), "{untold}");
}

#[test]
fn command_lines_of_apiservers() {
    let hidden = "2 Unknown ApiserversUnknown ApiserverUnknown Ignored Ignored";
    for (file, more, expected) in [
        ("shell-wrapped-commands/script-names-gate", &["--target=1.24"][..], hidden),
        ("shell-wrapped-commands/script-passes-all", &["--target=1.24"], hidden),
        ("shell-wrapped-commands/variable-for-a-flag", &["--target=1.24"], hidden),
        (
            "shell-wrapped-commands/after-two-dashes",
            &[],
            "0 Enabled NoNodeRedirects Ignored Ignored",
        ),
        ("apiserver-flags/all-beta-1.22", &[], "0 Enabled NoNodeRedirects Ignored Ignored"),
        ("manifests/hyperkube", &[], "0 Enabled NoNodeRedirects Ignored Ignored"),
        ("manifests/hyperkube-long-name", &[], "0 Enabled NoNodeRedirects Ignored Ignored"),
        ("manifests/hyperkube-other", &[], "2 Unknown ApiserversUnknown Ignored Ignored"),
    ] {
        assert_eq!(judged(&[NODES, &format!("{file}.yaml")], more), expected, "{file}");
    }
    // What the user says must not contradict what a script or a variable shows.
    for file in ["script-names-gate", "script-passes-all", "variable-for-a-flag"] {
        let files = [NODES, &format!("shell-wrapped-commands/{file}.yaml")];
        let said = |gates: &str| {
            let gates = format!("--apiserver-feature-gates={gates}");
            judged(&files, &["--apiserver-version=1.22", &gates, "--target=1.24"])
        };
        for gates in ["", "StreamingProxyRedirects=false"] {
            assert!(
                said(gates).starts_with("1 error: --apiserver-feature-gates"),
                "{file} {gates}"
            );
        }
        assert_eq!(
            said("StreamingProxyRedirects=true"),
            "2 Enabled NoNodeRedirects ApiserverRefusesGate Ignored Ignored",
            "{file}"
        );
    }
    let files = [NODES, "apiserver-flags/advertise-address.yaml", "apiserver-flags/endpoints.yaml"];
    assert_eq!(judged(&files, &[]), "0 Disabled NoNodeRedirects Ignored Ignored");
    let loose = plan(&[NODES, "apiserver-flags/all-beta-1.22.yaml"], &[]);
    assert!(!loose.stdout.contains("Degraded: RedirectsNotValidated"), "{}", loose.stdout);
}

#[test]
fn dumps_in_every_form() {
    for (file, expected) in [
        ("status-null.yaml", "2 Removed NodesUnknown Unknown Ignored"),
        ("node-info-null.json", "2 Removed NodesUnknown Unknown"),
        ("kubelet-version-null.yaml", "2 Removed NodesUnknown Unknown"),
        ("utf-16le.yaml", "0 Removed GateRemoved Ignored"),
        ("utf-16le.json", "0 Removed GateRemoved Ignored"),
        ("utf-8-bom.yaml", "0 Removed GateRemoved Ignored"),
    ] {
        let more = ["--apiserver-version=1.24"];
        assert_eq!(judged(&[&format!("dump-forms/{file}")], &more), expected, "{file}");
    }
    let bytes = fs::read("tests/cases/dump-forms/utf-16le.yaml").unwrap();
    let mut command = Command::cargo_bin("sluice").unwrap();
    let args = ["plan", "-f", "-", "--apiserver-version", "1.24"];
    assert_eq!(command.args(args).write_stdin(bytes).output().unwrap().status.code(), Some(0));
}

#[test]
fn manifests() {
    let text = |file: &str| fs::read_to_string(format!("tests/cases/{file}.yaml")).unwrap();
    let set = |file: &str, setting| match manifest::set_gate(&text(file), GATE, setting) {
        Ok(Edited::Unchanged) => "unchanged".to_owned(),
        Ok(Edited::Changed(_)) => "changed".to_owned(),
        Err(error) => format!("{} {error}", error.reason()),
    };
    for file in [
        "manifests/trailing-document",
        "manifests/trailing-comment",
        "manifests/hyperkube",
        "manifests/hyperkube-long-name",
        "scalars/manifest-12e5678",
    ] {
        assert_eq!(set(file, Setting::Off), "changed", "{file}");
    }
    for file in ["trailing-document", "trailing-comment"] {
        let text = text(&format!("manifests/{file}"));
        let end = &text[text.find("---").unwrap()..];
        let Ok(Edited::Changed(new)) = manifest::set_gate(&text, GATE, Setting::Off) else {
            panic!("{file} is not changed");
        };
        assert!(new.ends_with(&format!("=false\n{end}")), "{new}");
    }
    for file in ["folded-plain", "folded-double", "folded-block"] {
        let file = format!("manifests/{file}");
        let named = manifest::gate(&text(&file), GATE).unwrap();
        assert_eq!(named.map(|named| named.setting), Some(Setting::On), "{file}");
        let refused = set(&file, Setting::Off);
        assert!(refused.starts_with("Style") && refused.contains("several lines"), "{refused}");
    }
    for (file, reason) in [
        ("manifests/two-documents", "SeveralDocuments"),
        ("manifests/hyperkube-other", "HiddenCommand"),
        ("shell-wrapped-commands/script-names-gate", "HiddenCommand"),
        ("shell-wrapped-commands/script-passes-all", "HiddenCommand"),
        ("shell-wrapped-commands/variable-for-a-flag", "Variable"),
        ("shell-wrapped-commands/after-two-dashes", "Style"),
    ] {
        let refused = set(file, Setting::Off);
        assert_eq!(refused.split(' ').next(), Some(reason), "{file}");
    }
}

#[test]
fn answers_of_canaries() {
    for (file, code, answer, words) in [
        ("x509-of-the-kubelet.txt", 500, "RuntimeUnreachable", "enable_tls_streaming"),
        ("x509-of-the-apiserver.json", 500, "KubeletUnreachable", "to which the redirect led"),
        ("not-found.txt", 404, "NotUnderstood", "is no streaming server"),
    ] {
        let said = fs::read_to_string(format!("tests/cases/canary-answers/{file}")).unwrap();
        let is = classify(code, said.trim());
        assert_eq!(is.as_str(), answer, "{file}");
        let failure =
            failures(&[Probe::new("cp-1", "old-1", (is, &said), (is, &said), (is, &said))])
                .remove(0);
        assert!(failure.advice.contains(words), "{file}: {}", failure.advice);
    }
}
