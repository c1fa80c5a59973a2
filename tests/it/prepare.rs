//! `deploy/prepare.sh` on a program that dies in its middle: whatever a run has left, the next one goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Counts calls, ends at the one it is told to end at (with nothing, or with its work done and half of its answer), and
/// wants a token as soon as there is one.
const PROGRAM: &str = r#"#!/bin/sh
cd "$STATE"
case "$1" in
    serve) trap 'exit 0' TERM; while kill -0 "$PPID" 2>/dev/null; do sleep 0.05; done; exit 0 ;;
    migrate|check) exit 0 ;;
esac
count=$(($(cat count 2>/dev/null || echo 0) + 1)); echo "$count" >count
die() { kill -KILL "$PPID"; exit 137; }
[ "$DIE" = "$count-before" ] && die
if [ -s made ]; then
    [ -n "${ENDSTATE_TOKEN_FILE:-}" ] && grep -qx "$(cat "$ENDSTATE_TOKEN_FILE")" made || { echo "401" >&2; exit 1; }
fi
if [ "$2" = create ]; then echo "secret-$4" >>made; echo "secret-$4"; fi
[ "$DIE" = "$count-after" ] && die
exit 0
"#;

/// Runs it; whether it ended well. Nothing is read of it: a server that it left behind would keep the pipe open.
fn prepare(folder: &Path, die: &str) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prepare.sh");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.arg(script).env("PATH", path).env("STATE", folder).env("TOKENS", folder).env("DIE", die);
    command.env_remove("ENDSTATE_TOKEN_FILE").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

#[test]
fn a_preparation_that_was_cut_off_goes_on_when_it_is_run_again() {
    for die in ["1-before", "1-after", "2-before", "2-after"] {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("endstate");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!prepare(folder.path(), die), "{die}: it is cut off");
        for again in 1..=2 {
            assert!(prepare(folder.path(), ""), "{die}: run {again} after it");
        }
        for who in ["operator", "prometheus"] {
            let token = fs::read_to_string(folder.path().join(who)).unwrap();
            assert_eq!(token, format!("secret-{who}\n"), "{die}");
        }
    }
}
