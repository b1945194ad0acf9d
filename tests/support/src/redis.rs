//! A real Redis, of the system's `redis-server`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Kept, tail};

/// A running Redis on a loopback port, with a directory of its own and without persistence; dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    child: Kept,
    addr: SocketAddr,
    arguments: Vec<String>,
    dir: TempDir,
}

impl Redis {
    /// Runs `redis-server` from PATH, and waits until it answers.
    ///
    /// # Panics
    /// Where there is none.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same as a cluster of one node that has all slots.
    pub async fn cluster() -> Self {
        let redis = Self::start_with(&["--cluster-enabled", "yes"]).await;
        let owned = redis.says("CLUSTER ADDSLOTSRANGE 0 16383");
        assert_eq!(owned.as_deref(), Some("+OK"), "the node owns all slots");
        crate::eventually("the cluster to be whole", Duration::from_secs(10), async || {
            redis.says("GET nothing").filter(|answer| answer == "$-1")
        })
        .await;
        redis
    }

    async fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        // Somebody else may take the port before Redis does: then another one is tried.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
            let addr = free.expect("a free port");
            let child = Kept(run(addr, &arguments, &dir));
            let mut redis = Self { child, addr, arguments: arguments.clone(), dir };
            if redis.is_up().await {
                return redis;
            }
        }
        panic!("redis-server does not start: no port, or an option that it does not know");
    }

    /// Its address, as configurations have it.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    /// SIGSTOP: it accepts connections, and says nothing.
    pub fn pause(&mut self) {
        self.child.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.child.signal("CONT");
    }

    /// SIGKILL: its port is closed, and what it knew is forgotten.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Starts it anew on the port that it had.
    pub async fn restart(&mut self) {
        self.child = Kept(run(self.addr, &self.arguments, &self.dir));
        assert!(self.is_up().await, "{}", tail(&self.dir.path().join("log"), 20));
    }

    async fn is_up(&mut self) -> bool {
        crate::eventually("redis-server to answer", Duration::from_secs(15), async || {
            if self.child.exited().is_some() {
                return Some(false);
            }
            self.says("PING").filter(|answer| answer == "+PONG").map(|_| true)
        })
        .await
    }

    /// The first line that it answers.
    fn says(&self, command: &str) -> Option<String> {
        let wait = Duration::from_secs(1);
        let mut connection = TcpStream::connect_timeout(&self.addr, wait).ok()?;
        connection.set_read_timeout(Some(wait)).ok()?;
        connection.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = [0; 256];
        let length = connection.read(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        answer.lines().next().map(str::to_owned)
    }
}

fn run(addr: SocketAddr, arguments: &[String], dir: &TempDir) -> std::process::Child {
    let log = std::fs::File::create(dir.path().join("log")).expect("a file for the log");
    let mut command = Command::new("redis-server");
    command.args([
        "--bind",
        "127.0.0.1",
        "--port",
        &addr.port().to_string(),
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    command.arg("--dir").arg(dir.path()).args(arguments);
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    let child = command.spawn();
    child.unwrap_or_else(|error| {
        panic!("redis-server ({error}): install it, as `apt-get install redis-server` does")
    })
}
