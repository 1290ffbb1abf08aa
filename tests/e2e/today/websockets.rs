//! WebSockets to the kubelet (KEP-4006): what is said of them, and what becomes of real ones.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::{Value, json};

use super::{NODES, all_true};
use crate::{
    agent::{self, NAMESPACE, START, pod, report, rolled_out, sum},
    api::STREAMING_NODES,
    bed::{Bed, Client, Output},
    managed::{canary_of, checked, planned},
    operator::{COLLECTED, SECONDS, becomes, becomes_within},
    servers::{NODE, canary_answers, found},
};

const GATE: &str = "ExtendWebSocketsToKubelet";
/// The configuration of a kubelet.
const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// What the apiserver runs.
const TODAY: &str = "1.37";
/// What it runs next, where the gate is planned to be locked.
const NEXT: &str = "1.38";
/// For the Node, the agent and the verdict to be those of a host or a kubelet that has just been started.
const SETTLED: Duration = COLLECTED;

/// Waits until a WebSocket to [`NODE`] fares so, today and at [`NEXT`], and one to any other node comes through to its kubelet.
#[track_caller]
fn cells_become(bed: &Bed, today: &str, then: &str) {
    let cell = |today: &str, then: &str| json!({"today": today, "version": NEXT, "then": then});
    let expected = NODES.map(|node| match node {
        NODE => cell(today, then),
        _ => cell("Through", "Through"),
    });
    let mut last = None;
    bed.wait_for(&format!("the cells of {NODES:?} to be {expected:?}"), SETTLED, || {
        let now = NODES.map(|node| {
            let object = bed.get(&format!("{STREAMING_NODES}/{node}"));
            object.map_or(Value::Null, |object| object["status"]["webSockets"].clone())
        });
        let same = now == expected;
        if last.as_ref() != Some(&now) {
            eprintln!("{now:?}");
            last = Some(now);
        }
        same.then_some(())
    });
}

#[track_caller]
fn exec(bed: &Bed, client: Client, node: &str) -> Output {
    bed.kubectl_of(client, &["exec", "-n", NAMESPACE, node, "--", "true"])
}

/// Waits until the current kubectl gets through: a kubelet that has just been started does not listen yet.
#[track_caller]
fn answers(bed: &Bed, node: &str) {
    bed.wait_for(&format!("an exec on {node}"), SECONDS, || {
        exec(bed, Client::Current, node).success().then_some(())
    });
}

/// Execs, as the apiserver and the kubelet of one node have counted them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counted {
    /// To nodes that declare that they take WebSockets. The apiserver says that it counts WebSockets, and counts SPDY as well
    /// (`ExecREST.Connect` in `pkg/registry/core/pod/rest/subresources.go`).
    handed_on: f64,
    /// To other nodes, likewise.
    kept: f64,
    /// WebSockets that the apiserver has translated, to any node.
    translated: f64,
    /// WebSockets that came to the kubelet.
    came: f64,
}

impl Counted {
    #[track_caller]
    fn now(bed: &Bed, node: &str) -> Self {
        const EXEC: &str = "subresource=\"exec\"";
        let metrics = |path: &str| bed.kubectl(&["get", "--raw", path]).succeeded().stdout;
        let apiserver = metrics("/metrics");
        let kubelet = metrics(&format!("/api/v1/nodes/{node}/proxy/metrics"));
        let routed = |way: &str| {
            let labels = [EXEC, &format!("proxy_type=\"{way}\"")];
            sum(&apiserver, "apiserver_websocket_streaming_requests_total", &labels)
        };
        Self {
            handed_on: routed("proxied_to_kubelet"),
            kept: routed("translated_at_apiserver"),
            translated: sum(&apiserver, "apiserver_stream_translator_requests_total", &[]),
            came: sum(&kubelet, "kubelet_websocket_streaming_requests_total", &[EXEC]),
        }
    }
}

/// Has each kubectl exec once, the old one over SPDY. What is counted meanwhile has to be what the node's cell says.
#[track_caller]
fn counted_as(bed: &Bed, node: &str, cell: &str) {
    let before = Counted::now(bed, node);
    exec(bed, Client::Old, node).succeeded();
    let current = exec(bed, Client::Current, node);
    assert_eq!(current.success(), cell != "Broken", "{node} is {cell}: {current}");
    let Counted { handed_on, kept, translated, came } = before;
    let expected = match cell {
        "Through" | "Broken" => Counted { handed_on: handed_on + 2.0, came: came + 1.0, ..before },
        "Translated" => Counted { kept: kept + 2.0, translated: translated + 1.0, ..before },
        other => panic!("nothing is known of {other}"),
    };
    // A translation is counted when it has ended.
    let mut last = before;
    eprintln!("{node}: {before:?}");
    bed.wait_for(&format!("an exec of each kubectl on {node} as {expected:?}"), SECONDS, || {
        let now = Counted::now(bed, node);
        if now != last {
            eprintln!("{node}: {now:?}");
            last = now;
        }
        (now == expected).then_some(())
    });
}

