//! Writing what has gathered. What has begun is finished, whoever of those who wait for it goes away.

use super::commit::{Joined, Prepared};
use super::connections::{Lent, is_in_doubt};
use super::gather::{Waiting, lost};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was written since the store was opened.
#[derive(Default)]
pub(super) struct Written {
    pub(super) rows: AtomicU64,
    pub(super) commits: AtomicU64,
}

impl Written {
    fn count(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes a group: in one statement, or, when the database refuses that, each batch alone.
pub(super) async fn write(mut lent: Lent, group: Vec<Waiting>, written: Arc<Written>) {
    let batches: Vec<&Prepared> = group.iter().map(|waiting| &*waiting.batch).collect();
    if batches.len() > 1 {
        match Joined::of(&batches).run(lent.connection()).await {
            Ok(hits) => {
                written.count(hits.iter().sum());
                for waiting in group {
                    // Whoever went away meanwhile learns it from the shard's row.
                    waiting.done.send(Ok(waiting.batch.met())).ok();
                }
                return lent.give_back();
            }
            // What the server refuses is taken back whole; which batch is at fault shows when each is alone.
            Err(error) if !is_in_doubt(&error) => {
                tracing::debug!(%error, batches = batches.len(), "written one by one");
            }
            Err(error) => {
                lent.lost();
                for waiting in group {
                    waiting.done.send(Err(lost(&error.to_string()))).ok();
                }
                return;
            }
        }
    }
    one_by_one(lent, group, &written).await;
}

async fn one_by_one(lent: Lent, group: Vec<Waiting>, written: &Written) {
    let mut lent = Some(lent);
    for waiting in group {
        let done = match &mut lent {
            Some(session) => waiting.batch.run(session.connection()).await,
            None => Err((lost("the session was lost with another batch"), false)),
        };
        match &done {
            Err((_, true)) => lent.take().into_iter().for_each(Lent::lost),
            // Closed with its transaction.
            Err(_) if waiting.batch.is_long() => lent = None,
            Ok((_, rows)) => written.count(*rows),
            Err(_) => {}
        }
        waiting.done.send(done.map(|(hits, _)| hits).map_err(|(failure, _)| failure)).ok();
    }
    if let Some(lent) = lent {
        lent.give_back();
    }
}
