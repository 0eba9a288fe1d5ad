//! Times whole builds against Debian's buildah and the BuildKit inside docker.io, in one run.
//!
//! `cargo bench --bench peers [-- CASE …]` as root; the peers come from Debian packages
//! (`buildah`, `docker.io`). The cases are those of docs/performance.md. Each line gives the
//! median of the runs in milliseconds, and each peer's time divided by cooper's. Everything lies
//! in `BENCH_DIR` (/var/tmp/cooper-bench), to which the results are also appended.
//!
//! A cold run of cooper begins with a new store, which holds the base image as a blob; the peers
//! keep the base image unpacked and are told not to use their cache. Old stores stay until the
//! end: ext4 looks long for a place after a great many files were removed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its table"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads its environment and the clock"
)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a program, not a library")]

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod support;

use support::{LoopbackRegistry, Random, big_layer, run};

/// Runs of each case that count.
const RUNS: usize = 3;

/// What one build of a case writes.
#[derive(Clone, Copy, PartialEq)]
enum Output {
    /// The tool's own image store.
    Store,
    /// A tar of an OCI layout with gzip layers (docker's archive where a tool has no such).
    Archive,
    /// An empty registry on loopback.
    Registry,
    /// The same with zstd layers (docker's archive where a tool has no such).
    Zstd,
    /// The store of docker, which builds into it.
    Engine,
}

/// One kind of work.
struct Case {
    name: &'static str,
    output: Output,
    /// Whether the cache is emptied before each run.
    cold: bool,
    /// Makes the context once.
    prepare: fn(&Path),
    /// Changes the context before each run.
    change: fn(&Path, usize),
}

const CASES: &[Case] = &[
    Case {
        name: "noop",
        output: Output::Store,
        cold: false,
        prepare: noop,
        change: |_, _| (),
    },
    Case {
        name: "edit",
        output: Output::Store,
        cold: false,
        prepare: edit,
        change: edit_one,
    },
    Case {
        name: "steps",
        output: Output::Store,
        cold: true,
        prepare: steps,
        change: |_, _| (),
    },
    Case {
        name: "parallel",
        output: Output::Store,
        cold: true,
        prepare: parallel,
        change: |_, _| (),
    },
    Case {
        name: "biglayer",
        output: Output::Archive,
        cold: true,
        prepare: big_layer,
        change: |_, _| (),
    },
    Case {
        name: "biglayer_zstd",
        output: Output::Zstd,
        cold: true,
        prepare: big_layer,
        change: |_, _| (),
    },
    Case {
        name: "load",
        output: Output::Engine,
        cold: false,
        prepare: gigabyte,
        change: |_, _| (),
    },
    Case {
        name: "load_changed",
        output: Output::Engine,
        cold: false,
        prepare: gigabyte,
        change: edit_megabyte,
    },
    Case {
        name: "smallfiles",
        output: Output::Archive,
        cold: true,
        prepare: small_files,
        change: |_, _| (),
    },
    Case {
        name: "push",
        output: Output::Registry,
        cold: true,
        prepare: big_layer,
        change: |_, _| (),
    },
    Case {
        name: "pull",
        output: Output::Store,
        cold: true,
        prepare: from_registry,
        change: |_, _| (),
    },
];

/// Where the registry of the cases that need one listens.
const REGISTRY: &str = "127.0.0.1:5947";
/// The image of eight layers that `pull` starts from.
const PULLED: &str = "127.0.0.1:5947/bench/pulled:1";

/// A builder on this machine with a store of its own.
trait Tool {
    fn name(&self) -> &'static str;
    fn build(&self, context: &Path, output: Output, no_cache: bool);
    fn reset(&self);
    /// Takes an image out of the tool's store.
    fn forget(&self, image: &str);
}

struct Cooper {
    stores: PathBuf,
    /// Number of the store in use.
    current: Cell<u32>,
    base: PathBuf,
    out: PathBuf,
    /// Where docker listens.
    docker_host: String,
}

