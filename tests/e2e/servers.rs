//! Streaming servers of other kinds than the usual one: on IPv6, and over https.

use crate::{
    agent::{self, NAMESPACE, START, carried, pod, report},
    bed::{Bed, Client},
};

const NODE: &str = "old2";

#[test]
#[ignore = "needs the test cluster: make e2e"]
fn streaming_servers_on_ipv6_and_over_https_are_followed() {
    let bed = Bed::shared();
    agent::fresh(&bed, "{mode: Streams}");
    for (declaration, begins, tls, kind) in [
        (["stream=::1", "tls=false"], "[::1]:", false, "exec"),
        (["stream=127.0.0.1", "tls=true"], "127.0.0.1:", true, "tls"),
    ] {
        bed.replace(NODE, &declaration);
        pod(&bed, NODE);
        // What the agent of the earlier host has said may stand for a moment.
        bed.wait_for("the agent to find the new streaming server", START, || {
            let report = report(&bed, NODE).filter(|report| report["streams"] == "Relayed")?;
            let runtime = &report["runtime"];
            let found = runtime["streamingAddress"].as_str()?.starts_with(begins);
            (found && runtime["tls"].as_bool() == Some(tls)).then_some(())
        });
        for client in Client::BOTH {
            let before = carried(&bed, NODE, kind);
            let said =
                bed.kubectl_of(client, &["exec", "-n", NAMESPACE, NODE, "--", "echo", "through"]);
            assert_eq!(said.succeeded().text(), "through");
            // A kubectl that has asked for a WebSocket first and been refused has asked twice.
            assert!(carried(&bed, NODE, kind) > before, "{client:?} {declaration:?}");
        }
    }
}
