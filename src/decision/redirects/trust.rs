//! Streaming servers that show a certificate which no kubelet trusts.
//!
//! An apiserver that follows a redirect does not look at the certificate of the runtime's streaming
//! server; a kubelet that proxies takes only one of an authority that the node trusts. So exec works
//! there for as long as the node redirects, and fails from then on, whatever the gate is.

use crate::decision::names::NameSummary;

/// What makes such a node ready for a kubelet that proxies.
pub const REMEDY: &str = "turn TLS off there (enable_tls_streaming of containerd, stream_enable_tls \
                          of CRI-O), or have the runtime use a certificate of an authority that the \
                          node trusts, and restart the runtime";

/// Where such a setting is.
pub const FILES: [&str; 2] = ["/etc/containerd/config.toml", "/etc/crio/crio.conf"];

/// What is wrong with these nodes, and what to do, in two sentences.
pub fn says(nodes: &NameSummary<'_>) -> String {
    format!(
        "The runtime of {nodes} streams with a certificate that the node is not known to trust, so \
         exec fails there once the kubelet does not redirect. First {REMEDY}."
    )
}
