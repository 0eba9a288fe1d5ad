//! The cases in `tests/fixtures/builds`: a build context each, and what its build must give.
//!
//! The files of a case, besides the context itself, are in its folder `case`:
//!
//! | file | meaning |
//! |---|---|
//! | `args` | further arguments, one per line |
//! | `env` | environment of the build, `NAME=value` lines |
//! | `setup.sh` | run with `sh -eu` in the copied context before the build |
//! | `context` | what is built instead of the folder |
//! | `stdin` | what the build reads from its standard input, unless `setup.sh` makes `$CASE_DIR/stdin` |
//! | `http/` | what `$HTTP` serves; `NAME.headers` beside a file are headers of its answer |
//! | `again.sh` | run after a first build; everything expected is of the second one |
//! | `again.args` | arguments of the second build instead of `args` |
//! | `tree.txt` | what the layers add to the base image, merged |
//! | `config.json` | the image's config |
//! | `layers.txt` | what each layer holds (compared where it is there) |
//! | `steps.txt` | which steps ran and which were cached (compared where it is there) |
//! | `error.txt` | exit code and message, instead of the others, where the build must fail |
//!
//! `$CASE_DIR` (a scratch folder with a copy of `http/`) and `$HTTP` are set for the scripts
//! and replaced in the other control files; `$SHARED` is `tests/support/cases`, where the scripts
//! are that several cases take in: `. "$SHARED/git.sh"`. Sources have the time 1000000000
//! unless `setup.sh` says otherwise; of times in results only the old ones are shown.

mod image;
pub(crate) mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::image::{Image, Tree};
use self::server::Server;
use crate::env::{TestEnv, ready, run};

/// Cases built at the same time.
const THREADS: usize = 4;
/// Scripts that several cases take in.
const SHARED: &str = "tests/support/cases";
/// Time of everything in a build context, in seconds.
const SOURCE_TIME: &str = "@1000000000";

/// One case, copied to where it is built.
struct Case<'a> {
    env: &'a TestEnv,
    base: &'a Tree,
    /// Its folder in the fixtures.
    fixture: PathBuf,
    /// Where the copied context and `$CASE_DIR` are.
    temp: tempfile::TempDir,
    server: Option<Server>,
}

