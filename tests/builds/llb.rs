//! Definitions that other LLB clients could have made, built with `--llb`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use cooper::llb::pb::file_action::Action;
use cooper::llb::{Definition, VertexDigest, pb};
use cooper::oci::Digest;
use prost::Message;

use crate::env::{TestEnv, ready, run};

/// A definition under construction: ops that name earlier ones by their numbers.
#[derive(Default)]
pub(crate) struct Graph {
    ops: Vec<Vec<u8>>,
    metadata: BTreeMap<String, pb::OpMetadata>,
}

impl Graph {
    /// Adds an op; its inputs are ops with the numbers of their outputs.
    fn add(&mut self, inputs: &[(usize, i64)], op: pb::op::Op) -> usize {
        let inputs = inputs.iter().map(|(op, index)| pb::Input {
            digest: VertexDigest::of(&self.ops[*op]).to_string(),
            index: *index,
        });
        let message = pb::Op {
            inputs: inputs.collect(),
            op: Some(op),
            ..pb::Op::default()
        };
        self.ops.push(message.encode_to_vec());
        self.ops.len() - 1
    }

    pub(crate) fn source(&mut self, identifier: &str, attrs: &[(&str, &str)]) -> usize {
        let attrs = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let source = pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.collect(),
        };
        self.add(&[], pb::op::Op::Source(source))
    }

    /// Adds actions in a row; the first works on `base`.
    fn file(&mut self, base: Option<usize>, actions: Vec<Action>) -> usize {
        let inputs: Vec<(usize, i64)> = base.map(|base| (base, 0)).into_iter().collect();
        let (count, last) = (inputs.len() as i64, actions.len() - 1);
        let actions = actions
            .into_iter()
            .enumerate()
            .map(|(at, action)| pb::FileAction {
                input: match at {
                    0 => count - 1,
                    at => count + at as i64 - 1,
                },
                secondary_input: -1,
                output: if at == last { 0 } else { -1 },
                action: Some(action),
            });
        let actions = actions.collect();
        self.add(&inputs, pb::op::Op::File(pb::FileOp { actions }))
    }

    fn merge(&mut self, parts: &[usize]) -> usize {
        let inputs: Vec<(usize, i64)> = parts.iter().map(|part| (*part, 0)).collect();
        let merged = (0..parts.len() as i64).map(|input| pb::MergeInput { input });
        let op = pb::MergeOp {
            inputs: merged.collect(),
        };
        self.add(&inputs, pb::op::Op::Merge(op))
    }

    fn diff(&mut self, lower: usize, upper: usize) -> usize {
        let op = pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: 0 }),
            upper: Some(pb::UpperDiffInput { input: 1 }),
        };
        self.add(&[(lower, 0), (upper, 0)], pb::op::Op::Diff(op))
    }

    /// Adds a shell command; returns the op, whose only output is the changed root.
    fn run(&mut self, root: usize, command: &str) -> usize {
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
                cwd: "/".to_owned(),
                ..pb::Meta::default()
            }),
            mounts: vec![pb::Mount {
                dest: "/".to_owned(),
                ..pb::Mount::default()
            }],
            ..pb::ExecOp::default()
        };
        self.add(&[(root, 0)], pb::op::Op::Exec(exec))
    }

    /// Ends with the output of an op and returns the bytes.
    pub(crate) fn end(mut self, result: (usize, i64)) -> Vec<u8> {
        let terminal = pb::Op {
            inputs: vec![pb::Input {
                digest: VertexDigest::of(&self.ops[result.0]).to_string(),
                index: result.1,
            }],
            ..pb::Op::default()
        };
        self.ops.push(terminal.encode_to_vec());
        let message = pb::Definition {
            def: self.ops,
            metadata: self.metadata,
            source: None,
        };
        message.encode_to_vec()
    }
}

fn write(path: &str, data: &[u8]) -> Action {
    Action::Mkfile(pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: data.to_vec(),
        timestamp: -1,
        ..pb::FileActionMkFile::default()
    })
}

fn make(path: &str) -> Action {
    Action::Mkdir(pb::FileActionMkDir {
        path: path.to_owned(),
        mode: 0o755,
        make_parents: true,
        timestamp: -1,
        ..pb::FileActionMkDir::default()
    })
}

