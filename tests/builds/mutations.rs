//! The cases in `tests/fixtures/mutations`: one change to a project each, and which steps run
//! because of it, with the reason that the user reads. Everything else must hit.
//!
//! A file is a project and its cases:
//!
//! ```text
//! == project
//! -- Dockerfile            a file of the build context, to the next line of this kind
//! FROM busybox
//! -- setup                 run with `sh -eu` in the context before the first build
//! chmod 755 run
//! -- args                  arguments of both builds, one per line
//! --build-arg=A=1
//! == name of a case
//! $ printf x > file        run with `sh -eu` in the context between the builds
//! % file user.note text    gives a file an extended attribute
//! + --build-arg=A=2        argument of the second build
//! @ $CASE_DIR/moved        build context of the second build instead of the folder
//! MISS [2/3] COPY . /: 1 of 2 files changed: file
//! ```
//!
//! Every case starts from a copy of the store in which the project was built, in the folder it
//! was built in. The second build is planned first, and the plan must say what the build does:
//! a step that is planned to hit hits, and one that is planned to miss misses for the same
//! reason. `$HTTP`, `$CASE_DIR` and `$SHARED` mean what they mean in `corpus.rs`; `$COOPER` is
//! the program and `$STORE` a store that holds the base image.
//! `CASE=name` picks cases, `UPDATE_EXPECT=1` writes what they give.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::corpus::server::Server;
use crate::env::{TestEnv, ready, run};

/// Fewest cases: what the suite promises.
const CASES_MIN: usize = 60;
/// Projects built at the same time.
const THREADS: usize = 2;
/// Scripts that several cases take in.
const SHARED: &str = "tests/support/cases";

/// A project with its cases, as it stands in a file.
#[derive(Default)]
struct Project {
    path: PathBuf,
    files: Vec<(String, String)>,
    setup: String,
    args: Vec<String>,
    /// The lines of the file before its first case.
    head: String,
    cases: Vec<Case>,
}

/// One change.
#[derive(Default)]
struct Case {
    name: String,
    script: String,
    /// Path, name and value.
    attribute: Option<String>,
    args: Vec<String>,
    /// Another build context.
    context: Option<String>,
    /// The lines of the case before what is expected.
    head: String,
    expected: String,
}

#[test]
fn every_change_misses_what_it_must_and_says_why() {
    if !ready() {
        return;
    }
    let base = TestEnv::busybox();
    let mut projects = projects();
    let cases: usize = projects.iter().map(|project| project.cases.len()).sum();
    assert!(cases >= CASES_MIN, "only {cases} cases");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let shared: Vec<Mutex<&mut Project>> = projects.iter_mut().map(Mutex::new).collect();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(project) = shared.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = check(&mut project.lock().unwrap(), &base);
                    failures.lock().unwrap().extend(failed);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} cases failed\n\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn projects() -> Vec<Project> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mutations");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.into_iter().map(Project::read).collect()
}

/// Runs the cases of a project and returns how they failed.
fn check(project: &mut Project, base: &TestEnv) -> Vec<String> {
    let asked = std::env::var("CASE").unwrap_or_default();
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1");
    let bench = Bench::new(project, base);
    let mut failures = Vec::new();
    for case in &mut project.cases {
        if !case.name.contains(&asked) {
            continue;
        }
        match bench.check(case) {
            Ok(given) if given == case.expected => {}
            Ok(given) if update => case.expected = given,
            Ok(given) => failures.push(format!(
                "--- {}: {}\nexpected\n{}given\n{given}",
                project.path.file_name().unwrap().display(),
                case.name,
                case.expected
            )),
            Err(why) => failures.push(format!("--- {}: {why}", case.name)),
        }
    }
    if update {
        fs::write(&project.path, project.text()).unwrap();
    }
    failures
}

impl Project {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let mut project = Self {
            path,
            ..Self::default()
        };
        let mut file = String::new();
        for line in text.lines() {
            match line.strip_prefix("== ") {
                Some("project") => project.head += "== project\n",
                Some(name) => project.cases.push(Case {
                    name: name.to_owned(),
                    head: format!("{line}\n"),
                    ..Case::default()
                }),
                None => match project.cases.last_mut() {
                    Some(case) => case.line(line),
                    None => project.line(&mut file, line),
                },
            }
        }
        project
    }

    fn line(&mut self, file: &mut String, line: &str) {
        writeln!(self.head, "{line}").unwrap();
        if let Some(name) = line.strip_prefix("-- ") {
            name.clone_into(file);
            if !["setup", "args"].contains(&name) {
                self.files.push((name.to_owned(), String::new()));
            }
            return;
        }
        match file.as_str() {
            "" => {}
            "setup" => writeln!(self.setup, "{line}").unwrap(),
            "args" => self.args.push(line.to_owned()),
            _ => writeln!(self.files.last_mut().unwrap().1, "{line}").unwrap(),
        }
    }

    fn text(&self) -> String {
        let mut text = self.head.clone();
        for case in &self.cases {
            text += &case.head;
            text += &case.expected;
        }
        text
    }
}

impl Case {
    fn line(&mut self, line: &str) {
        if let Some(script) = line.strip_prefix("$ ") {
            writeln!(self.script, "{script}").unwrap();
        } else if let Some(arg) = line.strip_prefix("+ ") {
            self.args.push(arg.to_owned());
        } else if let Some(attribute) = line.strip_prefix("% ") {
            self.attribute = Some(attribute.to_owned());
        } else if let Some(context) = line.strip_prefix("@ ") {
            self.context = Some(context.to_owned());
        } else {
            writeln!(self.expected, "{line}").unwrap();
            return;
        }
        writeln!(self.head, "{line}").unwrap();
    }
}

