//! The projector: reads which sagas changed, reads them as they are now, writes the view. A saga that changed ten times
//! since the last look is written once, and a look is one transaction over all shards unless the sagas' rows are long.
//!
//! A saga that cannot be drawn is kept in a table and tried again; the others go on.

use super::draw::{self, Drawn};
use super::lag::Lag;
use super::{ViewRow, sql, undrawn};
use async_trait::async_trait;
use endstate_events::SagaId;
use endstate_outbox::{Clock, Commit, CommitError, Metric, Rows, Store, StoreError, Write};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events per shard and look. Bounds the memory of a look after a long pause, with the bytes that are drawn at once.
const PAGE: i64 = 2_000;

/// Pause between looks when there is nothing left: a list may be this much behind, and ten changes cost one write.
const PAUSE: Duration = Duration::from_millis(250);

/// The same while much happens: each look writes nearly every saga that is under way, so fewer looks are fewer writes.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Changes of one look from which on it is much.
const BUSY: usize = 200;

/// Pause between tries of sagas that could not be drawn, and how many are tried then: a definition that is missing may
/// have any number of them.
const AGAIN_MS: i64 = 30_000;
const TRIED: usize = 100;

/// How often the metric follows the lag, also while a look hangs.
const TOLD: Duration = Duration::from_secs(1);

/// Turns a stored saga into its row of the view; knows the definitions.
#[async_trait]
pub trait Render: Send + Sync + 'static {
    /// The row.
    fn render(&self, state: &str) -> Result<ViewRow, Undrawn>;

    /// Looks for versions of definitions that were not known.
    async fn learn(&self, missing: Vec<(String, u32)>) -> Result<(), StoreError>;
}

/// Why a saga cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undrawn {
    /// Nobody here knows its definition.
    #[error("E3001: definition {definition} version {version} is not loaded")]
    Undefined {
        /// Its name.
        definition: String,
        /// Its version.
        version: u32,
    },
    /// Its row cannot be read.
    #[error("E3004: its row cannot be read: {0}")]
    Unreadable(String),
}

/// Follows all shards' events.
pub struct Projector {
    store: Arc<dyn Store>,
    render: Arc<dyn Render>,
    clock: Arc<dyn Clock>,
    positions: Vec<i64>,
    /// The shards that this process follows; none: all.
    owned: Option<watch::Receiver<BTreeSet<u16>>>,
    lag: Arc<Lag>,
    pause: Duration,
    /// When sagas that could not be drawn are tried again.
    again_ms: i64,
}

/// A saga that changed, or that is tried again.
struct Change {
    shard: usize,
    seq: i64,
    saga: Uuid,
    time_ms: i64,
}

/// Sagas that are written together, and the shard of each.
type Portion = Vec<(Uuid, usize)>;

impl std::fmt::Debug for Projector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Projector").field("positions", &self.positions).finish_non_exhaustive()
    }
}

/// Why a look failed; the next one tries again from the saved positions.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] CommitError),
}

impl Projector {
    /// Goes on where the last projector stopped.
    pub async fn open(
        store: Arc<dyn Store>,
        render: Arc<dyn Render>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let positions = Vec::new();
        let lag = Arc::new(Lag::new(Arc::clone(&clock)));
        let mut projector =
            Self { store, render, clock, positions, owned: None, lag, pause: PAUSE, again_ms: i64::MIN };
        projector.go_on().await?;
        Ok(projector)
    }

    /// One of several: follows only the shards that its process owns. Of two that follow the same shard for a moment, the
    /// second to commit looks again.
    #[must_use]
    pub fn among_others(self, owned: watch::Receiver<BTreeSet<u16>>) -> Self {
        Self { owned: Some(owned), ..self }
    }

    /// Begins where the last projector of each shard stopped.
    async fn go_on(&mut self) -> Result<(), StoreError> {
        let mut shards = Rows::new();
        (0..self.store.partitions()).for_each(|shard| shards.push([i64::from(shard).into()]));
        let begin = Commit { writes: vec![Write::any(&sql::BEGIN, shards.clone())], ..Commit::default() };
        let failed =
            |error: CommitError| StoreError::Failed { statement: sql::BEGIN.name.into(), reason: error.to_string() };
        self.store.commit(begin).await.map_err(failed)?;
        self.positions = vec![0; usize::from(self.store.partitions())];
        for row in self.store.read(&sql::POSITIONS, shards).await? {
            if let [Some(shard), Some(seq)] = [row[0].int(), row[1].int()] {
                self.positions[shard as usize] = seq;
            }
        }
        Ok(())
    }

