//! The tutorial, walked: its commands are taken from its page and run in their order against the real program.
//!
//! On the page, a block `sh` is run in the terminal that its first line names; terminals 1 and 2 each hold a program that
//! stays. Every line of a block `text` must be in what the block before it printed. `<!-- stop terminal 1 -->` is a Ctrl-C.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// When a program that stays has not printed its line by then, it never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// One thing that the page tells its reader to do or to see.
#[derive(Debug, PartialEq)]
enum Step {
    Run { terminal: u8, commands: String },
    See(Vec<String>),
    Stop(u8),
}

/// The steps of the page, in its order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(terminal) = line.strip_prefix("<!-- stop terminal ") {
            steps.push(Step::Stop(terminal[..1].parse().unwrap()));
        } else if let Some(kind) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            match (kind, block[0].strip_prefix("# terminal ")) {
                ("sh", Some(terminal)) => {
                    steps.push(Step::Run { terminal: terminal.parse().unwrap(), commands: block[1..].join("\n") });
                }
                // Building is what cargo did for this test.
                ("sh", None) => assert!(block[0].starts_with("cargo build"), "which terminal? {block:?}"),
                ("text", _) => steps.push(Step::See(block.iter().map(|line| plain(line)).collect())),
                (other, _) => panic!("a block of kind {other}: {block:?}"),
            }
        }
    }
    steps
}

/// A line with single blanks: columns are as wide as what stands in them.
fn plain(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A reader with a folder, terminals, and ports that nobody else uses.
struct Reader {
    folder: tempfile::TempDir,
    /// What the page calls a port, and what it is here.
    ports: [(&'static str, String); 2],
    staying: BTreeMap<u8, Child>,
    printed: String,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let terminals: Vec<u8> = self.staying.keys().copied().collect();
        terminals.into_iter().for_each(|terminal| self.stop(terminal));
    }
}

impl Reader {
    fn new() -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let (folder, ports) = (tempfile::tempdir().unwrap(), [("7600", free()), ("7800", free())]);
        let reader = Self { folder, ports, staying: BTreeMap::new(), printed: String::new() };
        reader.copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial"), &reader.path("docs/tutorial"));
        reader
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn here(&self, text: &str) -> String {
        self.ports
            .iter()
            .fold(text.to_owned(), |text, (page, here)| text.replace(&format!(":{page}"), &format!(":{here}")))
    }

    fn copy(&self, from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
            match from.is_dir() {
                true => self.copy(&from, &to),
                false => fs::write(to, self.here(&fs::read_to_string(&from).unwrap())).unwrap(),
            }
        }
    }

    /// A shell in the folder, with the program on its path.
    fn shell(&self, commands: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_endstate")).parent().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-c", commands]).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ENDSTATE_")) {
            shell.env_remove(name);
        }
        let server = format!("127.0.0.1:{}", self.ports[0].1);
        shell.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").unwrap()));
        shell.env("ENDSTATE_HTTP_LISTEN", &server).env("ENDSTATE_SERVER", format!("http://{server}"));
        shell
    }

    fn run(&mut self, terminal: u8, commands: &str) {
        if terminal == 3 {
            let output = self.shell(&format!("set -eu -o pipefail\n{commands}")).output().unwrap();
            self.printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{commands}\n{}\n{said}", self.printed);
            return;
        }
        assert!(!self.staying.contains_key(&terminal), "terminal {terminal} is taken");
        let command = commands.replace(" 7800", &format!(" {}", self.ports[1].1));
        let log = File::create(self.path("terminal.log")).unwrap();
        let mut shell = self.shell(&format!("exec {command}"));
        let child = shell.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.staying.insert(terminal, child);
        let begun = Instant::now();
        self.printed.clear();
        // Half a line may be there already.
        while !self.printed.ends_with('\n') && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
            self.printed = fs::read_to_string(self.path("terminal.log")).unwrap();
        }
    }

    fn see(&self, lines: &[String]) {
        let printed: Vec<String> = self.printed.lines().map(plain).collect();
        for line in lines.iter().map(|line| self.here(line)) {
            assert!(printed.contains(&line), "`{line}` is not in\n{}", self.printed);
        }
    }

    fn stop(&mut self, terminal: u8) {
        if let Some(mut child) = self.staying.remove(&terminal) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[test]
fn the_tutorial_can_be_walked_word_by_word() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no python3 on this machine");
        return;
    }
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial.md")).unwrap();
    let steps = steps(&page);
    assert!(steps.len() > 15, "the page is read: {steps:#?}");
    let mut reader = Reader::new();
    for step in steps {
        match step {
            Step::Run { terminal, commands } => reader.run(terminal, &commands),
            Step::See(lines) => reader.see(&lines),
            Step::Stop(terminal) => reader.stop(terminal),
        }
    }
}
