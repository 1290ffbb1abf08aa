use super::*;
use crate::remediator::test_support::{MANIFEST, Node, ORIGINAL, change, fresh};

async fn plan(text: &[u8], gate: Option<GateSetting>) -> Result<EditPlan, Termination> {
    fresh();
    let node = Node::new();
    std::fs::write(node.path(MANIFEST), text).unwrap();
    let change = Change { gate, ..change("a", ChangeKind::ApiserverGate) };
    let store = node.store(ChangeKind::ApiserverGate);
    let mut handler = ApiserverGate {
        manifest: MANIFEST.to_owned(),
        host: node.host(),
        state: store.folder().to_owned(),
        guard: guard::Template {
            image: String::new(),
            pull_policy: guard::PullPolicy::Always,
            state: String::new(),
            manifests: String::new(),
            log: String::new(),
            log_format: String::new(),
        },
    };
    handler.plan(&store, &change).await
}

#[tokio::test]
async fn what_a_change_comes_to() {
    let on =
        ORIGINAL.replace("# a comment", "\n    - --feature-gates=StreamingProxyRedirects=true");
    for (text, gate, expected) in [
        (ORIGINAL, GateSetting::Disabled, Some("StreamingProxyRedirects=false")),
        (ORIGINAL, GateSetting::Enabled, Some("StreamingProxyRedirects=true")),
        (ORIGINAL, GateSetting::Default, None),
        (&on, GateSetting::Enabled, None),
        (&on, GateSetting::Default, Some("--advertise-address=10.0.0.1")),
        (&on, GateSetting::Disabled, Some("StreamingProxyRedirects=false")),
    ] {
        match (plan(text.as_bytes(), Some(gate)).await.unwrap(), expected) {
            (EditPlan::Nothing(reason, _), None) => assert_eq!(reason, "AlreadySo"),
            (EditPlan::Files(edits), Some(expected)) => {
                assert_eq!(edits.len(), 1);
                assert_eq!(
                    (edits[0].path.as_str(), &*edits[0].original.bytes),
                    (MANIFEST, text.as_bytes())
                );
                assert!(edits[0].changed.contains(expected), "{}", edits[0].changed);
            }
            (plan, expected) => panic!("{plan:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_left_alone() {
    for (text, gate) in [
        (&b"\xff\xfe"[..], Some(GateSetting::Disabled)),
        (b"kind: Pod\n", Some(GateSetting::Disabled)),
        (b"{\"kind\": \"Pod\"}", Some(GateSetting::Disabled)),
        (ORIGINAL.as_bytes(), None),
    ] {
        let why = plan(text, gate).await.unwrap_err();
        assert_eq!(
            (why.end.phase().as_str(), why.reason),
            ("Refused", "EditRefused"),
            "{}",
            why.message
        );
    }
}
