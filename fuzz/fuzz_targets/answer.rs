//! The beginning of what a runtime answers.

#![no_main]

use libfuzzer_sys::fuzz_target;

// As in the other target.
#[allow(dead_code, reason = "requests have a target of their own")]
#[path = "../../src/relay/head.rs"]
mod head;

/// So much of an answer the relay looks at: `HTTP/1.1 101`.
const SEEN: usize = 12;

fuzz_target!(|bytes: &[u8]| {
    let status = head::status(bytes);
    let seen = &bytes[..bytes.len().min(SEEN)];
    assert_eq!(status, head::status(seen), "it is in the bytes that are looked at");
    if let Some(status) = status {
        assert!(status <= 999 && seen.ends_with(format!("{status:03}").as_bytes()), "{status}");
    }
});
