//! `endstate provider`: the simulated payment provider as a process of its own, with a file that only it writes.

use crate::cli::args::ProviderArgs;
use crate::cli::failure::Failure;
use crate::signal::Stop;
use endstate_outbox::SystemClock;
use endstate_participants::simulated::{Config, Simulated};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Serves until it is told to stop.
pub(crate) async fn run(args: ProviderArgs) -> Result<(), Failure> {
    let config = Config {
        listen: args.listen,
        public_url: args.public_url,
        deliveries: args.deliveries,
        delay: Duration::from_millis(args.delay_ms),
        latency: Duration::from_millis(args.latency_ms),
        seed: args.seed,
        ..Config::local(&args.callback_url, args.secret.as_bytes(), &args.file)
    };
    let provider = Simulated::bind(config, Arc::new(SystemClock)).await.map_err(anyhow::Error::from)?;
    let mut asked = Stop::listen();
    eprintln!("simulated payment provider at http://{}; callbacks go to {}", provider.address(), args.callback_url);
    let stop = CancellationToken::new();
    let served = provider.serve(stop.clone());
    tokio::pin!(served);
    tokio::select! {
        done = &mut served => return Ok(done?),
        () = asked.asked() => stop.cancel(),
    }
    Ok(served.await?)
}
