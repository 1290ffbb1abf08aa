//! The head of a request, which anybody may send who reaches the runtime's port.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The file alone: with the rest of the product a build would take minutes, and the parsers would have to
// be public.
#[allow(dead_code, reason = "answers have a target of their own")]
#[path = "../../src/relay/head.rs"]
mod head;

use head::{HEAD_MAX, Progress};

fuzz_target!(|bytes: &[u8]| {
    // The relay reads no more.
    let bytes = &bytes[..bytes.len().min(HEAD_MAX)];
    let all = head::read(bytes);
    if let Progress::Done(head) = &all {
        for text in [&head.user_agent, &head.forwarded_for].into_iter().flatten() {
            assert!(!text.is_empty() && text.chars().count() <= 200, "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }
    // It comes in pieces. What was said of the first ones holds, whatever follows.
    for part in 1..8 {
        let said = head::read(&bytes[..bytes.len() * part / 8]);
        assert!(said == Progress::More || said == all, "{said:?} and then {all:?}");
    }
});
