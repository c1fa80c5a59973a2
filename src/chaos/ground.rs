//! The servers a run stands on. They are stopped only when `scripts/services run` has started them for this run alone.

use super::ChaosArgs;
use crate::cli::failure::Failure;
use anyhow::{Context as _, ensure};
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;

/// How long a server may take to stop or to start: the script waits itself, for less.
const PATIENCE: Duration = Duration::from_secs(270);

/// PostgreSQL and Kafka.
pub(crate) struct Ground {
    /// Its URL up to the name of the database.
    server: String,
    pub(crate) brokers: String,
    control: Option<Control>,
}

/// Who may stop and start them.
struct Control {
    script: PathBuf,
    data: PathBuf,
}

/// One of the servers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    /// The database.
    Postgres,
    /// The broker.
    Kafka,
}

impl Server {
    /// Its name in the script.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
        }
    }
}

impl Ground {
    pub(super) fn of(args: &ChaosArgs) -> Result<Self, Failure> {
        let url = args.postgres.split('?').next().unwrap_or_default();
        let server = url.rsplit_once('/').filter(|(server, _)| server.contains("://") && !server.ends_with('/'));
        let Some((server, _)) = server else {
            return Err(Failure::usage("--postgres is no URL such as postgres://USER:PASSWORD@HOST:PORT/ANY"));
        };
        let control = args.services.clone().zip(args.services_data.clone());
        let control = control.map(|(script, data)| Control { script, data });
        Ok(Self { server: server.to_owned(), brokers: args.kafka.clone(), control })
    }

    /// Whether nobody else uses these servers.
    pub(crate) fn is_ours(&self) -> bool {
        self.control.is_some()
    }

    /// URL of a database.
    pub(crate) fn database(&self, name: &str) -> String {
        format!("{}/{name}", self.server)
    }

    /// Where the database listens, `host:port`.
    pub(crate) fn database_address(&self) -> &str {
        self.server.rsplit(['@', '/']).next().unwrap_or_default()
    }

    /// URL of a database behind another address.
    pub(crate) fn database_behind(&self, address: &str, name: &str) -> String {
        let head = self.server.strip_suffix(self.database_address()).unwrap_or_default();
        format!("{head}{address}/{name}")
    }

    /// Stops a server as its operator would.
    pub(crate) async fn stop(&self, server: Server) -> anyhow::Result<()> {
        self.script("stop", server).await
    }

    /// Ends a server as a crash would.
    pub(crate) async fn crash(&self, server: Server) -> anyhow::Result<()> {
        self.script("crash", server).await
    }

    /// Starts a server that was stopped, and waits until it answers.
    pub(crate) async fn start(&self, server: Server) -> anyhow::Result<()> {
        self.script("start", server).await
    }

    /// Starts an asynchronous standby of the database.
    pub(crate) async fn standby(&self) -> anyhow::Result<()> {
        self.script("standby", Server::Postgres).await
    }

    /// Cuts the standby off, ends the primary at once, and promotes the standby; returns its address. What was committed
    /// in between is lost.
    pub(crate) async fn promote(&self) -> anyhow::Result<String> {
        self.script("promote", Server::Postgres).await?;
        let control = self.control.as_ref().context("these servers may be somebody else's")?;
        let ports = std::fs::read_to_string(control.data.join("ports"))?;
        let port = ports.lines().find_map(|line| line.strip_prefix("standby "));
        Ok(format!("127.0.0.1:{}", port.context("the standby has no port")?))
    }

    /// Starts whatever does not run; nothing where the servers are somebody else's.
    pub(crate) async fn heal(&self) -> anyhow::Result<()> {
        if self.is_ours() {
            self.start(Server::Postgres).await?;
            self.start(Server::Kafka).await?;
        }
        Ok(())
    }

    async fn script(&self, command: &str, server: Server) -> anyhow::Result<()> {
        let control = self.control.as_ref().context("these servers may be somebody else's")?;
        let mut script = Command::new(&control.script);
        script.args([command, "--only", server.label(), "--data"]).arg(&control.data);
        let done = tokio::time::timeout(PATIENCE, script.kill_on_drop(true).output()).await;
        let done = done.with_context(|| format!("{} {command} takes too long", server.label()))?;
        let done = done.with_context(|| format!("cannot run {}", control.script.display()))?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{} {command}: {said}", server.label());
        Ok(())
    }
}
