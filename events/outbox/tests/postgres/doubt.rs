//! Owners that freeze, sockets that are cut, and values that a database cannot hold.

use crate::conformance::{GET, PUT, SHARD, names, put, step};
use crate::database::Database;
use endstate_outbox::*;
use sqlx::Executor as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Statement and transaction timeouts, even a cancel, leave such a session alone: it waits for its client.
#[tokio::test]
async fn z05_a_shard_is_taken_over_from_an_owner_that_froze_inside_copy() {
    let database = Database::new().await;
    let store = database.store().await;
    let owner = store.assign(SHARD).await.unwrap();
    let mut frozen = database.session("endstate write").await;
    frozen.execute("begin").await.unwrap();
    frozen.execute("update shard set epoch = epoch where side = 'participants' and shard = 2").await.unwrap();
    let mut copy = frozen.copy_in_raw("copy system (name, value) from stdin").await.unwrap();
    copy.send(&b"frozen\t1\n"[..]).await.unwrap();
    // Two at once: the second waits behind the first, which must not be taken for an obstacle.
    let (a, b) = tokio::join!(store.assign(SHARD), store.assign(SHARD));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.epoch.max(b.epoch), owner.epoch + 2);
    let next = if a.epoch > b.epoch { a } else { b };
    store.commit(Commit { fences: vec![step(next)], ..put("next", "1") }).await.unwrap();
    assert!(copy.finish().await.is_err(), "the frozen session is gone");
    assert_eq!(names(&*store, &["frozen", "next"]).await, ["next"]);
}

#[tokio::test]
async fn z05_a_stranger_in_the_way_is_waited_for() {
    let database = Database::new().await;
    let store = database.store().await;
    store.assign(SHARD).await.unwrap();
    let mut stranger = database.session("psql").await;
    stranger.execute("begin").await.unwrap();
    stranger.execute("update shard set epoch = epoch + 10 where side = 'participants' and shard = 2").await.unwrap();
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.assign(SHARD).await }
    });
    // Until the takeover has looked who is in its way.
    let mut observer = database.session("test").await;
    let looked = "select exists (select from pg_stat_activity where application_name = 'endstate control' \
                  and datname = current_database() and query like '%pg_blocking_pids%')";
    while !sqlx::query_scalar::<_, bool>(looked).fetch_one(&mut observer).await.unwrap() {
        tokio::task::yield_now().await;
    }
    stranger.execute("commit").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().epoch, 12, "what the stranger wrote is kept");
}

/// What a proxy does with the next thing it is to carry.
const CARRY: u8 = 0;
const CUT_REQUEST: u8 = 1;
const CUT_ANSWER: u8 = 2;

/// A proxy before the server, which cuts connections when told to.
async fn proxy(server: String) -> (u16, Arc<AtomicU8>) {
    let (listener, mode) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(AtomicU8::new(CARRY)));
    let (port, told) = (listener.local_addr().unwrap().port(), Arc::clone(&mode));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(carry(client, server, Arc::clone(&told)));
        }
    });
    (port, mode)
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let cut = |when| mode.compare_exchange(when, CARRY, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        tokio::select! {
            Ok(n) = client.read(&mut request) => {
                if n == 0 || cut(CUT_REQUEST) || server.write_all(&request[..n]).await.is_err() {
                    return;
                }
            }
            Ok(n) = server.read(&mut answer) => {
                if n == 0 || cut(CUT_ANSWER) || client.write_all(&answer[..n]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

#[tokio::test]
async fn z05_after_a_cut_in_commit_the_next_assignment_knows_what_was_written() {
    let database = Database::new().await;
    let (port, mode) = proxy(database.address()).await;
    let store = PostgresStore::open(&database.through(port)).await.unwrap();
    let mut owner = store.assign(SHARD).await.unwrap();
    // The statements are prepared first: then a batch is one message there and one back.
    let warm = Commit { fences: vec![step(owner)], ..put("warm", "1") };
    store.commit(warm).await.unwrap();
    owner = store.assign(SHARD).await.unwrap();
    for (when, name, written) in [(CUT_REQUEST, "never sent", false), (CUT_ANSWER, "never answered", true)] {
        store.commit(Commit { fences: vec![step(owner)], ..put(&format!("before {name}"), "1") }).await.unwrap();
        owner = step(owner).after();
        mode.store(when, Ordering::SeqCst);
        let doubt = store.commit(Commit { fences: vec![step(owner)], ..put(name, "1") }).await;
        assert!(matches!(doubt, Err(CommitError::Doubt(_))), "{doubt:?}");
        let next = store.assign(SHARD).await.unwrap();
        let stands = if written { step(owner).after() } else { owner };
        assert_eq!(next, Assignment { epoch: owner.epoch + 1, ..stands }, "{name}");
        assert_eq!(names(&*store, &[name]).await.len(), usize::from(written), "{name}");
        owner = next;
    }
}

#[tokio::test]
async fn reads_go_on_after_the_server_closed_what_was_idle() {
    let database = Database::new().await;
    let store = database.store().await;
    store.commit(put("a", "1")).await.unwrap();
    assert_eq!(names(&*store, &["a"]).await, ["a"]);
    let closed = "select pg_terminate_backend(pid) from pg_stat_activity \
                  where application_name like 'endstate %' and datname = current_database()";
    database.session("test").await.execute(closed).await.unwrap();
    assert_eq!(names(&*store, &["a"]).await, ["a"]);
    let owner = match store.assign(SHARD).await {
        Ok(owner) => owner,
        Err(_) => store.assign(SHARD).await.unwrap(),
    };
    let first = store.commit(Commit { fences: vec![step(owner)], ..put("b", "1") }).await;
    if first.is_err() {
        assert!(matches!(first, Err(CommitError::Doubt(_))), "{first:?}");
        store.commit(Commit { fences: vec![step(owner)], ..put("b", "1") }).await.unwrap();
    }
    assert_eq!(names(&*store, &["b"]).await, ["b"]);
}

#[tokio::test]
async fn z10_a_text_that_the_database_cannot_hold_is_the_batchs_fault() {
    let database = Database::new().await;
    let store = database.store().await;
    let owner = store.assign(SHARD).await.unwrap();
    let nul = store.commit(Commit { fences: vec![step(owner)], ..put("a", "zero \0 byte") }).await;
    assert!(matches!(nul, Err(CommitError::Data(_))), "{nul:?}");
    let asked = store.read(&GET, Rows::one(["zero \0 byte".into()])).await;
    assert!(matches!(asked, Err(StoreError::Refused { .. })), "no such row, and no trouble of the store's: {asked:?}");
    let odd = Write::any(&PUT, Rows::one([7.into(), "x".into()]));
    let odd = store.commit(Commit { writes: vec![odd], ..Commit::default() }).await;
    assert!(matches!(odd, Err(CommitError::Data(_))), "{odd:?}");
    store.commit(Commit { fences: vec![step(owner)], ..put("a", "1") }).await.unwrap();
}
