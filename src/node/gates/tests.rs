//! Kubelets with their files in a folder.

use std::os::unix::fs::symlink;

use super::*;

const NAMES: [&str; 3] = ["AllAlpha", "ExtendWebSocketsToKubelet", "NodeDeclaredFeatures"];

struct Node(tempfile::TempDir);

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            node.write(path, text);
        }
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn host(&self) -> Host {
        Host::new(self.0.path().into())
    }

    fn see(&self, watch: &mut Watch, pid: u32, line: &str) -> Option<String> {
        let args = line.split(' ').map(str::to_owned).collect();
        let process = Process { pid, start: 7, args };
        let gates = watch.see(&self.host(), &process, Some(later()), &NAMES)?;
        let shown = gates.iter().map(|(name, on)| format!("{name}={on}"));
        Some(shown.collect::<Vec<_>>().join(","))
    }

    fn says(&self, line: &str) -> Option<String> {
        self.see(&mut Watch::default(), 1, line)
    }
}

/// After everything that a test writes.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

fn config(gates: &str) -> String {
    format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{gates}")
}

const FILE: &str = "/var/lib/kubelet/config.yaml";
const WITH_FILE: &str = "kubelet --config=/var/lib/kubelet/config.yaml";
const ALL: &str = "kubelet --config=/var/lib/kubelet/config.yaml --config-dir /etc/kubelet.d/";

#[test]
fn a_command_line_alone() {
    let node = Node::new(&[]);
    for (line, expected) in [
        ("kubelet --v=2", Some("")),
        (
            "kubelet --feature-gates=ExtendWebSocketsToKubelet=false,Other=true",
            Some("ExtendWebSocketsToKubelet=false"),
        ),
        (
            "/hyperkube kubelet --feature-gates AllAlpha=true --feature_gates=NodeDeclaredFeatures=F",
            Some("AllAlpha=true,NodeDeclaredFeatures=false"),
        ),
        ("kubelet --feature-gates=AllAlpha=perhaps", None),
        ("kubelet --feature-gates", None),
        // Nobody knows whether these are values.
        ("kubelet --x --feature-gates=AllAlpha=true", None),
        ("kubelet --x --config=/a", None),
        // What cannot be seen.
        ("kubelet --config=/var/lib/kubelet/config.yaml", None),
        ("kubelet --config=config.yaml", None),
        ("kubelet --config-dir=/etc/kubelet.d", None),
        ("kubelet --config=", Some("")),
    ] {
        assert_eq!(node.says(line).as_deref(), expected, "{line}");
    }
}

#[test]
fn a_configuration_file() {
    for (text, expected) in [
        (config(""), Some("")),
        (
            config("featureGates:\n  ExtendWebSocketsToKubelet: false\n  Other: true\n"),
            Some("ExtendWebSocketsToKubelet=false"),
        ),
        (config("featureGates: {AllAlpha: true}\n"), Some("AllAlpha=true")),
        (
            r#"{"kind": "KubeletConfiguration", "featureGates": {"AllAlpha": false}}"#.to_owned(),
            Some("AllAlpha=false"),
        ),
        (config("featureGates: {Other: perhaps}\n"), Some("")),
        (config("featureGates: {AllAlpha: \"true\"}\n"), None),
        (config("featureGates: {AllAlpha: null}\n"), None),
        (config("featureGates: null\n"), None),
        (config("featureGates: [AllAlpha]\n"), None),
        (config("featureGates: {\n"), None),
        ("kind: KubeProxyConfiguration\nfeatureGates: {AllAlpha: true}\n".to_owned(), None),
        ("AllAlpha".to_owned(), None),
        (String::new(), None),
    ] {
        let node = Node::new(&[(FILE, &text)]);
        assert_eq!(node.says(WITH_FILE).as_deref(), expected, "{text}");
    }
    let large = config(&format!("# {}\n", "x".repeat(1 << 20)));
    assert_eq!(Node::new(&[(FILE, &large)]).says(WITH_FILE), None);
}

