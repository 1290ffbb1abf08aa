use proptest::prelude::*;
use serde_json::json;

use super::*;

fn status(code: u16, reason: &str, message: &str) -> (u16, String) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    (code, body.to_string())
}

fn text(code: u16, body: &str) -> (u16, String) {
    (code, body.to_owned())
}

/// What apiservers, kubelets, runtimes and proxies say, word for word.
#[test]
fn refusals_are_told_apart() {
    use Answer::*;
    for ((code, body), expected) in [
        // The gate is off, or there is none, and the kubelet redirects.
        (status(500, "", "invalid upgrade response: status code 302"), RedirectRefused),
        (status(500, "", "invalid upgrade response: status code 307"), RedirectRefused),
        (text(500, "invalid upgrade response: status code 200\n"), UpgradeHeadersMissing),
        (text(302, "<a href=\"http://10.0.0.3:35019/exec/x\">Found</a>.\n\n"), RedirectRefused),
        (status(500, "", "too many redirects (10)"), RedirectRefused),
        (status(500, "", "302 response missing Location header"), RedirectRefused),
        (status(500, "", "malformed Location header: parse \"::\""), RedirectRefused),
        (
            status(500, "", "hostname mismatch: expected 10.0.0.3, found 169.254.169.254"),
            HostnameMismatch,
        ),
        // Headers that are gone: before the apiserver, before the kubelet, before the runtime.
        (status(400, "BadRequest", "Upgrade request required"), UpgradeHeadersMissing),
        (text(500, "Upgrade request required\n"), UpgradeHeadersMissing),
        (
            text(
                400,
                "unable to upgrade: missing upgrade headers in request: http.Header{\"Accept\":[]}\n",
            ),
            UpgradeHeadersMissing,
        ),
        (
            text(400, "unable to upgrade: X-Stream-Protocol-Version is required\n"),
            UpgradeHeadersMissing,
        ),
        (text(400, "not websocket protocol"), UpgradeHeadersMissing),
        (text(400, "missing or bad WebSocket-Protocol"), UpgradeHeadersMissing),
        (text(400, "query parameter \"port\" is required"), UpgradeHeadersMissing),
        (text(426, ""), UpgradeHeadersMissing),
        // Dialling: the apiserver the kubelet, the kubelet the runtime, the apiserver the runtime.
        (
            status(
                500,
                "",
                "error dialing backend: dial tcp 10.0.0.3:10250: connect: connection refused",
            ),
            KubeletUnreachable,
        ),
        (
            status(
                500,
                "",
                "error dialing backend: dial tcp 10.0.0.1:40312->10.0.0.3:10250: i/o timeout",
            ),
            KubeletUnreachable,
        ),
        (
            status(
                500,
                "",
                "error dialing backend: dial tcp [fd00::3]:10250: connect: no route to host",
            ),
            KubeletUnreachable,
        ),
        (
            status(500, "", "error dialing backend: dial tcp: lookup old1: no such host"),
            KubeletUnreachable,
        ),
        (
            status(500, "", "error dialing backend: remote error: tls: internal error"),
            KubeletUnreachable,
        ),
        (status(500, "", "error dialing backend: No agent available"), KubeletUnreachable),
        (
            status(
                500,
                "",
                "error dialing backend: proxy error from 127.0.0.1:6443 while dialing \
                 10.0.0.3:10250, code 502: 502 Bad Gateway",
            ),
            KubeletUnreachable,
        ),
        (status(500, "", "error sending request: write: broken pipe"), KubeletUnreachable),
        (status(500, "InternalError", "unexpected EOF"), KubeletUnreachable),
        (status(500, "", "malformed HTTP response \"\\x15\\x03\\x01\""), KubeletUnreachable),
        (
            text(
                500,
                "error dialing backend: dial tcp 127.0.0.1:35019: connect: connection refused\n",
            ),
            RuntimeUnreachable,
        ),
        (
            status(
                500,
                "",
                "error dialing backend: dial tcp 10.0.0.3:35019: connect: connection refused",
            ),
            RuntimeUnreachable,
        ),
        (text(500, "EOF\n"), RuntimeUnreachable),
        // cri-dockerd, which a kubelet of 1.36 was asked for by WebSocket.
        (
            text(
                500,
                "error sending request: Post \"//[::]:10010/cri/exec/x\": http: server gave HTTP \
                 response to HTTPS client",
            ),
            UrlWithoutScheme,
        ),
        // The same words of a kubelet that does not speak TLS.
        (
            status(
                500,
                "",
                "error dialing backend: http: server gave HTTP response to HTTPS client",
            ),
            KubeletUnreachable,
        ),
        // A runtime that does not have the container, or does not answer.
        (text(500, "container not found (\"canary\")"), RuntimeUnreachable),
        (
            text(
                404,
                "rpc error: code = NotFound desc = an error occurred when try to find container",
            ),
            RuntimeUnreachable,
        ),
        (
            text(500, "rpc error: code = Unavailable desc = transport is closing"),
            RuntimeUnreachable,
        ),
        (text(429, "maximum number of in-flight requests exceeded"), RuntimeUnreachable),
        // Rights: of whoever asks, and of the apiserver at the kubelet.
        (
            status(
                403,
                "Forbidden",
                "pods \"sluice-canary-x\" is forbidden: User \"jane\" cannot get resource \
                 \"pods/exec\" in API group \"\" in the namespace \"sluice-system-canary\"",
            ),
            Forbidden,
        ),
        // What kubectl falls back to needs the right to create, and a WebSocket does since 1.35.
        (
            status(
                403,
                "Forbidden",
                "pods \"p1\" is forbidden: User \"getter\" cannot create resource \"pods/exec\" in API \
                 group \"\" in the namespace \"default\"",
            ),
            Forbidden,
        ),
        (status(401, "Unauthorized", "Unauthorized"), Forbidden),
        (
            text(
                403,
                "Forbidden (user=kube-apiserver, verb=get, resource=nodes, subresource=proxy)",
            ),
            Forbidden,
        ),
        (
            text(
                403,
                "unable to upgrade: unable to negotiate protocol: client supports [], server \
                 accepts [v4.channel.k8s.io]",
            ),
            NotUnderstood,
        ),
        // The apiserver, or a load balancer before it.
        (status(503, "ServiceUnavailable", "apiserver is shutting down"), ApiserverUnreachable),
        (status(429, "TooManyRequests", "please try again later"), ApiserverUnreachable),
        (text(502, "<html>Bad Gateway</html>"), ApiserverUnreachable),
        // Everything else.
        (status(404, "NotFound", "pods \"sluice-canary-x\" not found"), NotUnderstood),
        (
            status(400, "BadRequest", "pod sluice-canary-x does not have a host assigned"),
            NotUnderstood,
        ),
        (text(200, ""), NotUnderstood),
        (text(500, "{\"kind\": \"Pod\"}"), NotUnderstood),
    ] {
        assert_eq!(classify(code, &body), expected, "{code} {body}");
    }
}