/// A project that has been built, and the folder it was built in.
struct Bench<'a> {
    base: &'a TestEnv,
    setup: String,
    files: Vec<(String, String)>,
    args: Vec<String>,
    temp: tempfile::TempDir,
    server: Server,
}

/// What became of the steps: the verdict, and the line of a miss.
type Verdicts = BTreeMap<String, (String, Option<String>)>;

impl<'a> Bench<'a> {
    fn new(project: &Project, base: &'a TestEnv) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let server = Server::start(temp.path().join("scratch/http"));
        let bench = Self {
            base,
            setup: project.setup.clone(),
            files: project.files.clone(),
            args: project.args.clone(),
            temp,
            server,
        };
        bench.reset();
        bench.copy_store(base.store(), &bench.path("built"));
        bench.build("built", &Case::default(), "--explain=json");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Copies a store that nobody uses: its files are replaced as wholes, so links will do, but
    /// for those of the database.
    fn copy_store(&self, from: &Path, to: &Path) {
        let _ = fs::remove_dir_all(to);
        run(Command::new("cp").arg("-al").arg(from).arg(to));
        let database = to.join("cache");
        for entry in fs::read_dir(&database).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(&path).unwrap();
                fs::copy(from.join("cache").join(path.file_name().unwrap()), &path).unwrap();
            }
        }
    }

    /// Makes the build context as it was for the first build.
    fn reset(&self) {
        for folder in ["context", "scratch"] {
            let _ = fs::remove_dir_all(self.path(folder));
        }
        fs::create_dir_all(self.path("scratch/http")).unwrap();
        for (name, text) in &self.files {
            let path = self.path("context").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let modes = ["-R", "u=rwX,go=rX"];
        run(Command::new("chmod").args(modes).arg(self.path("context")));
        self.script(&self.setup);
    }

    fn script(&self, script: &str) {
        run(Command::new("sh")
            .args(["-euc", &format!("umask 022\n{script}")])
            .current_dir(self.path("context"))
            .env("SHARED", Path::new(env!("CARGO_MANIFEST_DIR")).join(SHARED))
            .env("CASE_DIR", self.path("scratch"))
            .env("COOPER", env!("CARGO_BIN_EXE_cooper"))
            .env("STORE", self.base.store())
            .env("HTTP", self.server.url()));
    }

    /// Makes the change, plans, builds; returns what ran and why.
    fn check(&self, case: &Case) -> Result<String, String> {
        self.copy_store(&self.path("built"), &self.path("store"));
        self.reset();
        self.script(&case.script);
        if let Some(attribute) = &case.attribute {
            let [path, name, value] = attribute.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                return Err(format!("{attribute} is no attribute"));
            };
            let path = self.path("context").join(path);
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(path, name, value.as_bytes(), flags).unwrap();
        }
        let (_, planned) = self.build("store", case, "--plan=json");
        let (given, built) = self.build("store", case, "--explain=json");
        for (step, (verdict, reason)) in planned {
            let (happened, why) = &built[&step];
            let fits = match verdict.as_str() {
                "miss" => happened == "miss" && *why == reason,
                "depends" => ["hit", "miss"].contains(&happened.as_str()),
                other => happened == other,
            };
            if !fits {
                return Err(format!(
                    "{step} was planned as {verdict} ({reason:?}) and was {happened} ({why:?})"
                ));
            }
        }
        let again = self.build("store", case, "--explain=json").0;
        match again.is_empty() || again.contains("--no-cache") {
            true => Ok(given),
            false => Err(format!("a third build was not cached\n{again}")),
        }
    }

    /// Builds or plans; returns the lines of what missed, and all verdicts.
    fn build(&self, store: &str, case: &Case, how: &str) -> (String, Verdicts) {
        let filled = |arg: &String| {
            let arg = arg.replace("$HTTP", &self.server.url());
            arg.replace("$CASE_DIR", self.path("scratch").to_str().unwrap())
        };
        let mut command = self.base.cooper(&["--root"]);
        command.arg(self.path(store));
        command.args(["build", "--output=type=cacheonly", how]);
        command.args(self.args.iter().chain(&case.args).map(filled));
        match &case.context {
            Some(context) => command.arg(filled(context)),
            None => command.arg(self.path("context")),
        };
        let output = run(&mut command);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (mut lines, mut verdicts) = (String::new(), Verdicts::new());
        for step in json["steps"].as_array().unwrap() {
            let name = self.normalised(step["name"].as_str().unwrap());
            let verdict = step["verdict"].as_str().unwrap().to_owned();
            let reason = step["reason"]["text"].as_str();
            let reason = reason.map(|reason| self.normalised(reason));
            if let Some(reason) = &reason {
                let again = match step["as_before"].as_bool() {
                    Some(true) => " (as before)",
                    _ => "",
                };
                writeln!(lines, "MISS {name}: {reason}{again}").unwrap();
            }
            verdicts.insert(name, (verdict, reason));
        }
        (lines, verdicts)
    }

    /// Replaces what differs from run to run.
    fn normalised(&self, text: &str) -> String {
        let text = text.replace(&self.server.url(), "$HTTP");
        let text = text.replace(self.path("scratch").to_str().unwrap(), "$CASE_DIR");
        let mut parts = text.split("sha256:");
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            shown += "sha256:…";
            let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            shown += rest.trim_start_matches('…');
        }
        shown
    }
}