/// The file, then drop-ins by their names, then flags; each has the last word about what it names.
#[test]
fn the_order_of_a_kubelet() {
    let extend = |on| config(&format!("featureGates: {{ExtendWebSocketsToKubelet: {on}}}\n"));
    let node = Node::new(&[
        (FILE, &config("featureGates: {AllAlpha: true, ExtendWebSocketsToKubelet: true}\n")),
        ("/etc/kubelet.d/20-b.conf", &extend(true)),
        ("/etc/kubelet.d/10-a.conf", &extend(false)),
        ("/etc/kubelet.d/30-c.yaml", &extend(false)),
        ("/etc/kubelet.d/conf", &extend(false)),
    ]);
    assert_eq!(node.says(WITH_FILE).unwrap(), "AllAlpha=true,ExtendWebSocketsToKubelet=true");
    assert_eq!(node.says(ALL).unwrap(), "AllAlpha=true,ExtendWebSocketsToKubelet=true");
    // Folders are gone through where their names are.
    node.write("/etc/kubelet.d/20-z/1.conf", &extend(false));
    assert_eq!(node.says(ALL).unwrap(), "AllAlpha=true,ExtendWebSocketsToKubelet=false");
    let flags = format!("{ALL} --feature-gates=ExtendWebSocketsToKubelet=true,AllAlpha=false");
    assert_eq!(node.says(&flags).unwrap(), "AllAlpha=false,ExtendWebSocketsToKubelet=true");
    // A flag has the last word about what a file says in a way that is not understood, too.
    node.write("/etc/kubelet.d/40.conf", &config("featureGates: {AllAlpha: null}\n"));
    assert_eq!(node.says(ALL), None);
    assert!(node.says(&flags).is_some());
    node.write("/etc/kubelet.d/50.conf", "kind: Other\n");
    assert_eq!(node.says(&flags), None);
}

#[test]
fn links_are_followed_on_the_node() {
    let node = Node::new(&[
        ("/etc/kubernetes/kubelet.yaml", &config("featureGates: {AllAlpha: true}\n")),
        ("/etc/kubelet.d/none", ""),
    ]);
    fs::create_dir_all(node.path("/var/lib/kubelet")).unwrap();
    symlink("/etc/kubernetes/kubelet.yaml", node.path(FILE)).unwrap();
    symlink("/etc/kubernetes/kubelet.yaml", node.path("/etc/kubelet.d/1.conf")).unwrap();
    assert_eq!(node.says(ALL).unwrap(), "AllAlpha=true");
}

#[test]
fn a_file_that_changed_after_the_start_is_not_what_runs() {
    let text = config("featureGates: {AllAlpha: true}\n");
    let node = Node::new(&[(FILE, &text), ("/etc/kubelet.d/1.conf", &config(""))]);
    let args: Vec<String> = ALL.split(' ').map(str::to_owned).collect();
    let process = Process { pid: 1, start: 7, args };
    let at = |started| Watch::default().see(&node.host(), &process, started, &NAMES);
    let before = SystemTime::now() - Duration::from_secs(60);
    assert_eq!((at(Some(before)), at(None)), (None, None));
    assert!(at(Some(later())).is_some());

    // Each change after it was read, though it is before the start by the clock.
    let changes: [(&str, &dyn Fn()); 5] = [
        ("written", &|| node.write(FILE, &config("featureGates: {AllAlpha: false}\n"))),
        ("a drop-in comes", &|| node.write("/etc/kubelet.d/2.conf", &config(""))),
        ("a drop-in goes", &|| fs::remove_file(node.path("/etc/kubelet.d/2.conf")).unwrap()),
        ("put in its place", &|| {
            node.write("/etc/other.yaml", &text);
            fs::rename(node.path("/etc/other.yaml"), node.path(FILE)).unwrap();
        }),
        ("deleted", &|| fs::remove_file(node.path(FILE)).unwrap()),
    ];
    let (mut watch, mut pid) = (Watch::default(), 10);
    for (change, apply) in changes {
        pid += 1;
        assert!(node.see(&mut watch, pid, ALL).is_some(), "before it is {change}");
        assert!(node.see(&mut watch, pid, ALL).is_some(), "nothing has changed");
        apply();
        assert_eq!(node.see(&mut watch, pid, ALL), None, "{change}");
        assert_eq!(node.see(&mut watch, pid, ALL), None, "{change}, and it stays so");
    }
    // What could not be seen at first may be seen later.
    assert_eq!(node.see(&mut watch, 20, ALL), None);
    node.write(FILE, &text);
    assert_eq!(node.see(&mut watch, 20, ALL).unwrap(), "AllAlpha=true");
}
