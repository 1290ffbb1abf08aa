//! The node's agent as its users see it: a policy with a proxy, the StreamingNode, the host's rules, the metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::{
    api::STREAMING_NODES,
    bed::{Bed, Client, Session},
    operator::{self, POLICY, SECONDS},
};

/// Where the scenarios' own pods live.
pub const NAMESPACE: &str = "streams";
/// The image of the scenarios' pods.
pub const IMAGE: &str = "k8s.gcr.io/busybox:1";
/// The agent's first start: the DaemonSet, the pod, the webhook's certificate, the first report.
pub const START: Duration = Duration::from_secs(90);
/// The element of a dead or hanging agent has left the set after this long.
pub const FAIL_OPEN: Duration = Duration::from_secs(10);

/// How long a stream's first answer may take.
const STREAM: Duration = Duration::from_secs(30);

const METRICS: u16 = 15191;

/// The default cluster with agents on every node, and this proxy.
#[track_caller]
pub fn fresh(bed: &Bed, proxy: &str) {
    operator::fresh(bed);
    bed.namespace(NAMESPACE);
    policy(bed, proxy);
    for node in ["cp1", "new1", "old1", "old2"] {
        relayed(bed, node);
    }
}

/// Waits until every agent is ready: one that relays may not have been probed yet.
#[track_caller]
pub fn rolled_out(bed: &Bed) {
    let wait = format!("--timeout={}s", START.as_secs());
    let status = ["rollout", "status", "daemonset/sluice-agent", "-n", operator::NAMESPACE, &wait];
    bed.kubectl(&status).succeeded();
}

/// The policy of these tests, with this proxy.
#[track_caller]
pub fn policy(bed: &Bed, proxy: &str) {
    bed.apply(&format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: {POLICY}}}\n\
         spec: {{streamingProxyRedirects: Disabled, proxy: {proxy}}}\n"
    ));
}

/// What the node's agent says of itself.
pub fn report(bed: &Bed, node: &str) -> Option<Value> {
    let node = bed.get(&format!("{STREAMING_NODES}/{node}"))?;
    Some(node["status"]["agent"].clone()).filter(|agent| !agent.is_null())
}

/// Waits until the node's streams pass through its agent; returns the agent's report.
#[track_caller]
pub fn relayed(bed: &Bed, node: &str) -> Value {
    let mut last = None;
    bed.wait_for(&format!("{node}'s streams to pass through its agent"), START, || {
        let now = report(bed, node);
        if now != last {
            eprintln!("{node}: {now:?}");
            last.clone_from(&now);
        }
        now.filter(|agent| agent["streams"] == "Relayed")
    })
}

/// Where the node's runtime streams, as its agent says it once streams pass through it: host and port.
#[track_caller]
pub fn streaming_server(bed: &Bed, node: &str) -> (String, String) {
    let report = relayed(bed, node);
    let address = report["runtime"]["streamingAddress"].as_str();
    let (host, port) = address.and_then(|a| a.rsplit_once(':')).expect("an address");
    (host.to_owned(), port.to_owned())
}

/// A pod on the node, with its name, that stays, answers each line of its input, and serves a page on 8080.
#[track_caller]
pub fn pod(bed: &Bed, node: &str) {
    pods(bed, node, &[node.to_owned()]);
}

/// Pods of these names on the node, each as [`pod`] makes them.
#[track_caller]
pub fn pods(bed: &Bed, node: &str, names: &[String]) {
    let manifests = names.iter().map(|name| manifest(node, name));
    bed.apply(&manifests.collect::<Vec<_>>().join("---\n"));
    for name in names {
        bed.pod_ready(NAMESPACE, name);
    }
}

fn manifest(node: &str, name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  nodeName: {node}
  tolerations: [{{operator: Exists}}]
  terminationGracePeriodSeconds: 0
  containers:
  - name: echo
    image: {IMAGE}
    stdin: true
    command: [sh, -c, "mkdir -p /www && echo 'page of {node}' >/www/index.html && httpd -p 8080 -h /www && exec cat"]
"#
    )
}

/// The addresses that the host sends through the relay now, in text; empty where there is no rule.
#[track_caller]
pub fn live(bed: &Bed, node: &str) -> Vec<String> {
    let output = bed.host_exec(node, &["nft", "-j", "list", "ruleset"]).succeeded().json();
    let objects = output["nftables"].as_array().expect("nft prints a list");
    let sets = objects.iter().filter_map(|object| object.get("set"));
    let ours = sets.filter(|set| set["table"] == "sluice" && set["name"] == "live");
    ours.filter_map(|set| set["elem"].as_array()).flatten().map(Value::to_string).collect()
}

