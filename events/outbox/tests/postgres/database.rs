//! A database of its own for each test, on the server that the environment names.

use endstate_outbox::PostgresStore;
use endstate_outbox::postgres::Settings;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Gone when it is dropped.
pub(crate) struct Database {
    name: String,
    server: PgConnectOptions,
    /// As whom the store comes; the server's superuser if nobody else is named.
    role: Option<String>,
}

/// Of a role that was made for a test.
const PASSWORD: &str = "plain";

impl Database {
    /// One with all migrations.
    pub(crate) async fn new() -> Self {
        let database = Self::empty().await;
        PostgresStore::migrate(&database.url()).await.unwrap();
        database
    }

    /// One with nothing in it.
    pub(crate) async fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let url = std::env::var("ENDSTATE_TEST_POSTGRES").expect(
            "ENDSTATE_TEST_POSTGRES names no server; bring one along: \
             scripts/services run --only postgres -- cargo test -p endstate-outbox --test postgres",
        );
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut connection = server.connect().await.unwrap();
        for text in [format!("drop database if exists {name} with (force)"), format!("create database {name}")] {
            connection.execute(AssertSqlSafe(text)).await.unwrap();
        }
        Self { name, server, role: None }
    }

    /// An empty one of a role that may log in, and nothing else.
    pub(crate) async fn of_a_plain_role() -> Self {
        let mut database = Self::empty().await;
        let (name, role) = (&database.name, format!("{}_owner", database.name));
        let mut connection = database.server.connect().await.unwrap();
        for text in [
            format!("drop role if exists {role}"),
            format!("create role {role} login nosuperuser nocreatedb nocreaterole password '{PASSWORD}'"),
            format!("alter database {name} owner to {role}"),
        ] {
            connection.execute(AssertSqlSafe(text)).await.unwrap();
        }
        database.role = Some(role);
        database
    }

    fn options(&self) -> PgConnectOptions {
        let options = self.server.clone().database(&self.name);
        match &self.role {
            Some(role) => options.username(role).password(PASSWORD),
            None => options,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.options().to_url_lossy().to_string()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { partitions: 4, connections: 4, writers: 4, ..Settings::new(&self.url()) }
    }

    pub(crate) async fn store(&self) -> Arc<PostgresStore> {
        PostgresStore::open(&self.settings()).await.unwrap()
    }

    /// A session beside the store's, under a name of its own.
    pub(crate) async fn session(&self, name: &str) -> PgConnection {
        self.server.clone().database(&self.name).application_name(name).connect().await.unwrap()
    }

    /// Host and port of the server.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.server.get_host(), self.server.get_port())
    }

    /// The same database through another port.
    pub(crate) fn through(&self, port: u16) -> Settings {
        let url = self.options().host("127.0.0.1").port(port).to_url_lossy().to_string();
        Settings { url, ..self.settings() }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, database) = (self.server.clone(), format!("drop database if exists {} with (force)", self.name));
        let role = self.role.iter().map(|role| format!("drop role if exists {role}"));
        let texts: Vec<String> = [database].into_iter().chain(role).collect();
        // A test's runtime cannot be waited for inside of itself.
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = server.connect().await.unwrap();
                for text in texts {
                    connection.execute(AssertSqlSafe(text)).await.unwrap();
                }
            });
        });
        if gone.join().is_err() {
            eprintln!("database {} is left behind", self.name);
        }
    }
}