/// Changes the configuration of [`NODE`]'s kubelet by a shell's script, restarts the kubelet, and waits until the agent says
/// that these of the gates are set.
#[track_caller]
fn configured(bed: &Bed, script: &str, gates: &Value) {
    bed.host_exec(NODE, &["sh", "-euc", script]).succeeded();
    bed.host_exec(NODE, &["systemctl", "restart", "kubelet"]).succeeded();
    let mut last = Value::Null;
    bed.wait_for(&format!("{NODE}'s agent to tell of {gates}"), START, || {
        let told = report(bed, NODE)?["streamingGates"].clone();
        if told != last {
            eprintln!("{NODE}: {told}");
            last.clone_from(&told);
        }
        (told == *gates).then_some(())
    });
}

/// Turns the gate off by this line in this file.
#[track_caller]
fn turn_off(bed: &Bed, file: &str, line: &str) {
    let script = format!("! grep -q '^featureGates' {file} && echo '{line}' >>{file}");
    configured(bed, &script, &json!({GATE: false}));
}

/// Takes that line out again.
#[track_caller]
fn take_out(bed: &Bed) {
    configured(bed, &format!("sed -i '/^featureGates:/d' {CONFIG}"), &json!({}));
}

/// The step of that kind before an upgrade, which `sluice plan` has to want at [`NODE`] alone.
#[track_caller]
fn step(bed: &Bed, target: &str, action: &str) -> Value {
    let found = RefCell::new(Value::Null);
    planned(bed, target, |steps| {
        let step = steps.iter().find(|step| step["action"] == action);
        let step = step.filter(|step| step["nodes"] == json!([NODE]));
        *found.borrow_mut() = step.cloned().unwrap_or_default();
        step.is_some()
    });
    found.into_inner()
}

/// Whoever may get and not create is refused by an apiserver of today. A plan says so, and the rule that it prints mends it.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn whoever_lacks_create_is_named_and_mended() {
    const GETTER: &str = "getter";
    const REFUSED: &str = "cannot create resource \"pods/exec\"";
    let bed = Bed::shared();
    // Without agents a plan refuses the upgrade for what it does not know of kubelets.
    all_true(&bed);
    pod(&bed, "new1");
    bed.apply(&format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {GETTER}, namespace: {NAMESPACE}}}
rules:
- {{apiGroups: [''], resources: [pods, pods/exec], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {GETTER}, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {GETTER}}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: User, name: {GETTER}}}
"
    ));
    let may = |verb: &str| {
        let may = ["auth", "can-i", verb, "pods/exec", "-n", NAMESPACE, "--as", GETTER];
        bed.kubectl(&may).success()
    };
    let exec = || bed.kubectl(&["exec", "-n", NAMESPACE, "new1", "--as", GETTER, "--", "true"]);
    // The authorizer hears of a role a moment after it was stored.
    bed.wait_for("the right to get to be heard of", SECONDS, || may("get").then_some(()));
    assert!(!may("create"));
    // The apiserver refuses today, so a plan does, too, whether it is asked about an upgrade or not.
    let plan = |target: &[&str]| {
        let ran = bed.sluice(&[&["plan", "-o", "json"], target].concat());
        let list = ran.json();
        let mut items = list["items"].as_array().expect("a list").iter();
        let rights = items.find(|item| item["kind"] == "StreamRights");
        let rights = rights.unwrap_or_else(|| panic!("nothing of rights: {ran}")).clone();
        let all = rights["findings"].as_array().expect("findings").iter();
        let ours = all.filter(|finding| finding["subject"]["name"] == GETTER).cloned();
        (ran.code(), rights["reason"].clone(), ours.collect::<Vec<_>>(), rights)
    };
    let targets: [&[&str]; 2] = [&[], &["--target", NEXT]];
    let mut rule = Value::Null;
    for target in targets {
        let (code, reason, ours, rights) = plan(target);
        assert_eq!((code, reason), (Some(2), "GetWithoutCreate".into()), "{target:?}: {rights}");
        assert_eq!(ours.len(), 1, "{target:?}: {rights}");
        let told = (&ours[0]["verdict"], &ours[0]["lacks"]);
        assert_eq!(told, (&"Blocks".into(), &json!([{"resource": "pods/exec"}])), "{rights}");
        let message = rights["message"].as_str().expect("a message");
        assert!(message.contains(&format!("User {GETTER}")), "{message}");
        let mut changes = rights["changes"].as_array().expect("changes").iter();
        let change = changes.find(|change| change["role"]["name"] == GETTER);
        rule = change.unwrap_or_else(|| panic!("no role to change: {rights}"))["rules"][0].clone();
    }
    let refusal = exec().failed();
    assert!(refusal.contains(REFUSED), "{refusal}");

    let patch = format!(r#"[{{"op":"add","path":"/rules/-","value":{rule}}}]"#);
    bed.kubectl(&["patch", "role", GETTER, "-n", NAMESPACE, "--type=json", "-p", &patch])
        .succeeded();
    bed.wait_for("an exec by the rule that was printed", SECONDS, || {
        exec().success().then_some(())
    });
    assert!(may("create"));
    for target in targets {
        let (code, _, ours, rights) = plan(target);
        assert_eq!((code, ours.len()), (Some(0), 0), "{target:?}: {rights}");
        assert_eq!(rights["safe"], true, "{target:?}: {rights}");
    }
    bed.kubectl(&["delete", "role,rolebinding", GETTER, "-n", NAMESPACE]).succeeded();
}