#[test]
fn what_a_stream_came_to() {
    // Seen from a kubelet of 1.20: no kind.
    let success = json!({"metadata": {}, "status": "Success"}).to_string();
    let whole = json!({"kind": "Status", "status": "Success"}).to_string();
    let exit = json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": "command terminated with non-zero exit code"});
    let failed = json!({"metadata": {}, "status": "Failure", "reason": "InternalError",
        "message": "error executing command in container: failed to exec in container"});
    for (status, output, expected) in [
        (success.as_str(), "word", Answer::Answered),
        (success.as_str(), "word\n", Answer::Answered),
        (whole.as_str(), "word\n", Answer::Answered),
        (success.as_str(), "", Answer::NotUnderstood),
        (success.as_str(), "words", Answer::NotUnderstood),
        (&exit.to_string(), "word", Answer::NotUnderstood),
        (&failed.to_string(), "", Answer::RuntimeUnreachable),
        ("", "word", Answer::NotUnderstood),
        // Where an apiserver translates. Those of 1.34 to 1.37 have said the first of a kubelet that
        // redirects; the second has the words of Go for one that is not there.
        (
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"http://127.0.0.1:43305/exec/token\": redirect not allowed","reason":"InternalError","code":500}"#,
            "",
            Answer::RedirectRefused,
        ),
        (
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"https://10.0.0.1:10250/exec/a/b/c\": dial tcp 10.0.0.1:10250: connect: connection refused","reason":"InternalError","code":500}"#,
            "",
            Answer::KubeletUnreachable,
        ),
        // Seen on kubelets of 1.36.
        (
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"//[::]:10010/cri/exec/token\": http: server gave HTTP response to HTTPS client","reason":"InternalError","code":500}"#,
            "",
            Answer::UrlWithoutScheme,
        ),
        (
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"//[::]:10010/cri/exec/token\": dial tcp [::]:10010: connect: connection refused","reason":"InternalError","code":500}"#,
            "",
            Answer::RuntimeUnreachable,
        ),
    ] {
        assert_eq!(exec_ended(status, output, "word"), expected, "{status} {output}");
    }
    let refused = "error forwarding port 8080 to pod x, uid : connection refused";
    for (error, line, expected) in [
        ("", "sluice canary x\n", Answer::Answered),
        ("", "SSH-2.0", Answer::NotUnderstood),
        ("", "", Answer::NotUnderstood),
        (refused, "", Answer::RuntimeUnreachable),
        (refused, "sluice canary x\n", Answer::RuntimeUnreachable),
    ] {
        assert_eq!(forward_ended(error, line, "sluice canary x"), expected, "{error} {line}");
    }
}

