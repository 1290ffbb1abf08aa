//! WebSockets to the kubelet (KEP-4006): what is said of them, and what becomes of real ones.

use serde_json::{Value, json};

use super::all_true;
use crate::{
    agent::{NAMESPACE, pod},
    bed::Bed,
    operator::SECONDS,
};

/// What the apiserver runs next.
const NEXT: &str = "1.38";

/// Whoever may get and not create is refused by an apiserver of today. A plan says so, and the rule that it prints mends it.
#[test]
#[ignore = "needs today's test cluster: make e2e-today"]
fn whoever_lacks_create_is_named_and_mended() {
    const GETTER: &str = "getter";
    const REFUSED: &str = "cannot create resource \"pods/exec\"";
    let bed = Bed::shared();
    // Without agents a plan refuses the upgrade for what it does not know of kubelets.
    all_true(&bed);
    pod(&bed, "new1");
    bed.apply(&format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {GETTER}, namespace: {NAMESPACE}}}
rules:
- {{apiGroups: [''], resources: [pods, pods/exec], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {GETTER}, namespace: {NAMESPACE}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {GETTER}}}
subjects:
- {{apiGroup: rbac.authorization.k8s.io, kind: User, name: {GETTER}}}
"
    ));
    let may = |verb: &str| {
        let may = ["auth", "can-i", verb, "pods/exec", "-n", NAMESPACE, "--as", GETTER];
        bed.kubectl(&may).success()
    };
    let exec = || bed.kubectl(&["exec", "-n", NAMESPACE, "new1", "--as", GETTER, "--", "true"]);
    // The authorizer hears of a role a moment after it was stored.
    bed.wait_for("the right to get to be heard of", SECONDS, || may("get").then_some(()));
    assert!(!may("create"));
    // The apiserver refuses today, so a plan does, too, whether it is asked about an upgrade or not.
    let plan = |target: &[&str]| {
        let ran = bed.sluice(&[&["plan", "-o", "json"], target].concat());
        let list = ran.json();
        let mut items = list["items"].as_array().expect("a list").iter();
        let rights = items.find(|item| item["kind"] == "StreamRights");
        let rights = rights.unwrap_or_else(|| panic!("nothing of rights: {ran}")).clone();
        let all = rights["findings"].as_array().expect("findings").iter();
        let ours = all.filter(|finding| finding["subject"]["name"] == GETTER).cloned();
        (ran.code(), rights["reason"].clone(), ours.collect::<Vec<_>>(), rights)
    };
    let targets: [&[&str]; 2] = [&[], &["--target", NEXT]];
    let mut rule = Value::Null;
    for target in targets {
        let (code, reason, ours, rights) = plan(target);
        assert_eq!((code, reason), (Some(2), "GetWithoutCreate".into()), "{target:?}: {rights}");
        assert_eq!(ours.len(), 1, "{target:?}: {rights}");
        let told = (&ours[0]["verdict"], &ours[0]["lacks"]);
        assert_eq!(told, (&"Blocks".into(), &json!([{"resource": "pods/exec"}])), "{rights}");
        let message = rights["message"].as_str().expect("a message");
        assert!(message.contains(&format!("User {GETTER}")), "{message}");
        let mut changes = rights["changes"].as_array().expect("changes").iter();
        let change = changes.find(|change| change["role"]["name"] == GETTER);
        rule = change.unwrap_or_else(|| panic!("no role to change: {rights}"))["rules"][0].clone();
    }
    let refusal = exec().failed();
    assert!(refusal.contains(REFUSED), "{refusal}");

    let patch = format!(r#"[{{"op":"add","path":"/rules/-","value":{rule}}}]"#);
    bed.kubectl(&["patch", "role", GETTER, "-n", NAMESPACE, "--type=json", "-p", &patch])
        .succeeded();
    bed.wait_for("an exec by the rule that was printed", SECONDS, || {
        exec().success().then_some(())
    });
    assert!(may("create"));
    for target in targets {
        let (code, _, ours, rights) = plan(target);
        assert_eq!((code, ours.len()), (Some(0), 0), "{target:?}: {rights}");
        assert_eq!(rights["safe"], true, "{target:?}: {rights}");
    }
    bed.kubectl(&["delete", "role,rolebinding", GETTER, "-n", NAMESPACE]).succeeded();
}
