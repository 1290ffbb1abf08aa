//! The chart asks the apiserver whether Sluice is there already.

use std::process::Command;

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::apiserver::{Apiserver, User, binaries, chart::NAMESPACE};

#[tokio::test]
#[ignore = "needs the apiserver that the test cluster builds: make controller-test"]
async fn a_second_release_is_refused_with_the_name_of_the_first() {
    let server = Apiserver::start().await;
    let kubeconfig = server.kubeconfig(User::Admin);
    let render = |release: &str, namespace: &str| {
        let output = Command::new(binaries().join("helm"))
            .args(["template", release])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sluice"))
            .args(["--dry-run=server", "--namespace", namespace])
            .args(["--set", "image.repository=localhost/sluice"])
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .output()
            .expect("helm is missing: tests/cluster fetches it");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(error) }
    };
    assert_eq!(render("first", NAMESPACE), Ok(()));
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": "sluice-reader",
            // Without it Helm takes the object for nobody's.
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": "first",
                "meta.helm.sh/release-namespace": NAMESPACE,
            },
        },
    });
    let roles: Api<ClusterRole> = Api::all(server.client().await);
    let params = PatchParams::apply("test").force();
    roles.patch("sluice-reader", &params, &Patch::Apply(role)).await.unwrap();
    assert_eq!(render("first", NAMESPACE), Ok(()), "its own upgrade");
    for (release, namespace) in [("second", NAMESPACE), ("first", "elsewhere")] {
        let refused = render(release, namespace).expect_err("one serves a cluster");
        let says =
            format!("this cluster has Sluice already, as release first in namespace {NAMESPACE}");
        assert!(refused.contains(&says), "{refused}");
    }
}
