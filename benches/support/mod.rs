//! What benchmarks of whole builds share: numbers that repeat, programs that must succeed, what
//! a program used, a registry.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Makes numbers: a small generator of numbers (xorshift), the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Writes 390 MB: two thirds text, one third random.
pub(crate) fn big_layer(context: &Path) {
    fs::create_dir_all(context.join("data")).unwrap();
    let mut random = Random(1);
    for number in 0..13 {
        let mut text = Vec::with_capacity(20 << 20);
        while text.len() < 20 << 20 {
            let word = random.next();
            text.extend_from_slice(format!("line {} of file {number}: ", word % 5000).as_bytes());
            text.extend_from_slice(format!("{:x} and more words\n", word % 100_000).as_bytes());
        }
        fs::write(context.join(format!("data/text{number}")), &text).unwrap();
        let bytes: Vec<u8> = (0..10 << 17)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        fs::write(context.join(format!("data/random{number}")), &bytes).unwrap();
    }
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY data /data\n",
    )
    .unwrap();
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed:\n{text}");
}

/// What a program and those that it started used.
pub(crate) struct Used {
    /// Processor time in milliseconds, in steps of ten.
    pub(crate) cpu_ms: f64,
    /// Most memory that one of them had at once, in KiB.
    pub(crate) memory_kib: u64,
}

/// Runs a program to its end, which must be a good one, and says what it used. Needs GNU time
/// (Debian package `time`).
pub(crate) fn measured(program: &Command) -> Used {
    let mut command = Command::new("/usr/bin/time");
    command.args(["-q", "-f", "%M %U %S"]);
    command.arg(program.get_program()).args(program.get_args());
    let given = program
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)));
    command.envs(given);
    let output = command.stdin(Stdio::null()).output();
    let output = output.expect("/usr/bin/time (Debian package time)");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?} failed:\n{text}");
    let last = text.lines().last().unwrap_or_default();
    let numbers: Vec<f64> = last.split(' ').map(|n| n.parse().unwrap()).collect();
    Used {
        memory_kib: numbers[0] as u64,
        cpu_ms: (numbers[1] + numbers[2]) * 1000.0,
    }
}

/// Debian's docker-registry on loopback; it ends when dropped.
pub(crate) struct LoopbackRegistry {
    child: Child,
}

impl LoopbackRegistry {
    /// Starts one, with nothing in it, whose files are in a folder.
    pub(crate) fn start(dir: &Path, host: &str) -> Self {
        let data = dir.join("registry");
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(&data).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{host}\"}}\n",
            data.display()
        );
        let path = dir.join("registry.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package of that name)");
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(host).is_err() {
            assert!(Instant::now() < end, "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child }
    }
}

impl Drop for LoopbackRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns an address on loopback that nobody listens at.
pub(crate) fn free_host() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// Returns the time in the middle.
pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