/// Nodes on which WebSockets come through, with each kubelet and runtime of the cluster, and one whose kubelet is told not to
/// take them: everyone's remedy, where nobody needs it.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn execs_are_counted_as_the_cells_say() {
    let bed = Bed::shared();
    all_true(&bed);
    NODES.iter().for_each(|node| pod(&bed, node));
    let message = becomes(&bed, "WebSocketsSafe", "True", "NothingBreaks");
    assert!(message.contains(NEXT), "{message}");
    cells_become(&bed, "Through", "Through");
    NODES.iter().for_each(|node| counted_as(&bed, node, "Through"));

    turn_off(&bed, CONFIG, &format!("featureGates: {{{GATE}: false}}"));
    cells_become(&bed, "Translated", "Through");
    let message = becomes_within(&bed, START, "WebSocketsSafe", "False", "KubeletRefusesGate");
    let refuses = format!("The kubelet of {NODE} will not start with the gate {GATE}=false");
    assert!(message.contains(&refuses), "{message}");
    assert!(!message.contains("URL"), "{message}");
    becomes(&bed, "UpgradeSafe", "False", "WebSocketsUnsafe");
    answers(&bed, NODE);
    counted_as(&bed, NODE, "Translated");
    counted_as(&bed, "old1", "Through");

    let gone = step(&bed, NEXT, "RemoveKubeletGate");
    assert_eq!(gone["files"], json!([CONFIG]), "{gone}");
    assert_eq!(gone["changes"], json!([{"argument": format!("{GATE}: false")}]), "{gone}");
    take_out(&bed);
    cells_become(&bed, "Through", "Through");
    becomes_within(&bed, START, "WebSocketsSafe", "True", "NothingBreaks");
    becomes(&bed, "UpgradeSafe", "True", "NothingBreaks");
    answers(&bed, NODE);
    counted_as(&bed, NODE, "Through");
}

/// cri-dockerd, played by a stand-in, names no scheme in its URLs: the one node fails by WebSocket, is named, and works again by
/// the remedy that a plan prints. That is no way to the next version, and another runtime is.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn a_runtime_without_a_scheme_is_named_and_its_kubelet_told() {
    const NO_TLS: &str = "server gave HTTP response to HTTPS client";
    let bed = Bed::shared();
    bed.replace(NODE, &["runtime=cri-dockerd"]);
    agent::fresh(&bed, "{mode: Streams}");
    rolled_out(&bed);
    canary_of(&bed, NODE);
    ["new1", NODE].iter().for_each(|node| pod(&bed, node));

    cells_become(&bed, "Broken", "Broken");
    let fails = format!("fail now on {NODE}, whose runtime answers with a URL without a scheme");
    for (kind, status) in [("WebSocketsSafe", "False"), ("Degraded", "True")] {
        let message = becomes_within(&bed, START, kind, status, "WebSocketsFail");
        assert!(message.contains(&fails), "{kind}: {message}");
    }
    becomes(&bed, "UpgradeSafe", "False", "WebSocketsUnsafe");
    let refusal = exec(&bed, Client::Current, NODE).failed();
    assert!(refusal.contains(NO_TLS), "{refusal}");
    counted_as(&bed, NODE, "Broken");
    counted_as(&bed, "new1", "Through");
    checked(&bed, &[NODE], 2, &["UrlWithoutScheme"]);

    let remedy = step(&bed, TODAY, "SetKubeletGate");
    let file = remedy["files"][0].as_str().expect("a file");
    let line = remedy["changes"][0]["becomes"].as_str().expect("a line to add");
    turn_off(&bed, file, line);
    cells_become(&bed, "Translated", "Broken");
    let message = becomes_within(&bed, START, "WebSocketsSafe", "False", "KubeletRefusesGate");
    for words in [
        format!("The kubelet of {NODE} will not start with the gate {GATE}=false"),
        format!("will fail on {NODE}, whose runtime answers with a URL without a scheme"),
        format!("{NODE} cannot go back to 1.35 while the gate {GATE} is set"),
    ] {
        assert!(message.contains(&words), "{words}: {message}");
    }
    becomes(&bed, "Degraded", "False", "AsExpected");
    found(&bed, "docker", "Relayed");
    answers(&bed, NODE);
    counted_as(&bed, NODE, "Translated");
    counted_as(&bed, "new1", "Through");
    canary_answers(&bed);
    for action in ["UpgradeRuntime", "RemoveKubeletGate"] {
        eprintln!("{}", step(&bed, NEXT, action)["message"]);
    }

    bed.replace(NODE, &["runtime="]);
    cells_become(&bed, "Through", "Through");
    becomes_within(&bed, SETTLED, "WebSocketsSafe", "True", "NothingBreaks");
    becomes(&bed, "Degraded", "False", "AsExpected");
    becomes(&bed, "UpgradeSafe", "True", "NothingBreaks");
}
