//! The agent killed, hanging, its runtime restarted, its node rebooted: the node never notices, and streams go on.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent::{self, FAIL_OPEN, NAMESPACE, START, carried, live, pod, process, relayed},
    bed::{Bed, Client, Output},
    operator::{NAMESPACE as NAMESPACE_OF_AGENTS, SECONDS},
};

const NODE: &str = "new1";
/// Two looks at a set and the way into a host.
const LOOK: Duration = Duration::from_secs(2);

/// Kills each agent that comes before it can carry anything.
const KILL_ALL: &str = "while :; do pkill -KILL -f '^/sluice agent'; sleep 0.01; done";

/// Connects to an address every few milliseconds until a file goes; prints how often, and how often nobody answered.
const KNOCK: &str = "tried=0; failed=0; : >$3; while [ -e $3 ]; do tried=$((tried + 1)); \
    { : 3<>/dev/tcp/$1/$2; } 2>/dev/null || failed=$((failed + 1)); sleep 0.002; done; echo $tried $failed";
const KNOCKING: &str = "/run/knocking";

/// Connects to the node's streaming server all the time while something happens: how often, and how often nobody answered.
#[track_caller]
fn knock(bed: &Bed, meanwhile: impl FnOnce()) -> (u32, u32) {
    let (host, port) = agent::streaming_server(bed, NODE);
    let knock = ["timeout", "60", "bash", "-c", KNOCK, "knock", &host, &port, KNOCKING];
    let said = thread::scope(|scope| {
        let knocking = scope.spawn(|| bed.host_exec(NODE, &knock).succeeded());
        bed.wait_for("the first knock", SECONDS, || {
            bed.host_exec(NODE, &["test", "-e", KNOCKING]).success().then_some(())
        });
        meanwhile();
        bed.host_exec(NODE, &["rm", KNOCKING]).succeeded();
        knocking.join().expect("someone who knocks")
    });
    let (tried, failed) = said.text().split_once(' ').expect("two numbers");
    (tried.parse().expect("a number"), failed.parse().expect("a number"))
}

fn exec(bed: &Bed) -> Output {
    bed.kubectl(&["exec", "-n", NAMESPACE, NODE, "--", "true"])
}

/// Execs until one is seen to pass through the agent.
#[track_caller]
fn through_the_agent(bed: &Bed) {
    relayed(bed, NODE);
    bed.wait_for("an exec through the agent", SECONDS, || {
        let before = carried(bed, NODE, "exec");
        (exec(bed).success() && carried(bed, NODE, "exec") > before).then_some(())
    });
}

fn kubelet(bed: &Bed) -> String {
    bed.host_exec(NODE, &["systemctl", "show", "-p", "MainPID", "kubelet"])
        .succeeded()
        .text()
        .into()
}

/// Stops the agent where it stands, and waits until the kernel sends it nothing any more; returns its process.
#[track_caller]
fn hang(bed: &Bed) -> String {
    let hung = process(bed, NODE).expect("an agent");
    bed.host_exec(NODE, &["kill", "-STOP", &hung]).succeeded();
    bed.wait_for("the kernel to forget the relay", FAIL_OPEN + LOOK, || {
        live(bed, NODE).is_empty().then_some(())
    });
    hung
}

