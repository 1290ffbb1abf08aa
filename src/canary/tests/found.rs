use k8s_openapi::api::core::v1::{Endpoints, Pod};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::super::{
    ApiserverAddress, CanaryPod, by_node, connect, in_front, instances, places, pods,
};
use crate::{
    cluster::ApiserverPod,
    test_support::{self, failure},
};

fn mirror_pod(node: &str, host: &str, advertised: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("kube-apiserver-{node}"), "namespace": "kube-system",
            "annotations": {"kubernetes.io/config.mirror": "hash"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": "u"}],
        },
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "kube-apiserver", "image": "kube-apiserver:v1.20.2",
                "command": ["kube-apiserver", format!("--advertise-address={advertised}")],
            }],
        },
        "status": {"hostIP": host},
    })
}

fn read(pod: Value) -> ApiserverPod {
    ApiserverPod::read(&serde_json::from_value::<Pod>(pod).unwrap()).unwrap()
}

fn endpoints(subsets: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default"}, "subsets": subsets})
}

#[test]
fn an_apiserver_is_named_after_its_node() {
    let pods = [
        read(mirror_pod("cp1", "10.0.0.1", "192.168.0.1")),
        read(mirror_pod("cp2", "10.0.0.2", "10.0.0.2")),
    ];
    let https = json!([{"name": "https", "port": 6443}]);
    for (subsets, expected) in [
        (
            json!([{"addresses": [{"ip": "10.0.0.2"}, {"ip": "192.168.0.1"}], "ports": https}]),
            vec![("cp1", "https://192.168.0.1:6443"), ("cp2", "https://10.0.0.2:6443")],
        ),
        (
            json!([{"addresses": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}],
                "ports": [{"name": "other", "port": 1}, {"name": "https", "port": 443}]}]),
            vec![("10.0.0.9", "https://10.0.0.9:443"), ("fd00::9", "https://[fd00::9]:443")],
        ),
        (
            json!([{"notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 8443}]}]),
            vec![("cp2", "https://10.0.0.2:8443")],
        ),
        (json!([{"addresses": [{"ip": "10.0.0.2"}]}]), vec![]),
        (Value::Null, vec![]),
    ] {
        let endpoints: Endpoints = serde_json::from_value(endpoints(&subsets)).unwrap();
        let found = places(&endpoints, &pods);
        let seen: Vec<_> = found.iter().map(|p| (p.name.as_str(), p.url.as_str())).collect();
        assert_eq!(seen, expected, "{subsets}");
    }
}

#[test]
fn a_place_that_somebody_names() {
    let pods = [read(mirror_pod("cp1", "10.0.0.1", "fd00::1"))];
    for (url, name) in [
        ("https://10.0.0.1:6443", Some("cp1")),
        ("https://[fd00::1]:6443", Some("cp1")),
        ("https://10.0.0.2:6443", Some("10.0.0.2:6443")),
        ("https://cp.example/clusters/a", Some("cp.example")),
        ("10.0.0.1:6443", None),
        ("ftp://10.0.0.1", None),
        ("https:///", None),
        ("cp1", None),
    ] {
        let place = ApiserverAddress::at(url, &pods);
        assert_eq!(place.as_ref().ok().map(|place| place.name.as_str()), name, "{url}");
        if let Err(error) = place {
            assert_eq!(error.reason(), "ApiserverUrl");
        }
    }
}

fn canary(node: &str, name: &str, ready: bool) -> CanaryPod {
    CanaryPod { namespace: "c".into(), name: name.into(), node: node.into(), ready }
}

#[test]
fn one_canary_for_each_node() {
    let chosen = |pods: &[CanaryPod]| {
        let nodes = by_node(pods.to_vec());
        nodes.into_values().map(|pod| (pod.name, pod.ready)).collect::<Vec<_>>()
    };
    let mut pods = vec![
        canary("a", "old", false),
        canary("a", "new", true),
        canary("a", "newer", true),
        canary("b", "x", false),
        canary("b", "y", false),
    ];
    let expected = [("new".to_owned(), true), ("x".to_owned(), false)];
    assert_eq!(chosen(&pods), expected);
    pods.reverse();
    assert_eq!(chosen(&pods), expected);
}

#[test]
fn a_pod_that_ends_is_not_ready() {
    let read = |change: fn(&mut Value)| {
        let mut pod = json!({
            "metadata": {"namespace": "c", "name": "x"}, "spec": {"nodeName": "a", "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut pod);
        CanaryPod::read(&serde_json::from_value(pod).unwrap())
    };
    assert_eq!(read(|_| ()), Some(canary("a", "x", true)));
    let ending = |pod: &mut Value| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    };
    assert_eq!(read(ending), Some(canary("a", "x", false)));
    assert_eq!(read(|pod| pod["status"] = json!({})), Some(canary("a", "x", false)));
    assert_eq!(read(|pod| pod["spec"]["nodeName"] = Value::Null), None);
}

/// A client of an apiserver that gives these answers.
fn client(answers: &[(&str, u16, Value)]) -> Client {
    test_support::apiserver(answers).0
}

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
const MIRRORS: &str =
    "/api/v1/namespaces/kube-system/pods?&fieldSelector=spec.serviceAccountName%3D&limit=500";

#[tokio::test]
async fn all_apiservers_are_found() {
    let config = Config::new("https://lb.example:6443".parse().unwrap());
    let both = endpoints(&json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
        "ports": [{"name": "https", "port": 6443}]}]));
    let list = json!({"metadata": {}, "items": [mirror_pod("cp1", "10.0.0.1", "10.0.0.1")]});
    for (mirrors, names) in [
        ((200, list), ["10.0.0.2", "cp1"]),
        ((403, failure(403, "Forbidden")), ["10.0.0.1", "10.0.0.2"]),
    ] {
        let client = client(&[(ENDPOINTS, 200, both.clone()), (MIRRORS, mirrors.0, mirrors.1)]);
        let found = instances(&config, &client).await.unwrap();
        assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), names);
    }
}

