//! systemd on the node, over D-Bus.

use std::time::Duration;

use futures::StreamExt;
use zbus::{Connection, ObjectPath, OwnedObjectPath, connection, proxy::CacheProperties};

use crate::decision::change::PassingRefusal;

/// The node's system bus.
pub const SOCKET: &str = "/run/dbus/system_bus_socket";

/// The kubelet's unit, as packages and installers name it.
pub const KUBELET: &str = "kubelet.service";

/// One call must not take longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A restart that takes longer is no failure yet: the kubelet itself tells how it went.
const JOB: Duration = Duration::from_secs(30);

/// Why systemd does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or refuses.
    #[error("systemd cannot be asked: {0}")]
    Bus(#[from] zbus::Error),
    /// It did not answer in time.
    #[error("systemd does not answer within {TIMEOUT:?}")]
    Timeout,
    /// The restart has failed.
    #[error("systemd says of the restart: {0}")]
    Job(String),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bus(_) => PassingRefusal::SystemdUnreachable.as_str(),
            Self::Timeout => PassingRefusal::SystemdTimeout.as_str(),
            Self::Job(_) => "SystemdJobFailed",
        }
    }
}

/// The files that a unit is made of: paths on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The unit itself and its drop-ins.
    pub units: Vec<String>,
    /// Those of `EnvironmentFile=`.
    pub environment: Vec<String>,
}

/// How a unit fares with systemd, which starts it again when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// How often systemd has done so by itself since somebody started the unit.
    pub again: u32,
    /// How the main process exited, as the end of a sentence; `None` while it runs, or never has.
    pub exited: Option<String>,
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait Unit {
    #[zbus(property)]
    fn fragment_path(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn drop_in_paths(&self) -> zbus::Result<Vec<String>>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Service",
    default_service = "org.freedesktop.systemd1"
)]
trait Service {
    #[zbus(property)]
    fn environment_files(&self) -> zbus::Result<Vec<(String, bool)>>;
    #[zbus(property, name = "NRestarts")]
    fn restarts(&self) -> zbus::Result<u32>;
    #[zbus(property)]
    fn exec_main_code(&self) -> zbus::Result<i32>;
    #[zbus(property)]
    fn exec_main_status(&self) -> zbus::Result<i32>;
}

/// What is asked of systemd about one unit.
pub trait Systemd {
    /// The files that the unit is made of.
    async fn files(&self) -> Result<Files, Error>;

    /// Reads all units again.
    async fn reload(&self) -> Result<(), Error>;

    /// Restarts the unit, and waits a while for the end of that.
    async fn restart(&self) -> Result<(), Error>;
}

/// The node's systemd.
#[derive(Clone, Debug)]
pub struct Bus {
    address: String,
    unit: String,
}

impl Bus {
    /// At this socket of the node's system bus, for this unit.
    pub fn new(socket: &std::path::Path, unit: String) -> Self {
        Self { address: format!("unix:path={}", socket.display()), unit }
    }

    /// How the unit fares.
    ///
    /// # Errors
    /// Where systemd does not tell, as one before 235.
    pub async fn starts(&self) -> Result<Starts, Error> {
        in_time(starts(&self.connect().await?, &self.unit)).await
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let connection = connection::Builder::address(&*self.address).method_timeout(TIMEOUT);
        in_time(connection.build()).await
    }
}

impl Systemd for Bus {
    async fn files(&self) -> Result<Files, Error> {
        in_time(files(&self.connect().await?, &self.unit)).await
    }

    async fn reload(&self) -> Result<(), Error> {
        let connection = self.connect().await?;
        in_time(async { ManagerProxy::new(&connection).await?.reload().await }).await
    }

    async fn restart(&self) -> Result<(), Error> {
        restart(&self.connect().await?, &self.unit).await
    }
}

async fn in_time<T, E>(asked: impl Future<Output = Result<T, E>>) -> Result<T, Error>
where
    Error: From<E>,
{
    Ok(tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| Error::Timeout)??)
}

async fn files(connection: &Connection, unit: &str) -> Result<Files, Error> {
    // One that is not loaded is loaded; that starts nothing.
    let path = ManagerProxy::new(connection).await?.load_unit(unit).await?;
    let unit = UnitProxy::builder(connection)
        .path(&path)
        .cache_properties(CacheProperties::No)
        .build()
        .await?;
    let service = service(connection, &path).await?;
    let mut units: Vec<String> = vec![unit.fragment_path().await?];
    units.extend(unit.drop_in_paths().await?);
    units.retain(|path| !path.is_empty());
    let files = service.environment_files().await?;
    Ok(Files { units, environment: files.into_iter().map(|(path, _)| path).collect() })
}

async fn service<'a>(
    connection: &Connection,
    path: &'a OwnedObjectPath,
) -> zbus::Result<ServiceProxy<'a>> {
    let service = ServiceProxy::builder(connection).path(path);
    service.cache_properties(CacheProperties::No).build().await
}

async fn starts(connection: &Connection, unit: &str) -> zbus::Result<Starts> {
    let path = ManagerProxy::new(connection).await?.load_unit(unit).await?;
    let service = service(connection, &path).await?;
    let status = service.exec_main_status().await?;
    // As waitid(2) has it.
    let exited = match service.exec_main_code().await? {
        1 => Some(format!("with status {status}")),
        2 | 3 => Some(format!("by signal {status}")),
        _ => None,
    };
    Ok(Starts { again: service.restarts().await?, exited })
}

async fn restart(connection: &Connection, unit: &str) -> Result<(), Error> {
    let manager = ManagerProxy::new(connection).await?;
    // Before the job exists, or its end could be missed.
    let mut removed = in_time(manager.receive_job_removed()).await?;
    in_time(manager.subscribe()).await?;
    let job = in_time(manager.restart_unit(unit, "replace")).await?;
    let ended = async {
        while let Some(signal) = removed.next().await {
            let said = signal.args()?;
            if said.job == *job {
                return Ok(said.result.to_owned());
            }
        }
        // The connection is gone: how it went shows in the kubelet.
        Ok("done".to_owned())
    };
    match tokio::time::timeout(JOB, ended).await {
        Err(_) => Ok(()),
        Ok(Ok(result)) if result == "done" => Ok(()),
        Ok(Ok(result)) => Err(Error::Job(result)),
        Ok(Err(error)) => Err(Error::Bus(error)),
    }
}

#[cfg(test)]
mod tests;
