//! Clusters of many nodes.

use std::fs;

use super::{SAFE, apiserver, items, plan, run};

#[test]
fn many_nodes_show_only_those_that_block() {
    let node = |index: usize, version: &str| {
        SAFE.replace("worker-1", &format!("n{index:03}")).replace("v1.20.15", version)
    };
    let all: Vec<String> =
        (0..60).map(|index| node(index, if index == 7 { "v1.18.0" } else { "v1.21.0" })).collect();
    let input = format!("{}---\n{}", all.join("---\n"), apiserver("cp", "v1.21.0", ""));
    let ran = plan(&input, &[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stdout.contains("n007") && !ran.stdout.contains("n008"), "{}", ran.stdout);
    assert!(ran.stdout.contains("59 of 60 nodes do not block"), "{}", ran.stdout);
    assert!(plan(&input, &["--all"]).stdout.contains("n008"));
}

#[test]
fn a_dump_of_thousands_of_nodes_is_no_attack() {
    // More than the YAML library lets through unasked.
    let large = format!("apiVersion: v1\nkind: Other\ndata: [{}]\n", "a,".repeat(300_000));
    let ran = plan(&format!("{SAFE}---\n{large}"), &["--apiserver-version", "1.24"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn many_that_block_are_counted_by_version_and_pool() {
    let node = |index: usize| {
        let version = if index.is_multiple_of(3) { "v1.18.0" } else { "v1.19.0" };
        let labels = match index % 2 {
            0 => "{cloud.google.com/gke-nodepool: even}",
            _ => "{a: b}",
        };
        SAFE.replace("worker-1", &format!("n{index:03}\n  labels: {labels}"))
            .replace("v1.20.15", version)
    };
    let all: Vec<String> = (0..60).map(node).collect();
    let input = format!("{}---\n{SAFE}---\n{}", all.join("---\n"), apiserver("cp", "v1.21.0", ""));
    let ran = plan(&input, &[]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
    let expected = "
BLOCKING   KUBELET   POOL
20         v1.19.0   -
20         v1.19.0   even
10         v1.18.0   -
10         v1.18.0   even
";
    assert!(ran.stdout.contains(expected), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n61 nodes: 60 block\n"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("Blocks").count(), 10, "{}", ran.stdout);
    let told = "50 more nodes block; --all shows them, and -o json has all.\n\
                1 of 61 nodes do not block; --all shows them.\n";
    assert!(ran.stdout.contains(told), "{}", ran.stdout);
    assert_eq!(plan(&input, &["--all"]).stdout.matches("Blocks").count(), 60);
    let blocks = |item: &&serde_json::Value| item["status"]["verdict"] == "Blocks";
    assert_eq!(items(&input, &[]).iter().filter(blocks).count(), 60);
}

#[test]
fn a_file_of_any_size_is_judged_alike_in_json_and_in_yaml() {
    let filler = "x".repeat(1500);
    let version = |index: usize| if index == 2999 { "v1.18.0" } else { "v1.20.0" };
    let in_yaml = |index: usize| {
        format!(
            "- apiVersion: v1\n  kind: Node\n  metadata:\n    name: n{index:04}\n    annotations:\n      a: {filler}\n  status:\n    nodeInfo:\n      kubeletVersion: {}\n",
            version(index)
        )
    };
    let in_json = |index: usize| {
        let metadata =
            serde_json::json!({"name": format!("n{index:04}"), "annotations": {"a": filler}});
        let status = serde_json::json!({"nodeInfo": {"kubeletVersion": version(index)}});
        serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status})
    };
    let pod = apiserver("cp", "v1.20.0", "");
    let mut items: Vec<serde_json::Value> = (0..3000).map(in_json).collect();
    items.push(serde_saphyr::from_str(&pod).unwrap());
    let json = serde_json::json!({"apiVersion": "v1", "items": items, "kind": "List"});
    let nodes: String = (0..3000).map(in_yaml).collect();
    let pod = pod.replace('\n', "\n  ");
    let yaml = format!("apiVersion: v1\nitems:\n{nodes}- {}\nkind: List\n", pod.trim_end());
    let dir = tempfile::tempdir().unwrap();
    let judged = [("n.yaml", yaml), ("n.json", json.to_string())].map(|(name, text)| {
        assert!(text.len() > 4 << 20, "it is to be larger than what is read as a whole");
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let ran = run(&["plan", "-v", "-f", file.to_str().unwrap()], "");
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.starts_with("read 3000 Node, 1 apiserver Pod"), "{}", ran.stderr);
        assert!(ran.stdout.contains("n2999") && !ran.stdout.contains("n2998"), "{}", ran.stdout);
        ran.stdout
    });
    assert_eq!(judged[0], judged[1]);
}
