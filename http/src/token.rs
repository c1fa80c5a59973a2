//! Bearer tokens: `es_ID_SECRET`. The id finds the row, the secret is 256 random bits of which only the SHA-256 is kept
//! (a slow hash guards guessable passwords; these cannot be guessed). A lost token is revoked, never shown again.

use crate::scope::Scopes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use endstate_outbox::{Commit, CommitError, Kind, Rows, Statement, Store, StoreError, Value, Write};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use subtle::ConstantTimeEq;

/// Marks a token as ours, so that secret scanners can find it.
const PREFIX: &str = "es_";

/// Longest life of a token: one year.
pub const MAX_LIFE_MS: i64 = 366 * 24 * 3600 * 1000;

static INSERT: Statement = Statement {
    name: "api.insert_token",
    columns: &[Kind::Text, Kind::Text, Kind::Text, Kind::Text, Kind::Int, Kind::Int],
    sql: "with r(id, secret_sha256, subject, scopes, created_ms, expires_ms) as ({rows}) \
          insert into api_token (id, secret_sha256, subject, scopes, created_ms, expires_ms) \
          select id, secret_sha256, subject, scopes, created_ms, expires_ms from r where true",
};

static REVOKE: Statement = Statement {
    name: "api.revoke_token",
    columns: &[Kind::Text, Kind::Int],
    sql: "with r(id, now_ms) as ({rows}) update api_token set revoked_ms = r.now_ms from r \
          where api_token.id = r.id and api_token.revoked_ms is null",
};

static LIST: Statement = Statement {
    name: "api.list_tokens",
    columns: &[Kind::Int],
    sql: "with r(one) as ({rows}) select t.id, t.secret_sha256, t.subject, t.scopes, t.created_ms, t.expires_ms, \
          t.revoked_ms from api_token t, r order by t.created_ms, t.id",
};

/// All of them, see [`endstate_outbox::statement`].
pub(crate) static STATEMENTS: &[&Statement] = &[&INSERT, &REVOKE, &LIST];

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Public part.
    pub id: String,
    /// Whose it is; for customers, the owner of their orders.
    pub subject: String,
    /// What it allows.
    pub scopes: Scopes,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub expires_ms: i64,
    /// Milliseconds since 1970, if it was revoked.
    pub revoked_ms: Option<i64>,
    secret_sha256: String,
}

/// A token just made.
#[derive(Debug)]
pub struct NewToken {
    /// What is kept.
    pub token: Token,
    /// What the bearer sends; shown this once.
    pub secret: String,
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its fields are wrong.
    #[error("{0}")]
    Refused(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not take it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What a presented token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such token, or another secret.
    Unknown,
    /// Its time is over.
    Expired,
    /// Somebody revoked it.
    Revoked,
}

/// All tokens: in the store, and in memory for checking each call without a query.
pub struct Tokens {
    store: Arc<dyn Store>,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<String, Token>,
    /// Counts what was made and revoked here.
    changes: u64,
}

impl Known {
    /// Takes what was read after so many changes; false when there was another one meanwhile, which it may lack.
    fn replace(&mut self, changes: u64, tokens: HashMap<String, Token>) -> bool {
        let is_newest = self.changes == changes;
        if is_newest {
            self.tokens = tokens;
        }
        is_newest
    }

    fn made(&mut self, token: Token) {
        self.changes += 1;
        self.tokens.insert(token.id.clone(), token);
    }

    fn revoked(&mut self, id: &str, now_ms: i64) {
        self.changes += 1;
        if let Some(token) = self.tokens.get_mut(id) {
            token.revoked_ms.get_or_insert(now_ms);
        }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the tokens of a store.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let tokens = Self { store, known: RwLock::default() };
        tokens.reload().await?;
        Ok(tokens)
    }

    /// Reads them again, for changes made by another process.
    pub async fn reload(&self) -> Result<(), StoreError> {
        loop {
            let changes = self.known().changes;
            let rows = self.store.read(&LIST, Rows::one([1.into()])).await?;
            let tokens = rows.iter().filter_map(|row| read(row)).map(|token| (token.id.clone(), token)).collect();
            if self.known_mut().replace(changes, tokens) {
                return Ok(());
            }
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// True while no token was ever made: then only this machine may call, and may do everything. Expired and revoked
    /// tokens count, so that running out of tokens never opens the door.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known().tokens.is_empty()
    }

    /// All tokens, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Token> {
        let mut list: Vec<_> = self.known().tokens.values().cloned().collect();
        list.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        list
    }

