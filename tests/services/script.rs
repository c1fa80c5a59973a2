//! The script that starts the services.

use std::process::Command;

#[test]
fn data_of_a_postgresql_that_is_not_installed_is_told_of_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("marker"), "").unwrap();
    std::fs::create_dir(folder.path().join("postgres")).unwrap();
    std::fs::write(folder.path().join("postgres/PG_VERSION"), "9\n").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
    let arguments = ["start", "--only", "postgres", "--data", folder.path().to_str().unwrap()];
    let output = Command::new(script).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && !folder.path().join("postgres.log").exists(), "{said}");
    assert!(said.contains("made by PostgreSQL 9, and installed is 1"), "{said}");
}
