use std::sync::{Arc, Mutex};

use zbus::{Guid, object_server::SignalEmitter};

use super::*;

const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/kubelet_2eservice";
const JOB_PATH: &str = "/org/freedesktop/systemd1/job/7";

/// What the manager was asked for.
type Calls = Arc<Mutex<Vec<String>>>;

struct FakeManager {
    calls: Calls,
    /// How the restart ends; nothing: it does not.
    result: Option<&'static str>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn load_unit(&self, name: &str) -> zbus::fdo::Result<OwnedObjectPath> {
        if name == "kubelet.service" {
            return Ok(OwnedObjectPath::try_from(UNIT_PATH).unwrap());
        }
        Err(zbus::fdo::Error::Failed(format!("{name} is no unit")))
    }

    fn subscribe(&self) {
        self.calls.lock().unwrap().push("Subscribe".to_owned());
    }

    fn reload(&self) {
        self.calls.lock().unwrap().push("Reload".to_owned());
    }

    async fn restart_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> OwnedObjectPath {
        self.calls.lock().unwrap().push(format!("RestartUnit {name} {mode}"));
        let job = ObjectPath::try_from(JOB_PATH).unwrap();
        // Another one ends first.
        let other = ObjectPath::try_from("/org/freedesktop/systemd1/job/6").unwrap();
        Self::job_removed(&emitter, 6, other, "other.service", "failed").await.unwrap();
        if let Some(result) = self.result {
            // Before the answer: whoever listens only then misses it.
            Self::job_removed(&emitter, 7, job.clone(), name, result).await.unwrap();
        }
        job.into()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct FakeUnit;

#[zbus::interface(name = "org.freedesktop.systemd1.Unit")]
impl FakeUnit {
    #[zbus(property)]
    fn fragment_path(&self) -> String {
        "/lib/systemd/system/kubelet.service".to_owned()
    }

    #[zbus(property)]
    fn drop_in_paths(&self) -> Vec<String> {
        vec!["/etc/systemd/system/kubelet.service.d/10-kubeadm.conf".to_owned()]
    }
}

/// A service whose main process has ended so.
struct FakeService {
    code: i32,
    status: i32,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Service")]
impl FakeService {
    #[zbus(property)]
    fn environment_files(&self) -> Vec<(String, bool)> {
        vec![
            ("/var/lib/kubelet/kubeadm-flags.env".to_owned(), true),
            ("/etc/default/kubelet".to_owned(), false),
        ]
    }

    #[zbus(property, name = "NRestarts")]
    fn restarts(&self) -> u32 {
        4
    }

    #[zbus(property)]
    fn exec_main_code(&self) -> i32 {
        self.code
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        self.status
    }
}

/// A systemd at the other end of a connection, and what it was asked for.
async fn systemd(result: Option<&'static str>) -> (Connection, Connection, Calls) {
    systemd_with(result, FakeService { code: 0, status: 0 }).await
}

async fn systemd_with(
    result: Option<&'static str>,
    service: FakeService,
) -> (Connection, Connection, Calls) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let calls = Calls::default();
    let manager = FakeManager { calls: calls.clone(), result };
    let server = connection::Builder::unix_stream(theirs)
        .server(Guid::generate())
        .p2p()
        .serve_at("/org/freedesktop/systemd1", manager)
        .serve_at(UNIT_PATH, FakeUnit)
        .serve_at(UNIT_PATH, service)
        .build();
    let client = connection::Builder::unix_stream(ours).p2p().build();
    let (server, client) = tokio::try_join!(server, client).unwrap();
    (server, client, calls)
}

#[tokio::test]
async fn the_files_of_a_unit() {
    let (_server, client, _) = systemd(None).await;
    let seen = files(&client, "kubelet.service").await.unwrap();
    assert_eq!(
        seen.units,
        [
            "/lib/systemd/system/kubelet.service",
            "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
        ]
    );
    assert_eq!(seen.environment, ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet"]);
    let error = files(&client, "none.service").await.unwrap_err();
    assert!(error.to_string().contains("none.service is no unit"), "{error}");
}

#[tokio::test]
async fn how_a_unit_fares() {
    for (code, status, expected) in [
        (0, 0, None),
        (1, 255, Some("with status 255")),
        (2, 9, Some("by signal 9")),
        (3, 11, Some("by signal 11")),
    ] {
        let (_server, client, _) = systemd_with(None, FakeService { code, status }).await;
        let seen = starts(&client, "kubelet.service").await.unwrap();
        assert_eq!((seen.again, seen.exited.as_deref()), (4, expected));
    }
}

#[tokio::test]
async fn a_restart_is_waited_for() {
    for (result, expected) in
        [("done", None), ("failed", Some("failed")), ("timeout", Some("timeout"))]
    {
        let (_server, client, calls) = systemd(Some(result)).await;
        let ended = restart(&client, "kubelet.service").await;
        match expected {
            None => ended.unwrap(),
            Some(expected) => {
                let error = ended.unwrap_err();
                assert_eq!(error.reason(), "SystemdJobFailed");
                assert!(error.to_string().ends_with(expected), "{error}");
            }
        }
        assert_eq!(*calls.lock().unwrap(), ["Subscribe", "RestartUnit kubelet.service replace"]);
    }
}

#[tokio::test]
async fn a_restart_that_takes_long_is_no_failure() {
    let (_server, client, _) = systemd(None).await;
    tokio::time::pause();
    restart(&client, "kubelet.service").await.unwrap();
}

#[tokio::test]
async fn a_bus_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::new(&folder.path().join("bus"), "kubelet.service".to_owned());
    for error in [bus.files().await.unwrap_err(), bus.reload().await.unwrap_err()] {
        assert_eq!(error.reason(), "SystemdUnreachable");
    }
}
