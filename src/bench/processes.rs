//! The CPU time and memory of services on this machine, with all their processes, found by the port they listen on.

use std::fs;
use std::path::Path;

/// Ticks per second of the times in `/proc/PID/stat`: what Linux shows programs, whatever it counts with.
const TICK_MS: f64 = 10.0;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A service: the process that listens, and its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pid: u32,
}

/// Some fields of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    own_ms: f64,
    /// Of children that have ended.
    ended_ms: f64,
}

impl Service {
    /// Who listens on a port of this machine; none when that is somebody whose files we may not see.
    pub(crate) fn listening(port: u16) -> Option<Self> {
        let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .flat_map(|table| listeners(&fs::read_to_string(table).unwrap_or_default(), port))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        let holds = |pid: &u32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
            links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
        };
        let holders: Vec<u32> = pids().filter(holds).collect();
        // A child may have inherited the socket.
        let first = |pid: &&u32| stat(**pid).is_some_and(|stat| !holders.contains(&stat.parent));
        holders.iter().find(first).map(|pid| Self { pid: *pid })
    }

    /// CPU time of the process and of all its children, those that have ended included, milliseconds.
    pub(crate) fn cpu_ms(&self) -> f64 {
        let Some(own) = stat(self.pid) else { return 0.0 };
        // Children are single threads: the kernel's account in nanoseconds is theirs.
        let children = self.children().map(|pid| run_ms(Path::new(&format!("/proc/{pid}"))));
        own.own_ms + own.ended_ms + children.sum::<f64>()
    }

    /// Memory of its own, of all its processes, what they share left out, MB.
    pub(crate) fn resident_mb(&self) -> f64 {
        (anonymous_kb(self.pid) + self.children().map(anonymous_kb).sum::<f64>()) / 1024.0
    }

    fn children(&self) -> impl Iterator<Item = u32> {
        pids().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == self.pid))
    }
}

/// Memory of this process, MB.
pub(crate) fn own_resident_mb() -> f64 {
    anonymous_kb(std::process::id()) / 1024.0
}

fn anonymous_kb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

/// A thread's time on a core; `schedstat` counts nanoseconds where `stat` only knows ticks.
pub(crate) fn run_ms(task: &Path) -> f64 {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_ms: (ticks(11)? + ticks(12)?) * TICK_MS,
        ended_ms: (ticks(13)? + ticks(14)?) * TICK_MS,
    })
}

/// Inodes of the sockets that listen on a port, from a table of the kernel.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == LISTENING;
        listens.then(|| (*fields.get(9).unwrap_or(&"")).to_owned())
    };
    table.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn who_listens_is_found_with_what_it_and_its_children_used() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let service = Service::listening(port).unwrap();
        assert_eq!(service.pid, std::process::id());
        let before = service.cpu_ms();
        let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; read line";
        let mut child =
            Command::new("sh").args(["-c", busy]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let while_it_lives = service.cpu_ms();
        assert!(while_it_lives > before, "{while_it_lives} after {before}");
        drop(child.stdin.take());
        child.wait().unwrap();
        let once_it_has_ended = service.cpu_ms();
        // Of what has ended, the kernel tells ticks only.
        assert!(once_it_has_ended > while_it_lives - 2.0 * TICK_MS, "{once_it_has_ended} after {while_it_lives}");
        assert!(service.resident_mb() > 0.0 && own_resident_mb() > 0.0);
        drop(socket);
        assert_eq!(Service::listening(port), None);
    }

    #[test]
    fn only_sockets_that_listen_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4711 1 0 100 0 0 10 0\n\
               1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000  0 0 4712 1 0 100 0 0 10 0\n";
        assert_eq!(listeners(table, 8080), ["4711"]);
        assert!(listeners(table, 80).is_empty());
    }
}
