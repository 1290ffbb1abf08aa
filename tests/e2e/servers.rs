//! Streaming servers of other kinds than the usual one: on IPv6, and over https.

use crate::{
    agent::{self, NAMESPACE, carried, pod, relayed},
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
        let runtime = relayed(&bed, NODE)["runtime"].clone();
        let address = runtime["streamingAddress"].as_str().expect("an address");
        assert!(address.starts_with(begins), "{runtime}");
        assert_eq!(runtime["tls"].as_bool(), Some(tls), "{runtime}");
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
