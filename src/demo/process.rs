//! The two processes of a run: the worker that is killed, and the payment provider that is not.

use anyhow::{Context, bail};
use endstate_http::Trust;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Longest time a process may take until it answers: recovery of a whole sale takes well under a second.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A child process that answers HTTP.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    log: PathBuf,
    ready: String,
    http: reqwest::Client,
    child: Option<Child>,
}

impl Process {
    /// A process that runs this program with `arguments`, logs to `folder/NAME.log`, and is up once `ready` gives any answer but `not now`.
    pub(super) fn new(
        name: &'static str,
        arguments: Vec<String>,
        variables: Vec<(&'static str, String)>,
        folder: &Path,
        ready: String,
    ) -> anyhow::Result<Self> {
        let http = Trust::system().builder().timeout(Duration::from_secs(1)).build()?;
        Ok(Self { name, arguments, variables, log: folder.join(format!("{name}.log")), ready, http, child: None })
    }

    /// Starts it and waits until it answers.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(program)
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {}", self.name))?;
        self.child = Some(child);
        self.wait_until_ready().await
    }

    /// Ends it with SIGKILL, which no process can see coming, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.with_context(|| format!("cannot kill the {}", self.name))?;
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
                bail!("the {} ended at once ({status}):\n{}", self.name, self.last_words());
            }
            if self.http.get(&self.ready).send().await.is_ok_and(|answer| !answer.status().is_server_error()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the {} does not answer at {} after {START_LIMIT:?}:\n{}", self.name, self.ready, self.last_words())
    }

    /// The end of its log, for error messages.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// A loopback port that was free a moment ago. Fixed for the run, so that a restarted worker keeps its address.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free loopback port")?;
    Ok(listener.local_addr()?.port())
}
