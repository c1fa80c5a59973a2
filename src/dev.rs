//! `endstate dev` and `endstate serve`: one process, with all roles or some: both sides' shards, the API, the projector,
//! the sweep, the caller of outside parties, and on the embedded store, unless another is configured, the simulated
//! payment provider.

use crate::cli::args::{DevArgs, Role};
use crate::cli::failure::Failure;
use crate::config::{self, Config, LogFormat};
use crate::days::Days;
use crate::ground::Ground;
use crate::node::Node;
use crate::outside::Outdoors;
use crate::scrape;
use crate::signal::Stop;
use crate::starting::Starting;
use anyhow::Context;
use async_trait::async_trait;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use endstate_events::SagaId;
use endstate_http::auth::Identity;
use endstate_http::guard::{Drain, Limits};
use endstate_http::{Code, Problem, Tokens};
use endstate_orchestrator::alert::{Channel, Teller};
use endstate_orchestrator::archive::{Archive, Holders};
use endstate_orchestrator::http;
use endstate_orchestrator::job::{self, Entry};
use endstate_orchestrator::listen::Listener;
use endstate_orchestrator::measure::Measure;
use endstate_orchestrator::orphan::Orphans;
use endstate_orchestrator::sweep::Sweep;
use endstate_outbox::{Store, StoreError};
use endstate_participants::caller::Caller;
use endstate_participants::http::{self as participants_http, Provider};
use endstate_participants::simulated::{self, Simulated};
use metrics_exporter_prometheus::PrometheusHandle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often tokens are read again where other processes may make or revoke some.
const TOKENS: Duration = Duration::from_secs(5);

/// Runs until it is asked to stop; then lets calls finish, and the batches that have begun.
pub(crate) async fn run(args: DevArgs, roles: &[Role], serve: bool) -> Result<(), Failure> {
    let config = configured(&args)?;
    start_logging(&config)?;
    std::fs::create_dir_all(&config.data)
        .with_context(|| format!("cannot make the data folder {}", config.data.display()))?;
    // First of all: who counts looks its counters up once.
    let metrics = scrape::record(!config.store.url.reveal().is_empty())?;
    let mut stop = Stop::listen();
    // Others may keep it waiting: meanwhile it is alive.
    let waiting = match config.store.url.reveal() {
        "" => None,
        _ => Some(Starting::answering(config.http.listen).await?),
    };
    let ground = tokio::select! {
        ground = Ground::configured(&config) => ground?,
        // Nothing was begun that would have to be finished.
        () = stop.asked() => return Ok(()),
    };
    let embedded = ground.sqlite().is_some();
    if !serve && !embedded {
        return Err(Failure::usage("store.url is set: `endstate serve` runs on it, `endstate dev` on a file"));
    }
    if embedded && Role::ALL.iter().any(|role| !roles.contains(role)) {
        return Err(Failure::usage("without store.url and kafka.brokers one process has all roles: leave --roles out"));
    }
    let node = tokio::select! {
        node = Node::on(ground, roles, config.engine.mode) => node?,
        () = stop.asked() => return Ok(()),
    };
    let drain = Drain::default();
    let begun = async {
        load_definitions(&node, &config).await?;
        let starting = match waiting {
            Some(waiting) => waiting,
            None => Starting::silent(config.http.listen)?,
        };
        let address = starting.address()?;
        let (router, provider) = assemble(&node, &config, address, &drain, metrics).await?;
        anyhow::Ok((starting, address, router, provider))
    };
    let begun = tokio::select! {
        begun = begun => Some(begun?),
        () = stop.asked() => None,
    };
    let Some((starting, address, router, provider)) = begun else {
        // Shards may be at work.
        node.stop().await;
        return Ok(());
    };
    let ground =
        if embedded { format!("data in {}", config.data.display()) } else { "on PostgreSQL and Kafka".to_owned() };
    eprintln!("endstate at http://{address}, {ground}");
    eprintln!("payment provider at {provider}; API description at http://{address}/openapi.json");
    if let Some(file) = &args.address_file {
        std::fs::write(file, format!("http://{address}\n"))?;
    }
    answer(starting.over(), router, &drain, &config.http, stop).await?;
    node.stop().await;
    Ok(())
}

fn configured(args: &DevArgs) -> anyhow::Result<Config> {
    let mut config = Config::load(args.config.as_deref(), std::env::vars())?;
    if let Some(listen) = args.listen {
        config.http.listen = listen;
    }
    if let Some(data) = &args.data {
        config.data.clone_from(data);
    }
    Ok(config)
}

/// Log lines go to standard error, as the settings say.
pub(crate) fn start_logging(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)
        .with_context(|| format!("log.filter `{}` is refused", config.log.filter))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Loads the definitions of the configured folder, beside the shipped ones.