impl Cooper {
    fn call(&self, args: &[&str]) {
        run(Command::new(env!("CARGO_BIN_EXE_cooper"))
            .env("DOCKER_HOST", &self.docker_host)
            .arg("--root")
            .arg(self.stores.join(self.current.get().to_string()))
            .args(args));
    }
}

impl Tool for Cooper {
    fn name(&self) -> &'static str {
        "cooper"
    }

    fn build(&self, context: &Path, output: Output, _no_cache: bool) {
        let context = context.to_str().unwrap();
        let archive = format!("type=oci,dest={}", self.out.display());
        match output {
            Output::Store => self.call(&["build", "-q", "-t", "bench", context]),
            Output::Archive => self.call(&["build", "-q", "-t", "bench", "-o", &archive, context]),
            Output::Registry => {
                let name = format!("{REGISTRY}/bench/cooper:1");
                self.call(&["build", "-q", "-t", &name, "--push", context]);
            }
            Output::Zstd => {
                let archive = format!("{archive},compression=zstd");
                self.call(&["build", "-q", "-t", "bench", "-o", &archive, context]);
            }
            Output::Engine => self.call(&["build", "-q", "-t", "bench", "--load=docker", context]),
        }
    }

    fn reset(&self) {
        self.current.set(self.current.get() + 1);
        self.call(&["load", "-q", "-i", self.base.to_str().unwrap()]);
    }

    /// A new store knows nothing anyway.
    fn forget(&self, _image: &str) {}
}

struct Buildah {
    dir: PathBuf,
    base: PathBuf,
    out: PathBuf,
    /// Where docker listens.
    docker_host: String,
}

impl Buildah {
    fn call(&self, args: &[&str]) {
        let (root, runroot) = (self.dir.join("root"), self.dir.join("run"));
        let mut command = Command::new("buildah");
        command
            .env("DOCKER_HOST", &self.docker_host)
            .arg("--root")
            .arg(root)
            .arg("--runroot")
            .arg(runroot);
        run(command.args(["--storage-driver", "overlay"]).args(args));
    }

    /// Hands the image to docker. Its own way there (`docker-daemon:`) breaks off with an image
    /// of a gigabyte.
    fn load(&self) {
        let archive = self.out.with_extension("docker.tar");
        let _ = fs::remove_file(&archive);
        let destination = format!("docker-archive:{}:bench:latest", archive.display());
        self.call(&["push", "-q", "bench", &destination]);
        let mut docker = Command::new("/usr/bin/docker");
        docker.env("DOCKER_HOST", &self.docker_host);
        run(docker.args(["load", "-q", "-i"]).arg(&archive));
    }

    fn call_quietly(&self, args: &[&str]) {
        let (root, runroot) = (self.dir.join("root"), self.dir.join("run"));
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(root)
            .arg("--runroot")
            .arg(runroot);
        // What is not there need not be forgotten.
        let _ = command
            .args(["--storage-driver", "overlay"])
            .args(args)
            .output();
    }
}

impl Tool for Buildah {
    fn name(&self) -> &'static str {
        "buildah"
    }

    /// Forgets all there is: layers of an image stay while others stand on them.
    fn forget(&self, _: &str) {
        self.call_quietly(&["rmi", "-a", "-f"]);
    }

    fn build(&self, context: &Path, output: Output, no_cache: bool) {
        // Without layers it would make one layer of all steps, which nobody else does.
        let cache = if no_cache { "--no-cache" } else { "--layers" };
        let context = context.to_str().unwrap();
        self.call(&[
            "build",
            "-q",
            "--layers",
            cache,
            "--jobs",
            "8",
            "--isolation",
            "oci",
            "--runtime",
            "runc",
            "--network",
            "host",
            "--tls-verify=false",
            "-t",
            "bench",
            context,
        ]);
        let archive = format!("oci-archive:{}", self.out.display());
        let zstd = ["--compression-format", "zstd"];
        let _ = fs::remove_file(&self.out);
        match output {
            Output::Store => {}
            Output::Registry => {
                let name = format!("docker://{REGISTRY}/bench/buildah:1");
                self.call(&["push", "-q", "--tls-verify=false", "bench", &name]);
            }
            Output::Archive => self.call(&["push", "-q", "bench", &archive]),
            Output::Zstd => {
                self.call(&[&["push", "-q"][..], &zstd, &["bench", &archive]].concat());
            }
            Output::Engine => self.load(),
        }
    }

    fn reset(&self) {
        let _ = Command::new("buildah")
            .arg("--root")
            .arg(self.dir.join("root"))
            .args(["--storage-driver", "overlay", "rmi", "-a", "-f"])
            .output();
        let base = format!("docker-archive:{}", self.base.display());
        self.call(&["pull", "-q", "--policy", "always", &base]);
    }
}

