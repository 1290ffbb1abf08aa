//! Streams through the node's agent: every kind by both kubectls, byte for byte; the limit; load; and garbage.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client as KubeClient, Config,
    api::AttachParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::io::AsyncReadExt;

use crate::{
    agent::{self, NAMESPACE, carried, pod, process},
    bed::{Bed, Client},
    operator::{self, SECONDS},
};

const UNLIMITED: &str = "{mode: Streams}";
/// On the old cluster one that proxies and one that redirects.
const NODES: [&str; 2] = ["new1", "old1"];
const SOON: Duration = Duration::from_secs(30);
/// A gibibyte through kubectl, apiserver, kubelet and runtime on one machine.
pub const LONG: Duration = Duration::from_secs(300);

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn every_kind_of_stream_passes_through_the_agent_unchanged() {
    let bed = Bed::shared();
    agent::fresh(&bed, UNLIMITED);
    for node in NODES {
        pod(&bed, node);
        for client in Client::BOTH {
            let before = ["exec", "attach", "portforward"].map(|kind| carried(&bed, node, kind));
            exec(&bed, client, node);
            attach(&bed, client, node);
            forward(&bed, client, node);
            let after = ["exec", "attach", "portforward"].map(|kind| carried(&bed, node, kind));
            for ((kind, before), after) in
                ["exec", "attach", "portforward"].iter().zip(before).zip(after)
            {
                assert!(after > before, "{kind} by {client:?} to {node} went past the agent");
            }
        }
    }
}

