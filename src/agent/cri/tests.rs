//! Runtimes of several kinds, played over a real socket.

use super::{
    fake::{POD, Played},
    *,
};

fn own() -> Own {
    Own { pod_uid: POD.0.into(), container: POD.1.into() }
}

fn containerd() -> Played {
    Played::of("http://127.0.0.1:34567/exec/t0k3n")
}

#[tokio::test]
async fn runtimes_tell_where_they_stream() {
    let old = Played { service: SERVICES[1], ..containerd() };
    let tls = Played::of("https://[::1]:41173/exec/t0k3n");
    let cri_dockerd = Played::of("127.0.0.1:39017/cri/exec/t0k3n");
    let open = Played::of("//[::]:10010/cri/exec/t0k3n");
    let named = Played::of("http://localhost:10010/exec/t0k3n");
    for (played, streaming, tls, form) in [
        (containerd(), "127.0.0.1:34567", false, "Absolute"),
        (old, "127.0.0.1:34567", false, "Absolute"),
        (tls, "[::1]:41173", true, "Absolute"),
        (cri_dockerd, "127.0.0.1:39017", false, "SchemeLess"),
        (open, "[::1]:10010", false, "SchemeLess"),
        (named, ":10010", false, "Absolute"),
    ] {
        let playing = played.start();
        let runtime = ask(playing.socket(), &own()).await.unwrap();
        assert_eq!((runtime.name.as_str(), runtime.version.as_str()), ("played", "1"));
        let server = runtime.server.unwrap();
        for address in &server.addresses {
            assert!(address.to_string().ends_with(streaming), "{server:?}");
        }
        assert!(!server.addresses.is_empty(), "{streaming}");
        assert_eq!((server.tls, server.form.as_str()), (tls, form), "{streaming}");
    }
}

#[tokio::test]
async fn dockershim_streams_through_the_kubelet_while_it_redirects() {
    let playing = Played::of("/cri/exec/t0k3n").start();
    let runtime = ask(playing.socket(), &own()).await.unwrap();
    assert_eq!((runtime.name.as_str(), runtime.server), ("played", None));
}

#[tokio::test]
async fn the_runtime_is_the_one_that_knows_the_container() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("none.sock");
    let nobody = nobody.as_path();
    let other = Played { ours: false, ..containerd() }.start();
    let ours = containerd().start();
    let odd = Played::of("mailto:t0k3n").start();
    let (other, ours, odd) = (other.socket(), ours.socket(), odd.socket());
    for (sockets, expected) in [
        (vec![ours], ""),
        (vec![nobody, other, ours, odd], ""),
        (vec![nobody, other], "RuntimeNotOurs"),
        (vec![other, nobody], "RuntimeNotOurs"),
        (vec![nobody], "RuntimeUnreachable"),
        (vec![other, odd, ours], "StreamingUrlUnreadable"),
    ] {
        let sockets: Vec<PathBuf> = sockets.into_iter().map(Path::to_owned).collect();
        let found = find(sockets.clone(), &own()).await;
        assert_eq!(found.err().map_or("", |error| error.reason()), expected, "{sockets:?}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_is_named_and_never_with_the_token() {
    for (played, reason) in [
        (Played { ours: false, ..containerd() }, "RuntimeNotOurs"),
        (Played::of("mailto:t0k3n"), "StreamingUrlUnreadable"),
        (Played { url: Err(Code::FailedPrecondition), ..containerd() }, "RuntimeRefuses"),
        (Played { service: "runtime.v2.RuntimeService", ..containerd() }, "RuntimeRefuses"),
    ] {
        let playing = played.start();
        let error = ask(playing.socket(), &own()).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(!format!("{error} {error:?}").contains("t0k3n"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = ask(&folder.path().join("none.sock"), &own()).await.unwrap_err();
    assert_eq!(error.reason(), "RuntimeUnreachable");
}