/// The port of loopback to which the host's rules bring streams.
#[track_caller]
pub fn relay_port(bed: &Bed, node: &str) -> String {
    let rules = bed.host_exec(node, &["nft", "list", "ruleset"]).succeeded();
    let (_, after) = rules.text().split_once("tproxy to 127.0.0.1:").expect("a rule");
    after.chars().take_while(char::is_ascii_digit).collect()
}

/// Whether the host has a table of ours.
#[track_caller]
pub fn has_rules(bed: &Bed, node: &str) -> bool {
    let tables = bed.host_exec(node, &["nft", "list", "tables"]).succeeded();
    tables.text().lines().any(|table| table.ends_with(" sluice"))
}

/// The agent's process on the host, by its number there.
#[track_caller]
pub fn process(bed: &Bed, node: &str) -> Option<String> {
    let found = bed.host_exec(node, &["pgrep", "-o", "-f", "^/sluice agent"]);
    found.success().then(|| found.text().to_owned())
}

/// The pod of the node's agent, as `pod/NAME`.
#[track_caller]
pub fn pod_of(bed: &Bed, node: &str) -> String {
    let of_node = format!("fieldSelector=spec.nodeName={node}");
    let agents = "labelSelector=app.kubernetes.io/component=agent";
    let path = format!("/api/v1/namespaces/{}/pods?{agents}&{of_node}", operator::NAMESPACE);
    // One that is replaced may be there beside the next one.
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    bed.wait_for(&format!("a pod of {node}'s agent"), SECONDS, || {
        let pod = bed.get(&path)?["items"].as_array()?.iter().find(stays).cloned()?;
        pod["metadata"]["name"].as_str().map(str::to_owned)
    })
}

/// Whether there still is that pod of an agent, and how it is.
pub fn pod_named(bed: &Bed, name: &str) -> Option<Value> {
    bed.get(&format!("/api/v1/namespaces/{}/pods/{name}", operator::NAMESPACE))
}

/// A port-forward to the node's pod, and the address that kubectl listens on.
#[track_caller]
pub fn forward(bed: &Bed, client: Client, node: &str) -> (Session, String) {
    let args = ["port-forward", "-n", NAMESPACE, node, ":8080"];
    let mut session = bed.kubectl_session(client, &args);
    let ready = session.line_with("Forwarding from 127.0.0.1:", STREAM);
    let ready = ready.unwrap_or_else(|e| panic!("port-forward to {node}: {e}"));
    let address = ready.split_whitespace().nth(2).expect("kubectl names its address").to_owned();
    (session, address)
}

/// The page that a pod serves, over a port-forward.
pub fn fetch(address: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(STREAM))?;
    connection.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    Ok(page)
}

/// The streams that the node's agent shows, as `sluice streams` prints them in its container.
#[track_caller]
pub fn streams(bed: &Bed, node: &str) -> Vec<Value> {
    streams_of(bed, &pod_of(bed, node))
}

/// The same, asked in this agent's pod.
#[track_caller]
pub fn streams_of(bed: &Bed, pod: &str) -> Vec<Value> {
    let show = ["exec", "-n", operator::NAMESPACE, pod, "--", "/sluice", "streams"];
    let list = bed.kubectl(&[&show[..], &["-o", "json"]].concat()).succeeded().json();
    list["items"].as_array().cloned().expect("a list")
}

/// The sum of one of the agent's metrics over all series that hold this label text.
pub fn metric(bed: &Bed, node: &str, name: &str, label: &str) -> Option<f64> {
    metric_at(&address(bed, node)?, name, label)
}

/// The node's address.
#[track_caller]
pub fn address(bed: &Bed, node: &str) -> Option<String> {
    let object = bed.get(&format!("/api/v1/nodes/{node}"))?;
    let addresses = object["status"]["addresses"].as_array()?;
    let address = addresses.iter().find(|a| a["type"] == "InternalIP")?["address"].as_str()?;
    Some(address.to_owned())
}

/// The same as [`metric`] of the agent at an address, without asking the apiserver for anything.
pub fn metric_at(address: &str, name: &str, label: &str) -> Option<f64> {
    Some(sum(&scrape(address).ok()?, name, &[label]))
}

/// The sum of a metric, in what somebody serves of his, over all series that hold these label texts.
pub fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let series = metrics.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
            && labels.iter().all(|label| line.contains(label))
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How many streams of this kind the agent has carried.
#[track_caller]
pub fn carried(bed: &Bed, node: &str, kind: &str) -> f64 {
    let label = format!("kind=\"{kind}\"");
    bed.wait_for(&format!("metrics of {node}'s agent"), SECONDS, || {
        metric(bed, node, "sluice_agent_streams_opened_total", &label)
    })
}

fn scrape(address: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect((address, METRICS))?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    Ok(text)
}
