//! The way to the database: sessions that are terminated, sockets that are cut when the commit is under way.

use super::Scene;
use crate::chaos::check;
use anyhow::Context as _;
use endstate_outbox::{Kind, Rows, Statement, Store as _};

/// Of the processes' sessions, those that are busy first.
static TERMINATE: Statement = Statement {
    name: "chaos.terminate",
    columns: &[Kind::Int],
    sql: "with r(most) as ({rows}), a as (select a.pid, a.state from pg_stat_activity a \
          where a.datname = current_database() and a.usename = current_user and a.pid <> pg_backend_pid() \
          and a.application_name like 'endstate %' order by a.state = 'active' desc, random() limit (select most from r)) \
          select a.state, pg_terminate_backend(a.pid)::text from a",
};

/// Sessions terminated at a time.
const MOST: i64 = 2;

/// `pg_terminate_backend` at random.
pub(super) async fn terminate(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let store = check::store(scene.town).await?;
    while scene.goes_on() {
        scene.pause(20, 500).await;
        for row in store.read(&TERMINATE, Rows::one([MOST.into()])).await? {
            let state = row[0].text().unwrap_or_default();
            scene.done.push(format!("a session terminated, {}", if state == "active" { "busy" } else { "idle" }));
        }
    }
    Ok(())
}

/// The proxy cuts a socket once it has passed a whole request on, and before it passes an answer back.
pub(super) async fn cut(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    while scene.goes_on() {
        scene.pause(50, 800).await;
        let proxy = scene.town.proxy.as_ref().context("this case has a proxy")?;
        proxy.cut_next();
    }
    let proxy = scene.town.proxy.as_ref().context("this case has a proxy")?;
    let cut = proxy.cut_so_far();
    scene.done.extend((0..cut).map(|_| "a socket cut behind a batch".to_owned()));
    Ok(())
}
