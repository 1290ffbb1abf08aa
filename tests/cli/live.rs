//! Commands that ask a cluster, against servers whose answers are written down.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Ran, run};

const MISSING: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"not found"}"#;
const VERSION: &str = r#"{"major":"1","minor":"24","gitVersion":"v1.24.1","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#;
const NODES: &str = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{},"items":[
    {"metadata":{"name":"n"},"status":{"nodeInfo":{"kubeletVersion":"v1.24.1"}}}]}"#;
const OUR_KINDS: &str = r#"{"kind":"APIResourceList","groupVersion":"sluice.dev/v1alpha1","resources":[
    {"name":"streamingnodes","singularName":"","namespaced":false,"kind":"StreamingNode","verbs":["list"]}]}"#;

/// A server, and a kubeconfig that leads to it.
pub struct Server {
    pub url: String,
    folder: tempfile::TempDir,
}

impl Server {
    /// The options that lead to it.
    pub fn run(&self, args: &[&str]) -> Ran {
        let config = self.folder.path().join("config");
        run(&[args, &["--kubeconfig", config.to_str().unwrap()]].concat(), "")
    }
}

/// A server that answers by path and by the head of the request, everybody at once.
pub fn server(answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream, &*answer));
        }
    });
    at(url)
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str, &str) -> (u16, String)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(stream.read(&mut byte), Ok(1)) {
            break;
        }
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (code, body) = answer(path.split('?').next().unwrap_or_default(), &head);
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// A server at this URL, whatever is there.
fn at(url: String) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: '{url}'}}}}]\nusers: [{{name: u, user: {{}}}}]\ncontexts: [{{name: ctx, context: {{cluster: c, user: u}}}}]\ncurrent-context: ctx\n"
    );
    fs::write(folder.path().join("config"), config).unwrap();
    Server { url, folder }
}

fn forbidden(what: &str) -> (u16, String) {
    let message = format!("{what} is forbidden: User \"u\" cannot list resource \"{what}\"");
    let body = format!(
        r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":{message:?}}}"#
    );
    (403, body)
}

/// A cluster of 1.24 in which nothing could redirect, and whose user may not read what these paths end
/// with.
fn forbidding(kinds: &'static [&'static str], installed: bool) -> Server {
    server(move |path, _| match path {
        _ if kinds.iter().any(|kind| path.ends_with(kind)) => {
            forbidden(path.rsplit('/').next().unwrap_or_default())
        }
        "/api/v1/nodes" => (200, NODES.to_owned()),
        "/version" => (200, VERSION.to_owned()),
        "/apis/sluice.dev/v1alpha1" if installed => (200, OUR_KINDS.to_owned()),
        _ => (404, MISSING.to_owned()),
    })
}

const HINT: &str = "hint: the chart's ClusterRole sluice-reader has the rights of plan and status, and check wants the Role \
     sluice-canary of the canaries' namespace besides: kubectl create clusterrolebinding sluice-reader --clusterrole=sluice-reader --user=u\n";

#[test]
fn a_missing_right_is_said_with_the_role_that_has_it() {
    let ran = forbidding(&["/nodes"], false).run(&["plan"]);
    let told = format!(
        "error: cannot read the cluster's nodes: nodes is forbidden: User \"u\" cannot list resource \"nodes\"\n{HINT}"
    );
    assert_eq!((ran.code, ran.stderr), (Some(1), told));
    let ran = forbidding(&["/streamingpolicies"], true).run(&["status"]);
    assert_eq!(ran.code, Some(1));
    let told = format!(
        "error: cannot watch StreamingPolicies: streamingpolicies is forbidden: User \"u\" cannot list resource \"streamingpolicies\"\n{HINT}"
    );
    assert_eq!(ran.stderr, told);
}