fn remove(path: &str) -> Action {
    Action::Rm(pb::FileActionRm {
        path: path.to_owned(),
        ..pb::FileActionRm::default()
    })
}

/// Builds a definition to a folder; returns its files with what is in them.
fn built(env: &TestEnv, definition: &[u8], options: &[&str]) -> Vec<String> {
    std::fs::write(env.path("definition"), definition).unwrap();
    let _ = std::fs::remove_dir_all(env.path("out"));
    let args = ["build", "--llb", "definition", "-o", "out"];
    env.ok(&[&args[..], options].concat());
    listed(&env.path("out"))
}

/// Builds a definition that cannot be built; returns what is said.
fn refused(env: &TestEnv, definition: &[u8], options: &[&str]) -> String {
    std::fs::write(env.path("definition"), definition).unwrap();
    let args = ["build", "--llb", "definition", "-o", "type=cacheonly"];
    env.fails(3, &[&args[..], options].concat())
}

fn listed(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                pending.push(path);
                continue;
            }
            let text = match metadata.is_file() {
                true => std::fs::read(&path).unwrap(),
                false => b"link".to_vec(),
            };
            found.push(format!("{name}={}", String::from_utf8_lossy(&text)));
        }
    }
    found.sort();
    found
}

#[test]
fn merges_and_diffs_take_away_and_add() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    let with = |wanted: &str| {
        let mut graph = Graph::default();
        let base = graph.file(
            None,
            vec![make("/d"), write("/d/x", b"base"), write("/kept", b"k")],
        );
        let other = graph.file(
            None,
            vec![make("/d"), write("/d/x", b"o"), write("/d/z", b"o")],
        );
        let less = graph.file(Some(base), vec![remove("/d/x"), write("/new", b"n")]);
        let change = graph.diff(base, less);
        let result = match wanted {
            "merge" => graph.merge(&[base, other]),
            "change" => change,
            "laid on" => graph.merge(&[other, change]),
            "unrelated" => graph.diff(other, less),
            "turned" => {
                let turn = graph.diff(other, less);
                graph.merge(&[other, turn])
            }
            "written on" => graph.file(Some(change), vec![write("/d/y", b"y")]),
            _ => graph.diff(less, less),
        };
        built(&env, &graph.end((result, 0)), &[])
    };
    assert_eq!(with("merge"), ["d/x=o", "d/z=o", "kept=k"]);
    assert_eq!(with("change"), ["new=n"]);
    assert_eq!(with("laid on"), ["d/z=o", "new=n"]);
    assert_eq!(with("unrelated"), ["kept=k", "new=n"]);
    assert_eq!(with("turned"), ["kept=k", "new=n"]);
    assert_eq!(with("written on"), ["d/y=y", "new=n"]);
    assert_eq!(with("nothing"), [""; 0]);
}

#[test]
fn inputs_are_passed_on_and_definitions_are_built_within_builds() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    let mut inner = Graph::default();
    let file = inner.file(None, vec![write("/inner", b"i")]);
    let inner = inner.end((file, 0));
    let nested = |data: &[u8], name: &str, wanted: &str| {
        let mut graph = Graph::default();
        let holder = graph.file(None, vec![make("/d"), write(name, data)]);
        let attrs = [("llbbuild.filename".to_owned(), wanted.to_owned())];
        let op = pb::BuildOp {
            builder: -1,
            inputs: [(
                "buildkit.llb.definition".to_owned(),
                pb::BuildInput { input: 0 },
            )]
            .into(),
            def: None,
            attrs: attrs.into_iter().filter(|_| !wanted.is_empty()).collect(),
        };
        let build = graph.add(&[(holder, 0)], pb::op::Op::Build(op));
        let more = graph.file(Some(build), vec![write("/outer", b"o")]);
        graph.end((more, 0))
    };
    let expected = ["inner=i", "outer=o"];
    let usual = nested(&inner, "/buildkit.llb.definition", "");
    assert_eq!(built(&env, &usual, &[]), expected);
    assert_eq!(
        built(&env, &nested(&inner, "/d/x.llb", "d/x.llb"), &[]),
        expected
    );
    let said = refused(&env, &nested(&inner, "/other", ""), &[]);
    assert!(
        said.contains("cannot read the definition \"buildkit.llb.definition\""),
        "{said}"
    );
    let said = refused(&env, &nested(b"junk", "/buildkit.llb.definition", ""), &[]);
    assert!(said.contains("this is no LLB definition"), "{said}");
    // Rights are those of the whole build.
    let mut host = Graph::default();
    let base = host.file(None, vec![write("/x", b"")]);
    let exec = pb::ExecOp {
        meta: Some(pb::Meta {
            args: vec!["/x".to_owned()],
            ..pb::Meta::default()
        }),
        mounts: vec![pb::Mount {
            dest: "/".to_owned(),
            ..pb::Mount::default()
        }],
        network: pb::NetMode::Host.into(),
        ..pb::ExecOp::default()
    };
    let run = host.add(&[(base, 0)], pb::op::Op::Exec(exec));
    let said = refused(
        &env,
        &nested(&host.end((run, 0)), "/buildkit.llb.definition", ""),
        &[],
    );
    assert!(said.contains("network.host is not allowed"), "{said}");

    let mut graph = Graph::default();
    let one = graph.file(None, vec![write("/one", b"1")]);
    let two = graph.file(None, vec![write("/two", b"2")]);
    let op = pb::PassthroughOp {
        id: "p".to_owned(),
        outputs: vec![1, 0],
    };
    let pass = graph.add(&[(one, 0), (two, 0)], pb::op::Op::Passthrough(op));
    let more = graph.file(Some(pass), vec![write("/more", b"m")]);
    assert_eq!(built(&env, &graph.end((more, 0)), &[]), ["more=m", "two=2"]);
}