/// What a build gave, as the texts of the expected files.
type Given = Vec<(&'static str, String)>;

#[test]
fn builds_give_what_their_cases_say() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let base = base_tree(&env);
    let cases = case_folders();
    assert!(!cases.is_empty(), "no case has the name asked for");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(fixture) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failure = Case::prepare(&env, &base, fixture).check();
                    failures.lock().unwrap().extend(failure);
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(
        failures.is_empty(),
        "{} of {} cases failed\n\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

/// Returns the folders of all cases, or of those whose name holds `$CASE`.
fn case_folders() -> Vec<PathBuf> {
    let asked = std::env::var("CASE").unwrap_or_default();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/builds");
    let entries = fs::read_dir(fixtures).unwrap();
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains(&asked))
        .collect();
    folders.sort();
    folders
}

/// Reads the tree of the base image.
fn base_tree(env: &TestEnv) -> Tree {
    env.write("base/Dockerfile", "FROM busybox\n");
    let layout = env.path("base-layout");
    let spec = format!("type=oci,tar=false,dest={}", layout.display());
    env.ok(&["build", "-o", &spec, env.path("base").to_str().unwrap()]);
    Image::read_all(&layout).remove(0).tree()
}

impl<'a> Case<'a> {
    fn prepare(env: &'a TestEnv, base: &'a Tree, fixture: &Path) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let copy = |from: &Path, to: &Path| {
            run(Command::new("cp").arg("-r").arg(from).arg(to));
        };
        copy(fixture, &temp.path().join("context"));
        fs::remove_dir_all(temp.path().join("context/case")).unwrap();
        fs::create_dir(temp.path().join("scratch")).unwrap();
        let served = fixture.join("case/http");
        let server = served.is_dir().then(|| {
            copy(&served, &temp.path().join("scratch/http"));
            Server::start(temp.path().join("scratch/http"))
        });
        let case = Self {
            env,
            base,
            fixture: fixture.to_owned(),
            temp,
            server,
        };
        let modes = ["-R", "u=rwX,go=rX"];
        run(Command::new("chmod").args(modes).arg(case.temp.path()));
        let mut touch = Command::new("find");
        touch.arg(case.temp.path());
        run(touch.args(["-exec", "touch", "-h", "-d", SOURCE_TIME, "{}", "+"]));
        case.script("setup.sh");
        case
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).to_str().unwrap().to_owned()
    }

    fn http(&self) -> String {
        self.server.as_ref().map(Server::url).unwrap_or_default()
    }

    /// Reads a control file and fills in what only the run knows.
    fn control(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.fixture.join("case").join(name)).ok()?;
        let text = text.replace("$CASE_DIR", &self.path("scratch"));
        Some(text.replace("$HTTP", &self.http()))
    }

    fn script(&self, name: &str) -> bool {
        let script = self.fixture.join("case").join(name);
        if !script.exists() {
            return false;
        }
        let mut command = Command::new("sh");
        command
            .args(["-euc", "umask 022; . \"$0\""])
            .arg(script)
            .current_dir(self.path("context"))
            .env("SHARED", Path::new(env!("CARGO_MANIFEST_DIR")).join(SHARED))
            .env("CASE_DIR", self.path("scratch"))
            .env("HTTP", self.http());
        run(&mut command);
        true
    }

    /// Builds, compares and returns how the case failed.
    fn check(&self) -> Option<String> {
        let args = self.control("args").unwrap_or_default();
        let mut given = self.build(&args);
        let other_args = self.control("again.args");
        if self.script("again.sh") || other_args.is_some() {
            given = self.build(&other_args.unwrap_or(args));
        }
        let folder = self.fixture.join("case");
        let optional = ["layers.txt", "steps.txt"];
        let mut failure = String::new();
        if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
            for name in ["tree.txt", "config.json", "error.txt"] {
                let _ = fs::remove_file(folder.join(name));
            }
            given.retain(|(name, _)| !optional.contains(name) || folder.join(name).exists());
            for (name, text) in given {
                fs::write(folder.join(name), text).unwrap();
            }
            return None;
        }
        for (name, text) in given {
            match fs::read_to_string(folder.join(name)) {
                Ok(expected) if expected == text => {}
                Ok(expected) => failure += &format!("{name}:\n{}", diff(&expected, &text)),
                Err(_) if optional.contains(&name) => {}
                Err(_) => failure += &format!("{name} is not there; it would be\n{text}\n"),
            }
        }
        let name = self.fixture.file_name().unwrap().to_string_lossy();
        (!failure.is_empty()).then(|| format!("--- {name}\n{failure}"))
    }

    fn build(&self, args: &str) -> Given {
        let layout = self.temp.path().join("layout");
        let _ = fs::remove_dir_all(&layout);
        let spec = format!("type=oci,tar=false,dest={}", layout.display());
        let output = self.command(&spec, args).output().unwrap();
        let shown = self.normalised(&String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            let code = output.status.code().unwrap();
            let text = format!("exit code {code}\n{}", message(&shown));
            return vec![("error.txt", text)];
        }
        let images = Image::read_all(&layout);
        let several = images.len() > 1;
        let (mut tree, mut config, mut layers) = (String::new(), String::new(), String::new());
        for image in &images {
            for text in [&mut tree, &mut config, &mut layers] {
                if several {
                    *text += &format!("== {}\n", image.platform());
                }
            }
            tree += &image.tree_text(self.base);
            config += &image.config_text();
            layers += &image.layers_text();
        }
        vec![
            ("tree.txt", self.normalised(&tree)),
            ("config.json", self.normalised(&config)),
            ("layers.txt", self.normalised(&layers)),
            ("steps.txt", steps(&shown)),
        ]
    }

    fn command(&self, spec: &str, args: &str) -> Command {
        let mut command = self
            .env
            .cooper(&["build", "--progress", "plain", "-o", spec]);
        command.current_dir(self.path("context"));
        command.args(args.lines());
        let context = self.control("context");
        command.arg(context.map_or(self.path("context"), |text| text.trim().to_owned()));
        for line in self.control("env").unwrap_or_default().lines() {
            let (name, value) = line.split_once('=').unwrap();
            command.env(name, value);
        }
        let made = PathBuf::from(self.path("scratch/stdin"));
        let given = self.fixture.join("case/stdin");
        if let Some(stdin) = [made, given].iter().find(|path| path.exists()) {
            command.stdin(Stdio::from(fs::File::open(stdin).unwrap()));
        }
        command
    }

    /// Replaces what differs from run to run.
    fn normalised(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if self.server.is_some() {
            text = text.replace(&self.http(), "$HTTP");
            text = text.replace(self.http().trim_start_matches("http://"), "$HTTP_HOST");
        }
        without_digests(&text)
            .replace(&self.path("scratch"), "$CASE_DIR")
            .replace(&self.path("context"), "$CONTEXT")
            .replace(&self.path(""), "$TEMP/")
    }
}

/// Shortens the digests of image names: they hold the time of the build.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("@sha256:");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown += "@sha256:…";
        shown += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    shown
}

/// Returns the part of the progress that says why the build failed.
fn message(shown: &str) -> String {
    let start = shown
        .find("------\n")
        .or_else(|| shown.rfind("\n\n").map(|at| at + 2));
    let start = start.unwrap_or(0);
    // What other runs left in the store is no matter of the message.
    let lines = shown[start..].trim_end().lines();
    let lines = lines.filter(|line| !line.starts_with("cache: "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Returns one line for each step of the Dockerfile: how it went and its name.
fn steps(shown: &str) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut seen = Vec::new();
    for line in shown.lines() {
        let Some((number, rest)) = line.split_once(' ').filter(|(n, _)| n.starts_with('#')) else {
            continue;
        };
        if rest.starts_with('[') && !rest.starts_with("[internal]") && !seen.contains(&number) {
            seen.push(number);
            lines.push((number.to_owned(), rest.to_owned()));
        }
    }
    let cached = |number: &str| shown.contains(&format!("\n{number} CACHED\n"));
    let mut texts: Vec<String> = lines
        .iter()
        .map(|(number, name)| {
            let how = if cached(number) { "cached" } else { "ran" };
            format!("{how:<6} {name}\n")
        })
        .collect();
    texts.sort_by(|a, b| a[7..].cmp(&b[7..]));
    texts.concat()
}

/// Shows the lines that two texts do not share.
fn diff(expected: &str, given: &str) -> String {
    let missing = expected
        .lines()
        .filter(|line| !given.lines().any(|other| other == *line));
    let added = given
        .lines()
        .filter(|line| !expected.lines().any(|other| other == *line));
    let text: Vec<String> = missing
        .map(|line| format!("  - {line}\n"))
        .chain(added.map(|line| format!("  + {line}\n")))
        .collect();
    if text.is_empty() {
        return format!("  order differs:\n{given}");
    }
    text.concat()
}
