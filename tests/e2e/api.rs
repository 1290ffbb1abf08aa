//! Reads of the test cluster's API. What waits for a condition asks several times a second, and a kubectl for each question
//! takes a tenth of a second of the processor's time.

use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Where the chart's kinds are.
pub const POLICIES: &str = "/apis/sluice.dev/v1alpha1/streamingpolicies";
pub const STREAMING_NODES: &str = "/apis/sluice.dev/v1alpha1/streamingnodes";

const ANSWER: Duration = Duration::from_secs(30);
/// For one attempt. A request to a host that loses its power is never answered: it must not take the time of all.
const ATTEMPT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_all().build().expect("a runtime for requests")
});

/// What is at a path, or nothing if there is no such object. It is asked for again where the connection is cut, and where
/// the answer is that of an apiserver that is just going away (500 and above) or coming up: until it serves a kind, its
/// 404 says nothing of an object.
#[track_caller]
pub fn get(kubeconfig: &Path, path: &str) -> Option<Value> {
    let end = Instant::now() + ANSWER;
    loop {
        match read(kubeconfig, path, ATTEMPT) {
            Ok(text) => return Some(serde_json::from_str(&text).expect("the API speaks JSON")),
            Err(kube::Error::Api(status)) if status.reason == "NotFound" => return None,
            Err(error @ kube::Error::Api(_)) if !passes(&error) => panic!("get {path}: {error}"),
            Err(error) => assert!(Instant::now() < end, "get {path}: {error}"),
        }
        thread::sleep(PAUSE);
    }
}

/// Whether an apiserver says so only until it is there.
fn passes(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 429 | 500..))
}

/// Whether the apiserver that the kubeconfig names says that it is ready.
pub fn ready(kubeconfig: &Path) -> bool {
    read(kubeconfig, "/readyz", Duration::from_secs(5)).is_ok_and(|answer| answer == "ok")
}

/// Whether a pod stays, and its containers are ready. One on its way out may be ready to its end.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|c| c["type"] == "Ready" && c["status"] == "True");
    pod["metadata"]["deletionTimestamp"].is_null() && ready.next().is_some()
}

/// One request over a connection of its own, as a kubectl's: an apiserver that has been away in between is no trouble.
fn read(kubeconfig: &Path, path: &str, deadline: Duration) -> kube::Result<String> {
    let config = Kubeconfig::read_from(kubeconfig).expect("the cluster's kubeconfig");
    let request = http::Request::get(path).body(Vec::new()).expect("a path");
    RUNTIME.block_on(async {
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("the cluster's kubeconfig"))?;
        let answer = timeout(deadline, client.request_text(request)).await;
        answer.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
    })
}
