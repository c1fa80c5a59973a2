//! `endstate demo`: a whole sale over HTTP against a worker that is killed again and again, and the books afterwards.
//!
//! - [`sale`]: the file: goods, customers, journeys; [`generate`] makes one from a seed
//! - [`process`]: the worker and the payment provider, processes of their own
//! - [`shop`]: calls, repeated under the same key until answered
//! - [`journey`]: one buyer; [`feed`] wakes buyers when their order changes
//! - [`killer`]: SIGKILL, in the middle of things
//! - [`journal`]: what the answers said; [`books`] compares it with the ledger and the provider's file
//! - [`report`]: the table at the end

pub(crate) mod books;
mod feed;
pub(crate) mod generate;
pub(crate) mod journal;
mod journey;
mod killer;
mod names;
pub(crate) mod opening;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod random;
mod report;
pub(crate) mod sale;
pub(crate) mod shop;

use crate::cli::args::DemoArgs;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use anyhow::Context;
use books::Books;
use feed::Feed;
use journal::Told;
use journey::Buyer;
use killer::Kill;
use process::{Process, free_port};
use progress::Progress;
use random::Random;
use sale::Sale;
use shop::Shop;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The sale that comes with the program.
pub(crate) const SHIPPED_SALE: &str = include_str!("../../demo/sale.ndjson");

/// The seed it was made from.
#[cfg(test)]
pub(crate) const SHIPPED_SEED: u64 = 11;

/// Where the worker takes the provider's callbacks.
const CALLBACKS: &str = "/v1/callbacks/simpay";

/// How long refunds and other linked sagas may take after the last order is final.
const SETTLE: Duration = Duration::from_secs(60);

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) sale: Sale,
    seed: u64,
    /// What buyers call with.
    pub(crate) shop: Shop,
    /// What the watchers call with, so that no crowd of buyers keeps them waiting.
    pub(crate) office: Shop,
    feed: Feed,
    pub(crate) progress: Progress,
    /// When the sale opened.
    opened: Instant,
    /// When the database was replaced by a standby that lacks the last commits, if it was.
    promoted: OnceLock<std::time::Instant>,
}

impl Run {
    /// A sale that opens now, on any of these servers.
    pub(crate) fn open(sale: Sale, seed: u64, servers: &[String], progress: Progress) -> anyhow::Result<Self> {
        let (shop, office) = (Shop::new(servers.to_vec())?, Shop::new(servers.to_vec())?);
        let feed = Feed::new(&sale);
        let promoted = OnceLock::new();
        Ok(Self { sale, seed, shop, office, feed, progress, opened: Instant::now(), promoted })
    }

    /// From now on the database may lack what was committed last: what was accepted is read again.
    pub(crate) fn promote(&self) {
        self.promoted.get_or_init(std::time::Instant::now);
    }

    /// When that was.
    pub(crate) fn promoted(&self) -> Option<std::time::Instant> {
        self.promoted.get().copied()
    }

    /// Lets all buyers go; what each was told, in the order of the sale.
    pub(crate) async fn buy(self: &Arc<Self>) -> anyhow::Result<Vec<Told>> {
        let mut buyers = JoinSet::new();
        for place in 0..self.sale.journeys.len() {
            let run = self.clone();
            buyers.spawn(async move {
                let told = Buyer::new(&run, &run.sale.journeys[place]).go().await?;
                run.progress.ended();
                anyhow::Ok((place, told))
            });
        }
        let mut told = Vec::with_capacity(buyers.len());
        while let Some(buyer) = buyers.join_next().await {
            told.push(buyer??);
        }
        told.sort_by_key(|(place, _)| *place);
        Ok(told.into_iter().map(|(_, told)| told).collect())
    }

    /// Wakes buyers when their orders change, until dropped. Without it buyers would crawl, so that its end is an error.
    pub(crate) async fn follow(&self) -> anyhow::Error {
        let ended = self.feed.run(&self.office).await;
        ended.err().unwrap_or_else(|| anyhow::anyhow!("the stream of changes ended"))
    }
}

/// Runs the demo; a failure when an order is not final or a book does not balance.
pub(crate) async fn run(args: DemoArgs, output: Output) -> Result<(), Failure> {
    if let Some(seed) = args.generate {
        return output.raw(&generate::generate(seed));
    }
    let sale = read_sale(args.sale.as_deref())?;
    let (folder, _temporary) = folder(args.keep)?;
    let mut stage = Stage::start(&folder, args.fused).await?;
    let servers = [stage.server.clone()];
    opening::open(&Shop::new(servers.to_vec())?, &sale).await?;
    let progress = Progress::new(sale.journeys.len());
    progress.say(&format!(
        "{}: {} orders, {} kills; worker at {}",
        sale.header.name,
        sale.journeys.len(),
        args.kills,
        stage.server
    ));
    let run = Arc::new(Run::open(sale, args.seed, &servers, progress)?);
    let (told, kills) = act(&run, &mut stage.worker, args.kills).await?;
    let seconds = run.opened.elapsed().as_secs_f64();
    let (open, books) = settle(&run, &told, &stage.provider_file, SETTLE).await?;
    run.progress.finish();
    std::fs::write(folder.join("journal.ndjson"), report::journal(&told))?;
    let report = report::Report { run: &run, told: &told, kills: &kills, seconds, open: &open, books: &books };
    output.print(&report.json(), |_| report.text(output))?;
    report.verdict()
}

