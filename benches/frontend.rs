//! Times the reading of Dockerfiles, words, ignore files and build contexts.
//!
//! `cargo bench --bench frontend [-- CASE …]`. Each line gives the median of the runs in
//! milliseconds and, where a goal is set in docs/performance.md, the goal.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads its arguments and the clock, and makes files"
)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a program, not a library")]

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use cooper::frontend::dockerfile::parse;
use cooper::frontend::expand::expand_word;
use cooper::frontend::ignore::IgnoreFile;
use cooper::frontend::{
    FrontendOptions, ImageRequest, ImageResolver, ResolveError, ResolvedImage, lower,
};
use cooper::oci::{Digest, ImageConfig};
use cooper::session::tree::Tree;
use futures::executor::block_on;
use futures::future::{BoxFuture, ready};

/// Runs of each case that count.
const RUNS: usize = 5;
const INSTRUCTIONS_PER_STAGE: usize = 20;
const CONTEXT_FILES: usize = 100_000;

/// A case: its name, its goal, and what makes it ready and returns one run of it.
type Case = (&'static str, Option<Duration>, fn() -> Box<dyn FnMut()>);

const CASES: [Case; 9] = [
    ("parse_10mb", Some(Duration::from_millis(1000)), parse_10mb),
    (
        "parse_10mb_small",
        Some(Duration::from_millis(1000)),
        parse_10mb_small,
    ),
    (
        "parse_10mb_one",
        Some(Duration::from_millis(1000)),
        parse_10mb_one,
    ),
    ("lower_100_stages", None, || lower_stages(100)),
    (
        "lower_1000_stages",
        Some(Duration::from_millis(100)),
        || lower_stages(1_000),
    ),
    ("lower_10000_stages", None, || lower_stages(10_000)),
    ("expand", None, expand),
    ("ignore", None, ignore),
    (
        "context_scan",
        Some(Duration::from_millis(250)),
        context_scan,
    ),
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    println!("{:20} {:>10} {:>10}", "case", "median ms", "goal ms");
    for (name, goal, prepare) in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|case| case == name) {
            continue;
        }
        let mut run = prepare();
        run();
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                run();
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        let goal = goal.map_or("-".to_owned(), |goal| goal.as_millis().to_string());
        println!("{name:20} {:>10.1} {goal:>10}", millis(times[RUNS / 2]));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Ten megabytes of what Dockerfiles hold.
fn parse_10mb() -> Box<dyn FnMut()> {
    let stage = "# what it is for\nFROM debian:12 AS base\nARG VERSION=1.2.3\nENV A=b C=\"d e\" \\\n    F=$VERSION\nRUN --mount=type=cache,target=/var/cache/apt apt-get update && \\\n    apt-get install -y curl git\nCOPY --from=build --chown=1:1 a b c /d/\nRUN <<EOF\nset -e\nmake all\nEOF\nCMD [\"sh\", \"-c\", \"echo hello\"]\n";
    let many = "WORKDIR /src\nRUN make -C sub all install DESTDIR=/out\nLABEL a=b\n".repeat(40);
    repeated(&format!("{stage}{many}"))
}

/// Ten megabytes of the smallest instructions.
fn parse_10mb_small() -> Box<dyn FnMut()> {
    let text = format!("FROM a\n{}", "ENV a=b\n".repeat(10_000_000 / 8));
    Box::new(move || drop(black_box(parse(&text).unwrap())))
}

/// Ten megabytes in one instruction.
fn parse_10mb_one() -> Box<dyn FnMut()> {
    let text = format!(
        "FROM a\nENV {}a=b\n",
        "name=value \\\n".repeat(10_000_000 / 13)
    );
    Box::new(move || drop(black_box(parse(&text).unwrap())))
}

fn repeated(piece: &str) -> Box<dyn FnMut()> {
    let text = piece.repeat(10_000_000 / piece.len());
    Box::new(move || drop(black_box(parse(&text).unwrap())))
}

/// Stages of twenty instructions, each stage built from the one before.
fn lower_stages(count: usize) -> Box<dyn FnMut()> {
    let mut text = String::new();
    for stage in 0..count {
        match stage {
            0 => text.push_str("FROM base AS s0\n"),
            _ => writeln!(text, "FROM s{} AS s{stage}", stage - 1).unwrap(),
        }
        for number in 1..INSTRUCTIONS_PER_STAGE {
            match number % 4 {
                0 => writeln!(text, "ENV V{number}=\"$PATH {stage}\""),
                1 => writeln!(text, "RUN make part-{stage}-{number}"),
                2 => writeln!(text, "COPY file-{number} /dir/{stage}/"),
                _ => writeln!(text, "LABEL l{number}={stage}"),
            }
            .unwrap();
        }
    }
    let options = FrontendOptions::default();
    Box::new(move || {
        drop(black_box(
            block_on(lower(&text, &options, &OneImage)).unwrap(),
        ));
    })
}

/// Every name is the same empty image.
struct OneImage;

impl ImageResolver for OneImage {
    fn resolve<'a>(
        &'a self,
        request: &'a ImageRequest,
    ) -> BoxFuture<'a, Result<ResolvedImage, ResolveError>> {
        Box::pin(ready(Ok(ResolvedImage {
            reference: request.reference.clone(),
            digest: Digest::of(b"image"),
            config: ImageConfig {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                ..ImageConfig::default()
            },
        })))
    }
}

/// A hundred thousand words with variables.
fn expand() -> Box<dyn FnMut()> {
    let variables = [
        ("NAME", "archive.tar.gz"),
        ("DIR", "/usr/local"),
        ("EMPTY", ""),
    ];
    let words = [
        "$DIR/bin",
        "\"${NAME%.gz}\" and 'text'",
        "${EMPTY:-${DIR}/lib}",
        "${NAME//a/b}",
    ];
    Box::new(move || {
        for _ in 0..25_000 {
            for word in words {
                black_box(expand_word(word, '\\', variables.as_slice()).unwrap());
            }
        }
    })
}

/// A hundred thousand paths against forty patterns.
fn ignore() -> Box<dyn FnMut()> {
    let mut text = String::from("**/.git\n**/node_modules\n*.log\n!keep.log\n");
    for number in 0..36 {
        writeln!(text, "dir{number}/**/*.tmp").unwrap();
    }
    let file = IgnoreFile::parse(&text).unwrap();
    Box::new(move || {
        for number in 0..CONTEXT_FILES {
            let path = format!("dir{}/sub{}/file{number}.rs", number % 40, number % 7);
            black_box(file.matcher().matches_or_parent(path));
        }
    })
}

/// A hundred thousand files in a thousand folders, names and inodes in the page cache.
fn context_scan() -> Box<dyn FnMut()> {
    let dir = tempfile::tempdir().unwrap();
    for folder in 0..CONTEXT_FILES / 100 {
        let path = dir.path().join(format!("d{folder}"));
        fs::create_dir(&path).unwrap();
        fill(&path);
    }
    let excludes = ["**/*.tmp".to_owned(), "**/.git".to_owned()];
    Box::new(move || {
        let tree = Tree::walk(dir.path(), &excludes).unwrap();
        assert!(tree.entries().len() >= CONTEXT_FILES);
        black_box(tree);
    })
}

fn fill(path: &Path) {
    for file in 0..100 {
        fs::write(path.join(format!("file-{file}.c")), b"").unwrap();
    }
}
