//! Git repositories: pinned, fetched, checked out.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use cooper::llb::{GitSource, GitUrl, pb};
use cooper::progress::VertexProgress;
use cooper::session::Session;
use cooper::source::{Error, GitOptions, PinnedGit, Repositories};

use crate::support::git_server::GitServer;

fn silent() -> VertexProgress {
    VertexProgress::silent()
}

fn run_git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always"])
        .args(["-c", "commit.gpgsign=false"])
        .args(["-c", "user.name=t", "-c", "user.email=t@t.example"])
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_COMMITTER_DATE", "2001-02-03T04:05:06Z")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {text}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A folder with repositories, a server for them, and a store.
struct Env {
    dir: tempfile::TempDir,
    server: GitServer,
    options: GitOptions,
}

/// A commit on disk.
struct CheckedOut {
    pinned: PinnedGit,
    tree: PathBuf,
}

impl CheckedOut {
    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.tree.join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        self.tree.join(path).symlink_metadata().is_ok()
    }
}

impl Env {
    fn new() -> Self {
        Self::with_login(None)
    }

    fn with_login(login: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["origin", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let server = GitServer::start(&dir.path().join("origin"), login);
        Self {
            dir,
            server,
            options: GitOptions::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("origin").join(name)
    }

    /// URLs of a repository by all ways to reach it.
    fn urls(&self, name: &str) -> [String; 3] {
        let server = &self.server;
        [server.smart(name), server.old(name), server.dumb(name)]
    }

    /// A repository with two commits, tags on the first, a folder, and a link that leads out.
    fn repository(&self, name: &str, format: &str) -> (String, String) {
        let dir = self.path(name);
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        let format = format!("--object-format={format}");
        run_git(&dir, &["init", "--quiet", "--initial-branch=main", &format]);
        std::fs::write(dir.join("file.txt"), "one").unwrap();
        std::fs::write(dir.join("sub/inner.txt"), "inner").unwrap();
        std::fs::write(dir.join("tool"), "#!/bin/sh\n").unwrap();
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.join("tool"), mode).unwrap();
        std::os::unix::fs::symlink("/etc", dir.join("out")).unwrap();
        self.commit(name, "one");
        run_git(&dir, &["tag", "-a", "v1", "-m", "v1"]);
        run_git(&dir, &["tag", "light"]);
        let first = run_git(&dir, &["rev-parse", "HEAD"]);
        std::fs::write(dir.join("file.txt"), "two").unwrap();
        (first, self.commit(name, "two"))
    }

    /// Commits everything; returns the commit.
    fn commit(&self, name: &str, message: &str) -> String {
        let dir = self.path(name);
        run_git(&dir, &["add", "-A"]);
        run_git(&dir, &["commit", "--quiet", "-m", message]);
        run_git(&dir, &["update-server-info"]);
        run_git(&dir, &["rev-parse", "HEAD"])
    }

    /// The shared repositories, as a new build would have them.
    fn repositories(&self) -> Repositories {
        Repositories::new(&self.dir.path().join("mirrors"))
    }

    async fn check_out(&self, url: &str) -> Result<CheckedOut, Error> {
        self.check_out_with(&self.repositories(), url).await
    }

    async fn check_out_with(
        &self,
        repositories: &Repositories,
        url: &str,
    ) -> Result<CheckedOut, Error> {
        let options = &self.options;
        let source = source_of(url);
        let pinned = repositories.pin(&source, options, &silent()).await?;
        let work = tempfile::tempdir_in(self.dir.path().join("work")).unwrap();
        let tree = work.keep().join("tree");
        repositories
            .fetch(&pinned, options, &tree, &silent())
            .await?;
        Ok(CheckedOut { pinned, tree })
    }

    async fn error(&self, url: &str) -> String {
        match self.check_out(url).await {
            Ok(_) => panic!("{url} was found"),
            Err(error) => error.to_string(),
        }
    }
}

/// What a definition asks for that names `url`.
fn source_of(url: &str) -> GitSource {
    let source = GitUrl::parse(url).unwrap().unwrap().source();
    GitSource::read(&pb::SourceOp {
        identifier: source.identifier,
        attrs: source.attrs.into_iter().collect(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_pinned_and_checked_out() {
    for format in ["sha1", "sha256"] {
        let env = Env::new();
        let (first, second) = env.repository("o", format);
        for url in env.urls("o/.git") {
            for (rest, commit, path, content) in [
                ("", &second, "file.txt", "two"),
                ("#main", &second, "file.txt", "two"),
                ("#refs/heads/main", &second, "file.txt", "two"),
                ("?branch=main", &second, "file.txt", "two"),
                ("#v1", &first, "file.txt", "one"),
                ("#light", &first, "file.txt", "one"),
                ("#refs/tags/v1", &first, "file.txt", "one"),
                ("?tag=v1&subdir=sub", &first, "inner.txt", "inner"),
                ("#:sub", &second, "inner.txt", "inner"),
                (&format!("#{first}"), &first, "file.txt", "one"),
                (
                    &format!("?commit={}", &second[..4]),
                    &second,
                    "file.txt",
                    "two",
                ),
            ] {
                let url = format!("{url}{rest}");
                let found = env.check_out(&url).await.unwrap();
                assert_eq!(found.pinned.commit, *commit, "{url}");
                assert_eq!(found.read(path), content, "{url}");
                assert!(!found.has(".git"), "{url}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let env = Env::new();
    let (first, second) = env.repository("o", "sha1");
    let zeros = "0".repeat(40);
    for (rest, part) in [
        (
            "#mian",
            "repository does not contain ref mian; it has main, light, v1",
        ),
        (
            "?branch=v1",
            "does not contain ref refs/heads/v1; it has v1",
        ),
        ("#HEAD", "leave it out to get the default branch"),
        (&format!("#{}", &first[..8]), "does not contain ref"),
        ("#-x", "not the name of a branch or tag"),
        ("#:absent", "it has no folder absent"),
        ("#:out", "out is not a folder in it"),
        ("#:file.txt", "file.txt is not a folder in it"),
        (
            &format!("?commit={first}"),
            &format!("expected checksum to match {first}"),
        ),
        (
            &format!("?ref={first}&commit={second}"),
            "expected checksum to match",
        ),
        ("?commit=xyz", "invalid checksum \"xyz\""),
        (&format!("#{zeros}"), "failed"),
        ("?fetch-by-commit", "needs a commit"),
        ("?fetch-by-commit&commit=abc", "needs a whole commit"),
    ] {
        let error = env
            .error(&format!("{}{rest}", env.server.smart("o/.git")))
            .await;
        assert!(error.contains(part), "{rest}: {error}");
    }
    let error = env.error(&env.server.smart("none.git")).await;
    assert!(error.contains("there is no git repository"), "{error}");
    std::fs::create_dir(env.path("empty")).unwrap();
    run_git(&env.path("empty"), &["init", "--quiet"]);
    let error = env.error(&env.server.smart("empty/.git")).await;
    assert!(error.contains("it has no default branch"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_plain_modes_whatever_our_mask_is() {
    let env = Env::new();
    env.repository("o", "sha1");
    let script = "umask 077; exec \"$0\" \"$@\"";
    // The mask belongs to the whole process, so the test runs in one of its own.
    let name = "source_git::modes_of_a_checkout";
    let this = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(this)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by `files_have_plain_modes_whatever_our_mask_is`"]
async fn modes_of_a_checkout() {
    let env = Env::new();
    env.repository("o", "sha1");
    for query in ["", "?keep-git-dir"] {
        let url = format!("{}{query}", env.server.smart("o/.git"));
        let found = env.check_out(&url).await.unwrap();
        for (path, mode) in [("file.txt", 0o100644), ("tool", 0o100755), ("sub", 0o40755)] {
            let metadata = found.tree.join(path).symlink_metadata().unwrap();
            assert_eq!(metadata.mode(), mode, "{query} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_git_folder_works_where_it_is_kept() {
    let env = Env::new();
    let (first, second) = env.repository("o", "sha1");
    let url = env.server.smart("o/.git");
    for (rest, commit, refs) in [
        ("?keep-git-dir", &second, "refs/heads/main"),
        ("?keep-git-dir=1#v1", &first, "refs/tags/v1"),
        ("?keep-git-dir=1#light", &first, "refs/tags/light"),
        (&format!("?keep-git-dir=1#{first}"), &first, ""),
        (
            &format!("?keep-git-dir&fetch-by-commit&commit={first}#name"),
            &first,
            "refs/heads/name",
        ),
    ] {
        let found = env.check_out(&format!("{url}{rest}")).await.unwrap();
        let git = |arguments: &[&str]| run_git(&found.tree, arguments);
        assert_eq!(found.read(".git/HEAD").trim(), commit, "{rest}");
        assert_eq!(git(&["status", "--short"]), "", "{rest}");
        assert_eq!(git(&["rev-parse", "HEAD"]), *commit, "{rest}");
        assert_eq!(
            git(&["for-each-ref", "--format=%(refname)"]),
            refs,
            "{rest}"
        );
        assert_eq!(git(&["remote", "get-url", "origin"]), url, "{rest}");
        assert!(!found.has(".git/FETCH_HEAD"), "{rest}");
    }
    let found = env
        .check_out(&format!("{url}?keep-git-dir#v1"))
        .await
        .unwrap();
    assert_eq!(run_git(&found.tree, &["describe"]), "v1");
    // A folder in the repository is none itself.
    let found = env
        .check_out(&format!("{url}?keep-git-dir#:sub"))
        .await
        .unwrap();
    assert!(!found.has(".git") && found.has("inner.txt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_known_by_itself_and_by_its_commit() {
    let env = Env::new();
    let (first, _) = env.repository("o", "sha1");
    let tag = run_git(&env.path("o"), &["rev-parse", "v1"]);
    assert_ne!(tag, first);
    let url = env.server.smart("o/.git");
    for checksum in [&tag, &first] {
        let found = env.check_out(&format!("{url}?commit={checksum}#v1")).await;
        let found = found.unwrap();
        assert_eq!((&found.pinned.object, &found.pinned.commit), (&tag, &first));
    }
    // The tag object can be asked for, too.
    let found = env.check_out(&format!("{url}#{tag}")).await.unwrap();
    assert_eq!(found.read("file.txt"), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_those_of_the_commit_on_demand() {
    let env = Env::new();
    env.repository("o", "sha1");
    let url = env.server.smart("o/.git");
    for query in ["?mtime=commit", "?mtime=commit&keep-git-dir"] {
        let found = env.check_out(&format!("{url}{query}")).await.unwrap();
        for path in ["", "file.txt", "sub", "sub/inner.txt", "out"] {
            let metadata = found.tree.join(path).symlink_metadata().unwrap();
            assert_eq!(metadata.mtime(), 981_173_106, "{query} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_fetched_once_and_a_branch_is_asked_for_again() {
    let env = Env::new();
    let (_, second) = env.repository("o", "sha1");
    let url = env.server.smart("o/.git");
    let fetches = || {
        let log = env.server.take_log();
        log.iter().filter(|one| one.method == "POST").count()
    };
    let build = env.repositories();
    let found = env.check_out_with(&build, &url).await.unwrap();
    assert_eq!(found.pinned.commit, second);
    assert!(fetches() > 1);
    std::fs::write(env.path("o").join("file.txt"), "three").unwrap();
    let third = env.commit("o", "three");
    // Within one build nothing moves.
    let found = env.check_out_with(&build, &url).await.unwrap();
    assert_eq!((found.pinned.commit, fetches()), (second.clone(), 0));
    let found = env.check_out(&url).await.unwrap();
    assert_eq!(found.pinned.commit, third);
    env.server.take_log();
    // A commit that is here is not asked for at all.
    env.check_out(&format!("{url}#{second}")).await.unwrap();
    assert_eq!(env.server.take_log().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_commit_is_fetched_after_its_branch_has_moved() {
    for kind in 0..3 {
        let env = Env::new();
        let (_, second) = env.repository("o", "sha1");
        let url = env.urls("o/.git")[kind].clone();
        let repositories = env.repositories();
        let (source, progress) = (source_of(&url), silent());
        let pinned = repositories.pin(&source, &env.options, &progress).await;
        let pinned = pinned.unwrap();
        std::fs::write(env.path("o").join("file.txt"), "three").unwrap();
        env.commit("o", "three");
        let tree = env.dir.path().join("work/tree");
        let fetched = repositories.fetch(&pinned, &env.options, &tree, &progress);
        fetched.await.unwrap();
        assert_eq!(pinned.commit, second);
        assert_eq!(
            std::fs::read_to_string(tree.join("file.txt")).unwrap(),
            "two"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_turn_from_a_branch_into_a_folder_of_branches() {
    let env = Env::new();
    env.repository("o", "sha1");
    let url = env.server.smart("o/.git");
    let git = |arguments: &[&str]| run_git(&env.path("o"), arguments);
    git(&["branch", "a"]);
    env.check_out(&format!("{url}#a")).await.unwrap();
    git(&["branch", "-D", "a"]);
    git(&["branch", "a/b"]);
    env.check_out(&format!("{url}#a/b")).await.unwrap();
    git(&["tag", "-f", "light", "main"]);
    let found = env.check_out(&format!("{url}#light")).await.unwrap();
    assert_eq!(found.read("file.txt"), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_shared_repository_is_made_again() {
    let env = Env::new();
    env.repository("o", "sha1");
    let url = env.server.smart("o/.git");
    env.check_out(&url).await.unwrap();
    let mirrors = std::fs::read_dir(env.dir.path().join("mirrors")).unwrap();
    let mut mirror = mirrors.map(|entry| entry.unwrap().path());
    let mirror = mirror.find(|path| path.is_dir()).unwrap();
    std::fs::write(mirror.join("shallow.lock"), "").unwrap();
    let packs = std::fs::read_dir(mirror.join("objects/pack"));
    let mut damaged = 0;
    for entry in packs.unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "pack")
        {
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, mode).unwrap();
            std::fs::write(&path, "no pack").unwrap();
            damaged += 1;
        }
    }
    if damaged == 0 {
        // Few objects are kept in files of their own.
        std::fs::remove_dir_all(mirror.join("objects")).unwrap();
        std::fs::create_dir_all(mirror.join("objects/pack")).unwrap();
    }
    let found = env.check_out(&url).await.unwrap();
    assert_eq!(found.read("file.txt"), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_come_along_and_nothing_of_the_repository_runs() {
    for dumb in [false, true] {
        let env = Env::new();
        env.repository("inner", "sha1");
        env.repository("outer", "sha1");
        let url_of = |name: &str| match dumb {
            false => env.server.smart(name),
            true => env.server.dumb(name),
        };
        let outer = env.path("outer");
        let inner = url_of("inner/.git");
        run_git(&outer, &["submodule", "--quiet", "add", &inner, "module"]);
        // One that lies beside its parent on the same server.
        let text = std::fs::read_to_string(outer.join(".gitmodules")).unwrap();
        std::fs::write(
            outer.join(".gitmodules"),
            text.replace(&inner, "../../inner/.git"),
        )
        .unwrap();
        let canary = env.dir.path().join("canary");
        // A filter and a hook that a careless checkout would run.
        std::fs::write(outer.join(".gitattributes"), "* filter=evil\n").unwrap();
        std::fs::create_dir_all(outer.join("hooks")).unwrap();
        let hook = format!("#!/bin/sh\ntouch {}\n", canary.display());
        std::fs::write(outer.join("hooks/post-checkout"), &hook).unwrap();
        env.commit("outer", "module");
        let url = url_of("outer/.git");
        let found = env.check_out(&url).await.unwrap();
        assert_eq!(found.read("module/file.txt"), "two");
        assert!(!found.has(".git"));
        assert_eq!(
            found.read("module/.git"),
            "gitdir: ../.git/modules/module\n"
        );
        let kept = env.check_out(&format!("{url}?keep-git-dir")).await.unwrap();
        assert_eq!(run_git(&kept.tree, &["status", "--short"]), "");
        assert_eq!(
            run_git(&kept.tree.join("module"), &["status", "--short"]),
            ""
        );
        let below = env.check_out(&format!("{url}#:module")).await.unwrap();
        assert!(below.has("file.txt"));
        let found = env.check_out(&format!("{url}?submodules=0")).await.unwrap();
        assert!(found.has("module") && !found.has("module/file.txt"));
        assert!(!canary.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_of_a_forbidden_protocol_is_refused() {
    for protocol in ["ext", "file"] {
        let env = Env::new();
        env.repository("outer", "sha1");
        env.repository("inner", "sha1");
        let outer = env.path("outer");
        let canary = env.dir.path().join("canary");
        let url = match protocol {
            "ext" => format!("ext::touch% {}", canary.display()),
            _ => format!("file://{}", env.path("inner").display()),
        };
        let text = format!("[submodule \"m\"]\n\tpath = m\n\turl = {url}\n");
        std::fs::write(outer.join(".gitmodules"), text).unwrap();
        let head = run_git(&outer, &["rev-parse", "HEAD"]);
        let entry = format!("160000,{head},m");
        run_git(&outer, &["update-index", "--add", "--cacheinfo", &entry]);
        run_git(&outer, &["add", ".gitmodules"]);
        run_git(&outer, &["commit", "--quiet", "-m", "evil"]);
        let error = env.error(&env.server.smart("outer/.git")).await;
        assert!(
            error.contains(&format!("'{protocol}' not allowed")),
            "{error}"
        );
        assert!(!canary.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_secrets_or_the_url() {
    // x-access-token:hunter2
    let login = "Basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==";
    let mut env = Env::with_login(Some(login));
    let (_, second) = env.repository("o", "sha1");
    let url = env.server.smart("o/.git");
    let error = env.error(&url).await;
    let hint = format!("--secret id=GIT_AUTH_TOKEN.{}", env.server.host());
    assert!(error.contains(&hint), "{error}");
    let with_login = url.replace("http://", "http://x-access-token:hunter2@");
    let found = env.check_out(&format!("{with_login}?keep-git-dir")).await;
    let found = found.unwrap();
    assert_eq!(found.pinned.commit, second);
    let config = found.read(".git/config");
    assert!(
        !config.contains("hunter2") && !config.contains("Basic"),
        "{config}"
    );
    let wrong = url.replace("http://", "http://x-access-token:hunter3@");
    let error = env.error(&format!("{wrong}#v1")).await;
    assert!(
        error.contains("access was refused") && !error.contains("hunter"),
        "{error}"
    );
    for (id, value) in [
        ("GIT_AUTH_TOKEN", "hunter2"),
        ("GIT_AUTH_HEADER", login),
        (
            &format!("GIT_AUTH_TOKEN.{}", env.server.host()),
            "hunter2\n",
        ),
    ] {
        let mut session = Session::default();
        session.secrets.insert(id, value.as_bytes()).unwrap();
        let lent = GitOptions::lent(&source_of(&url), &session, env.dir.path());
        env.options = lent.unwrap();
        let found = env.check_out(&url).await.unwrap();
        assert_eq!(found.pinned.commit, second, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_that_fetch_at_once_wait_for_each_other() {
    let env = Env::new();
    let (first, second) = env.repository("o", "sha1");
    let url = env.server.smart("o/.git");
    let (old, kept) = (format!("{url}#{first}"), format!("{url}?keep-git-dir"));
    let (one, two, three) = tokio::join!(
        env.check_out(&url),
        env.check_out(&old),
        env.check_out(&kept)
    );
    assert_eq!(one.unwrap().pinned.commit, second);
    assert_eq!(two.unwrap().pinned.commit, first);
    assert!(three.unwrap().has(".git"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_and_tags_are_read_as_git_keeps_them() {
    for format in ["sha1", "sha256"] {
        let env = Env::new();
        let (first, _) = env.repository("r.git", format);
        let repositories = env.repositories();
        let progress = VertexProgress::silent();
        for (reference, is_tag) in [("v1", true), ("light", false), (first.as_str(), false)] {
            let source = source_of(&format!("{}#{reference}", env.server.smart("r.git")));
            let pinned = repositories.pin(&source, &env.options, &progress).await;
            let pinned = pinned.unwrap();
            let objects = repositories.objects(&pinned, &env.options, &progress).await;
            let objects = objects.unwrap();
            assert_eq!(objects.commit_id, first);
            assert!(objects.commit.starts_with(b"tree "), "{reference}");
            let tag = objects.tag.map(|tag| String::from_utf8(tag).unwrap());
            assert_eq!(tag.is_some(), is_tag, "{reference}");
            if let Some(tag) = tag {
                assert!(tag.starts_with(&format!("object {first}\n")), "{tag}");
            }
        }
    }
}