#[test]
fn words_are_one_short_line() {
    let (_, body) = status(500, "", "invalid upgrade response:\n status code 302");
    for (body, expected) in [
        (body.as_str(), "invalid upgrade response: status code 302"),
        ("EOF\n", "EOF"),
        ("a\u{1b}[31mb\tc", "a[31mb c"),
        (r#"{"metadata":{},"status":"Failure","message":"exit 1"}"#, "exit 1"),
        ("", ""),
    ] {
        assert_eq!(words(body), expected);
    }
    assert_eq!(words(&"x ".repeat(5_000)).len(), QUOTED);
}

fn probe(node: &str, instance: &str, exec: Answer, port_forward: Answer) -> Probe {
    let said = format!("{node} said it");
    let said = if exec == Answer::Answered { "" } else { &said };
    Probe::new(instance, node, (exec, said), (exec, said), (port_forward, ""))
}

#[test]
fn what_was_said_of_all_streams() {
    for (exec, attach, forward, expected) in [
        ("", "", "", ""),
        ("a", "", "", "a"),
        ("", "", "b", "b"),
        ("a", "a", "", "a"),
        ("a", "a", "a", "a"),
        ("a", "", "b", "a (exec); b (port-forward)"),
        ("a", "a", "b", "a (exec); a (attach); b (port-forward)"),
    ] {
        let of = |said| (Answer::NotUnderstood, said);
        let probe = Probe::new("cp1", "old1", of(exec), of(attach), of(forward));
        assert_eq!(probe.said, expected);
    }
}

#[test]
fn how_an_attach_ends() {
    let tls = r#"{"status":"Failure","message":"error sending request: Post \"//[::]:1/x\": http: server gave HTTP response to HTTPS client"}"#;
    for (status, expected) in [
        (r#"{"metadata":{},"status":"Success"}"#, Answer::NotUnderstood),
        (r#"{"status":"Failure","message":"no such container"}"#, Answer::RuntimeUnreachable),
        (tls, Answer::UrlWithoutScheme),
        ("", Answer::NotUnderstood),
    ] {
        assert_eq!(attach_ended(status), expected, "{status}");
    }
}

#[test]
fn every_answer_has_its_own_name_and_advice() {
    let mut advices = BTreeSet::new();
    for answer in Answer::ALL {
        let said = advice(answer, "old1", "cp1");
        assert!(said.contains("old1"), "{said}");
        assert!(advices.insert(said), "{answer:?}");
        let name = answer.as_str();
        assert_eq!(name, format!("{answer:?}"));
    }
    let redirect = advice(Answer::RedirectRefused, "old1", "cp1");
    for word in ["--redirect-container-streaming", "1.20 or later", "StreamingProxyRedirects"] {
        assert!(redirect.contains(word), "{redirect}");
    }
}

#[test]
fn failures_are_told_once_for_all_nodes() {
    use Answer::*;
    let probes = [
        probe("old1", "cp2", RedirectRefused, RedirectRefused),
        probe("old1", "cp1", RedirectRefused, RedirectRefused),
        probe("new1", "cp1", Answered, Answered),
        probe("old2", "cp1", Answered, RuntimeUnreachable),
        probe("old0", "cp1", NoAnswer, RedirectRefused),
    ];
    let seen: Vec<_> = failures(&probes)
        .into_iter()
        .map(|failure| (failure.answer, failure.nodes, failure.instances, failure.said))
        .collect();
    let failure = |answer, nodes: &str, instances: &str, said: &str| {
        (answer, nodes.to_owned(), instances.to_owned(), said.to_owned())
    };
    assert_eq!(
        seen,
        [
            failure(RedirectRefused, "old0 and old1", "cp1 and cp2", "old0 said it"),
            failure(RuntimeUnreachable, "old2", "cp1", ""),
            failure(NoAnswer, "old0", "cp1", "old0 said it"),
        ]
    );
    assert_eq!(failures(&probes[2..3]), []);
    let passed: Vec<bool> = probes.iter().map(Probe::passed).collect();
    assert_eq!(passed, [false, false, true, false, false]);
}

#[test]
fn a_sample_is_spread_over_the_names() {
    let all = ["f", "e", "d", "c", "b", "a"];
    for (candidates, max, expected) in [
        (&[][..], 6, "a b c d e f"),
        (&[], 3, "b d f"),
        (&[], 1, "f"),
        (&[], 0, ""),
        (&["e"], 3, "e c f"),
        (&["e", "missing"], 2, "e missing"),
        (&["e", "d", "c", "b"], 2, "c e"),
        (&["a"], 9, "a b c d e f"),
    ] {
        let candidates: BTreeSet<&str> = candidates.iter().copied().collect();
        assert_eq!(sample(&candidates, all.into_iter(), max).join(" "), expected);
    }
}

proptest! {
    #[test]
    fn any_answer_is_classified(status in any::<u16>(), body in ".{0,200}") {
        prop_assert_ne!(classify(status, &body), Answer::Answered);
        prop_assert!(words(&body).chars().count() <= QUOTED);
    }

    #[test]
    fn a_sample_is_as_large_as_it_may_be_and_prefers_candidates(
        names in proptest::collection::btree_set("[a-z]{1,3}", 0..60),
        candidates in proptest::collection::btree_set("[a-z]{1,3}", 0..20),
        max in 0usize..80,
    ) {
        let candidates: BTreeSet<&str> = candidates.iter().map(String::as_str).collect();
        let all = || names.iter().map(String::as_str);
        let chosen = sample(&candidates, all(), max);
        let distinct: BTreeSet<&str> = chosen.iter().map(String::as_str).collect();
        let either: BTreeSet<&str> = all().chain(candidates.iter().copied()).collect();
        prop_assert_eq!(distinct.len(), chosen.len());
        prop_assert_eq!(chosen.len(), either.len().min(max));
        prop_assert!(distinct.is_subset(&either));
        // Nobody else before the candidates, and none is left out while there is room.
        let first = chosen.iter().take_while(|name| candidates.contains(name.as_str())).count();
        prop_assert_eq!(first, candidates.len().min(max));
        // Neighbours by name are not all that is seen: no gap is more than twice another.
        let gaps: Vec<usize> = {
            let rest: Vec<&str> = either.difference(&candidates).copied().collect();
            let at = |name: &&String| rest.binary_search(&name.as_str()).ok();
            let places: Vec<usize> = chosen.iter().filter_map(|name| at(&name)).collect();
            places.windows(2).map(|pair| pair[1] - pair[0]).collect()
        };
        if let (Some(least), Some(most)) = (gaps.iter().min(), gaps.iter().max()) {
            prop_assert!(most - least <= 1, "{:?}", gaps);
        }
        let turned = sample(&candidates, names.iter().rev().map(String::as_str), max);
        prop_assert_eq!(chosen, turned);
    }
}
