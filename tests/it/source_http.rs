//! Files from web servers: downloaded once, asked for again, checked.

use std::io::Write;

use cooper::oci::Digest;
use cooper::progress::VertexProgress;
use cooper::session::Session;
use cooper::source::{Error, HttpFile, PinnedHttp, WebFiles};

use crate::source::{Env, client};
use crate::support::registry::{Action, Registry};

impl Env {
    /// A source as a new build would have it.
    fn web_files(&self) -> WebFiles {
        WebFiles::new(client(), self.store.clone())
    }

    fn file(&self, path: &str) -> HttpFile {
        HttpFile {
            url: format!("{}/{path}", self.registry.url()),
            ..HttpFile::default()
        }
    }

    /// Pins as a new build would.
    async fn pin(&self, file: &HttpFile) -> Result<PinnedHttp, Error> {
        let progress = VertexProgress::silent();
        self.web_files().pin(file, &progress).await
    }
}

fn header(name: &'static str, value: &str) -> Action {
    Action::Header(name, value.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_downloaded_once_while_it_does_not_change() {
    let env = Env::new();
    env.registry.put_file("dir/file.txt", b"content");
    let file = env.file("dir/file.txt");
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    env.registry
        .fail("GET", "file.txt", 1, header("Last-Modified", modified));
    let pinned = env.pin(&file).await.unwrap();
    assert_eq!(pinned.content.digest, Digest::of(b"content"));
    assert_eq!(pinned.filename, "file.txt");
    assert_eq!(pinned.mtime_s, 784_111_777);
    let unchanged = Action::Status(304, Vec::new(), String::new());
    env.registry.fail("GET", "file.txt", 1, unchanged);
    assert_eq!(env.pin(&file).await.unwrap(), pinned);
    let asked = env.registry.log().pop().unwrap();
    assert_eq!(asked.header("if-modified-since"), Some(modified));
    // With a checksum nobody is asked.
    env.registry.clear_log();
    let checked = HttpFile {
        checksum: Some(Digest::of(b"content")),
        ..file.clone()
    };
    env.pin(&checked).await.unwrap();
    assert!(env.registry.log().is_empty());
    let wrong = HttpFile {
        checksum: Some(Digest::of(b"other")),
        ..file.clone()
    };
    let error = env.pin(&wrong).await.unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");

    env.registry.put_file("dir/file.txt", b"changed");
    let disposition = header("Content-Disposition", "attachment; filename=../../x.bin");
    env.registry.fail("GET", "file.txt", 1, disposition);
    let pinned = env.pin(&file).await.unwrap();
    assert_eq!(pinned.content.digest, Digest::of(b"changed"));
    assert_eq!((pinned.filename.as_str(), pinned.mtime_s), ("x.bin", 0));
    env.registry.fail("GET", "file.txt", 1, Action::CutAfter(3));
    assert_eq!(env.pin(&file).await.unwrap().content, pinned.content);

    let missing = HttpFile {
        url: file
            .url
            .replace("http://", "http://user:hunter2@")
            .replace("file", "none"),
        ..file
    };
    let error = env.pin(&missing).await.unwrap_err().to_string();
    assert!(error.contains("was not found at 127.0.0.1"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_build_asks_once_and_a_checksum_is_enough_to_know_a_file() {
    let env = Env::new();
    env.registry.put_file("file.txt", b"content");
    let (file, progress) = (env.file("file.txt"), VertexProgress::silent());
    let checked = HttpFile {
        checksum: Some(Digest::of(b"content")),
        ..file.clone()
    };
    let build = env.web_files();
    let known = build.identity(&checked, &progress).await.unwrap();
    assert!(known.contains(Digest::of(b"content").hex()), "{known}");
    assert!(env.registry.log().is_empty());
    let identity = build.identity(&file, &progress).await.unwrap();
    env.registry.put_file("file.txt", b"changed");
    let again = build.identity(&file, &progress).await.unwrap();
    assert_eq!(again, identity);
    let pinned = build.pin(&file, &progress).await.unwrap();
    assert_eq!(pinned.content.digest, Digest::of(b"content"));
    assert_eq!(env.registry.log().len(), 1);
    let later = env.web_files().identity(&file, &progress).await.unwrap();
    assert_ne!(later, identity);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_tag_is_sent_back() {
    let env = Env::new();
    env.registry.put_file("file.txt", b"content");
    let file = env.file("file.txt");
    let tag = header("ETag", "W/\"1\"");
    env.registry.fail("GET", "file.txt", 1, tag);
    let pinned = env.pin(&file).await.unwrap();
    let unchanged = Action::Status(304, Vec::new(), String::new());
    env.registry.fail("GET", "file.txt", 1, unchanged);
    assert_eq!(env.pin(&file).await.unwrap(), pinned);
    let asked = env.registry.log().pop().unwrap();
    assert_eq!(asked.header("if-none-match"), Some("W/\"1\""));
    // Without the file nobody can say that it is still the same.
    env.store.delete(&pinned.content.digest).unwrap();
    assert_eq!(env.pin(&file).await.unwrap().content, pinned.content);
    let asked = env.registry.log().pop().unwrap();
    assert_eq!(asked.header("if-none-match"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compressed_for_the_way_is_stored_as_it_was() {
    let env = Env::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"content").unwrap();
    let compressed = encoder.finish().unwrap();
    env.registry.put_file("file.txt", &compressed);
    let gzip = header("Content-Encoding", "gzip");
    env.registry.fail("GET", "file.txt", 1, gzip.clone());
    let file = HttpFile {
        checksum: Some(Digest::of(b"content")),
        ..env.file("file.txt")
    };
    let pinned = env.pin(&file).await.unwrap();
    let content = env.store.read(&pinned.content, 100).unwrap();
    assert_eq!(content, b"content");
    let asked = env.registry.log().pop().unwrap();
    assert_eq!(asked.header("accept-encoding"), Some("gzip"));
    // A file that merely is an archive stays one.
    let archive = env.pin(&env.file("file.txt")).await.unwrap();
    assert_eq!(archive.content.digest, Digest::of(&compressed));
    env.registry.put_file("cut.txt", &compressed[..10]);
    env.registry.fail("GET", "cut.txt", 1, gzip);
    let error = env.pin(&env.file("cut.txt")).await.unwrap_err().to_string();
    assert!(
        error.contains("cannot undo the content encoding"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_secrets_and_stay_with_their_host() {
    let env = Env::new();
    let other = Registry::start();
    other.put_file("there.txt", b"content");
    let mut session = Session::default();
    let id = "HTTP_AUTH_TOKEN_127.0.0.1";
    session.secrets.insert(id, b"hunter2").unwrap();
    let mut file = env.file("file.txt");
    file.authorize(None, &session).unwrap();
    let location = vec![("Location", format!("{}/there.txt", other.url()))];
    let moved = Action::Status(302, location, String::new());
    env.registry.fail("GET", "file.txt", 1, moved);
    env.pin(&file).await.unwrap();
    let asked = env.registry.log().pop().unwrap();
    assert_eq!(asked.header("authorization"), Some("Bearer hunter2"));
    let asked = other.log().pop().unwrap();
    assert_eq!(asked.header("authorization"), None);
    let refused = Action::Status(401, Vec::new(), String::new());
    env.registry.fail("GET", "secret.txt", 1, refused);
    let error = env.pin(&env.file("secret.txt")).await.unwrap_err();
    let hint = "--secret id=HTTP_AUTH_TOKEN_127.0.0.1,env=VARIABLE";
    assert!(error.to_string().contains(hint), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_a_moment_are_survived_and_loops_are_not_followed() {
    let env = Env::new();
    env.registry.put_file("file.txt", b"content");
    let busy = Action::Status(503, Vec::new(), String::new());
    env.registry.fail("GET", "file.txt", 2, busy);
    env.registry.fail("GET", "file.txt", 1, Action::Hang);
    let pinned = env.pin(&env.file("file.txt")).await.unwrap();
    assert_eq!(pinned.content.digest, Digest::of(b"content"));
    let itself = vec![("Location", "/loop.txt".to_owned())];
    let moved = Action::Status(302, itself, String::new());
    env.registry.fail("GET", "loop.txt", 100, moved);
    let error = env
        .pin(&env.file("loop.txt"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}
