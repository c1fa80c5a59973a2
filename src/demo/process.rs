//! Processes of this program, as children: started, killed, frozen, asked to stop, and never left behind.

use anyhow::{Context, bail, ensure};
use endstate_http::Trust;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// Longest time a process may take until it answers: recovery of a whole sale takes well under a second, a rebalance on a
/// busy machine many.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A child process that answers HTTP.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    log: PathBuf,
    ready: String,
    http: reqwest::Client,
    child: Option<Child>,
}

impl Process {
    /// A process that runs this program with `arguments`, logs to `folder/NAME.log`, and is up once `ready` gives any answer but `not now`.
    pub(crate) fn new(
        name: &str,
        arguments: Vec<String>,
        variables: Vec<(&'static str, String)>,
        folder: &Path,
        ready: String,
    ) -> anyhow::Result<Self> {
        let http = Trust::system().builder().timeout(Duration::from_secs(1)).build()?;
        let log = folder.join(format!("{name}.log"));
        Ok(Self { name: name.to_owned(), arguments, variables, log, ready, http, child: None })
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_until_ready().await
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(&self.log)?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        // What somebody set for a server of their own is not meant for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ENDSTATE_")) {
            command.env_remove(name);
        }
        let child = command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends it with SIGKILL, which no process can see coming, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.with_context(|| format!("cannot kill the {}", self.name))?;
        }
        Ok(())
    }

    /// Its name in logs.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it was started and has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Whether it was started, and has ended though nobody killed or stopped it.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.is_some() && !self.is_running()
    }

    /// Waits until it ends by itself; whether it ended well. None when it does not.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> anyhow::Result<Option<bool>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        let ended = tokio::time::timeout(limit, child.wait()).await;
        Ok(ended.ok().transpose()?.map(|status| status.success()))
    }

    /// Sends it a signal by its name: `STOP` freezes it, `CONT` wakes it.
    pub(crate) async fn signal(&self, name: &str) -> anyhow::Result<()> {
        let Some(id) = self.child.as_ref().and_then(Child::id) else { bail!("the {} does not run", self.name) };
        // The shell's own: not every machine has a program of that name.
        let sent = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &id.to_string()]).status().await;
        ensure!(sent.context("cannot run `kill`")?.success(), "SIG{name} did not reach the {}", self.name);
        Ok(())
    }

    /// Asks it to stop and waits; an error when it does not, or not well. It is gone either way.
    pub(crate) async fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        if !self.is_running() {
            bail!("the {} has ended by itself:\n{}", self.name, self.last_words());
        }
        self.signal("TERM").await?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        match tokio::time::timeout(limit, child.wait()).await {
            Ok(ended) => ensure!(ended?.success(), "the {} stopped badly:\n{}", self.name, self.last_words()),
            Err(_) => {
                child.kill().await.with_context(|| format!("cannot kill the {}", self.name))?;
                bail!("the {} did not stop within {limit:?}:\n{}", self.name, self.last_words());
            }
        }
        Ok(())
    }

    /// Waits until it answers.
    pub(crate) async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
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
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// A loopback port that was free a moment ago. Fixed for the run, so that a restarted worker keeps its address.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free loopback port")?;
    Ok(listener.local_addr()?.port())
}
