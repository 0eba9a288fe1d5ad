//! Times remote caches against Debian's buildah, with Debian's `docker-registry` on loopback.
//!
//! `cargo bench --bench caches [-- CASE …]` as root. The cases are those of docs/performance.md:
//!
//! | case | the work |
//! |---|---|
//! | `cache_export` | COPY of 390 MB into an empty store, cache to the registry |
//! | `cache_import` | 20,000 files, all cached remotely, empty store, OCI tar |
//! | `cache_step` | 200 steps cached remotely, one more: time beyond the same build without an export |
//! | `agent_b` | an empty machine builds with one file changed, cache and image in the registry; beside it the machine that has everything else |
//! | `cache_100_stages` … | a build of 100, 500, 2,000 stages that finds everything: processor time of an export to a cache that knows it, and to an empty one, beyond that of the build without |
//!
//! Each line gives medians in milliseconds, and buildah's time divided by cooper's (`-` where
//! buildah is not measured). Everything lies in `BENCH_DIR` (/var/tmp/cooper-bench-caches).

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads its environment and the clock"
)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a program, not a library")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

mod support;

use support::{LoopbackRegistry, Random, Used, big_layer, free_host, measured, median, run};

/// Runs that count.
const RUNS: usize = 3;

struct Bench {
    dir: PathBuf,
    host: String,
    registry: Option<LoopbackRegistry>,
    stores: usize,
}

impl Bench {
    fn start() -> Self {
        let dir = std::env::var("BENCH_DIR").unwrap_or("/var/tmp/cooper-bench-caches".into());
        let dir = PathBuf::from(dir);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let host = free_host();
        let registry = LoopbackRegistry::start(&dir, &host);
        Self {
            dir,
            host,
            registry: Some(registry),
            stores: 0,
        }
    }

    /// Makes a context once.
    fn context(&self, name: &str, prepare: fn(&Path)) -> PathBuf {
        let context = self.dir.join("context").join(name);
        fs::create_dir_all(&context).unwrap();
        prepare(&context);
        context
    }

    /// Uses a new store from now on.
    fn new_store(&mut self) {
        self.stores += 1;
    }

    /// Builds with cooper; returns the milliseconds.
    fn cooper(&self, context: &Path, more: &[String]) -> f64 {
        let begun = Instant::now();
        run(Command::new(env!("CARGO_BIN_EXE_cooper"))
            .arg("--root")
            .arg(self.dir.join(format!("store{}", self.stores)))
            .args(["build", "-q"])
            .arg(context)
            .args(more));
        begun.elapsed().as_secs_f64() * 1000.0
    }

    /// Builds with cooper; returns what it used.
    fn cooper_used(&self, context: &Path, more: &[String]) -> Used {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cooper"));
        let store = self.dir.join(format!("store{}", self.stores));
        command.arg("--root").arg(store).args(["build", "-q"]);
        measured(command.arg(context).args(more))
    }

    /// Builds with buildah and an empty store; returns the milliseconds.
    fn buildah(&mut self, context: &Path, more: &[String]) -> f64 {
        self.new_store();
        let root = self.dir.join(format!("buildah{}", self.stores));
        let begun = Instant::now();
        run(Command::new("buildah")
            .arg("--root")
            .arg(root.join("root"))
            .arg("--runroot")
            .arg(root.join("run"))
            .args(["--storage-driver", "overlay", "build", "-q", "--layers"])
            .args(["--tls-verify=false"])
            .args(more)
            .arg(context));
        begun.elapsed().as_secs_f64() * 1000.0
    }

    fn cache(&self, name: &str) -> String {
        format!("type=registry,ref={}/{name}:cache", self.host)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.registry.take());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Name and work of a case.
type Case = (&'static str, fn(&mut Bench));

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let cases: [Case; 7] = [
        ("cache_export", cache_export),
        ("cache_import", cache_import),
        ("cache_step", cache_step),
        ("agent_b", agent_b),
        ("cache_100_stages", |bench| cache_stages(bench, 100)),
        ("cache_500_stages", |bench| cache_stages(bench, 500)),
        ("cache_2000_stages", |bench| cache_stages(bench, 2000)),
    ];
    for (name, case) in cases {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            case(&mut Bench::start());
        }
    }
}

fn cache_export(bench: &mut Bench) {
    let context = bench.context("export", big_layer);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..RUNS {
        bench.new_store();
        let to = format!("{},mode=max", bench.cache(&format!("ours{round}")));
        ours.push(bench.cooper(&context, &["--cache-to".to_owned(), to]));
        let to = format!("{}/theirs{round}", bench.host);
        theirs.push(bench.buildah(&context, &["--cache-to".to_owned(), to]));
    }
    show("cache_export", median(ours), Some(median(theirs)));
}

fn cache_import(bench: &mut Bench) {
    let context = bench.context("import", many_files);
    let cache = bench.cache("import");
    bench.new_store();
    bench.cooper(&context, &["--cache-to".to_owned(), cache.clone()]);
    let mut ours = Vec::new();
    for _ in 0..RUNS {
        bench.new_store();
        let out = format!("type=oci,dest={}", bench.dir.join("out.tar").display());
        let more = ["--cache-from", &cache, "-o", &out].map(str::to_owned);
        ours.push(bench.cooper(&context, &more));
    }
    show("cache_import", median(ours), None);
}

fn cache_step(bench: &mut Bench) {
    let context = bench.context("step", |context| steps(context, 0));
    let cache = format!("{},mode=max", bench.cache("step"));
    bench.new_store();
    bench.cooper(&context, &["--cache-to".to_owned(), cache.clone()]);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..RUNS {
        steps(&context, round * 2 + 1);
        without.push(bench.cooper(&context, &[]));
        steps(&context, round * 2 + 2);
        with.push(bench.cooper(&context, &["--cache-to".to_owned(), cache.clone()]));
    }
    show("cache_step", median(with) - median(without), None);
}