#[tokio::test]
async fn why_no_apiserver_is_found() {
    let config = Config::new("https://lb.example:6443".parse().unwrap());
    for (code, body, reason) in [
        (200, endpoints(&json!([])), "NoApiserver"),
        (403, failure(403, "Forbidden"), "Forbidden"),
        (404, failure(404, "NotFound"), "Unreachable"),
    ] {
        let client = client(&[(ENDPOINTS, code, body)]);
        let error = instances(&config, &client).await.err().unwrap();
        assert_eq!(error.reason(), reason);
    }
    let mut config = config;
    config.root_cert_file = Some("/nonexistent/ca.crt".into());
    let place =
        ApiserverAddress { name: "cp1".to_owned(), url: "https://10.0.0.1:6443".to_owned() };
    let error = connect(&config, &place).err().unwrap();
    assert_eq!(error.reason(), "Client");
}

#[tokio::test]
async fn canaries_are_listed_by_their_labels() {
    let list = json!({"metadata": {}, "items": [
        {"metadata": {"namespace": "c", "name": "x"}, "spec": {"nodeName": "a", "containers": []}},
        {"metadata": {"namespace": "c", "name": "pending"}, "spec": {"containers": []}},
    ]});
    let path = "/api/v1/namespaces/c/pods?&labelSelector=app%3Dcanary&limit=500";
    let found = pods(&client(&[(path, 200, list)]), "c", "app=canary").await.unwrap();
    assert_eq!(found, [canary("a", "x", false)]);
    let refused = client(&[(path, 403, failure(403, "Forbidden"))]);
    let error = pods(&refused, "c", "app=canary").await.unwrap_err();
    assert_eq!(
        (error.reason(), error.to_string()),
        ("Forbidden", "cannot read the canaries' pods in namespace c".to_owned())
    );
}

#[tokio::test]
async fn what_is_in_front_of_the_apiservers_is_another_way() {
    let config = Config::new("https://10.0.0.9:6443".parse().unwrap());
    let own = |url: &str| {
        connect(&config, &ApiserverAddress { name: "cp1".into(), url: url.into() }).unwrap()
    };
    let instances = [own("https://10.0.0.1:6443"), own("https://[fd00::1]:6443")];
    for (url, name) in [
        ("https://10.0.0.9:6443", Some("10.0.0.9:6443")),
        ("https://10.0.0.9:6443/", Some("10.0.0.9:6443")),
        ("https://api.example.com", Some("api.example.com:443")),
        ("https://10.0.0.1:8443", Some("10.0.0.1:8443")),
        ("https://10.0.0.1:6443", None),
        ("https://10.0.0.1:6443/", None),
        ("https://[FD00::1]:6443", None),
    ] {
        let found = in_front(&config, url, &instances).unwrap();
        assert_eq!(found.map(|instance| instance.name).as_deref(), name, "{url}");
    }
    assert_eq!(
        in_front(&config, "10.0.0.9:6443", &instances).err().unwrap().reason(),
        "ApiserverUrl"
    );
}