    /// How far the view is behind the sagas; shared with whoever shows it.
    #[must_use]
    pub fn lag(&self) -> Arc<Lag> {
        Arc::clone(&self.lag)
    }

    /// Runs until cancelled. A failed look is logged and tried again.
    pub async fn run(mut self, stop: CancellationToken) {
        let lag = self.lag();
        let tells = async {
            loop {
                Metric::ViewLag.set(lag.ms() as f64 / 1_000.0, &[]);
                tokio::time::sleep(TOLD).await;
            }
        };
        tokio::select! {
            () = self.follow(&stop) => {}
            () = tells => {}
        }
    }

    async fn follow(&mut self, stop: &CancellationToken) {
        loop {
            let more = match self.look().await {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(%error, "the view could not be written; trying again");
                    false
                }
            };
            if more && !stop.is_cancelled() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.pause) => {}
            }
        }
    }

    /// One look at all shards; true when there may be more to do at once.
    pub async fn look(&mut self) -> Result<bool, ProjectError> {
        let begun_ms = self.clock.now_ms();
        let followed = self.followed().await?;
        if let Err(error) = self.try_again(&followed, begun_ms).await {
            // They hold up nobody.
            tracing::warn!(%error, "sagas that the view cannot show were not tried again");
        }
        let changes = self.changed(&followed).await?;
        self.pause = if changes.len() < BUSY { PAUSE } else { BUSY_PAUSE };
        // What lies behind a full page is no older than the last of it.
        let is_last = |change: &&Change| change.seq == self.positions[change.shard] + PAGE;
        let beyond_ms = changes.iter().filter(is_last).map(|change| change.time_ms).min();
        let mut left = &changes[..];
        let sagas: Vec<Uuid> = changes.iter().map(|change| change.saga).collect();
        let mut met = FxHashSet::default();
        for portion in draw::portions(&sagas, &self.lengths(&sagas).await?) {
            let now;
            (now, left) = left.split_at(portion.len());
            let new: Portion =
                now.iter().filter(|change| met.insert(change.saga)).map(|change| (change.saga, change.shard)).collect();
            let to = now.iter().map(|change| (change.shard, change.seq)).collect();
            if !self.write(new, to, false).await? {
                return Ok(true);
            }
            let oldest_ms = left.iter().map(|change| change.time_ms).min();
            self.lag.shown([oldest_ms, beyond_ms].into_iter().flatten().fold(begun_ms, i64::min));
        }
        if changes.is_empty() {
            self.lag.shown(begun_ms);
        }
        Ok(beyond_ms.is_some())
    }

    /// The shards that are followed now.
    async fn followed(&mut self) -> Result<Vec<usize>, StoreError> {
        let all = 0..self.positions.len();
        let Some(owned) = &mut self.owned else { return Ok(all.collect()) };
        let changed = owned.has_changed().unwrap_or(false);
        let now = owned.borrow_and_update().clone();
        if changed {
            self.go_on().await?;
        }
        Ok(all.filter(|shard| now.contains(&(*shard as u16))).collect())
    }

    /// Changes since the last look, by shard, each shard's in order.
    async fn changed(&self, followed: &[usize]) -> Result<Vec<Change>, StoreError> {
        let mut given = Rows::new();
        for shard in followed {
            given.push([(*shard as i64).into(), self.positions[*shard].into(), PAGE.into()]);
        }
        let rows = if given.is_empty() { Vec::new() } else { self.store.read(&sql::CHANGED, given).await? };
        let change = |row: &endstate_outbox::Row| {
            let [shard, seq, saga, time] = row.as_slice() else { return None };
            let shard = usize::try_from(shard.int()?).ok()?;
            Some(Change { shard, seq: seq.int()?, saga: saga.id()?, time_ms: time.int()? })
        };
        Ok(rows.iter().filter_map(change).collect())
    }

    async fn lengths(&self, sagas: &[Uuid]) -> Result<FxHashMap<Uuid, i64>, StoreError> {
        let distinct: FxHashSet<Uuid> = sagas.iter().copied().collect();
        draw::lengths(&*self.store, &distinct.into_iter().collect::<Vec<_>>()).await
    }

    /// Tries some of the sagas that could not be drawn.
    async fn try_again(&mut self, followed: &[usize], now_ms: i64) -> Result<(), ProjectError> {
        if now_ms < self.again_ms {
            return Ok(());
        }
        self.again_ms = now_ms + AGAIN_MS;
        let tried = undrawn::oldest(&*self.store, followed.iter().copied(), TRIED).await?;
        let sagas: Vec<Uuid> = tried.iter().map(|(saga, _)| *saga).collect();
        for portion in draw::portions(&sagas, &self.lengths(&sagas).await?) {
            if !self.write(tried[portion].to_vec(), Vec::new(), true).await? {
                // Overtaken: at the next look.
                self.again_ms = now_ms;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Brings the view up to `sagas` (with the shard of each) and moves the positions `to`; false when another projector has
    /// followed one of these shards meanwhile. `kept`: they could not be drawn before.
    ///
    /// What the store refuses is halved until it is one saga, which is kept for later.
    async fn write(&mut self, sagas: Portion, to: Vec<(usize, i64)>, kept: bool) -> Result<bool, ProjectError> {
        let mut parts: Vec<(Portion, Option<String>)> = vec![(sagas, None)];
        while let Some((mut part, refused)) = parts.pop() {
            // The last part moves the positions; those before it are written only while they stand.
            let moves: &[(usize, i64)] = if parts.is_empty() { &to } else { &[] };
            let fence = self.fence(&part, moves);
            let ids: Vec<Uuid> = part.iter().map(|(saga, _)| *saga).collect();
            let drawn = match refused {
                None => draw::draw(&*self.store, &*self.render, &ids, false).await?,
                Some(reason) => {
                    Drawn { missed: ids.iter().map(|id| (*id, reason.clone())).collect(), ..Drawn::default() }
                }
            };
            let writes = self.writes(fence, drawn, &part, kept);
            if writes.is_empty() {
                continue;
            }
            match self.store.commit(Commit { writes, ..Commit::default() }).await {
                Ok(_) => {}
                Err(CommitError::Conflict { .. }) => {
                    // From where it stopped.
                    self.go_on().await?;
                    return Ok(false);
                }
                Err(CommitError::Data(_)) if part.len() > 1 => {
                    let back = part.split_off(part.len() / 2);
                    parts.extend([(back, None), (part, None)]);
                }
                Err(CommitError::Data(reason)) if part.len() == 1 => parts.push((part, Some(reason))),
                Err(error) => return Err(error.into()),
            }
        }
        for (shard, seq) in to {
            self.positions[shard] = seq;
        }
        Ok(true)
    }

    /// The positions, moved or as they are, of all shards that something is written for.
    fn fence(&self, part: &[(Uuid, usize)], moves: &[(usize, i64)]) -> Rows {
        let stands = part.iter().map(|(_, shard)| (*shard, self.positions[*shard]));
        // Of a shard that moves more than once, the last.
        let to: BTreeMap<usize, i64> = stands.chain(moves.iter().copied()).collect();
        let mut rows = Rows::new();
        for (shard, seq) in to {
            rows.push([(shard as i64).into(), self.positions[shard].into(), seq.into()]);
        }
        rows
    }

    fn writes(&self, fence: Rows, drawn: Drawn, part: &[(Uuid, usize)], kept: bool) -> Vec<Write> {
        if fence.is_empty() {
            return Vec::new();
        }
        let Drawn { writes: views, missed } = drawn;
        if let Some((saga, reason)) = missed.first().filter(|_| !kept) {
            let (saga, sagas) = (SagaId(*saga), missed.len());
            tracing::error!(%saga, reason, sagas, "the view cannot show sagas, this one among them; they are tried again");
        }
        let missed: FxHashMap<Uuid, String> = missed.into_iter().collect();
        let keep = part.iter().filter_map(|(saga, shard)| Some((*saga, *shard, missed.get(saga)?.as_str())));
        let drawn = part.iter().map(|(saga, _)| *saga).filter(|saga| kept && !missed.contains_key(saga));
        let mut writes = vec![Write::exact(&sql::SAVE, fence)];
        writes.extend(views);
        writes.extend(undrawn::keep(keep, self.clock.now_ms()));
        writes.extend(undrawn::forget(drawn));
        writes
    }
}