    /// Makes a token that lives for `life_ms` from `now_ms`.
    pub async fn create(
        &self,
        subject: &str,
        scopes: Scopes,
        life_ms: i64,
        now_ms: i64,
    ) -> Result<NewToken, TokenError> {
        if subject.is_empty() || subject.chars().count() > 200 || subject.chars().any(char::is_control) {
            return Err(TokenError::Refused("subject: expected 1 to 200 visible characters".into()));
        }
        if scopes == Scopes::default() {
            return Err(TokenError::Refused("scopes: expected at least one".into()));
        }
        if !(1..=MAX_LIFE_MS).contains(&life_ms) {
            return Err(TokenError::Refused("a token lives for at most 366 days".into()));
        }
        let (id, secret) = (hex(&rand::random::<[u8; 8]>()), URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let token = Token {
            subject: subject.to_owned(),
            scopes,
            created_ms: now_ms,
            expires_ms: now_ms + life_ms,
            revoked_ms: None,
            secret_sha256: hex(&Sha256::digest(secret.as_bytes())),
            id,
        };
        let row = [
            token.id.as_str().into(),
            token.secret_sha256.as_str().into(),
            subject.into(),
            scopes.to_string().into(),
            token.created_ms.into(),
            token.expires_ms.into(),
        ];
        self.commit(Write::exact(&INSERT, Rows::one(row))).await?;
        self.known_mut().made(token.clone());
        Ok(NewToken { secret: format!("{PREFIX}{}_{secret}", token.id), token })
    }

    /// Revokes a token; false when there is none that could be.
    pub async fn revoke(&self, id: &str, now_ms: i64) -> Result<bool, TokenError> {
        let hit = self.commit(Write::any(&REVOKE, Rows::one([id.into(), now_ms.into()]))).await?;
        self.known_mut().revoked(id, now_ms);
        Ok(hit == 1)
    }

    async fn commit(&self, write: Write) -> Result<u64, CommitError> {
        let hits = self.store.commit(Commit { writes: vec![write], ..Commit::default() }).await?;
        Ok(hits.first().copied().unwrap_or_default())
    }

    /// Judges what a caller presents. The secret is compared in constant time.
    pub fn check(&self, presented: &str, now_ms: i64) -> Result<Token, Refusal> {
        let (id, secret) =
            presented.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(Refusal::Unknown)?;
        let known = self.known();
        let token = known.tokens.get(id).ok_or(Refusal::Unknown)?;
        let digest = hex(&Sha256::digest(secret.as_bytes()));
        if !bool::from(digest.as_bytes().ct_eq(token.secret_sha256.as_bytes())) {
            return Err(Refusal::Unknown);
        }
        if token.revoked_ms.is_some() {
            return Err(Refusal::Revoked);
        }
        if now_ms >= token.expires_ms {
            return Err(Refusal::Expired);
        }
        Ok(token.clone())
    }
}

fn read(row: &[Value]) -> Option<Token> {
    let [id, hash, subject, scopes, created, expires, revoked] = row else { return None };
    Some(Token {
        id: id.text()?.to_owned(),
        subject: subject.text()?.to_owned(),
        // A scope of a newer program is dropped: the token allows less, never more.
        scopes: scopes.text()?.split_whitespace().filter_map(crate::Scope::find).collect(),
        created_ms: created.int()?,
        expires_ms: expires.int()?,
        revoked_ms: revoked.int(),
        secret_sha256: hash.text()?.to_owned(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use endstate_outbox::{Assignment, Row, ShardId, SqliteStore};
    use std::pin::Pin;
    use std::sync::Mutex;

    #[test]
    fn what_was_read_before_a_token_was_revoked_or_made_does_not_take_that_back() {
        let token = |id: &str| Token {
            id: id.to_owned(),
            subject: "ops".to_owned(),
            scopes: Scopes::all(),
            created_ms: 0,
            expires_ms: 1_000,
            revoked_ms: None,
            secret_sha256: String::new(),
        };
        let read = |known: &Known| (known.changes, known.tokens.clone());
        let mut known = Known::default();
        let (before, nothing) = read(&known);
        known.made(token("a"));
        assert!(!known.replace(before, nothing) && known.tokens.contains_key("a"));
        let (before, valid) = read(&known);
        known.revoked("a", 7);
        assert!(!known.replace(before, valid));
        assert_eq!(known.tokens["a"].revoked_ms, Some(7));
        // One that another process made, and nobody here has read yet.
        let (before, without) = read(&known);
        known.revoked("b", 8);
        assert!(!known.replace(before, without));
        assert!(known.replace(known.changes, [("b".to_owned(), token("b"))].into()), "what was read last holds");
    }

    type Happening = Pin<Box<dyn Future<Output = ()> + Send>>;

    /// A store on which something happens between a reading and its answer.
    struct Meanwhile {
        inner: Arc<SqliteStore>,
        happens: Mutex<Option<Happening>>,
    }

    #[async_trait]
    impl Store for Meanwhile {
        async fn read(&self, statement: &'static Statement, rows: Rows) -> Result<Vec<Row>, StoreError> {
            let found = self.inner.read(statement, rows).await;
            let happens = self.happens.lock().unwrap().take();
            if let Some(happens) = happens {
                happens.await;
            }
            found
        }

        async fn assign(&self, shard: ShardId) -> Result<Assignment, StoreError> {
            self.inner.assign(shard).await
        }

        async fn commit(&self, commit: Commit) -> Result<Vec<u64>, CommitError> {
            self.inner.commit(commit).await
        }

        fn partitions(&self) -> u16 {
            self.inner.partitions()
        }
    }

    #[tokio::test]
    async fn a_token_that_is_made_or_revoked_while_tokens_are_read_again_is_so_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let inner = SqliteStore::open(folder.path()).await.unwrap();
        let store = Arc::new(Meanwhile { inner, happens: Mutex::default() });
        let tokens = Arc::new(Tokens::load(store.clone()).await.unwrap());
        let old = tokens.create("ops", Scopes::all(), 1_000, 0).await.unwrap();
        let made = Arc::new(Mutex::new(None));
        let (here, id, slot) = (Arc::clone(&tokens), old.token.id.clone(), Arc::clone(&made));
        *store.happens.lock().unwrap() = Some(Box::pin(async move {
            assert!(here.revoke(&id, 7).await.unwrap());
            *slot.lock().unwrap() = Some(here.create("dev", Scopes::all(), 1_000, 7).await.unwrap());
        }));
        tokens.reload().await.unwrap();
        let made = made.lock().unwrap().take().expect("it happened");
        assert!(tokens.check(&old.secret, 8).is_err(), "revoked");
        assert_eq!(tokens.check(&made.secret, 8).unwrap().subject, "dev");
    }
}