/// A change of one file on a machine that has nothing and on one that has everything else.
fn agent_b(bench: &mut Bench) {
    let context = bench.context("agent", agent_context);
    let cache = bench.cache("agent");
    let image = format!("{}/agent:main", bench.host);
    let more = ["--cache-from", &cache, "--push", "-t", &image, "--cache-to"].map(str::to_owned);
    let more = [&more[..], &[format!("{cache},mode=max")]].concat();
    bench.new_store();
    bench.cooper(&context, &more);
    let warm = bench.stores;
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for round in 0..RUNS {
        // Each of them is the first to have its change.
        fs::write(context.join("source"), format!("warm {round}\n")).unwrap();
        let stores = std::mem::replace(&mut bench.stores, warm);
        old.push(bench.cooper(&context, &more));
        bench.stores = stores;
        bench.new_store();
        fs::write(context.join("source"), format!("empty {round}\n")).unwrap();
        new.push(bench.cooper(&context, &more));
    }
    let (new, old) = (median(new), median(old));
    let ratio = new / old;
    println!("agent_b        empty  {new:>10.1} ms   warm    {old:>10.1} ms   {ratio:>6.2}");
}

/// Processor time of exports of a graph that is found as a whole.
fn cache_stages(bench: &mut Bench, count: usize) {
    let context = bench.context("stages", |_| ());
    stages(&context, count);
    let known = format!("{},mode=max", bench.cache("known"));
    bench.new_store();
    let export = |cache: &str| ["--cache-to".to_owned(), cache.to_owned()];
    bench.cooper(&context, &export(&known));
    let (mut without, mut again, mut anew) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..RUNS {
        without.push(bench.cooper_used(&context, &[]).cpu_ms);
        again.push(bench.cooper_used(&context, &export(&known)).cpu_ms);
        let empty = format!("{},mode=max", bench.cache(&format!("empty{round}")));
        anew.push(bench.cooper_used(&context, &export(&empty)).cpu_ms);
    }
    let (without, again, anew) = (median(without), median(again), median(anew));
    println!(
        "stages {count:>7}  build {without:>8.0} ms   known export {:>8.0} ms   new export {:>8.0} ms (processor)",
        again - without,
        anew - without
    );
}

fn show(case: &str, ours: f64, theirs: Option<f64>) {
    match theirs {
        Some(theirs) => {
            let ratio = theirs / ours;
            println!(
                "{case:<14} cooper {ours:>10.1} ms   buildah {theirs:>10.1} ms   {ratio:>6.1}"
            );
        }
        None => println!("{case:<14} cooper {ours:>10.1} ms   buildah          -"),
    }
}

/// Writes 20,000 small files in folders of a hundred.
fn many_files(context: &Path) {
    let mut random = Random(7);
    for number in 0..20_000 {
        let folder = context.join(format!("data/d{}", number / 100));
        fs::create_dir_all(&folder).unwrap();
        let mut text = format!("file {number}\n");
        for _ in 0..random.next() % 60 {
            writeln!(text, "value {:x}", random.next()).unwrap();
        }
        fs::write(folder.join(format!("f{}", number % 100)), text).unwrap();
    }
    let dockerfile = "FROM scratch\nCOPY data /data\nCOPY data/d1 /more\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

/// Writes a Dockerfile of 200 steps; the last one is new in every round.
fn steps(context: &Path, round: usize) {
    let mut text = "FROM scratch\n".to_owned();
    for number in 0..199 {
        fs::write(context.join(format!("f{number}")), number.to_string()).unwrap();
        writeln!(text, "COPY f{number} /f{number}").unwrap();
    }
    fs::write(context.join("last"), round.to_string()).unwrap();
    text.push_str("COPY last /last\n");
    fs::write(context.join("Dockerfile"), text).unwrap();
}

/// Writes a project as a CI builds it: tools that hardly change, a long step on them, a source
/// file, and a step that takes a while over both.
fn agent_context(context: &Path) {
    fs::create_dir_all(context.join("bin")).unwrap();
    fs::copy("/bin/busybox", context.join("bin/busybox")).expect("busybox (static)");
    let mut random = Random(3);
    let words: Vec<u8> = (0..3 << 20)
        .flat_map(|_| format!("{:x} ", random.next() >> 20).into_bytes())
        .collect();
    fs::write(context.join("tools"), &words).unwrap();
    fs::write(context.join("source"), "first\n").unwrap();
    let dockerfile = r#"FROM scratch
COPY bin /bin
SHELL ["/bin/busybox", "sh", "-c"]
COPY tools /tools
RUN busybox tr 0-7 a-h < /tools > /dependencies
COPY source /source
RUN busybox cat /dependencies /source | busybox gzip > /out && busybox sha256sum /out > /sum
"#;
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
}

/// Writes a Dockerfile of so many stages, each of which needs two others.
fn stages(context: &Path, count: usize) {
    let mut text = String::new();
    for number in 0..count {
        fs::write(context.join(format!("f{number}")), number.to_string()).unwrap();
        writeln!(text, "FROM scratch AS s{number}\nCOPY f{number} /own").unwrap();
        if number > 0 {
            let (near, far) = (number - 1, number / 2);
            writeln!(
                text,
                "COPY --from=s{near} /own /near\nCOPY --from=s{far} /own /far"
            )
            .unwrap();
        }
    }
    fs::write(context.join("Dockerfile"), text).unwrap();
}
