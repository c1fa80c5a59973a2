//! Where a case takes place: a database and an environment that nobody else has, processes of this program in their
//! roles, and a payment provider beside them.

use super::Plan;
use super::case::Case;
use super::cases::versions;
use super::ground::Ground;
use super::proxy::Proxy;
use crate::demo::process::{Process, free_port};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Partitions of the topics: enough for every process to own some.
pub(crate) const PARTITIONS: u16 = 8;

/// After this silence Kafka gives a process up; brokers accept nothing shorter.
pub(crate) const SESSION: Duration = Duration::from_secs(6);

/// How long a process may take to stop: it drains for ten seconds at most.
const STOP: Duration = Duration::from_secs(45);

/// The roles of the two sides of a shard.
const SIDES: [&str; 2] = ["orchestrator", "participants"];

/// The place.
pub(crate) struct Town {
    folder: PathBuf,
    pub(crate) environment: String,
    /// URL of the database; processes may reach it another way.
    pub(crate) database: String,
    pub(crate) provider_file: PathBuf,
    provider: Process,
    variables: Vec<(&'static str, String)>,
    /// The way to the database, where the case has one of its own.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) members: Vec<Process>,
    /// Addresses of those that take calls.
    pub(crate) gateways: Vec<String>,
    fused: bool,
    /// Messages that the case makes unreadable and leaves so.
    pub(crate) dead_letters: usize,
    /// What was said of processes that ended though nobody wanted them to.
    pub(crate) ended: Vec<String>,
}

impl Town {
    /// Makes the place; nothing runs yet.
    pub(crate) async fn found(ground: &Ground, case: Case, folder: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let own = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let environment = format!("chaos-{}-{own}", case.label());
        let name = environment.replace('-', "_");
        let database = ground.database(&name);
        let proxy = match case.is_behind_proxy() {
            true => Some(Proxy::to(ground.database_address()).await?),
            false => None,
        };
        let reached = match &proxy {
            Some(proxy) => ground.database_behind(&proxy.address.to_string(), &name),
            None => database.clone(),
        };
        // After a failover the truth is where the processes find it.
        let database = if case == Case::Standby { reached.clone() } else { database };
        let ports: Vec<u16> = case.processes().iter().map(|_| free_port()).collect::<Result<_, _>>()?;
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let with_ports = || case.processes().iter().zip(&ports);
        let taking_calls = with_ports().filter(|((_, roles), _)| roles.split(',').any(|role| role == "gateway"));
        let gateways: Vec<String> = taking_calls.map(|(_, port)| url(port)).collect();
        let provider_port = free_port()?;
        // Guards nothing but this run.
        let secret = ("ENDSTATE_PAYMENT_SECRET", uuid::Uuid::new_v4().to_string());
        let provider_file = folder.join("provider.ndjson");
        let payments = url(&provider_port);
        let arguments = vec![
            "provider".to_owned(),
            format!("--listen=127.0.0.1:{provider_port}"),
            format!("--file={}", provider_file.display()),
            format!("--callback-url={}/v1/callbacks/simpay", gateways[0]),
            "--latency-ms=15".to_owned(),
            format!("--seed={}", plan.seed),
        ];
        let ready = format!("{payments}/payments/ready");
        let provider = Process::new("provider", arguments, vec![secret.clone()], folder, ready)?;
        let variables = vec![
            secret,
            ("ENDSTATE_PAYMENT_URL", payments),
            ("ENDSTATE_PAYMENT_KIND", "simulated".to_owned()),
            ("ENDSTATE_ENVIRONMENT", environment.clone()),
            ("ENDSTATE_STORE_URL", reached),
            ("ENDSTATE_STORE_CONNECTIONS", "6".to_owned()),
            ("ENDSTATE_KAFKA_BROKERS", ground.brokers.clone()),
            ("ENDSTATE_KAFKA_SESSION_MS", SESSION.as_millis().to_string()),
            ("ENDSTATE_ENGINE_PARTITIONS", PARTITIONS.to_string()),
            ("ENDSTATE_ENGINE_MODE", if plan.fused { "fused" } else { "hop_by_hop" }.to_owned()),
        ];
        let mut town = Self {
            folder: folder.to_owned(),
            environment,
            database,
            provider_file,
            provider,
            variables,
            proxy,
            members: Vec::new(),
            gateways,
            fused: plan.fused,
            dead_letters: 0,
            ended: Vec::new(),
        };
        for (place, ((name, roles), port)) in with_ports().enumerate() {
            // The first takes calls and knows none of them; the others know one each.
            let mut own = Vec::new();
            if case == Case::Versions && place > 0 {
                let definitions = versions::write(folder, u32::try_from(place)?)?;
                own.push(("ENDSTATE_ENGINE_DEFINITIONS", definitions.to_string_lossy().into_owned()));
            }
            let member = town.process(name, roles, *port, &own)?;
            town.members.push(member);
        }
        Ok(town)
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A further process of the same system; its variables win over those of the town. With one task for both sides, who has
    /// one side's role has both.
    pub(crate) fn process(
        &self,
        name: &str,
        roles: &str,
        port: u16,
        own: &[(&'static str, String)],
    ) -> anyhow::Result<Process> {
        let mut roles: Vec<&str> = roles.split(',').collect();
        if self.fused && SIDES.iter().any(|side| roles.contains(side)) {
            roles.retain(|role| !SIDES.contains(role));
            roles.extend(SIDES);
        }
        let arguments = vec![
            "serve".to_owned(),
            format!("--roles={}", roles.join(",")),
            format!("--listen=127.0.0.1:{port}"),
            format!("--data={}", self.folder.join(name).display()),
        ];
        let variables = self.variables.iter().chain(own).cloned().collect();
        Process::new(name, arguments, variables, &self.folder, format!("http://127.0.0.1:{port}/readyz"))
    }

    /// Starts everybody and waits until all are ready.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.provider.start().await?;
        self.members.iter_mut().try_for_each(Process::spawn)?;
        self.ready().await
    }

    /// Waits until all are ready.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.wait_until_ready().await?;
        }
        Ok(())
    }

    /// Starts whoever does not run, and waits until all are ready.
    pub(crate) async fn heal(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if member.has_ended() {
                self.ended.push(format!("the {} ended by itself:\n{}", member.name(), member.last_words()));
            }
            if !member.is_running() {
                member.spawn()?;
            }
        }
        self.ready().await
    }

    /// Stops everybody, at a time; what did not stop well.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let stopping = self.members.iter_mut().map(|member| member.stop(STOP));
        let stopped = futures_util::future::join_all(stopping).await;
        let mut wrong: Vec<String> = stopped.into_iter().filter_map(Result::err).map(|e| format!("{e:#}")).collect();
        wrong.extend(self.provider.stop(STOP).await.err().map(|error| format!("{error:#}")));
        wrong
    }
}
