use proptest::prelude::*;

use super::*;

/// What a client of a port-forward sends, which `spdystream` v0.5.1 has read as two streams with these
/// headers, the first of them at its end.
const OF_CLIENT: &str = "\
    8003000100000053000000010000000000007801003d00c2ff000000030000000a73747265616d747970650000000565\
    72726f7200000004706f72740000000438303830000000097265717565737469640000000130000000ffff\
    0000000101000000\
    800300010000005000000003000000000000003c00c3ff000000030000000a73747265616d7479706500000004646174\
    6100000004706f72740000000438303830000000097265717565737469640000000130000000ffff";

/// What it has sent then: it takes both streams, writes to the second and ends it, resets the first,
/// asks whether anybody is there, and goes. The headers of its answers are compressed.
const OF_SERVER: &str = "\
    80030002000000230000000178f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff\
    800300020000001000000003c22a052a651201000000ffff\
    0000000300000010736c756963652063616e61727920780a\
    0000000301000000\
    80030003000000080000000100000005\
    800300060000000400000002\
    80030007000000080000000300000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}

fn headers(kind: &str) -> [(&str, &str); 3] {
    [("streamtype", kind), ("port", "8080"), ("requestid", "0")]
}

#[test]
fn what_is_sent_is_what_servers_read() {
    let mut encoder = Encoder::default();
    let sent = [
        encoder.open(1, &headers("error")),
        Encoder::data(1, &[], true),
        encoder.open(3, &headers("data")),
    ];
    assert_eq!(sent.concat(), bytes(OF_CLIENT));
    assert_eq!(Encoder::ping(2), bytes("800300060000000400000002"));
    assert_eq!(Encoder::data(3, b"x", false), bytes("000000030000000178"));
}

#[test]
fn what_servers_send_is_read_in_any_pieces() {
    let sent = bytes(OF_SERVER);
    let expected = [
        Frame::Reply { stream: 1 },
        Frame::Reply { stream: 3 },
        Frame::Data { stream: 3, bytes: b"sluice canary x\n".to_vec(), last: false },
        Frame::Data { stream: 3, bytes: Vec::new(), last: true },
        Frame::Reset { stream: 1, status: 5 },
        Frame::Ping { id: 2 },
        Frame::Other,
    ];
    for size in [1, 7, sent.len()] {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for piece in sent.chunks(size) {
            decoder.take(piece);
            while let Some(frame) = decoder.frame().unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, expected, "in pieces of {size}");
    }
}

#[test]
fn what_is_no_spdy_is_named() {
    for (sent, why) in [
        ("8002000100000000", "what came is no SPDY/3.1"),
        ("0000000100ffffff", "a frame of SPDY is too long"),
        ("800300030000000400000001", "a frame of SPDY is too short"),
        ("8003000200000000", "a frame of SPDY is too short"),
    ] {
        let mut decoder = Decoder::default();
        decoder.take(&bytes(sent));
        assert_eq!(decoder.frame(), Err(why), "{sent}");
    }
}

proptest! {
    #[test]
    fn nothing_that_comes_is_too_odd(sent in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut decoder = Decoder::default();
        decoder.take(&sent);
        while let Ok(Some(_)) = decoder.frame() {}
    }
}
