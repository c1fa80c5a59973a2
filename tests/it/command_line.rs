//! Help, exit codes, and what is said when something is wrong.

use crate::program::{program, ran, run};
use std::io::{Read as _, Write as _};

#[test]
fn help_shows_commands_examples_and_exit_codes() {
    let help = run(&["--help"]);
    assert_eq!(help.code, 0);
    for word in ["demo", "saga", "order", "token", "completions", "Exit codes:", "3  the server cannot be reached"] {
        assert!(help.out.contains(word), "{word} is missing in\n{}", help.out);
    }
    let force = run(&["saga", "force", "--help"]);
    assert!(force.out.contains("Example:") && force.out.contains("--end cancelled"), "{}", force.out);
}

#[test]
fn a_wrong_command_line_ends_with_2_and_suggests() {
    let wrong = run(&["ordr", "get", "1"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("order"), "{}", wrong.err);
    assert!(wrong.out.is_empty());
    assert_eq!(run(&["saga", "force", "d", "1", "--end", "maybe", "--reason", "x"]).code, 2);
    assert_eq!(run(&["order", "cancel", "1"]).code, 2, "a cancel needs a reason");
}

#[test]
fn no_server_ends_with_3_and_says_how_to_start_one() {
    // Port 1 is nobody's.
    let alone = run(&["order", "get", "FS1", "--server", "http://127.0.0.1:1"]);
    assert_eq!((alone.code, alone.out.as_str()), (3, ""));
    assert!(alone.err.contains("endstate dev"), "{}", alone.err);
    let nonsense = run(&["books", "--server", "nowhere"]);
    assert_eq!(nonsense.code, 2);
    assert!(nonsense.err.contains("is no address"), "{}", nonsense.err);
}

#[test]
fn a_benchmark_that_cannot_begin_says_why_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let failed = run(&["bench", "saga", "--data", file.to_str().unwrap()]);
    assert!(failed.code > 0 && failed.out.is_empty());
    let said = failed.err;
    assert!(said.contains("cannot make the folder") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_start_that_is_not_decided_yet_says_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    // What a server says whose shard does not get round to it within five seconds.
    let answering = std::thread::spawn(move || {
        let (mut caller, _) = listener.accept().unwrap();
        let mut call = Vec::new();
        while !call.ends_with(b"{}") {
            let mut piece = [0; 4_096];
            let read = caller.read(&mut piece).unwrap();
            call.extend_from_slice(&piece[..read]);
        }
        let body = r#"{"definition":"bench_saga","number":"B-1"}"#;
        let head = "HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\nconnection: close";
        write!(caller, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.json");
    std::fs::write(&input, "{}").unwrap();
    let started = run(&["saga", "start", "bench_saga", "--input", input.to_str().unwrap(), "--server", &server]);
    answering.join().unwrap();
    assert_eq!(started.code, 0, "{}", started.err);
    assert!(
        started.err.contains("not decided yet") && started.err.contains("saga get bench_saga B-1"),
        "{}",
        started.err
    );
}

#[test]
fn configuration_is_shown_without_its_secrets() {
    let shown = ran(program(&["config", "show"]).env("ENDSTATE_PAYMENT_SECRET", "hunter2").output().unwrap());
    assert_eq!(shown.code, 0);
    assert!(shown.out.contains("(redacted)") && !shown.out.contains("hunter2"), "{}", shown.out);
    let unknown = ran(program(&["config", "show"]).env("ENDSTATE_HTTP_PORT", "1").output().unwrap());
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("ENDSTATE_HTTP_PORT"), "{}", unknown.err);
    let default = run(&["config", "default"]);
    assert!(default.out.contains("# ENDSTATE_HTTP_LISTEN"));
}

#[test]
fn a_bad_sale_file_ends_with_2_and_names_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sale.ndjson");
    std::fs::write(
        &file,
        "{\"sale\":{\"version\":1,\"name\":\"s\",\"currency\":\"CNY\"}}\n{\"goods\":{\"sku\":\"A\"}}\n",
    )
    .unwrap();
    let bad = run(&["demo", "--sale", file.to_str().unwrap()]);
    assert_eq!((bad.code, bad.out.as_str()), (2, ""));
    assert!(bad.err.contains(":2:20: error[E2901]: missing field `name`"), "{}", bad.err);
    let missing = run(&["demo", "--sale", "nowhere.ndjson"]);
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("cannot read the sale file"), "{}", missing.err);
}

#[test]
fn a_seed_makes_the_same_sale_every_time() {
    let sales =
        [run(&["demo", "--generate", "3"]), run(&["demo", "--generate", "3"]), run(&["demo", "--generate", "4"])];
    assert!(sales.iter().all(|sale| sale.code == 0 && sale.err.is_empty()));
    assert_eq!(sales[0].out, sales[1].out);
    assert_ne!(sales[0].out, sales[2].out);
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let made = run(&["completions", shell]);
        assert_eq!(made.code, 0, "{shell}");
        assert!(made.out.contains("endstate"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = program(&["demo", "--generate", "1"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn chaos_stops_no_server_that_may_be_somebody_elses() {
    let servers = ["--postgres", "postgres://u:p@127.0.0.1:1/any", "--kafka", "127.0.0.1:1"];
    for case in ["database", "broker", "standby"] {
        let refused = run(&[&["chaos", "--case", case], &servers[..]].concat());
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{}", refused.err);
        assert!(refused.err.contains("scripts/services run"), "{}", refused.err);
    }
    let nameless = run(&["chaos", "--postgres", "127.0.0.1", "--kafka", "127.0.0.1:1"]);
    assert_eq!(nameless.code, 2);
    assert!(nameless.err.contains("postgres://"), "{}", nameless.err);
}