struct Docker {
    dir: PathBuf,
    daemon: Child,
    base: PathBuf,
    out: PathBuf,
}

impl Docker {
    fn start(dir: PathBuf, base: PathBuf, out: PathBuf) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let daemon = Command::new("dockerd")
            .args(["--bridge=none", "--iptables=false"])
            .arg(format!("--host=unix://{}/sock", dir.display()))
            .arg(format!("--data-root={}/data", dir.display()))
            .arg(format!("--exec-root={}/exec", dir.display()))
            .arg(format!("--pidfile={}/pid", dir.display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd (Debian package docker.io)");
        let docker = Self {
            dir,
            daemon,
            base,
            out,
        };
        let end = Instant::now() + Duration::from_secs(60);
        while !docker
            .command(&["version"])
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(Instant::now() < end, "dockerd does not answer");
            std::thread::sleep(Duration::from_millis(200));
        }
        docker
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_BUILDKIT", "1").arg("--host");
        command
            .arg(format!("unix://{}/sock", self.dir.display()))
            .args(args);
        command
    }
}

impl Tool for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn build(&self, context: &Path, output: Output, no_cache: bool) {
        let cache = format!("--no-cache={no_cache}");
        let context = context.to_str().unwrap();
        run(&mut self.command(&[
            "build",
            "-q",
            &cache,
            "--network=host",
            "-t",
            "bench",
            context,
        ]));
        if matches!(output, Output::Archive | Output::Zstd) {
            run(&mut self.command(&["save", "-o", self.out.to_str().unwrap(), "bench"]));
        }
        if output == Output::Registry {
            let name = format!("{REGISTRY}/bench/docker:1");
            run(&mut self.command(&["tag", "bench", &name]));
            run(&mut self.command(&["push", "-q", &name]));
        }
    }

    fn reset(&self) {
        run(&mut self.command(&["load", "-q", "-i", self.base.to_str().unwrap()]));
    }

    fn forget(&self, image: &str) {
        for args in [
            &["rmi", "-f", "bench"][..],
            &["rmi", "-f", image],
            &["builder", "prune", "-a", "-f"],
        ] {
            // What is not there need not be forgotten.
            let _ = self.command(args).output();
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.daemon.id().to_string())
            .status();
        let _ = self.daemon.wait();
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let dir = PathBuf::from(std::env::var("BENCH_DIR").unwrap_or("/var/tmp/cooper-bench".into()));
    fs::create_dir_all(&dir).unwrap();
    let base = base_archive(&dir);
    let out = dir.join("out.tar");
    let stores = dir.join("cooper");
    let _ = fs::remove_dir_all(&stores);
    fs::create_dir_all(&stores).unwrap();
    let docker_host = format!("unix://{}/sock", dir.join("docker").display());
    let cooper = Cooper {
        stores: stores.clone(),
        current: Cell::new(0),
        base: base.clone(),
        out: out.clone(),
        docker_host: docker_host.clone(),
    };
    let buildah = Buildah {
        dir: dir.join("buildah"),
        base: base.clone(),
        out: out.clone(),
        docker_host,
    };
    let docker = Docker::start(dir.join("docker"), base, out);
    let tools: [&dyn Tool; 3] = [&cooper, &buildah, &docker];
    for tool in tools {
        tool.reset();
    }
    let names = ["case", "cooper ms", "buildah ms", "docker ms", "x", "x"];
    show(&dir, names.map(str::to_owned));
    for case in CASES
        .iter()
        .filter(|c| wanted.is_empty() || wanted.iter().any(|w| w == c.name))
    {
        let context = dir.join("context").join(case.name);
        let _ = fs::remove_dir_all(&context);
        fs::create_dir_all(&context).unwrap();
        (case.prepare)(&context);
        let pulled = (case.name == "pull").then(|| {
            let registry = LoopbackRegistry::start(&dir, REGISTRY);
            push_pulled(&cooper, &dir);
            registry
        });
        let times = measure(case, &context, &tools, &dir);
        drop(pulled);
        let [ours, buildah, docker] = times;
        let numbers = [ours, buildah, docker, buildah / ours, docker / ours];
        let [a, b, c, d, e] = numbers.map(|number| format!("{number:.1}"));
        show(&dir, [case.name.to_owned(), a, b, c, d, e]);
    }
    drop(docker);
    let _ = fs::remove_dir_all(stores);
}