#[test]
fn folders_show_what_is_asked_for() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    for (name, text) in [
        ("a.txt", "a"),
        ("d/b.txt", "b"),
        ("d/sub/c.txt", "c"),
        ("e", "e"),
    ] {
        env.write(&format!("folder/{name}"), text);
    }
    std::os::unix::fs::symlink("../a.txt", env.path("folder/d/link")).unwrap();
    let with = |attrs: &[(&str, &str)]| {
        let mut graph = Graph::default();
        let local = graph.source("local://some folder", attrs);
        let definition = graph.end((local, 0));
        built(
            &env,
            &definition,
            &["--build-context", "some folder=folder"],
        )
    };
    let all = [
        "a.txt=a",
        "d/b.txt=b",
        "d/link=link",
        "d/sub/c.txt=c",
        "e=e",
    ];
    for accepted in [
        ("local.sharedkeyhint", "h"),
        ("local.differ", "none"),
        ("local.differ", "metadata"),
        ("local.unique", "u"),
        ("local.session", "s"),
        ("local.metadatatransfer", "false"),
    ] {
        assert_eq!(with(&[accepted]), all, "{accepted:?}");
    }
    let (include, exclude) = ("local.includepattern", "local.excludepatterns");
    let follow = "local.followpaths";
    assert_eq!(
        with(&[(include, r#"["d/sub","a*"]"#)]),
        ["a.txt=a", "d/sub/c.txt=c"]
    );
    let both = [(include, r#"["d"]"#), (exclude, r#"["**/*.txt"]"#)];
    assert_eq!(with(&both), ["d/link=link"]);
    assert_eq!(
        with(&[(follow, r#"["d/link"]"#)]),
        ["a.txt=a", "d/link=link"]
    );
    let both = [(follow, r#"["d/link"]"#), (include, r#"["e"]"#)];
    assert_eq!(with(&both), ["a.txt=a", "d/link=link", "e=e"]);
    let wanted = [
        ("local.metadatatransfer", "true"),
        ("local.metadatatransferexclude", r#"["d/sub"]"#),
    ];
    let found = with(&wanted);
    assert_eq!((found.len(), found[1].as_str()), (2, "d/sub/c.txt=c"));
    let is_list = |line: &str| line.starts_with(".fsutil-metadata=") && line.contains("a.txt");
    assert!(is_list(&found[0]), "{found:?}");
    // A folder may also be what a merge lays on top, and a root that is written to.
    let mut graph = Graph::default();
    let file = graph.file(None, vec![write("/a.txt", b"below"), write("/f", b"f")]);
    let local = graph.source("local://some folder", &[(include, r#"["a.txt"]"#)]);
    let merged = graph.merge(&[file, local]);
    let options = ["--local", "some folder=folder"];
    assert_eq!(
        built(&env, &graph.end((merged, 0)), &options),
        ["a.txt=a", "f=f"]
    );
    let mut graph = Graph::default();
    let local = graph.source("local://context", &[]);
    let said = refused(&env, &graph.end((local, 0)), &[]);
    assert!(
        said.contains("give it with --build-context context=FOLDER"),
        "{said}"
    );
}

#[test]
fn blobs_and_signed_downloads_are_files() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    let fixture = |name: &str| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signatures");
        std::fs::read_to_string(folder.join(name)).unwrap()
    };
    let blob = fixture("data.txt");
    let digest = Digest::of(blob.as_bytes());
    env.write(&format!("layout/blobs/sha256/{}", digest.hex()), &blob);
    let with = |name: &str, attrs: &[(&str, &str)]| {
        let mut graph = Graph::default();
        let source = graph.source(&format!("oci-layout+blob://h/x@{name}"), attrs);
        graph.end((source, 0))
    };
    let lent = ["--build-context", "store=oci-layout://layout"];
    let (store, name) = (("oci.store", "store"), digest.to_string());
    let hex = digest.hex();
    assert_eq!(
        built(&env, &with(&name, &[store]), &lent),
        [format!("{hex}={blob}")]
    );
    let named = [
        store,
        ("http.filename", "a/b"),
        ("http.perm", "0751"),
        ("http.uid", "7"),
    ];
    assert_eq!(
        built(&env, &with(&name, &named), &lent),
        [format!("b={blob}")]
    );
    let metadata = std::fs::metadata(env.path("out/b")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let seen = (metadata.mode() & 0o7777, metadata.uid(), metadata.mtime());
    assert_eq!(seen, (0o751, 7, 0));
    let absent = Digest::of(b"absent").to_string();
    let said = refused(&env, &with(&absent, &[store]), &lent);
    assert!(
        said.contains("the OCI layout") && said.contains(&absent),
        "{said}"
    );
    let said = refused(&env, &with(&name, &[]), &lent);
    assert!(said.contains("needs oci.store"), "{said}");

    let url = served(blob.clone());
    let (key, wrong) = (fixture("ed.pub.asc"), fixture("rsa.pub.asc"));
    let signature = fixture("ed.asc");
    let download = |attrs: &[(&str, &str)]| {
        let mut graph = Graph::default();
        let source = graph.source(&url, attrs);
        graph.end((source, 0))
    };
    let (keys, made) = ("http.sig.pubkey", "http.sig.signature");
    let good = download(&[(keys, &key), (made, &signature)]);
    assert_eq!(built(&env, &good, &[]), [format!("data.txt={blob}")]);
    let said = refused(&env, &download(&[(keys, &wrong), (made, &signature)]), &[]);
    assert!(said.contains("which is none of the given keys"), "{said}");
    let said = refused(&env, &download(&[(keys, &key)]), &[]);
    assert!(
        said.contains("http.sig.pubkey needs http.sig.signature"),
        "{said}"
    );
}

/// Serves a file to everybody until the end of the process; returns its URL.
fn served(text: String) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let length = text.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all((head + &text).as_bytes());
        }
    });
    format!("http://{address}/data.txt")
}

#[test]
fn definitions_go_out_and_come_in_again() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    env.write("context/file", "text");
    let dockerfile = "FROM busybox\nCOPY file /copied\nRUN echo $PATH > /path\n";
    env.write("context/Dockerfile", dockerfile);
    let dump = ["debug", "dump-llb", "-f", "context/Dockerfile"];
    let bytes = crate::env::run(&mut env.cooper(&[&dump[..], &["--binary", "context"]].concat()));
    std::fs::write(env.path("dumped"), &bytes.stdout).unwrap();
    let (from_dockerfile, _) = env.ok(&[&dump[..], &["context"]].concat());
    let (from_bytes, _) = env.ok(&["debug", "dump-llb", "--llb", "dumped"]);
    assert_eq!(from_bytes, from_dockerfile);
    env.ok(&["build", "-o", "plain", "context"]);
    let found = built(&env, &bytes.stdout, &["context"]);
    assert_eq!(found, listed(&env.path("plain")));
    // A process without variables finds programs, one in a folder of the user's has a root.
    let mut graph = Graph::default();
    let image = graph.source("docker-image://busybox", &[]);
    let run = graph.run(image, "busybox true && echo $PATH > /path");
    let paths = built(&env, &graph.end((run, 0)), &[]);
    let path = "path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
    assert!(paths.contains(&path.to_owned()), "{paths:?}");
    // Nobody knows who made it, but of what.
    env.ok(&[
        "build",
        "--llb",
        "definition",
        "-t",
        "made",
        "--provenance=mode=max",
    ]);
    let (said, _) = env.ok(&["inspect", "--attestations", "made"]);
    assert!(
        said.contains("pkg:docker/busybox@latest") && !said.contains("dockerfile.v0"),
        "{said}"
    );
    let mut graph = Graph::default();
    let local = graph.source("local://context", &[]);
    let run = graph.run(local, "echo hello > /said");
    let definition = graph.end((run, 0));
    let found = built(&env, &definition, &["plain"]);
    assert!(found.contains(&"said=hello\n".to_owned()), "{found:?}");
    assert!(!env.path("plain/said").exists());
}

#[test]
fn what_is_not_known_or_makes_no_sense_is_refused() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    let mut graph = Graph::default();
    let file = graph.file(None, vec![write("/x", b"x")]);
    let digest = VertexDigest::of(&graph.ops[file]).to_string();
    let mut metadata = pb::OpMetadata::default();
    metadata.caps.insert("file.teleport".to_owned(), true);
    graph.metadata.insert(digest, metadata);
    let said = refused(&env, &graph.end((file, 0)), &[]);
    assert!(
        said.contains("needs \"file.teleport\", which is not known here"),
        "{said}"
    );
    assert!(refused(&env, b"", &[]).contains("it is empty"));
    assert!(refused(&env, b"FROM busybox", &[]).contains("this is no LLB definition"));
    let mut graph = Graph::default();
    let file = graph.file(None, vec![write("/x", b"x")]);
    let good = graph.end((file, 0));
    std::fs::write(env.path("definition"), &good).unwrap();
    for (options, expected) in [
        (&["-f", "Dockerfile"][..], "cannot be used with"),
        (&["--build-arg", "A=b"], "cannot be used with"),
        (&["--target", "t"], "cannot be used with"),
        (&["--check"], "it cannot go with --call"),
        (
            &["--build-context", "a=docker-image://b"],
            "is a folder or oci-layout://",
        ),
    ] {
        let args = ["build", "--llb", "definition", "-o", "type=cacheonly"];
        let said = env.fails(2, &[&args[..], options].concat());
        assert!(said.contains(expected), "{options:?}: {said}");
    }
    // In no order at all.
    let mut graph = Graph::default();
    let one = graph.file(None, vec![write("/one", b"1")]);
    let two = graph.file(Some(one), vec![write("/two", b"2")]);
    let ordered = Definition::from_bytes(&graph.end((two, 0))).unwrap();
    let mut mixed = ordered.clone();
    mixed.ops.swap(0, 1);
    assert_eq!(built(&env, &mixed.to_bytes(), &[]), ["one=1", "two=2"]);
}

#[test]
fn layers_of_a_definition_are_called_by_what_made_them() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let mut graph = Graph::default();
    let root = graph.source("docker-image://docker.io/library/busybox:latest", &[]);
    let ran = graph.run(root, "echo 1 > /one");
    let written = graph.file(Some(ran), vec![make("/d"), write("/d/x", b"x")]);
    std::fs::write(env.path("definition"), graph.end((written, 0))).unwrap();
    // The rules about frontends say nothing about definitions.
    env.write(
        "config/buildkit/buildkitd.toml",
        "[frontend.\"dockerfile.v0\"]\nenabled = false\n",
    );
    let mut build = env.cooper(&["build", "--llb", "definition", "-t", "named:1"]);
    run(build.env("XDG_CONFIG_HOME", env.path("config")));
    let (text, _) = env.ok(&["history", "--format=json", "named:1"]);
    let entries = text.lines().map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        entry["created_by"].as_str().unwrap().to_owned()
    });
    let lines: Vec<String> = entries.collect();
    let expected = [
        "mkdir /d, mkfile /d/x",
        "mount / from exec /bin/sh -c echo 1 > /one",
        "pulled from docker.io/library/busybox:latest",
    ];
    assert_eq!(lines, expected);
}
