//! Sagas as they are now, and the writes that bring the view up to them: for whoever follows the events, and for a rebuild.

use super::{Render, Undrawn, search_text, sql};
use endstate_events::SagaId;
use endstate_outbox::{Rows, Store, StoreError, Write};
use rustc_hash::{FxHashMap, FxHashSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use uuid::Uuid;

/// Bytes of sagas' rows that are read at once; of a larger one, it alone.
const BYTES: i64 = 8 * 1024 * 1024;

/// What became of some sagas.
#[derive(Default)]
pub(super) struct Drawn {
    /// What brings the view up to them.
    pub(super) writes: Vec<Write>,
    /// Those that cannot be drawn, and why.
    pub(super) missed: Vec<(Uuid, String)>,
}

/// Draws sagas. Those that the view has as they are cost nothing, unless `anew`.
pub(super) async fn draw(
    store: &dyn Store,
    render: &dyn Render,
    sagas: &[Uuid],
    anew: bool,
) -> Result<Drawn, StoreError> {
    let mut drawn = Drawn::default();
    if sagas.is_empty() {
        return Ok(drawn);
    }
    let mut rows = store.read(&sql::SAGAS, ids(sagas)).await?;
    let is_old = |row: &endstate_outbox::Row| anew || row[3].int().is_none_or(|shown| Some(shown) < row[1].int());
    rows.retain(is_old);
    let text = |row: &endstate_outbox::Row| {
        let drawn = catch_unwind(AssertUnwindSafe(|| render.render(row[2].text().unwrap_or_default())));
        // One saga's trouble, like any other.
        drawn.unwrap_or_else(|_| Err(Undrawn::Unreadable("drawing it panicked".to_owned())))
    };
    let mut views: Vec<_> = rows.iter().map(text).collect();
    let undefined = views.iter().filter_map(|view| match view {
        Err(Undrawn::Undefined { definition, version }) => Some((definition.clone(), *version)),
        Err(Undrawn::Unreadable(_)) | Ok(_) => None,
    });
    let undefined: FxHashSet<_> = undefined.collect();
    if !undefined.is_empty() {
        // Another process may have loaded it a moment ago.
        render.learn(undefined.into_iter().collect()).await?;
        for (view, row) in views.iter_mut().zip(&rows).filter(|(view, _)| view.is_err()) {
            *view = text(row);
        }
    }
    let (mut upserts, mut added, mut dropped) = (Rows::new(), Rows::new(), Rows::new());
    for (view, row) in views.into_iter().zip(rows) {
        let [id, _, _, shown, shown_search, shown_started] = row.as_slice() else { continue };
        let Some(id) = id.id() else { continue };
        let view = match view {
            Ok(view) => view,
            Err(why) => {
                drawn.missed.push((id, why.to_string()));
                continue;
            }
        };
        let before = shown_search.text().unwrap_or("[]");
        if anew || before != search_text(&view.search) {
            let before: Vec<(String, String)> = serde_json::from_str(before).unwrap_or_default();
            let started = shown_started.int().filter(|_| shown.int().is_some()).unwrap_or(view.started_ms);
            let is_new = |pair: &&(String, String)| anew || !before.contains(pair);
            push_search(&mut dropped, before.iter().filter(|pair| !view.search.contains(pair)), started, id);
            push_search(&mut added, view.search.iter().filter(is_new), view.started_ms, id);
        }
        upserts.push(view.cells());
    }
    let writes = [(&sql::UPSERT, upserts), (&sql::DROP_SEARCH, dropped), (&sql::ADD_SEARCH, added)];
    let writes = writes.into_iter().filter(|(_, rows)| !rows.is_empty());
    drawn.writes = writes.map(|(sql, rows)| Write::any(sql, rows)).collect();
    Ok(drawn)
}

fn push_search<'a>(rows: &mut Rows, pairs: impl Iterator<Item = &'a (String, String)>, started_ms: i64, saga: Uuid) {
    for (name, value) in pairs {
        rows.push([name.as_str().into(), value.as_str().into(), started_ms.into(), saga.into()]);
    }
}

/// How long the rows of sagas are, without reading them.
pub(super) async fn lengths(store: &dyn Store, sagas: &[Uuid]) -> Result<FxHashMap<Uuid, i64>, StoreError> {
    // Whatever its length, one is read alone.
    if sagas.len() < 2 {
        return Ok(FxHashMap::default());
    }
    let rows = store.read(&sql::LENGTHS, ids(sagas)).await?;
    Ok(rows.iter().filter_map(|row| Some((row[0].id()?, row[1].int()?))).collect())
}

/// Cuts a list of sagas where their rows would be too much at once. A saga counts where it comes first.
pub(super) fn portions(sagas: &[Uuid], lengths: &FxHashMap<Uuid, i64>) -> Vec<Range<usize>> {
    let (mut portions, mut begin, mut bytes) = (Vec::new(), 0, 0);
    let mut met = FxHashSet::default();
    for (index, saga) in sagas.iter().enumerate().filter(|(_, saga)| met.insert(**saga)) {
        let length = lengths.get(saga).copied().unwrap_or(0);
        if bytes > 0 && bytes + length > BYTES {
            portions.push(begin..index);
            (begin, bytes) = (index, 0);
        }
        bytes += length;
    }
    if begin < sagas.len() {
        portions.push(begin..sagas.len());
    }
    portions
}

fn ids(sagas: &[Uuid]) -> Rows {
    let mut rows = Rows::new();
    sagas.iter().for_each(|saga| rows.push([(*saga).into()]));
    rows
}

/// The shard of a saga, where its view is fenced.
pub(super) fn shard_of(saga: Uuid, partitions: u16) -> usize {
    usize::from(SagaId(saga).slot().partition(partitions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_at_once_is_bounded_in_bytes() {
        let saga = |n: u128| Uuid::from_u128(n);
        let lengths = [(saga(1), BYTES / 2), (saga(2), BYTES / 2), (saga(3), 1), (saga(4), 3 * BYTES), (saga(5), 1)];
        let lengths = lengths.into_iter().collect();
        let list = [1, 1, 2, 1, 3, 3, 4, 2, 5].map(saga);
        assert_eq!(portions(&list, &lengths), [0..4, 4..6, 6..8, 8..9]);
        assert_eq!(portions(&list[..1], &FxHashMap::default()), vec![0..1]);
        assert_eq!(portions(&[], &lengths), Vec::<Range<usize>>::new());
    }
}