fn exec(bed: &Bed, client: Client, node: &str) {
    let run = |options: &[&str], command: &[&str], input: Option<&str>| {
        let args = [&["exec", "-n", NAMESPACE], options, &[node, "--"], command].concat();
        bed.kubectl_fed(client, &args, input)
    };
    let said = run(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"], None);
    assert_eq!((said.code(), said.text()), (Some(7), "out"), "{said}");
    assert!(said.stderr.starts_with("err\n"), "{said}");
    // Standard input to its end, which the command has to see.
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let said = run(&["-i"], &["cat"], Some(&text)).succeeded();
    assert!(said.stdout == text, "{} of {} bytes came back", said.stdout.len(), text.len());
    // A terminal. kubectl asks for one only if it has one itself; `script` gives it one.
    let kubectl = bed.kubectl_line(client);
    let line = format!(
        "{kubectl} exec -n {NAMESPACE} -it {node} -- sh -c 'test -t 0 && stty size && exit 3'"
    );
    let tty = Command::new("script").args(["-qec", &line, "/dev/null"]).output().expect("script");
    let said = String::from_utf8_lossy(&tty.stdout);
    assert_eq!(tty.status.code(), Some(3), "{client:?} to {node}: {said}");
}

fn attach(bed: &Bed, client: Client, node: &str) {
    let word = format!("{client:?}-{}", std::process::id());
    let mut session = bed.kubectl_session(client, &["attach", "-n", NAMESPACE, node, "--stdin"]);
    session.say(&word);
    session.line_with(&word, SOON).unwrap_or_else(|e| panic!("attach to {node}: {e}"));
}

fn forward(bed: &Bed, client: Client, node: &str) {
    let (_session, address) = agent::forward(bed, client, node);
    let expected = format!("page of {node}\n");
    let connections: Vec<_> = (0..50)
        .map(|_| {
            let address = address.clone();
            thread::spawn(move || agent::fetch(&address))
        })
        .collect();
    for connection in connections {
        let page = connection.join().expect("fetch does not panic").expect("a page");
        assert!(page.ends_with(&expected), "{client:?} to {node}: {page}");
    }
    // It is still open, and the agent knows whose it is.
    let shown = agent::streams(bed, node);
    let forward = shown.iter().find(|stream| stream["kind"] == "portforward");
    let forward = forward.unwrap_or_else(|| panic!("no port-forward among {shown:?}"));
    // Who follows a redirect comes from another host.
    let redirects = operator::node_status(bed, node, "redirects");
    assert_eq!(forward["remote"], redirects.as_deref() == Some("On"), "{forward}");
    assert!(forward["toClient"].as_u64() > Some(50 * expected.len() as u64), "{forward}");
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_gibibyte_is_copied_both_ways_byte_for_byte() {
    let bed = Bed::shared();
    agent::fresh(&bed, UNLIMITED);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    random_file(&there, 1 << 30);
    let sum = digest(&there);
    for node in NODES {
        pod(&bed, node);
        for client in Client::BOTH {
            let before = carried(&bed, node, "exec");
            let remote = format!("{NAMESPACE}/{node}:/tmp/copied");
            let local = |path: &Path| path.to_str().expect("UTF-8").to_owned();
            bed.kubectl_within(client, &["cp", &local(&there), &remote], LONG).succeeded();
            copy_back(&bed, client, &remote, &local(&back));
            assert_eq!(digest(&back), sum, "cp by {client:?} to {node} and back");
            assert!(carried(&bed, node, "exec") >= before + 2.0, "{client:?} to {node}");
            std::fs::remove_file(&back).expect("remove the copy");
            let remove = ["exec", "-n", NAMESPACE, node, "--", "rm", "/tmp/copied"];
            bed.kubectl(&remove).succeeded();
        }
    }
}

/// Now and then kubectl loses the end of what a pod sends (kubernetes/kubernetes#60140, kubectl#1425): it says so, and is
/// asked again. What it says nothing of has to be whole.
#[track_caller]
pub fn copy_back(bed: &Bed, client: Client, remote: &str, local: &str) {
    for _ in 0..3 {
        let copied = bed.kubectl_within(client, &["cp", remote, local], LONG);
        if copied.success() {
            return;
        }
        assert!(copied.stderr.contains("unexpected EOF"), "{copied}");
        eprintln!("{client:?} lost the end of a copy");
    }
    panic!("{client:?} has lost the end of three copies of {remote}");
}

pub fn random_file(path: &Path, bytes: u64) {
    let mut source = std::fs::File::open("/dev/urandom").expect("urandom").take(bytes);
    let mut file = std::fs::File::create(path).expect("create a file");
    std::io::copy(&mut source, &mut file).expect("fill a file");
}

pub fn digest(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a sum").to_owned()
}

/// The seconds that a copy of so many MiB to the node's pod takes.
#[track_caller]
fn copied(bed: &Bed, client: Client, node: &str, mib: u64) -> f64 {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    random_file(file.path(), mib << 20);
    let (file, remote) =
        (file.path().to_str().expect("UTF-8"), format!("{NAMESPACE}/{node}:/tmp/copied"));
    let start = Instant::now();
    bed.kubectl_within(client, &["cp", file, &remote], LONG).succeeded();
    start.elapsed().as_secs_f64()
}

/// The seconds in which so many MiB come to the node's pod, by the pod's own clock and from their first byte on: what
/// kubectl takes to start on a busy machine does not count.
#[track_caller]
pub fn upload_takes(bed: &Bed, client: Client, node: &str, mib: usize) -> f64 {
    let receive = "head -c 1 >/dev/null; read start _ </proc/uptime; cat >/dev/null; \
                   read end _ </proc/uptime; echo $start $end";
    let args = ["exec", "-i", "-n", NAMESPACE, node, "--", "sh", "-c", receive];
    let said = bed.kubectl_fed(client, &args, Some(&"x".repeat(mib << 20))).succeeded();
    let times: Vec<f64> = said.text().split(' ').map(|time| time.parse().expect("s")).collect();
    let [start, end] = times[..] else { panic!("no two times: {said}") };
    eprintln!("{mib} MiB by {client:?} to {node} took {:.2} s", end - start);
    end - start
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_limit_holds_changes_while_a_stream_runs_and_leaves_no_rule_behind() {
    const MIB: f64 = (1 << 20) as f64;
    let bed = Bed::shared();
    agent::fresh(&bed, "{maxConnectionBytesPerSec: 1Mi}");
    let node = "new1";
    pod(&bed, node);
    let took = upload_takes(&bed, Client::Current, node, 20);
    assert!((19.4..=20.6).contains(&took), "20 MiB at 1 MiB/s took {took:.2} s");

    // Faster in the middle: what is left takes a quarter of the time.
    let (took, changed) = thread::scope(|scope| {
        let copying = scope.spawn(|| copied(&bed, Client::Current, node, 20));
        let direction = "direction=\"to_runtime\"";
        let sent = || agent::metric(&bed, node, "sluice_agent_stream_bytes_total", direction);
        let start = bed.wait_for("metrics", SECONDS, sent);
        let part = bed.wait_for("a part of the copy", SECONDS, || {
            sent().map(|now| now - start).filter(|part| *part > 5.0 * MIB)
        });
        agent::policy(&bed, "{maxConnectionBytesPerSec: 4Mi}");
        (copying.join().expect("the copy ends"), part)
    });
    let slow = changed / MIB;
    let expected = slow + (20.0 - slow) / 4.0;
    eprintln!("changed after {slow:.1} MiB: took {took:.2} s, ideally {expected:.2}");
    // Two seconds for the change to reach the node, at a rate that is 3 MiB/s too slow.
    assert!(took < expected + 2.5, "took {took:.2} s, ideally {expected:.2}");

    bed.kubectl(&["delete", "streamingpolicy", "--all"]).succeeded();
    for node in ["cp1", "new1", "old1", "old2"] {
        bed.wait_for(&format!("{node} without rules"), Duration::from_secs(60), || {
            (!agent::has_rules(&bed, node)).then_some(())
        });
        bed.wait_for(&format!("{node} without a report"), Duration::from_secs(60), || {
            agent::report(&bed, node).is_none().then_some(())
        });
    }
    bed.kubectl(&["exec", "-n", NAMESPACE, node, "--", "true"]).succeeded();
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn a_thousand_execs_two_hundred_at_once_are_all_answered() {
    let bed = Bed::shared();
    agent::fresh(&bed, UNLIMITED);
    let node = "new1";
    // The shim of containerd 1.6, of which there is one a pod, stops answering for good when some two hundred execs
    // start at once, with an agent or without.
    let names: Vec<String> = (0..20).map(|n| format!("{node}-{n}")).collect();
    agent::pods(&bed, node, &names);
    let first_pod = &names[0];
    bed.kubectl(&["exec", "-n", NAMESPACE, first_pod, "--", "true"]).succeeded();
    let descriptors = || {
        let process = process(&bed, node).expect("an agent");
        let list = bed.host_exec(node, &["ls", &format!("/proc/{process}/fd")]).succeeded();
        list.text().lines().count()
    };
    let idle =
        || agent::metric(&bed, node, "sluice_agent_streams_active", "").filter(|n| *n == 0.0);
    bed.wait_for("no stream", SECONDS, idle);
    let (before, first) = (descriptors(), process(&bed, node));
    let opened = carried(&bed, node, "exec");

    let kubeconfig = Kubeconfig::read_from(bed.kubeconfig()).expect("read the kubeconfig");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    let start = Instant::now();
    let failed: Vec<String> = runtime.block_on(async {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a config");
        let client = KubeClient::try_from(config).expect("a client");
        let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
        stream::iter(0..1000)
            .map(|n| echo(&pods, &names[n as usize % names.len()], n))
            .buffer_unordered(200)
            .filter_map(|result| async { result.err() })
            .collect()
            .await
    });
    eprintln!("1,000 execs took {:.1} s", start.elapsed().as_secs_f64());
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
    assert_eq!(carried(&bed, node, "exec") - opened, 1000.0);
    assert_eq!(process(&bed, node), first, "the agent is the same process");
    bed.wait_for("every stream to end", SECONDS, idle);
    bed.wait_for("every descriptor to be closed", SECONDS, || {
        (descriptors() <= before + 4).then_some(())
    });
}

async fn echo(pods: &Api<Pod>, pod: &str, n: u32) -> Result<(), String> {
    let exec = async {
        let params = AttachParams::default().stdout(true).stderr(false);
        let word = n.to_string();
        let mut process =
            pods.exec(pod, ["echo", &word], &params).await.map_err(|e| e.to_string())?;
        let mut said = String::new();
        let mut stdout = process.stdout().ok_or("no output")?;
        stdout.read_to_string(&mut said).await.map_err(|e| e.to_string())?;
        process.join().await.map_err(|e| e.to_string())?;
        if said.trim_end() == word { Ok(()) } else { Err(format!("{n} came back as {said:?}")) }
    };
    tokio::time::timeout(Duration::from_secs(120), exec).await.map_err(|_| format!("{n} hung"))?
}

/// What is sent, why the relay refuses it (or carries it, as the runtime is the one to say no), and how the answer begins.
const GARBAGE: [(&str, Option<&str>, &str); 6] = [
    ("printf '\\377'; head -c 1000000 /dev/urandom", Some("HeadGarbage"), "HTTP/1.1 400 "),
    ("head -c 1000000 /dev/zero", Some("HeadGarbage"), "HTTP/1.1 400 "),
    (
        "printf 'GET / HTTP/1.1\\r\\n'; yes 'x-filler: 0123456789' | head -c 2000000",
        None,
        "HTTP/1.1 431 ",
    ),
    ("printf 'GET'", Some("HeadTimeout"), "HTTP/1.1 400 "),
    ("printf '\\026\\003\\001'; head -c 100000 /dev/urandom", None, ""),
    (
        "printf 'POST /exec/nosuchtoken HTTP/1.1\\r\\nHost: x\\r\\nConnection: Upgrade\\r\\nUpgrade: SPDY/3.1\\r\\n\\r\\n'",
        None,
        "HTTP/1.1 404 ",
    ),
];

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn garbage_is_refused_and_leaves_the_agent_as_it_was() {
    let bed = Bed::shared();
    agent::fresh(&bed, UNLIMITED);
    let node = "new1";
    pod(&bed, node);
    let first = process(&bed, node).expect("an agent");
    let (host, port) = agent::streaming_server(&bed, node);
    let relay = agent::relay_port(&bed, node);
    let refused = |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        agent::metric(&bed, node, "sluice_agent_stream_errors_total", &label)
    };
    let say = |(host, port): (&str, &str), garbage: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; ({garbage}) >&3 2>/dev/null; timeout 15 cat <&3 | head -c 1000; true"
        );
        bed.host_exec(node, &["bash", "-c", &script]).stdout
    };
    for (garbage, reason, answer) in GARBAGE {
        let count = || Some((refused("NotRedirected")?, reason.map_or(Some(0.0), refused)?));
        let (straight, redirected) = bed.wait_for("metrics", SECONDS, count);
        // Straight to the relay, which is nobody's way in.
        assert_eq!(say(("127.0.0.1", &relay), garbage), "", "{garbage}");
        // By the rules, as any process on the node can.
        let said = say((&host, &port), garbage);
        assert!(said.starts_with(answer), "{garbage}: {said}");
        let expected = (straight + 1.0, redirected + f64::from(u8::from(reason.is_some())));
        bed.wait_for(&format!("the end of {garbage} to be counted"), SECONDS, || {
            (count() == Some(expected)).then_some(())
        });
    }
    assert_eq!(process(&bed, node).as_deref(), Some(&*first), "the agent has not restarted");
    let status =
        bed.host_exec(node, &["grep", "VmRSS", &format!("/proc/{first}/status")]).succeeded();
    let kib: u64 =
        status.text().split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a size");
    assert!(kib < 64 * 1024, "resident: {kib} KiB");
    bed.kubectl(&["exec", "-n", NAMESPACE, node, "--", "true"]).succeeded();
}
