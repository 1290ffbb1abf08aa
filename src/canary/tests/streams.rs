use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use kube::{Client, client::Body};
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::{
    super::{
        AT_ONCE, ApiserverAddress, CanaryPod, Instance, PER_SECOND, STREAMS, TIMEOUT, connect, run,
        serve,
    },
    apiserver::{Apiserver, Reply, SUCCESS, is_exec, pod, sound},
};
use crate::decision::canary::{Answer, Probe, Transport};

async fn tried(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Probe {
    let apiserver = Apiserver::start(script).await;
    let probes = run(&[apiserver.instance()], &[pod()], |_, _| ()).await;
    assert_eq!(probes.len(), 1);
    probes.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_sound_node_answers_all() {
    let apiserver = Apiserver::start(sound).await;
    let mut heard = Vec::new();
    let probes =
        run(&[apiserver.instance()], &[pod()], |done, total| heard.push((done, total))).await;
    let expected = Probe {
        instance: "cp1".to_owned(),
        node: "worker-1".to_owned(),
        exec: Answer::Answered,
        attach: Answer::Answered,
        port_forward: Answer::Answered,
        said: String::new(),
    };
    assert_eq!(probes, [expected]);
    assert_eq!(heard, (0..=6).map(|done| (done, 6)).collect::<Vec<_>>());
    let seen = apiserver.seen.lock().unwrap();
    let mut asked: Vec<(&str, &str)> = Vec::new();
    for (path, headers) in seen.iter() {
        let protocol = headers
            .get("sec-websocket-protocol")
            .unwrap_or_else(|| &headers["x-stream-protocol-version"]);
        asked.push((path.as_str(), protocol.to_str().unwrap()));
    }
    asked.sort();
    let of_pod = "/api/v1/namespaces/sluice-system-canary/pods/sluice-canary-x";
    let command = "command=/sluice&command=canary&command=repeat";
    let streams = "stdin=true&stdout=true&stderr=true";
    let exec = format!("{of_pod}/exec?{command}&container=canary&{streams}");
    let attach = format!("{of_pod}/attach?container=canary&{streams}");
    let forward = format!("{of_pod}/portforward");
    // As kubectl asks.
    assert_eq!(
        asked,
        [
            (attach.as_str(), "v4.channel.k8s.io"),
            (attach.as_str(), "v5.channel.k8s.io"),
            (exec.as_str(), "v4.channel.k8s.io"),
            (exec.as_str(), "v5.channel.k8s.io"),
            (forward.as_str(), "SPDY/3.1+portforward.k8s.io"),
            (forward.as_str(), "portforward.k8s.io"),
        ]
    );
}

/// What anybody else could say is no answer: only the canary knows the word.
#[tokio::test]
async fn another_word_is_no_answer() {
    let said = || Reply::Say(vec![(1, b"0123456789abcdef\n".to_vec()), (3, SUCCESS.into())]);
    let probe = tried(move |asked| if is_exec(asked) { said() } else { sound(asked) }).await;
    assert_eq!((probe.exec, probe.port_forward), (Answer::NotUnderstood, Answer::Answered));
}

async fn tried_by(script: impl Fn(&str, Transport) -> Reply + Send + Sync + 'static) -> Probe {
    let apiserver = Apiserver::start_by(script).await;
    run(&[apiserver.instance()], &[pod()], |_, _| ()).await.remove(0)
}

/// What a kubectl does not survive is not answered, and what it does is.
#[tokio::test]
async fn each_kubectl_has_to_be_answered() {
    const SCHEME: &str = "error sending request: Post \"//[::]:10010/cri/exec/x\": http: server \
                          gave HTTP response to HTTPS client";
    let refused = || Reply::Refuse(403, "unable to upgrade: unable to negotiate protocol".into());
    // An apiserver of before KEP-4006 refuses WebSockets of its protocols.
    let old = move |asked: &str, by: Transport| match by {
        Transport::WebSocket => refused(),
        Transport::Spdy => sound(asked),
    };
    assert!(tried_by(old).await.passed());
    // A proxy that knows nothing but WebSockets breaks every kubectl before 1.31.
    let modern = move |asked: &str, by: Transport| match by {
        Transport::WebSocket => sound(asked),
        Transport::Spdy => refused(),
    };
    let probe = tried_by(modern).await;
    assert_eq!((probe.exec, probe.port_forward), (Answer::NotUnderstood, Answer::NotUnderstood));
    assert!(probe.said.ends_with("(over SPDY)"), "{}", probe.said);
    // One kind alone.
    let no_attach = move |asked: &str, _: Transport| {
        if asked.contains("/attach?") { refused() } else { sound(asked) }
    };
    let probe = tried_by(no_attach).await;
    let answers = [Answer::Answered, Answer::NotUnderstood, Answer::Answered];
    assert_eq!(probe.answers(), answers);
    // cri-dockerd behind a kubelet of 1.36: after the upgrade kubectl falls back to nothing.
    let cri_dockerd = |asked: &str, by: Transport| match by {
        Transport::WebSocket if is_exec(asked) => {
            let status = json!({"metadata": {}, "status": "Failure", "message": SCHEME});
            Reply::Say(vec![(3, status.to_string().into_bytes())])
        }
        _ => sound(asked),
    };
    let probe = tried_by(cri_dockerd).await;
    assert_eq!((probe.exec, probe.port_forward), (Answer::UrlWithoutScheme, Answer::Answered));
    assert_eq!(probe.said, format!("{SCHEME} (over WebSocket)"));
}

#[tokio::test]
async fn a_refused_upgrade_is_judged_by_its_body() {
    let of_apiserver = |code: u16, reason: &str, message: &str| {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": reason, "message": message});
        (code, body.to_string(), message.to_owned())
    };
    let text = |code: u16, body: &str| (code, body.to_owned(), body.trim().to_owned());
    for ((code, body, said), answer) in [
        (
            of_apiserver(500, "InternalError", "invalid upgrade response: status code 302"),
            Answer::RedirectRefused,
        ),
        (
            of_apiserver(500, "", "hostname mismatch: expected 10.0.0.3, found 10.0.0.4"),
            Answer::HostnameMismatch,
        ),
        (
            of_apiserver(400, "BadRequest", "Upgrade request required"),
            Answer::UpgradeHeadersMissing,
        ),
        (of_apiserver(403, "Forbidden", "pods is forbidden"), Answer::Forbidden),
        (
            of_apiserver(500, "", "error dialing backend: dial tcp 10.0.0.3:10250: i/o timeout"),
            Answer::KubeletUnreachable,
        ),
        (
            text(500, "error dialing backend: dial tcp 127.0.0.1:3: connection refused\n"),
            Answer::RuntimeUnreachable,
        ),
        (text(502, "bad gateway"), Answer::ApiserverUnreachable),
        ((200, String::new(), "200 OK".to_owned()), Answer::NotUnderstood),
    ] {
        let reply = Reply::Refuse(code, body);
        let probe = tried(move |_| reply.clone()).await;
        assert_eq!((probe.exec, probe.port_forward, probe.said), (answer, answer, said));
    }
}

#[tokio::test]
async fn one_kind_may_fail_alone() {
    let refused = || Reply::Refuse(500, "container not found (\"canary\")".to_owned());
    let probe = tried(move |asked| if is_exec(asked) { sound(asked) } else { refused() }).await;
    assert_eq!((probe.exec, probe.port_forward), (Answer::Answered, Answer::RuntimeUnreachable));
    assert_eq!(probe.said, "container not found (\"canary\")");
    let probe = tried(move |asked| if is_exec(asked) { refused() } else { sound(asked) }).await;
    assert_eq!((probe.exec, probe.port_forward), (Answer::RuntimeUnreachable, Answer::Answered));
    assert!(!probe.passed());
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let elsewhere = Apiserver::start(sound).await;
    let to = format!("{}/exec/token", elsewhere.url);
    let probe = tried(move |_| Reply::Redirect(to.clone())).await;
    assert_eq!(probe.exec, Answer::RedirectRefused);
    assert_eq!(probe.said, "302 Found");
    assert_eq!(elsewhere.seen.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn an_upgrade_is_not_yet_an_answer() {
    let failed = |reason: &str, message: &str| {
        let status = json!({"metadata": {}, "status": "Failure", "reason": reason,
            "message": message});
        (3, status.to_string().into_bytes())
    };
    let said = |text: &str| text.as_bytes().to_vec();
    for (exec, answer, words) in [
        (Reply::Say(vec![(1, said("else")), (3, SUCCESS.into())]), Answer::NotUnderstood, ""),
        (
            Reply::Say(vec![(2, said("no such word\n")), failed("NonZeroExitCode", "exit 1")]),
            Answer::NotUnderstood,
            "no such word",
        ),
        (
            Reply::Say(vec![failed("InternalError", "error executing command in container: x")]),
            Answer::RuntimeUnreachable,
            "error executing command in container: x",
        ),
        (Reply::Say(vec![]), Answer::NotUnderstood, "the exec ended without a status"),
        (Reply::BreakOff(vec![(1, said("w"))]), Answer::NotUnderstood, "the exec broke off: "),
        (
            Reply::OtherProtocol,
            Answer::NotUnderstood,
            "the upgrade does not lead to SPDY/3.1 with v4.channel.k8s.io (over SPDY)",
        ),
        (
            Reply::Say(vec![(1, vec![b'x'; 100 << 10])]),
            Answer::NotUnderstood,
            "the exec broke off: Space limit exceeded",
        ),
    ] {
        let reply = exec.clone();
        let script = move |asked: &str| if is_exec(asked) { reply.clone() } else { sound(asked) };
        let probe = tried(script).await;
        assert_eq!((probe.exec, probe.port_forward), (answer, Answer::Answered), "{exec:?}");
        assert!(probe.said.starts_with(words), "{}", probe.said);
    }
    let refused = "error forwarding port 8080 to pod x, uid : connection refused";
    for (reply, answer, words) in [
        (Reply::Say(vec![(1, said(refused))]), Answer::RuntimeUnreachable, refused),
        (
            Reply::Say(vec![(0, said("sluice canary sluice-y\n"))]),
            Answer::NotUnderstood,
            "sluice canary sluice-y",
        ),
        (Reply::Say(vec![]), Answer::NotUnderstood, "the port-forward ended before a word"),
        (
            Reply::BreakOff(vec![(0, said("slu"))]),
            Answer::NotUnderstood,
            "the port-forward broke off: ",
        ),
        (Reply::Say(vec![(0, vec![b'x'; 5 << 10])]), Answer::NotUnderstood, "xxx"),
    ] {
        let forward = reply.clone();
        let script = move |asked: &str| match asked.contains("/portforward") {
            true => forward.clone(),
            false => sound(asked),
        };
        let probe = tried(script).await;
        assert_eq!((probe.exec, probe.port_forward), (Answer::Answered, answer), "{reply:?}");
        assert!(probe.said.starts_with(words), "{}", probe.said);
    }
}

#[tokio::test]
async fn a_certificate_need_not_hold_the_address() {
    for (name, answer) in
        [("kubernetes.default.svc", Answer::Answered), ("127.0.0.1", Answer::ApiserverUnreachable)]
    {
        let (apiserver, config) = Apiserver::start_tls(name, sound).await;
        let place = ApiserverAddress::at(&apiserver.url, &[]).unwrap();
        let probes = run(&[connect(&config, &place).unwrap()], &[pod()], |_, _| ()).await;
        assert_eq!(probes[0].exec, answer, "{name}: {}", probes[0].said);
        if answer != Answer::Answered {
            assert!(probes[0].said.contains("certificate"), "{}", probes[0].said);
        }
    }
}

#[tokio::test]
async fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let place = ApiserverAddress { name: "cp1".to_owned(), url: format!("http://{free}") };
    let config = kube::Config::new("http://unused.example".parse().unwrap());
    let probes = run(&[connect(&config, &place).unwrap()], &[pod()], |_, _| ()).await;
    assert_eq!(probes[0].exec, Answer::ApiserverUnreachable);
    assert!(probes[0].said.contains("refused"), "{}", probes[0].said);
}

/// An apiserver that takes its time, and tells how many requests there were at once and when each
/// came.
fn slow(takes: Duration) -> (Instance, Arc<AtomicUsize>, Arc<Mutex<Vec<Instant>>>) {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let begun = Arc::new(Mutex::new(Vec::new()));
    let (peak, starts) = (most.clone(), begun.clone());
    let service = tower::service_fn(move |_: Request<Body>| {
        let (open, most, begun) = (open.clone(), most.clone(), begun.clone());
        async move {
            begun.lock().unwrap().push(Instant::now());
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(takes).await;
            open.fetch_sub(1, Ordering::SeqCst);
            let refused = Response::builder().status(403).body(Body::empty());
            Ok::<_, std::convert::Infallible>(refused.unwrap())
        }
    });
    let client = Client::new(service, "default");
    let (name, url) = ("cp1".to_owned(), "https://10.0.0.1:6443".to_owned());
    (Instance { name, url, client }, peak, starts)
}

fn pods(count: usize) -> Vec<CanaryPod> {
    (0..count).map(|i| CanaryPod { node: format!("worker-{i}"), ..pod() }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_few_streams_at_once_and_not_too_many_a_second() {
    let (instance, most, begun) = slow(Duration::from_secs(1));
    let probes = run(&[instance.clone(), instance], &pods(5), |_, _| ()).await;
    let nodes: Vec<&str> = probes.iter().map(|probe| probe.node.as_str()).collect();
    let expected: Vec<String> = (0..10).map(|i| format!("worker-{}", i / 2)).collect();
    assert_eq!(nodes, expected, "in the order of the pods");
    let expected = (10 * STREAMS, AT_ONCE);
    assert_eq!((begun.lock().unwrap().len(), most.load(Ordering::SeqCst)), expected);

    let (instance, _, begun) = slow(Duration::from_millis(1));
    run(&[instance], &pods(20), |_, _| ()).await;
    let begun = begun.lock().unwrap();
    let second = Duration::from_secs(1);
    for (i, start) in begun.iter().enumerate() {
        let within = begun[i..].iter().take_while(|other| **other - *start < second).count();
        assert!(within <= PER_SECOND as usize, "{within} began in a second");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_answer() {
    let (instance, ..) = slow(TIMEOUT * 100);
    let begun = Instant::now();
    let probes = run(&[instance], &pods(1), |_, _| ()).await;
    assert_eq!((probes[0].exec, probes[0].port_forward), (Answer::NoAnswer, Answer::NoAnswer));
    assert_eq!(probes[0].said, "nothing within 15 s");
    // Four at once, and then the other two.
    assert!(begun.elapsed() < TIMEOUT * 3);
}

#[tokio::test]
async fn a_canary_tells_everybody_who_it_is() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { serve::answer(listener, "sluice-canary-x").await });
    // More than it takes at once; whoever does not read keeps nobody else waiting for long.
    let mut streams = Vec::new();
    for _ in 0..40 {
        streams.push(TcpStream::connect(at).await.unwrap());
    }
    for mut stream in streams {
        let mut line = String::new();
        stream.read_to_string(&mut line).await.unwrap();
        assert_eq!(line, "sluice canary sluice-canary-x\n");
    }
}

#[test]
fn a_canary_repeats_each_line() {
    for lines in ["", "a\nb\n", "a\nlast", &"x".repeat(10 << 10)] {
        let mut said = Vec::new();
        serve::repeat(lines.as_bytes(), &mut said);
        assert_eq!(String::from_utf8(said).unwrap(), lines);
    }
}

#[test]
fn the_controller_can_run_it_beside_its_loop() {
    fn spawnable<T: Send>(_: T) {}
    spawnable(run(&[], &[], |_, _| ()));
}