/// Prints a line of the table and keeps it.
fn show(dir: &Path, [case, ours, a, b, c, d]: [String; 6]) {
    let line = format!("{case:<12} {ours:>10} {a:>10} {b:>10} {c:>8} {d:>8}");
    println!("{line}");
    let mut results = OpenOptions::new();
    let results = results.create(true).append(true);
    let mut results = results.open(dir.join("results.txt")).unwrap();
    writeln!(results, "{line}").unwrap();
}

/// Runs a case with all tools in turn and returns the median of each in milliseconds.
fn measure(case: &Case, context: &Path, tools: &[&dyn Tool; 3], dir: &Path) -> [f64; 3] {
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..=RUNS {
        (case.change)(context, round);
        for (tool, times) in tools.iter().zip(&mut times) {
            if case.cold && tool.name() == "cooper" {
                tool.reset();
            }
            if case.name == "pull" {
                tool.forget(PULLED);
            }
            let registry = case.output == Output::Registry;
            let registry = registry.then(|| LoopbackRegistry::start(dir, REGISTRY));
            let start = Instant::now();
            tool.build(context, case.output, case.cold);
            let taken = start.elapsed().as_secs_f64() * 1000.0;
            drop(registry);
            // The first round fills caches and is not counted.
            if round > 0 {
                times.push(taken);
            }
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

/// Makes the base image out of Debian's busybox, once.
fn base_archive(dir: &Path) -> PathBuf {
    let archive = dir.join("base.tar");
    if !archive.exists() {
        let script = format!(
            "set -euo pipefail; . scripts/lib.sh; export COOPER_ROOT={dir}/base
             make_busybox_root {dir}/busybox; base_image {cooper} bench-base {dir}/busybox
             {cooper} save -o {archive} bench-base",
            dir = dir.display(),
            cooper = env!("CARGO_BIN_EXE_cooper"),
            archive = archive.display(),
        );
        run(Command::new("bash")
            .arg("-c")
            .arg(script)
            .current_dir(env!("CARGO_MANIFEST_DIR")));
    }
    archive
}

fn noop(context: &Path) {
    files(&context.join("src"), 5000);
    let mut dockerfile = String::new();
    for stage in 0..5 {
        writeln!(
            dockerfile,
            "FROM bench-base AS s{stage}\nCOPY src /src{stage}"
        )
        .unwrap();
        for step in 0..5 {
            writeln!(dockerfile, "RUN echo {stage} {step} > /out{stage}-{step}").unwrap();
        }
    }
    dockerfile.push_str("FROM bench-base\n");
    for stage in 0..5 {
        writeln!(dockerfile, "COPY --from=s{stage} /out{stage}-4 /").unwrap();
    }
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

fn edit(context: &Path) {
    files(&context.join("src"), 20_000);
    let dockerfile = "FROM bench-base\nCOPY src /src\nRUN ls /src | wc -l > /count\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

/// Writes what no run before wrote: the peers' caches outlive this program.
fn edit_one(context: &Path, round: usize) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let text = format!("edited in round {round} at {}\n", now.as_nanos());
    fs::write(context.join("src/d7/f7"), text).unwrap();
}

fn steps(context: &Path) {
    let mut dockerfile = String::from("FROM bench-base\n");
    for step in 0..40 {
        writeln!(dockerfile, "RUN echo {step}").unwrap();
    }
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

fn parallel(context: &Path) {
    let mut dockerfile = String::new();
    for stage in 0..8 {
        writeln!(
            dockerfile,
            "FROM bench-base AS s{stage}\nRUN sleep 1; echo {stage} > /o{stage}"
        )
        .unwrap();
    }
    dockerfile.push_str("FROM scratch\n");
    for stage in 0..8 {
        writeln!(dockerfile, "COPY --from=s{stage} /o{stage} /").unwrap();
    }
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

/// The first step of an image that is in a registry.
fn from_registry(context: &Path) {
    let dockerfile = format!("FROM {PULLED}\nRUN true\n");
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

/// Pushes the image of eight layers and 500 MB that `pull` starts from.
fn push_pulled(cooper: &Cooper, dir: &Path) {
    let context = dir.join("context/pulled");
    let _ = fs::remove_dir_all(&context);
    fs::create_dir_all(&context).unwrap();
    let mut random = Random(3);
    let mut dockerfile = String::from("FROM bench-base\n");
    for layer in 0..8 {
        let folder = context.join(format!("l{layer}"));
        fs::create_dir_all(&folder).unwrap();
        for number in 0..64 {
            // Half text and half random bytes, a megabyte in all.
            let mut bytes = Vec::with_capacity(1 << 20);
            while bytes.len() < 1 << 19 {
                bytes
                    .extend_from_slice(format!("{} of {layer}\n", random.next() % 9999).as_bytes());
            }
            bytes.extend((0..1 << 16).flat_map(|_| random.next().to_le_bytes()));
            fs::write(folder.join(format!("f{number}")), bytes).unwrap();
        }
        writeln!(dockerfile, "COPY l{layer} /l{layer}").unwrap();
    }
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    cooper.reset();
    cooper.call(&[
        "build",
        "-q",
        "-t",
        PULLED,
        "--push",
        context.to_str().unwrap(),
    ]);
}

/// Writes a gigabyte in one layer and a megabyte in another.
fn gigabyte(context: &Path) {
    fs::create_dir_all(context.join("data")).unwrap();
    let mut random = Random(3);
    for number in 0..16 {
        let bytes: Vec<u8> = (0..64 << 17)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        fs::write(context.join(format!("data/random{number}")), &bytes).unwrap();
    }
    let dockerfile = "FROM bench-base\nCOPY data /data\nCOPY small /small\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    edit_megabyte(context, 0);
}

/// Writes a megabyte that no run before wrote.
fn edit_megabyte(context: &Path, round: usize) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap();
    let mut random = Random(seed | 1);
    let words = (0..1 << 17).flat_map(|_| random.next().to_le_bytes());
    let mut bytes: Vec<u8> = words.collect();
    bytes.extend_from_slice(format!("{round}\n").as_bytes());
    fs::write(context.join("small"), &bytes).unwrap();
}

fn small_files(context: &Path) {
    let dockerfile = "FROM bench-base\nRUN for d in $(seq 300); do mkdir -p /t/$d; cd /t/$d; \
                      for f in $(seq 100); do echo $d $f > $f; done; done\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

/// Writes `count` small files in folders of a hundred.
fn files(dir: &Path, count: usize) {
    let mut random = Random(7);
    for number in 0..count {
        let folder = dir.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        let mut text = format!("file {number}\n");
        for _ in 0..random.next() % 60 {
            writeln!(text, "value {:x}", random.next()).unwrap();
        }
        fs::write(folder.join(format!("f{}", number % 100)), text).unwrap();
    }
}