#[test]
fn who_may_only_read_nodes_gets_a_verdict_that_is_never_safe() {
    const ALL: &[&str] =
        &["/streamingpolicies", "/streamingnodes", "/pods", "/endpoints/kubernetes"];
    for (kinds, installed, code, said) in [
        // Where Sluice is not installed, there is nothing of it that could be hidden; but there may be
        // other apiservers than the one that answers.
        (ALL, false, 2, "Refused: ApiserversUnknown"),
        (&ALL[..2], false, 0, "Safe: GateRemoved"),
        (&ALL[3..], true, 2, "Refused: ApiserversUnknown"),
        (ALL, true, 2, "Refused: ApiserversUnknown"),
        (&ALL[..2], true, 2, "Refused: InputUnread"),
        (&ALL[..1], true, 2, "Refused: InputUnread"),
        (&ALL[1..2], true, 2, "Refused: InputUnread"),
        (&ALL[2..3], true, 0, "Safe: "),
        (&ALL[..0], true, 0, "Safe: "),
    ] {
        let ran = forbidding(kinds, installed).run(&["plan"]);
        assert_eq!(ran.code, Some(code), "{kinds:?} {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(said), "{kinds:?} {}", ran.stdout);
        assert!(!ran.stderr.contains("ApiError"), "{}", ran.stderr);
        let warned = !kinds.is_empty() && (installed || kinds.len() > 2);
        assert_eq!(ran.stderr.contains("sluice-reader"), warned, "{kinds:?} {}", ran.stderr);
    }
    // Who knows what cannot be seen may say so.
    let said = forbidding(ALL, false).run(&["plan", "--apiserver-version", "1.24"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[test]
fn a_connection_that_fails_names_server_and_context() {
    // Nobody listens there any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = at(format!("http://{free}"));
    for command in ["plan", "check"] {
        let ran = nobody.run(&[command]);
        assert_eq!(ran.code, Some(1));
        let told = format!("{} (context ctx) cannot be reached: ", nobody.url);
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
        assert!(ran.stderr.contains("Connection refused"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("ServiceError"), "{}", ran.stderr);
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = at(format!("http://{}", listener.local_addr().unwrap()));
    let encrypted = at(silent.url.replace("http:", "https:"));
    for (server, command) in
        [(&silent, "plan"), (&silent, "check"), (&silent, "status"), (&encrypted, "plan")]
    {
        let start = Instant::now();
        let ran = server.run(&[command, "--request-timeout", "300ms"]);
        assert_eq!(ran.code, Some(1));
        let told = format!("{} (context ctx) did not answer within 300ms", server.url);
        assert!(ran.stderr.contains(&told), "{command}: {}", ran.stderr);
        assert!(start.elapsed() < Duration::from_secs(20), "{command}");
    }
    let help = run(&["plan", "--help"], "").stdout;
    assert!(help.contains("[default: 10s]"), "{help}");
}

#[test]
fn whoever_is_asked_for_is_who_asks() {
    let server = server(|path, head| match path {
        "/api/v1/nodes" => {
            let asks = head.to_ascii_lowercase();
            assert!(asks.contains("impersonate-user: jane\r\n"), "{head}");
            assert!(asks.contains("impersonate-group: a\r\n"), "{head}");
            assert!(asks.contains("impersonate-group: b\r\n"), "{head}");
            (200, NODES.to_owned())
        }
        "/version" => (200, VERSION.to_owned()),
        _ => (404, MISSING.to_owned()),
    });
    let asked = ["plan", "--as", "jane", "--as-group", "a", "--as-group", "b"];
    let ran = server.run(&asked);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // A server needs no kubeconfig.
    let ran = run(&[&asked[..], &["--server", &server.url]].concat(), "");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let ran = run(&["plan", "--as-group", "a"], "");
    assert_eq!(ran.code, Some(1));
}

const POLICY: &str = r#"{"apiVersion":"sluice.dev/v1alpha1","kind":"StreamingPolicy","metadata":{"name":"p","generation":1,"resourceVersion":"5"},
    "spec":{"streamingProxyRedirects":"Disabled"},"status":{"gate":"Enabled","nodes":{"total":4,"blocking":1},
    "conditions":[{"type":"SafeToDisable","status":"False","reason":"NodesRedirect","message":"old1 redirects.",
        "observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
const CHANGED_NODE: &str = r#"{"apiVersion":"sluice.dev/v1alpha1","kind":"StreamingNode","metadata":{"name":"old1","resourceVersion":"5"},
    "spec":{"change":{"id":"7","kind":"KubeletFlag","policy":"p","deadlineSeconds":300,
        "verdict":{"resourceVersion":"1","generation":1,"at":"2026-01-01T00:00:00Z"}}},"status":{}}"#;

/// A cluster with a judged policy and a node that is being changed, in which a watch soon shows another
/// verdict.
fn judged() -> Server {
    server(|path, head| {
        let watches = head.lines().next().unwrap_or_default().contains("watch=");
        if watches {
            // What was there before has been shown by then.
            std::thread::sleep(Duration::from_secs(2));
        }
        let list = |kind: &str, item: &str| {
            format!(
                r#"{{"apiVersion":"sluice.dev/v1alpha1","kind":"{kind}List","metadata":{{"resourceVersion":"5"}},"items":[{item}]}}"#
            )
        };
        let body = match path.rsplit('/').next().unwrap_or_default() {
            "streamingpolicies" if watches => {
                let changed = POLICY.replace("\"False\"", "\"True\"").replace('\n', "");
                format!(r#"{{"type":"MODIFIED","object":{changed}}}"#)
            }
            "streamingpolicies" => list("StreamingPolicy", POLICY),
            "streamingnodes" if watches => String::new(),
            "streamingnodes" => list("StreamingNode", CHANGED_NODE),
            _ => return (404, MISSING.to_owned()),
        };
        (200, body)
    })
}

#[test]
fn a_status_is_shown_in_every_form() {
    let server = judged();
    for (form, expected) in [
        ("table", &["p      Disabled   Enabled   False", "p: old1 redirects."][..]),
        ("wide", &["SafeToDisable   False    NodesRedirect", "old1   KubeletFlag   Wanted"]),
        ("json", &["\"kind\": \"List\"", "\"observedGeneration\": 1"]),
        ("yaml", &["kind: List", "observedGeneration: 1"]),
    ] {
        let ran = server.run(&["status", "-o", form]);
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{form}");
        for text in expected {
            assert!(ran.stdout.contains(text), "{form}: {}", ran.stdout);
        }
    }
}

#[test]
fn who_follows_a_status_hears_what_changes_until_nobody_reads_it() {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };
    let server = judged();
    for (form, expected) in [
        (
            "table",
            &[
                "policy p: gate Enabled, 1 of 4 nodes block; SafeToDisable False (NodesRedirect)",
                "node old1: KubeletFlag Wanted: ",
                "SafeToDisable True (NodesRedirect)",
            ][..],
        ),
        ("json", &["\"status\":\"False\"", "\"status\":\"True\""]),
        ("yaml", &["status: 'False'", "status: 'True'"]),
    ] {
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("sluice"))
            .args(["status", "--watch", "-o", form, "--server", &server.url])
            .env("KUBECONFIG", "/nonexistent")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        for text in expected {
            let found = lines.by_ref().inspect(|line| seen.push(line.clone())).any(|line| {
                let line = line.replace('"', "'");
                line.contains(&text.replace('"', "'"))
            });
            assert!(found, "{form}: {text} in {seen:?}");
        }
        drop(lines);
        // It would go on for ever.
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