async fn load_definitions(node: &Node, config: &Config) -> anyhow::Result<()> {
    if config.engine.definitions.as_os_str().is_empty() {
        return Ok(());
    }
    let folder = &config.engine.definitions;
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "yaml")) {
        node.load(file).await?;
    }
    Ok(())
}

/// Starts every part around the shards; returns the API and the provider's address.
pub(crate) async fn assemble(
    node: &Node,
    config: &Config,
    address: SocketAddr,
    drain: &Drain,
    metrics: PrometheusHandle,
) -> anyhow::Result<(axum::Router, String)> {
    let tokens = Arc::new(Tokens::load(node.store.clone()).await?);
    // Before anything is taken from processes that work.
    anyhow::ensure!(
        address.ip().is_loopback() || !tokens.is_empty(),
        "refusing to listen on {address} while no token exists; listen on 127.0.0.1 and run `endstate token create` first"
    );
    let (provider_url, secret) = provider(node, config, address).await?;
    let outdoors = Outdoors::new(
        config,
        &provider_url,
        &secret,
        node.definitions.clone(),
        node.store.clone(),
        node.clock.clone(),
    )?;
    let bus = node.bus.clone();
    let calls = node.take_calls().context("the node was assembled before")?;
    let caller = Caller::new(Arc::new(outdoors), bus.clone(), node.clock.clone(), calls);
    let caller = caller.within(config.participants.limits());
    node.tasks.spawn(caller.run(node.stop_token()));
    watch(node, config, address).await?;
    listen(node, config)?;

    // Where days of events are dropped, open sagas must not keep them for ever.
    if node.postgres().is_some() && config.retention.outbox_days > 0 && config.archive.after_days > 0 {
        node.snapshots_after(i64::from(config.archive.after_days) * 24 * 3_600_000);
    }
    node.start(config.engine.in_motion, config.participants.settings());
    if node.embedded().is_none() {
        node.tasks.spawn(node.stop_token().run_until_cancelled_owned(follow_tokens(tokens.clone())));
    }
    let (metrics, tellers) = (scrape::serve(metrics, node, drain), config.events.topics()?);
    let sagas = crate::serve::sagas(node, &tokens, drain, metrics, tellers).await?;
    let window_ms = i64::try_from(config.payment.callback_window_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let provider = Provider { secret: secret.into(), window_ms };
    let participants = participants_http::Api {
        store: node.store.clone(),
        bus,
        clock: node.clock.clone(),
        providers: Arc::new([(config.payment.provider.clone(), provider)].into()),
        drain: drain.clone(),
    };
    let routes = sagas.merge(participants_http::routes(participants));
    let identity = Identity { tokens, clock: node.clock.clone() };
    let router = http::serve(routes, identity, Limits::default());
    match node.has(Role::Gateway) {
        true => Ok((router, provider_url)),
        false => Ok((router.layer(axum::middleware::from_fn(only_watched)), provider_url)),
    }
}

/// Tokens that other processes make and revoke.
async fn follow_tokens(tokens: Arc<Tokens>) {
    loop {
        tokio::time::sleep(TOKENS).await;
        if let Err(error) = tokens.reload().await {
            tracing::warn!(%error, "tokens were not read again");
        }
    }
}

/// A process that is no gateway answers only those who watch it.
async fn only_watched(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let pages = path.starts_with("/errors") || path.starts_with("/runbook");
    if pages || ["/livez", "/readyz", "/startupz", "/metrics"].contains(&path) {
        return next.run(request).await;
    }
    Problem::new(Code::UnknownRoute, "this process takes no calls: ask one with the role `gateway`").into_response()
}

/// The provider's address and the secret shared with it; without a configured one, starts the simulated provider.
async fn provider(node: &Node, config: &Config, address: SocketAddr) -> anyhow::Result<(String, Vec<u8>)> {
    let secret = config.payment.secret.reveal();
    if !config.payment.url.is_empty() {
        anyhow::ensure!(!secret.is_empty(), "payment.url is set but no secret: set ENDSTATE_PAYMENT_SECRET");
        return Ok((config.payment.url.clone(), secret.as_bytes().to_vec()));
    }
    anyhow::ensure!(
        node.embedded().is_some() || !(node.has(Role::Participants) || node.has(Role::Gateway)),
        "payment.url is not set: processes share one payment provider; `endstate provider` runs a simulated one"
    );
    // Both sides of this secret live in this process, so it may as well be a new one every time.
    let secret = if secret.is_empty() { uuid::Uuid::new_v4().to_string() } else { secret.to_owned() };
    let callback_url = format!("http://{address}/v1/callbacks/{}", config.payment.provider);
    let file = config.in_data("provider.ndjson".as_ref());
    let local = simulated::Config::local(&callback_url, secret.as_bytes(), &file);
    let settings = simulated::Config { name: config.payment.provider.clone(), ..local };
    let provider = Simulated::bind(settings, node.clock.clone()).await?;
    let url = format!("http://{}", provider.address());
    let stop = node.stop_token();
    node.tasks.spawn(async move {
        if let Err(error) = provider.serve(stop).await {
            tracing::error!(%error, "the simulated payment provider ended");
        }
    });
    Ok((url, secret.into_bytes()))
}

/// Listens to topics of other teams, where calls are taken, too.
fn listen(node: &Node, config: &Config) -> anyhow::Result<()> {
    for (topic, teller) in config.events.topics()?.into_iter().filter(|_| node.has(Role::Gateway)) {
        let name = topic.name();
        let owned = node.bus.heard(topic);
        let owned = owned.with_context(|| format!("events.topics names {name}, and kafka.brokers is empty"))?;
        let listener =
            Listener::new(node.gateway.clone(), topic, teller, config.events.from == config::From::Beginning);
        node.tasks.spawn(listener.run(owned, node.stop_token()));
    }
    Ok(())
}

/// What participants of this node still hold, for the archive.
struct Holding(Arc<dyn Store>);

#[async_trait]
impl Holders for Holding {
    async fn holding(&self, sagas: &[SagaId]) -> Result<Vec<SagaId>, StoreError> {
        endstate_participants::holding::of(&*self.0, sagas).await
    }
}

/// Starts what watches: alerts to people, and the clock of scheduled jobs.
async fn watch(node: &Node, config: &Config, address: SocketAddr) -> anyhow::Result<()> {
    let public_url = match config.http.public_url.as_str() {
        "" => format!("http://{address}"),
        url => url.to_owned(),
    };
    let webhook_url = Some(config.alert.webhook_url.clone()).filter(|url| !url.is_empty());
    let (file, trust) = (config.in_data(&config.alert.file), config.tls.trust()?);
    let channel = Channel { webhook_url, file, public_url, trust };
    let teller = Teller::new(node.store.clone(), channel, node.clock.clone())?;
    let overdue_ms = i64::try_from(config.sweep.overdue_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let sweep = Sweep::new(node.gateway.clone(), overdue_ms, config.sweep.limit);
    let orphans = Orphans::new(node.gateway.clone());
    let entry = |job| Entry { schedule: config.sweep.schedule.clone(), job };
    let mut timetable = vec![entry(Arc::new(sweep)), entry(Arc::new(orphans))];
    if config.archive.after_days > 0 {
        let keep_ms = i64::from(config.archive.after_days) * 24 * 3_600_000;
        let holders = Arc::new(Holding(node.store.clone()));
        let archive = Archive::new(node.store.clone(), holders, keep_ms, config.archive.limit as usize);
        timetable.push(Entry { schedule: config.archive.schedule.clone(), job: Arc::new(archive) });
    }
    if let Some(store) = node.postgres().filter(|_| config.retention.outbox_days > 0) {
        let days = Days::new(store.clone(), config.retention.outbox_days, config.archive.after_days);
        timetable.push(Entry { schedule: config.retention.schedule.clone(), job: Arc::new(days) });
    }
    let jobs = node.give_jobs(timetable);
    // People are told, and jobs run, where the sweeper is.
    if !node.has(Role::Sweeper) {
        return Ok(());
    }
    let every = Duration::from_secs(config.metrics.look_every_s.max(1));
    let measure = Measure::new(node.store.clone(), node.clock.clone(), jobs.clone(), every);
    let stop = node.stop_token();
    node.tasks.spawn(async move {
        // Neither leaves anything half done that matters: the next process begins anew.
        stop.run_until_cancelled(async { tokio::join!(teller.run(), measure.run()) }).await;
    });
    let mut clock = job::schedule(jobs).await?;
    let stop = node.stop_token();
    node.tasks.spawn(async move {
        stop.cancelled().await;
        if let Err(error) = clock.shutdown().await {
            tracing::warn!(%error, "the clock of scheduled jobs did not stop");
        }
    });
    Ok(())
}

/// Answers calls until somebody asks to stop. Then it is not ready for a while but takes calls, so that load balancers
/// look elsewhere; then it takes none, and gives those under way their time. `stop` was listening before the first call
/// could be answered: whoever finds it ready may ask it to stop.
async fn answer(
    listener: TcpListener,
    router: axum::Router,
    drain: &Drain,
    http: &config::Http,
    mut stop: Stop,
) -> anyhow::Result<()> {
    let closing = CancellationToken::new();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(closing.clone().cancelled_owned());
    let served = tokio::spawn(served.into_future());
    stop.asked().await;
    eprintln!("stopping");
    drain.start();
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(http.unready_s)) => {}
        // Asked once more: nobody wants to wait.
        () = stop.asked() => {}
    }
    drain.close();
    closing.cancel();
    match tokio::time::timeout(Duration::from_secs(http.drain_s), served).await {
        Ok(done) => done?.context("the API ended with an error"),
        // Calls that wait for a saga's end may take longer; they are cut off, and their sagas go on at the next start.
        Err(_) => Ok(()),
    }
}
