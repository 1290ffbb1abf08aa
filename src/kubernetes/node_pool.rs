//! Which pool of machines a node belongs to, as its provider's labels say.

use std::collections::BTreeMap;

/// The labels that name a node's pool, the most telling first: one machine may have several.
const LABELS: [&str; 22] = [
    "eks.amazonaws.com/nodegroup",
    "alpha.eksctl.io/nodegroup-name",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
    "agentpool",
    "karpenter.sh/nodepool",
    "karpenter.sh/provisioner-name",
    "doks.digitalocean.com/node-pool",
    "k8s.scaleway.com/pool-name",
    "lke.linode.com/pool-id",
    "ibm-cloud.kubernetes.io/worker-pool-name",
    "alibabacloud.com/nodepool-id",
    "cce.cloud.com/cce-nodepool",
    "node.tke.cloud.tencent.com/machineset",
    "oci.oraclecloud.com/nodepool",
    "vke.vultr.com/node-pool",
    "worker.gardener.cloud/pool",
    "worker.garden.sapcloud.io/group",
    "kops.k8s.io/instancegroup",
    "rke.cattle.io/machine-pool-name",
    "nodepool",
    "node-pool",
];

/// The pool that these labels of a Node name.
pub fn of(labels: &BTreeMap<String, String>) -> Option<&str> {
    LABELS.iter().find_map(|label| labels.get(*label)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_label_counts() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        for (pairs, pool) in [
            (&[("cloud.google.com/gke-nodepool", "a")][..], Some("a")),
            (&[("karpenter.sh/nodepool", "b"), ("eks.amazonaws.com/nodegroup", "a")], Some("a")),
            (&[("kubernetes.io/os", "linux")], None),
        ] {
            assert_eq!(of(&labels(pairs)), pool, "{pairs:?}");
        }
    }
}