fn read_sale(file: Option<&Path>) -> Result<Sale, Failure> {
    let parsed = match file {
        None => Sale::parse(Path::new("demo/sale.ndjson"), SHIPPED_SALE),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::usage(format!("cannot read the sale file {}: {error}", file.display())))?;
            Sale::parse(file, &text)
        }
    };
    parsed.map_err(|error| Failure::usage(error.to_string()).hint("docs/sale-file.md describes the format"))
}

/// Where the run's files go: a folder to keep, or one that goes away with the run.
fn folder(keep: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    match keep {
        Some(folder) => {
            let used = folder.read_dir().is_ok_and(|mut entries| entries.next().is_some());
            anyhow::ensure!(!used, "{} is not empty: a demo starts with a fresh store", folder.display());
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            Ok((folder, None))
        }
        None => {
            let temporary = tempfile::tempdir().context("cannot make a folder for the run")?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

/// The processes of a run.
struct Stage {
    worker: Process,
    _provider: Process,
    server: String,
    provider_file: PathBuf,
}

impl Stage {
    async fn start(folder: &Path, fused: bool) -> anyhow::Result<Self> {
        let (worker_port, provider_port) = (free_port()?, free_port()?);
        let server = format!("http://127.0.0.1:{worker_port}");
        let payments = format!("http://127.0.0.1:{provider_port}");
        let provider_file = folder.join("provider.ndjson");
        // Guards nothing but this run.
        let secret = ("ENDSTATE_PAYMENT_SECRET", uuid::Uuid::new_v4().to_string());
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (listen, file) = (format!("127.0.0.1:{provider_port}"), provider_file.to_string_lossy().into_owned());
        let callback_url = format!("{server}{CALLBACKS}");
        let mut arguments = text(&["provider", "--listen", &listen, "--file", &file, "--callback-url", &callback_url]);
        // As slow as a provider across the street; a kill then finds calls in flight.
        arguments.extend(text(&["--latency-ms", "15", "--seed", "1"]));
        let mut provider =
            Process::new("provider", arguments, vec![secret.clone()], folder, format!("{payments}/payments/ready"))?;
        provider.start().await?;
        let (listen, data) = (format!("127.0.0.1:{worker_port}"), folder.join("data").to_string_lossy().into_owned());
        let mut worker = Process::new(
            "worker",
            text(&["dev", "--listen", &listen, "--data", &data]),
            vec![
                secret,
                ("ENDSTATE_PAYMENT_URL", payments),
                ("ENDSTATE_LOG_FILTER", "warn".to_owned()),
                // On a slow machine new orders wait rather than slow down those that have begun.
                ("ENDSTATE_ENGINE_IN_MOTION", "64".to_owned()),
                ("ENDSTATE_ENGINE_MODE", if fused { "fused" } else { "hop_by_hop" }.to_owned()),
                ("ENDSTATE_ENGINE_PARTITIONS", if fused { "1" } else { "0" }.to_owned()),
            ],
            folder,
            format!("{server}/readyz"),
        )?;
        worker.start().await?;
        Ok(Self { worker, _provider: provider, server, provider_file })
    }
}

/// Lets all buyers go and kills the worker meanwhile.
async fn act(run: &Arc<Run>, worker: &mut Process, kills: u32) -> anyhow::Result<(Vec<Told>, Vec<Kill>)> {
    let killing = killer::run(run, worker, kills, Random::new(run.seed));
    tokio::select! {
        done = async { tokio::try_join!(run.buy(), killing) } => done,
        error = run.follow() => Err(error),
        () = run.progress.lines() => unreachable!("lines are written until dropped"),
    }
}

/// Waits until nothing is open any more and the books agree: a payment can be on its way to an order that has ended, and
/// open nothing before it is told. What is still open or apart after a while is shown as it is.
pub(crate) async fn settle(
    run: &Run,
    told: &[Told],
    provider_file: &Path,
    limit: Duration,
) -> anyhow::Result<(BTreeMap<String, u64>, Books)> {
    let started = Instant::now();
    loop {
        let open = killer::open_sagas(run).await?;
        let late = started.elapsed() > limit;
        if open.is_empty() || late {
            let books = books::compare(run, told, provider_file).await?;
            if books.balanced() || late {
                return Ok((open, books));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
