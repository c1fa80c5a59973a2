//! Migrations: numbered texts of a store, each applied once and in order. How they are applied and recorded is the store's.

/// One numbered migration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// File name without its ending.
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

/// The texts of these names, in a folder of `migrations/`.
macro_rules! migrations {
    ($folder:literal: $($name:literal)*) => {
        &[$($crate::migration::Migration {
            name: $name,
            sql: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations/", $folder, "/", $name, ".sql")),
        }),*]
    };
}
pub(crate) use migrations;

/// Those that are not among the applied ones, which are given as name and mark.
pub(crate) fn missing<'a>(all: &'a [Migration], applied: &[(String, String)]) -> Vec<&'a Migration> {
    all.iter().filter(|migration| applied.iter().all(|(name, _)| name != migration.name)).collect()
}
