//! The table of the two settings, cell by cell: three work and the fourth fails, whatever asks and for whichever stream.
//!
//! | gate \ kubelet | `old2`: proxies locally | `old1`: redirects |
//! |----------------|-------------------------|-------------------|
//! | on             | works                   | works             |
//! | off            | works                   | fails             |

use crate::bed::{Bed, Client};
use crate::operator::SECONDS;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const NAMESPACE: &str = "cells";
const REDIRECTING: &str = "old1";
const PROXYING: &str = "old2";
const GATE_OFF: &str = "--feature-gates=StreamingProxyRedirects=false";
const REFUSED: &str = "invalid upgrade response: status code 302";
const SOON: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Stream {
    Exec,
    Attach,
    PortForward,
    Copy,
}

impl Stream {
    const ALL: [Self; 4] = [Self::Exec, Self::Attach, Self::PortForward, Self::Copy];

    /// What kubectl says when the apiserver does not follow the kubelet's redirect.
    fn refusal(self) -> String {
        match self {
            Self::PortForward => format!("error: error upgrading connection: {REFUSED}"),
            _ => format!("Error from server: {REFUSED}"),
        }
    }
}

/// A pod on the node that serves a page and gives back each line it is told.
fn start_pod(bed: &Bed, node: &str) {
    bed.namespace(NAMESPACE);
    bed.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {node}, namespace: {NAMESPACE}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - name: echo
    image: k8s.gcr.io/busybox:1
    stdin: true
    command: [sh, -c, "mkdir /www && echo 'page of {node}' >/www/index.html && httpd -p 8080 -h /www && exec cat"]
"#
    ));
    bed.pod_ready(NAMESPACE, node);
    // A pod of an earlier test is called ready while its kubelet, which was just restarted, does not know it yet.
    bed.wait_for(&format!("an answer from {node}"), SECONDS, || {
        let exec = bed.kubectl(&["exec", "-n", NAMESPACE, node, "--", "true"]);
        (exec.success() || exec.stderr.contains(REFUSED)).then_some(())
    });
}

/// Opens the stream and carries something over it: what came back, or what kubectl said instead.
fn carry(bed: &Bed, client: Client, stream: Stream, node: &str) -> Result<String, String> {
    let word = format!("{client:?}-{stream:?}-{}", std::process::id());
    match stream {
        Stream::Exec => {
            let output =
                bed.kubectl_of(client, &["exec", "-n", NAMESPACE, node, "--", "echo", &word]);
            if output.success() {
                Ok(output.text().replace(&word, node))
            } else {
                Err(output.failed())
            }
        }
        Stream::Attach => {
            let mut session =
                bed.kubectl_session(client, &["attach", "-n", NAMESPACE, node, "--stdin"]);
            session.say(&word);
            session.line_with(&word, SOON).map(|_| node.to_owned())
        }
        Stream::PortForward => {
            let mut session =
                bed.kubectl_session(client, &["port-forward", "-n", NAMESPACE, node, ":8080"]);
            let ready = session.line_with("Forwarding from 127.0.0.1:", SOON)?;
            let address =
                ready.split_whitespace().nth(2).expect("kubectl names the address it listens on");
            let page = fetch(address)
                .unwrap_or_else(|e| panic!("{client:?} forwards {address}, but: {e}"));
            assert!(
                page.ends_with(&format!("page of {node}\n")),
                "{client:?} forwarded something else: {page}"
            );
            Ok(node.to_owned())
        }
        Stream::Copy => {
            let folder = tempfile::tempdir().expect("create a folder");
            let (there, back) = (folder.path().join("there"), folder.path().join("back"));
            std::fs::write(&there, &word).expect("write a file");
            let remote = format!("{NAMESPACE}/{node}:/tmp/copied");
            for (from, to) in [(there.to_str(), Some(&*remote)), (Some(&*remote), back.to_str())] {
                let paths = from.zip(to).expect("paths in UTF-8");
                let output = bed.kubectl_of(client, &["cp", paths.0, paths.1]);
                if !output.success() {
                    return Err(output.failed());
                }
            }
            assert_eq!(std::fs::read_to_string(back).expect("read what came back"), word);
            Ok(node.to_owned())
        }
    }
}

fn fetch(address: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(SOON))?;
    connection.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    Ok(page)
}

/// The line that is the error: kubectl also says which container it chose and how to get a prompt.
fn complaint(stderr: &str) -> String {
    let mut lines = stderr.lines();
    lines.find(|l| l.to_lowercase().starts_with("error")).unwrap_or(stderr).to_owned()
}

fn every_stream(bed: &Bed, node: &str, expect: impl Fn(Stream) -> Result<String, String>) {
    start_pod(bed, node);
    for client in Client::BOTH {
        for stream in Stream::ALL {
            let seen = carry(bed, client, stream, node).map_err(|e| complaint(&e));
            assert_eq!(seen, expect(stream), "{stream:?} by {client:?} to {node}");
        }
    }
}

fn works(bed: &Bed, node: &str) {
    every_stream(bed, node, |_| Ok(node.to_owned()));
}

fn is_refused(bed: &Bed, node: &str) {
    every_stream(bed, node, |stream| Err(stream.refusal()));
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn gate_on_and_the_kubelet_proxies() {
    let bed = Bed::shared();
    bed.default_apiserver();
    works(&bed, PROXYING);
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn gate_on_and_the_kubelet_redirects() {
    let bed = Bed::shared();
    bed.default_apiserver();
    works(&bed, REDIRECTING);
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn gate_off_and_the_kubelet_proxies() {
    let bed = Bed::shared();
    bed.apiserver("1.20.15", &[GATE_OFF]);
    works(&bed, PROXYING);
}

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn gate_off_and_the_kubelet_redirects() {
    let bed = Bed::shared();
    bed.apiserver("1.20.15", &[GATE_OFF]);
    is_refused(&bed, REDIRECTING);
}

/// Nobody touched a gate: the upgrade of the apiserver alone breaks the node.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn gate_off_by_default_from_1_22() {
    let bed = Bed::shared();
    bed.apiserver("1.22.17", &[]);
    works(&bed, PROXYING);
    is_refused(&bed, REDIRECTING);
    bed.apiserver("1.22.17", &["--feature-gates=StreamingProxyRedirects=true"]);
    works(&bed, REDIRECTING);
}

/// There is no gate left to turn on.
#[test]
#[ignore = "needs the test cluster: make e2e"]
fn gate_gone_from_1_24() {
    let bed = Bed::shared();
    bed.apiserver("1.24.17", &[]);
    works(&bed, PROXYING);
    is_refused(&bed, REDIRECTING);
}
