//! Whether a database may be trusted with what Endstate promises, and is the one that is meant (Z17).

use super::Settings;
use super::failed;
use crate::store::StoreError;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

/// The oldest server that was tested.
const OLDEST: i32 = 150_000;

/// What a server says about itself that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) version: i32,
    pub(super) fsync: String,
    pub(super) full_page_writes: String,
    pub(super) synchronous_commit: String,
    pub(super) isolation: String,
    pub(super) encoding: String,
    pub(super) in_recovery: bool,
}

impl Server {
    pub(super) async fn ask(connection: &mut PgConnection) -> Result<Self, StoreError> {
        let row = sqlx::query(
            "select current_setting('server_version_num')::int4, current_setting('fsync'), \
             current_setting('full_page_writes'), current_setting('synchronous_commit'), \
             current_setting('default_transaction_isolation'), current_setting('server_encoding'), \
             pg_is_in_recovery()",
        )
        .fetch_one(connection)
        .await
        .map_err(failed("server.settings"))?;
        Ok(Self {
            version: row.get(0),
            fsync: row.get(1),
            full_page_writes: row.get(2),
            synchronous_commit: row.get(3),
            isolation: row.get(4),
            encoding: row.get(5),
            in_recovery: row.get(6),
        })
    }

    /// Why it cannot keep what it is given, and what to do.
    pub(super) fn unfit(&self) -> Option<String> {
        let losing = |name: &str, cure: &str| Some(format!("{name} is off, so that a commit can be lost; {cure}"));
        if self.version < OLDEST {
            return Some(format!(
                "the server is version {}; 15 is the oldest that is known to work",
                self.version / 10_000
            ));
        }
        if self.in_recovery {
            return Some("the server is a standby; name the primary".into());
        }
        if self.fsync != "on" {
            return losing("fsync", "set fsync = on and restart the server");
        }
        if self.full_page_writes != "on" {
            return losing("full_page_writes", "set full_page_writes = on and reload the server");
        }
        if self.synchronous_commit == "off" {
            return losing("synchronous_commit", "set it to on for this database and user");
        }
        if self.isolation != "read committed" {
            return Some(format!(
                "default_transaction_isolation is `{}`, and batches are fenced under `read committed`; \
                 alter database ... set default_transaction_isolation = 'read committed'",
                self.isolation
            ));
        }
        (self.encoding != "UTF8").then(|| format!("its encoding is {}; make the database with UTF8", self.encoding))
    }
}

/// Refuses a server that cannot keep what it is given, and a store that was made for something else. A new store takes
/// these settings.
pub(super) async fn check(connection: &mut PgConnection, settings: &Settings) -> Result<(), StoreError> {
    if let Some(reason) = Server::ask(connection).await?.unfit() {
        return Err(StoreError::Unfit { reason: format!("PostgreSQL: {reason}") });
    }
    for (name, value, _) in wanted(settings) {
        sqlx::query("insert into system (name, value) values ($1, $2) on conflict (name) do nothing")
            .bind(name)
            .bind(&value)
            .execute(&mut *connection)
            .await
            .map_err(failed("system.claim"))?;
    }
    belongs(connection, settings).await
}

/// What is fixed when a store is made: name, value, and what it is.
fn wanted(settings: &Settings) -> [(&'static str, String, &'static str); 2] {
    [
        ("environment", settings.environment.as_str().to_owned(), "environment"),
        ("partitions", settings.partitions.to_string(), "number of partitions"),
    ]
}

/// Refuses a store that was made for something else; changes nothing.
pub(super) async fn belongs(connection: &mut PgConnection, settings: &Settings) -> Result<(), StoreError> {
    for (name, value, what) in wanted(settings) {
        let made: Option<String> = sqlx::query_scalar("select value from system where name = $1")
            .bind(name)
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed("system.read"))?;
        if let Some(made) = made.filter(|made| *made != value) {
            let reason = format!(
                "this store was made with {what} `{made}`, and this program runs with `{value}`; correct the \
                 configuration, or use another database"
            );
            return Err(StoreError::Unfit { reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z17_a_server_that_may_lose_a_commit_is_refused() {
        let on = || "on".to_owned();
        let good = Server {
            version: 150_018,
            fsync: on(),
            full_page_writes: on(),
            synchronous_commit: on(),
            isolation: "read committed".into(),
            encoding: "UTF8".into(),
            in_recovery: false,
        };
        assert_eq!(good.unfit(), None);
        let bad = [
            Server { fsync: "off".into(), ..good.clone() },
            Server { full_page_writes: "off".into(), ..good.clone() },
            Server { synchronous_commit: "off".into(), ..good.clone() },
            Server { isolation: "serializable".into(), ..good.clone() },
            Server { encoding: "SQL_ASCII".into(), ..good.clone() },
            Server { version: 130_000, ..good.clone() },
            Server { in_recovery: true, ..good },
        ];
        for server in bad {
            assert!(server.unfit().is_some(), "{server:?}");
        }
    }
}