/// How often containers of these pods have been restarted.
fn restarts(bed: &Bed) -> Option<i64> {
    let pod = bed.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{NODE}"))?;
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64()
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_killed_agent_takes_nothing_with_it_but_the_streams_it_carried() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    pod(&bed, NODE);
    through_the_agent(&bed);
    let (kubelet_before, restarts_before) = (kubelet(&bed), restarts(&bed));
    let first = process(&bed, NODE).expect("an agent");
    let _session = agent::forward(&bed, Client::Current, NODE);

    bed.host_exec(NODE, &["kill", "-KILL", &first]).succeeded();
    let killed = Instant::now();
    // Nor does another live long enough to take its place: what works now works without one.
    let deadly = (FAIL_OPEN + LOOK).as_secs().to_string();
    thread::scope(|scope| {
        scope.spawn(|| bed.host_exec(NODE, &["timeout", &deadly, "sh", "-c", KILL_ALL]));
        let worked = "an exec without an agent";
        bed.wait_for(worked, FAIL_OPEN, || exec(&bed).success().then_some(()));
        eprintln!("{worked} {:.1} s after the kill", killed.elapsed().as_secs_f64());
    });
    bed.wait_for("another agent", START, || {
        process(&bed, NODE).filter(|process| *process != first)
    });
    through_the_agent(&bed);
    assert_eq!((kubelet(&bed), restarts(&bed)), (kubelet_before, restarts_before));
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_hanging_agent_is_passed_by_within_ten_seconds() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    pod(&bed, NODE);
    through_the_agent(&bed);
    let hung = hang(&bed);
    // Straight to the runtime.
    exec(&bed).succeeded();
    // Either this one goes on, or its probe has failed and the kubelet has started another.
    bed.host_exec(NODE, &["kill", "-CONT", &hung]);
    through_the_agent(&bed);
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn the_agent_follows_a_restarted_runtime_and_comes_back_with_its_node() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    pod(&bed, NODE);
    through_the_agent(&bed);
    let address = |bed: &Bed| {
        agent::report(bed, NODE).map(|report| report["runtime"]["streamingAddress"].clone())
    };
    let before = address(&bed);
    bed.host_exec(NODE, &["systemctl", "restart", "containerd"]).succeeded();
    bed.wait_for("the runtime's new address", START, || {
        address(&bed).filter(|now| now.is_string() && Some(now) != before.as_ref())
    });
    through_the_agent(&bed);

    let agents = agent::pod_of(&bed, NODE);
    let pods = [(NAMESPACE, NODE), (NAMESPACE_OF_AGENTS, &agents)];
    let before = pods.map(|(namespace, pod)| bed.pod_ready(namespace, pod));
    bed.reboot(NODE);
    // What was said of the pods and by the agent before the reboot stands until somebody says something else.
    for ((namespace, pod), container) in pods.into_iter().zip(&before) {
        bed.pod_ready_after(namespace, pod, container);
    }
    through_the_agent(&bed);
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_closed_node_refuses_streams_while_its_agent_hangs() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{failurePolicy: Closed}");
    pod(&bed, NODE);
    through_the_agent(&bed);
    let hung = hang(&bed);
    let refusal = exec(&bed).failed();
    eprintln!("{refusal}");
    bed.host_exec(NODE, &["kill", "-CONT", &hung]);
    through_the_agent(&bed);
    // One that is replaced carries nothing: it makes way at once, as streams are refused until the next one is there.
    let replaced = agent::pod_of(&bed, NODE);
    bed.kubectl(&["delete", "pod", &replaced, "-n", NAMESPACE_OF_AGENTS, "--wait=false"])
        .succeeded();
    bed.wait_for("the ending agent to make way", SECONDS, || {
        agent::pod_named(&bed, &replaced).is_none().then_some(())
    });
    through_the_agent(&bed);
    // Nobody wants it any more: nothing is refused, and nothing is left.
    bed.kubectl(&["delete", "streamingpolicy", "--all"]).succeeded();
    bed.wait_for("the rules to go", START, || (!agent::has_rules(&bed, NODE)).then_some(()));
    exec(&bed).succeeded();
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn an_agent_that_restarts_while_the_apiserver_is_away_goes_on_as_before() {
    const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    const ASIDE: &str = "/etc/kubernetes/kube-apiserver.aside.yaml";
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    pod(&bed, NODE);
    through_the_agent(&bed);
    let first = process(&bed, NODE).expect("an agent");
    let address = agent::address(&bed, NODE).expect("an address");
    let answers = || bed.kubectl(&["get", "--raw", "/readyz"]).success();

    bed.host_exec("cp1", &["mv", MANIFEST, ASIDE]).succeeded();
    bed.wait_for("the apiserver to be gone", START, || (!answers()).then_some(()));
    bed.host_exec(NODE, &["kill", "-KILL", &first]).succeeded();
    bed.wait_for("another agent to bring the streams to itself", START, || {
        let another = process(&bed, NODE).is_some_and(|process| process != first);
        let relaying = agent::metric_at(&address, "sluice_agent_relaying", "");
        (another && relaying == Some(1.0)).then_some(())
    });
    assert!(!live(&bed, NODE).is_empty(), "the kernel knows of it");
    assert!(!answers(), "the apiserver came back too early");
    bed.host_exec("cp1", &["mv", ASIDE, MANIFEST]).succeeded();
    bed.wait_for("the apiserver to be back", START, || answers().then_some(()));
    through_the_agent(&bed);
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn an_agent_that_is_replaced_lets_running_streams_go_on() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    pod(&bed, NODE);
    through_the_agent(&bed);
    let (forward, address) = agent::forward(&bed, Client::Current, NODE);
    let page =
        || agent::fetch(&address).is_ok_and(|page| page.ends_with(&format!("page of {NODE}\n")));
    assert!(page(), "a page over the port-forward");

    let replaced = agent::pod_of(&bed, NODE);
    let address_of_node = agent::address(&bed, NODE).expect("an address");
    let (tried, failed) = knock(&bed, || {
        bed.kubectl(&["delete", "pod", &replaced, "-n", NAMESPACE_OF_AGENTS, "--wait=false"])
            .succeeded();
        bed.wait_for("the ending agent's rules to go", SECONDS, || {
            (!agent::has_rules(&bed, NODE)).then_some(())
        });
    });
    eprintln!("{tried} connections while the agent ended");
    assert_eq!(failed, 0, "of {tried} connections nobody answered {failed}");
    // It takes nothing new, and still carries what runs, for longer than it waits for anything else.
    exec(&bed).succeeded();
    let ended = Instant::now();
    while ended.elapsed() < FAIL_OPEN {
        assert!(page(), "a page over the same port-forward, {:?} later", ended.elapsed());
    }
    let still = agent::pod_named(&bed, &replaced).expect("it waits for the stream");
    assert!(still["metadata"]["deletionTimestamp"].is_string(), "{still}");
    // Where the next agent is there already, it carries this question.
    let mut shown = agent::streams_of(&bed, &replaced);
    shown.retain(|stream| stream["draining"] == true);
    let [forwarded] = shown.as_slice() else { panic!("not one stream: {shown:?}") };
    assert_eq!(forwarded["kind"], "portforward");
    let draining = agent::metric_at(&address_of_node, "sluice_agent_streams_draining", "");
    assert_eq!(draining, Some(1.0));

    // With the stream it ends, and the next agent comes.
    drop(forward);
    bed.wait_for("another agent's pod", START, || {
        agent::pod_named(&bed, &replaced).is_none().then_some(())
    });
    through_the_agent(&bed);
}
