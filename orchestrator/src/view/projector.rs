//! The projector: reads which sagas changed, reads them as they are now, writes the view. A saga that changed ten times
//! since the last look is written once, and a look is one transaction over all shards.

use super::{ViewRow, search_text, sql};
use endstate_events::SagaId;
use endstate_outbox::{Clock, Commit, CommitError, Metric, Rows, Store, StoreError, Write};
use rustc_hash::FxHashSet;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events per shard and look. Bounds the memory of a look after a long pause.
const PAGE: i64 = 2_000;

/// Pause between looks when there is nothing left: a list may be this much behind, and ten changes cost one write.
const PAUSE: Duration = Duration::from_millis(250);

/// The same while much happens: each look writes nearly every saga that is under way, so fewer looks are fewer writes.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Changes of one look from which on it is much.
const BUSY: usize = 200;

/// Turns a stored saga into its row of the view; knows the definitions.
pub trait Render: Send + Sync + 'static {
    /// The row; `None` when the state cannot be read.
    fn render(&self, state: &str) -> Option<ViewRow>;
}

/// Follows all shards' events.
pub struct Projector {
    store: Arc<dyn Store>,
    render: Arc<dyn Render>,
    clock: Arc<dyn Clock>,
    positions: Vec<i64>,
    /// The shards that this process follows; none: all.
    owned: Option<watch::Receiver<BTreeSet<u16>>>,
    lag_ms: Arc<AtomicI64>,
    pause: Duration,
}

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
        let lag_ms = Arc::default();
        let mut projector = Self { store, render, clock, positions, owned: None, lag_ms, pause: PAUSE };
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

    /// How far the view is behind the sagas, in milliseconds; shared with whoever shows it.
    #[must_use]
    pub fn lag_ms(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.lag_ms)
    }

    /// Runs until cancelled. A failed look is logged and tried again.
    pub async fn run(mut self, stop: CancellationToken) {
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
        let owned = match &mut self.owned {
            None => None,
            Some(owned) => {
                let changed = owned.has_changed().unwrap_or(false);
                let now = owned.borrow_and_update().clone();
                if changed {
                    self.go_on().await?;
                }
                Some(now)
            }
        };
        let follows = |shard: usize| owned.as_ref().is_none_or(|owned| owned.contains(&(shard as u16)));
        let mut given = Rows::new();
        for (shard, seq) in self.positions.iter().enumerate().filter(|(shard, _)| follows(*shard)) {
            given.push([(shard as i64).into(), (*seq).into(), PAGE.into()]);
        }
        let rows = if given.is_empty() { Vec::new() } else { self.store.read(&sql::CHANGED, given).await? };
        self.pause = if rows.len() < BUSY { PAUSE } else { BUSY_PAUSE };
        let Some(last) = rows.last().and_then(|row| row[3].int()) else {
            self.show_lag(0);
            return Ok(false);
        };
        let mut changed = FxHashSet::<Uuid>::default();
        let mut positions = self.positions.clone();
        let mut full = false;
        for row in &rows {
            if let [Some(shard), Some(seq)] = [row[0].int(), row[1].int()]
                && let Some(saga) = row[2].id()
            {
                full |= seq == self.positions[shard as usize] + PAGE;
                positions[shard as usize] = seq;
                changed.insert(saga);
            }
        }
        let mut saved = Rows::new();
        for (shard, seq) in positions.iter().enumerate().filter(|(shard, seq)| self.positions[*shard] != **seq) {
            saved.push([(shard as i64).into(), self.positions[shard].into(), (*seq).into()]);
        }
        let mut writes = vec![Write::exact(&sql::SAVE, saved)];
        writes.extend(self.project(&changed).await?);
        match self.store.commit(Commit { writes, ..Commit::default() }).await {
            Ok(_) => {}
            Err(CommitError::Conflict { .. }) => {
                // Another projector has followed one of these shards meanwhile: from where it stopped.
                self.go_on().await?;
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        }
        self.positions = positions;
        self.show_lag(if full { self.clock.now_ms() - last } else { 0 });
        Ok(full)
    }

    /// The writes that bring these sagas' rows up to date.
    async fn project(&self, changed: &FxHashSet<Uuid>) -> Result<Vec<Write>, StoreError> {
        let mut ids = Rows::new();
        changed.iter().for_each(|saga| ids.push([(*saga).into()]));
        let (mut upserts, mut added, mut dropped) = (Rows::new(), Rows::new(), Rows::new());
        for row in self.store.read(&sql::SAGAS, ids).await? {
            let [id, version, state, shown, shown_search, shown_started] = row.as_slice() else { continue };
            let (Some(id), Some(version), Some(state)) = (id.id(), version.int(), state.text()) else { continue };
            if shown.int().is_some_and(|shown| shown >= version) {
                continue;
            }
            let Some(view) = self.render.render(state) else {
                tracing::error!(saga = %SagaId(id), "the saga's state cannot be shown");
                continue;
            };
            let before = shown_search.text().unwrap_or("[]");
            if before != search_text(&view.search) {
                let before: Vec<(String, String)> = serde_json::from_str(before).unwrap_or_default();
                let started = shown_started.int().unwrap_or(view.started_ms);
                push_search(&mut dropped, before.iter().filter(|pair| !view.search.contains(pair)), started, id);
                push_search(&mut added, view.search.iter().filter(|pair| !before.contains(pair)), view.started_ms, id);
            }
            upserts.push(view.cells());
        }
        let writes = [(&sql::UPSERT, upserts), (&sql::DROP_SEARCH, dropped), (&sql::ADD_SEARCH, added)];
        Ok(writes.into_iter().filter(|(_, rows)| !rows.is_empty()).map(|(sql, rows)| Write::any(sql, rows)).collect())
    }

    /// Empties the view and makes it anew from the sagas. Run it instead of the loop, not beside it.
    pub async fn rebuild(&mut self) -> Result<u64, ProjectError> {
        let empty = || Rows::one([1.into()]);
        let writes = vec![Write::any(&sql::EMPTY_VIEW, empty()), Write::any(&sql::EMPTY_SEARCH, empty())];
        self.store.commit(Commit { writes, ..Commit::default() }).await?;
        let (mut after, mut count) = (Uuid::nil(), 0);
        loop {
            let page = self.store.read(&sql::ALL_SAGAS, Rows::one([after.into(), PAGE.into()])).await?;
            let Some(last) = page.last().and_then(|row| row[0].id()) else { return Ok(count) };
            let sagas = page.iter().filter_map(|row| row[0].id()).collect();
            let writes = self.project(&sagas).await?;
            self.store.commit(Commit { writes, ..Commit::default() }).await?;
            count += page.len() as u64;
            after = last;
        }
    }

    fn show_lag(&self, lag_ms: i64) {
        self.lag_ms.store(lag_ms, Ordering::Relaxed);
        Metric::ViewLag.set(lag_ms as f64 / 1_000.0, &[]);
    }
}

fn push_search<'a>(rows: &mut Rows, pairs: impl Iterator<Item = &'a (String, String)>, started_ms: i64, saga: Uuid) {
    for (name, value) in pairs {
        rows.push([name.as_str().into(), value.as_str().into(), started_ms.into(), saga.into()]);
    }
}
