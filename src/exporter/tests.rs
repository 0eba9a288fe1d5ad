//! Whole exports over a real store: what is written is valid, the same every time, and refused
//! when any of it is broken.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::*;
use crate::archive::TarReader;
use crate::attestation::Attestation;
use crate::oci::{Descriptor, History, ImageConfig, Reference};
use crate::progress::Progress;
use crate::registry;
use crate::snapshot::{Kind, LayerId, LayerInfo, Snapshotter};
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;

/// What the attributes of outputs do.
mod forms;

/// A store with two layers in it.
struct Fixture {
    temp: tempfile::TempDir,
    content: ContentStore,
    exporter: Exporter,
    layers: Vec<LayerId>,
    attestations: Vec<Attestation>,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("store");
        let content = ContentStore::open(&root).unwrap();
        let snapshots = Snapshotter::open(&root, content.clone(), Some(Kind::Native)).unwrap();
        let registry = registry::Client::new(registry::Options::default());
        let mut layers = Vec::new();
        for (number, path) in [(1_i64, "etc/first"), (2, "second")] {
            let active = snapshots.prepare(&layers).unwrap();
            let tree = active.mounted().unwrap();
            let file = tree.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, format!("text {number}")).unwrap();
            std::os::unix::fs::symlink("/etc/first", tree.join(format!("link{number}"))).unwrap();
            // The second layer must not depend on when the first one was unpacked.
            let root = Root::open(tree).unwrap();
            for path in ["etc/first", "etc", "second", "link1", "link2", ""] {
                match root.set_times(Path::new(path), Timestamp::from_seconds(number)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
                    _ => {}
                }
            }
            let created_ns = number * 1_000_000_000;
            layers.push(active.commit(LayerInfo { created_ns }).unwrap());
        }
        let exporter = Exporter::new(content.clone(), snapshots, registry);
        Self {
            temp,
            content,
            exporter,
            layers,
            attestations: Vec::new(),
        }
    }

    /// Says something about all results: provenance, maybe for images only, and an SBOM.
    fn attested(inline_only: bool) -> Self {
        let say = |filename: &str, predicate_type: &str, inline_only| Attestation {
            filename: filename.to_owned(),
            predicate_type: predicate_type.to_owned(),
            inline_only,
            time_s: 5,
            predicate: std::sync::Arc::new(format!("{{\"said\":\"{filename}\"}}")),
            about: Vec::new(),
        };
        let mut attestations = vec![say("provenance.json", "https://slsa.dev/x", inline_only)];
        if !inline_only {
            attestations.insert(0, say("sbom.spdx.json", crate::attestation::SPDX, false));
        }
        Self {
            attestations,
            ..Self::new()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn export(&self, outputs: &[&str]) -> Result<Exported, Error> {
        self.export_for(&["linux/amd64"], None, outputs)
    }

    /// Exports the same tree for every platform, with an index where there are several.
    fn export_for(
        &self,
        platforms: &[&str],
        epoch_s: Option<i64>,
        outputs: &[&str],
    ) -> Result<Exported, Error> {
        let outputs = outputs.iter().map(|text| self.output(text)).collect();
        let entry = |empty_layer| History {
            created_by: "step".to_owned(),
            empty_layer,
            ..History::default()
        };
        let results = platforms.iter().map(|name| {
            let platform: Platform = name.parse().unwrap();
            PlatformResult {
                config: ImageConfig {
                    history: vec![entry(false), entry(true), entry(false)],
                    ..ImageConfig::empty(&platform)
                },
                base: None,
                layers: self.layers.clone(),
                platform,
                epoch_s,
                attestations: self.attestations.clone(),
            }
        });
        let request = ExportRequest {
            results: results.collect(),
            multi_platform: platforms.len() > 1,
            names: vec!["app:1.0".parse().unwrap()],
            outputs,
            elsewhere: Default::default(),
            encryption: None,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (progress, cancel) = (Progress::silent(), CancellationToken::new());
        runtime.block_on(self.exporter.export(request, &progress, &cancel))
    }

    /// Reads `type dest key=value…`; `-` for no destination.
    fn output(&self, text: &str) -> OutputSpec {
        let mut words = text.split(' ');
        let (kind, dest) = (words.next().unwrap(), words.next().unwrap_or("-"));
        let target = match dest {
            "-" => Target::Nowhere,
            name => Target::Path(self.path(name)),
        };
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        let attributes: BTreeMap<String, String> = words.map(pair).collect();
        OutputSpec::from_attributes(kind, target, &attributes).unwrap()
    }
}

/// Lists a tar: each path with the bytes of its file.
fn list(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut reader = TarReader::new(std::fs::File::open(path).unwrap());
    let mut entries = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        entries.insert(entry.path.to_str().unwrap().to_owned(), bytes);
    }
    entries
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

const TWO: [&str; 2] = ["linux/arm64", "linux/amd64"];

#[test]
fn several_platforms_make_an_index_in_the_order_asked_for() {
    let fixture = Fixture::new();
    let outputs = [
        "image - annotation-index.i=1 annotation-manifest[linux/arm64].m=2",
        "oci app.tar",
        "oci app tar=false oci-mediatypes=false",
    ];
    let exported = fixture.export_for(&TWO, Some(1), &outputs).unwrap();
    let name: Reference = "app:1.0".parse().unwrap();
    let root = fixture.content.images().resolve(&name).unwrap().unwrap();
    let index = bundle::read_index(&fixture.content, &root).unwrap();
    assert_eq!(index.annotations["i"], "1");
    let platforms = index.manifests.iter().map(|m| m.platform.as_ref().unwrap());
    let platforms: Vec<String> = platforms.map(Platform::to_string).collect();
    assert_eq!(platforms, TWO);
    for (child, remarks) in index.manifests.iter().zip([1, 0]) {
        validate::image(&fixture.content, child).unwrap();
        let manifest = bundle::read_manifest(&fixture.content, child).unwrap();
        assert_eq!(manifest.annotations.len(), remarks);
    }
    // The answer tells of the last output, a list in Docker's words.
    let image = exported.image.unwrap();
    assert_eq!(image.root.media_type, crate::oci::media_type::DOCKER_INDEX);
    assert_eq!(image.id.0, image.root.digest);
    let response = exported.response;
    assert_eq!(
        response["containerimage.digest"],
        image.root.digest.to_string()
    );
    assert!(!response.contains_key("containerimage.config.digest"));
    // An archive holds every blob once, and one entry for the name.
    let archive = list(&fixture.path("app.tar"));
    let entries = json(&archive["index.json"]);
    assert_eq!(entries["manifests"].as_array().unwrap().len(), 1);
    let blobs = archive
        .keys()
        .filter(|path| path.starts_with("blobs/sha256/"));
    assert_eq!(blobs.count(), 1 + 2 + 2 + 2);
    assert!(fixture.path("app/index.json").exists());
    for (outputs, error) in [
        ("docker x.tar", "of several platforms"),
        ("image - annotation[linux/386].a=b", "linux/386"),
    ] {
        let refused = fixture.export_for(&TWO, None, &[outputs]).unwrap_err();
        assert!(refused.to_string().contains(error), "{refused}");
    }
    let refused = fixture
        .export(&["image - annotation-index.a=b"])
        .unwrap_err();
    assert!(
        refused.to_string().contains("several platforms"),
        "{refused}"
    );
}

#[test]
fn what_is_said_about_an_image_stands_behind_it_in_an_index() {
    let fixture = Fixture::attested(false);
    let root = |output: &str| {
        let exported = fixture.export(&[output]).unwrap();
        exported.image.unwrap().root
    };
    let index = bundle::read_index(&fixture.content, &root("image")).unwrap();
    let [image, about] = index.manifests.as_slice() else {
        panic!("{index:?}")
    };
    validate::image(&fixture.content, image).unwrap();
    assert_eq!(about.attested(), Some(image.digest.clone()));
    assert_eq!(
        about.annotations["vnd.docker.reference.type"],
        "attestation-manifest"
    );
    let platform = about.platform.as_ref().unwrap();
    assert_eq!(platform.to_string(), "unknown/unknown");
    let bytes = fixture.content.read(about, 1 << 20).unwrap();
    let manifest = json(&bytes);
    assert_eq!(
        manifest["artifactType"],
        "application/vnd.docker.attestation.manifest.v1+json"
    );
    assert_eq!(manifest["config"]["data"], "e30=");
    assert_eq!(manifest["subject"]["digest"], image.digest.to_string());
    let manifest = bundle::read_manifest(&fixture.content, about).unwrap();
    let elsewhere = std::collections::BTreeSet::new();
    validate::presence(&fixture.content, &manifest, &elsewhere).unwrap();
    let statements = manifest.layers.iter().map(|layer| {
        assert_eq!(layer.media_type, "application/vnd.in-toto+json");
        let statement = json(&fixture.content.read(layer, 1 << 20).unwrap());
        let kind = &layer.annotations["in-toto.io/predicate-type"];
        assert_eq!(statement["predicateType"], **kind);
        let subject = &statement["subject"][0];
        assert_eq!(subject["digest"]["sha256"], image.digest.hex());
        assert_eq!(subject["name"], "pkg:docker/app@1.0?platform=linux%2Famd64");
        statement["predicate"]["said"].to_string()
    });
    let statements: Vec<String> = statements.collect();
    assert_eq!(statements, ["\"sbom.spdx.json\"", "\"provenance.json\""]);
    // The older form is an image for an unknown platform, without a subject.
    let legacy = root("image - oci-artifact=false");
    let legacy = bundle::read_index(&fixture.content, &legacy).unwrap();
    let manifest = bundle::read_manifest(&fixture.content, &legacy.manifests[1]).unwrap();
    assert_eq!((&manifest.artifact_type, &manifest.subject), (&None, &None));
    let config = json(&fixture.content.read(&manifest.config, 1 << 20).unwrap());
    assert_eq!(config["architecture"], "unknown");
    let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(ids.len(), 2);
    // The same again, byte by byte; and an index can have annotations.
    assert_eq!(root("image"), root("image"));
    root("image - annotation-index.i=1");
    let refused = fixture
        .export(&["image - oci-mediatypes=false"])
        .unwrap_err();
    assert!(matches!(refused, Error::DockerAttestation), "{refused}");
}

#[test]
fn every_platform_of_an_index_has_its_own_statements() {
    let fixture = Fixture::attested(true);
    let exported = fixture.export_for(&TWO, None, &["oci app.tar"]).unwrap();
    let root = exported.image.unwrap().root;
    let index = bundle::read_index(&fixture.content, &root).unwrap();
    let about: Vec<_> = index.manifests.iter().map(Descriptor::attested).collect();
    let images = &index.manifests[..2];
    assert_eq!(
        about,
        [
            None,
            None,
            Some(images[0].digest.clone()),
            Some(images[1].digest.clone())
        ]
    );
    // Index, two images, two configs, two layers; two manifests, their config, two statements.
    let archive = list(&fixture.path("app.tar"));
    let blobs = archive
        .keys()
        .filter(|path| path.starts_with("blobs/sha256/"));
    assert_eq!(blobs.count(), 7 + 5);
}

#[test]
fn what_only_images_carry_leaves_archives_of_one_platform_as_they_are() {
    let fixture = Fixture::attested(true);
    let kind = |fixture: &Fixture, output: &str| {
        let exported = fixture.export(&[output]).unwrap();
        crate::oci::media_type::is_index(&exported.image.unwrap().root.media_type)
    };
    assert!(kind(&fixture, "image"));
    assert!(!kind(&fixture, "oci a.tar"));
    assert!(kind(&fixture, "oci a.tar attestation-inline=true"));
    assert!(!kind(&fixture, "image - attestation-inline=false"));
    assert!(!kind(&fixture, "docker d.tar"));
    fixture.export(&["local out"]).unwrap();
    assert!(!fixture.path("out/provenance.json").exists());
    let fixture = Fixture::attested(false);
    assert!(kind(&fixture, "oci a.tar"));
    assert!(!kind(&fixture, "docker d.tar"));
}

#[test]
fn trees_have_what_is_said_about_them_beside_their_files() {
    let fixture = Fixture::attested(false);
    fixture
        .export(&["local out", "tar out.tar attestation-prefix=about-"])
        .unwrap();
    let text = std::fs::read(fixture.path("out/provenance.json")).unwrap();
    let statement = json(&text);
    let names = statement["subject"].as_array().unwrap().iter();
    let names: Vec<String> = names.map(|subject| subject["name"].to_string()).collect();
    assert_eq!(names, ["\"etc/first\"", "\"second\""]);
    let second = crate::oci::Digest::of(b"text 2");
    assert_eq!(json(&text)["subject"][1]["digest"]["sha256"], second.hex());
    let tar = list(&fixture.path("out.tar"));
    assert_eq!(json(&tar["about-provenance.json"]), json(&text));
    assert!(tar.contains_key("about-sbom.spdx.json"));
    let modified = fixture.path("out/provenance.json").metadata().unwrap();
    let modified = modified.modified().unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 5);
    fixture
        .export_for(&TWO, None, &["local split", "tar split.tar"])
        .unwrap();
    for name in ["provenance.json", "sbom.spdx.json"] {
        assert!(fixture.path("split/linux_arm64").join(name).exists());
    }
    let refused = fixture.export_for(&TWO, None, &["local one platform-split=false"]);
    assert!(matches!(refused, Err(Error::Overwritten { .. })));
}

#[test]
fn trees_of_several_platforms_get_a_folder_each() {
    let fixture = Fixture::new();
    let outputs = ["local out", "tar out.tar", "local one platform-split=false"];
    let error = fixture.export_for(&TWO, Some(7), &outputs).unwrap_err();
    assert!(
        error.to_string().contains("would be overwritten"),
        "{error}"
    );
    let archive = list(&fixture.path("out.tar"));
    for folder in ["linux_arm64", "linux_amd64"] {
        let file = format!("{folder}/etc/first");
        assert_eq!(archive[&file], b"text 1");
        let path = fixture.path("out").join(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"text 1");
        for path in [path, fixture.path("out").join(folder)] {
            let modified = path.metadata().unwrap().modified().unwrap();
            let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(since.as_secs(), 7, "{}", path.display());
        }
    }
    fixture
        .export(&["local split platform-split=true"])
        .unwrap();
    assert!(fixture.path("split/linux_amd64/second").exists());
}

#[test]
fn times_in_layers_are_rewritten_when_asked_for() {
    let fixture = Fixture::new();
    let export = |epoch_s, output: &str| {
        let exported = fixture.export_for(&["linux/amd64"], epoch_s, &[output]);
        let root = exported.unwrap().image.unwrap().root;
        let config = validate::image(&fixture.content, &root).unwrap();
        let manifest = bundle::read_manifest(&fixture.content, &root).unwrap();
        (config, manifest)
    };
    let (plain, _) = export(Some(1), "image");
    assert_eq!(plain.created.as_deref(), Some("1970-01-01T00:00:01Z"));
    let (clamped, manifest) = export(Some(1), "image - rewrite-timestamp=true");
    // The first layer is as old as the epoch, the second one younger.
    let (before, after) = (&plain.rootfs.diff_ids, &clamped.rootfs.diff_ids);
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    for layer in &manifest.layers {
        assert_eq!(layer.annotations["buildkit/rewritten-timestamp"], "1");
    }
    // The output's own epoch wins; without any there is nothing to rewrite for.
    let own = "image - rewrite-timestamp=true source-date-epoch=1";
    assert_eq!(export(Some(9), own).0.rootfs, clamped.rootfs);
    let none = "image - rewrite-timestamp=true source-date-epoch=";
    assert_eq!(export(Some(1), none).0.rootfs, plain.rootfs);
    assert_eq!(
        export(Some(1), none).0.created.as_deref(),
        Some("1970-01-01T00:00:02Z")
    );
}

#[test]
fn differences_of_layers_are_named_by_file() {
    let fixture = Fixture::new();
    let root = |output: &str| {
        let exported = fixture.export_for(&["linux/amd64"], Some(1), &[output]);
        exported.unwrap().image.unwrap().root
    };
    let (plain, again) = (root("image"), root("image"));
    let clamped = root("image - rewrite-timestamp=true");
    let difference = |one: &Descriptor, other: &Descriptor| {
        let found = compare::images(&fixture.content, one, other).unwrap();
        found.map(|difference| (difference.is_of_time(), difference.to_string()))
    };
    assert_eq!(difference(&plain, &again), None);
    let text = "layer 2 of 2 (step) differs: /etc was changed at 1970-01-01T00:00:02Z, \
                and at 1970-01-01T00:00:01Z the second time (and 4 more files)";
    assert_eq!(difference(&plain, &clamped), Some((true, text.to_owned())));
    let layers = |root: &Descriptor| {
        bundle::read_manifest(&fixture.content, root)
            .unwrap()
            .layers
    };
    let (one, other) = (layers(&plain), layers(&plain));
    let file = compare::layers(&fixture.content, &one[0], &other[1])
        .unwrap()
        .unwrap();
    assert_eq!(
        file.to_string(),
        "/link2 is there only the second time (and 4 more files)"
    );
}

#[test]
fn an_image_is_valid_named_and_the_same_every_time() {
    let fixture = Fixture::new();
    let exported = fixture.export(&["image"]).unwrap();
    let image = exported.image.unwrap();
    let config = validate::image(&fixture.content, &image.root).unwrap();
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:02Z"));
    let name: Reference = "app:1.0".parse().unwrap();
    let named = fixture.content.images().resolve(&name).unwrap().unwrap();
    assert_eq!(named.digest, image.root.digest);
    let digest = image.root.digest.to_string();
    assert_eq!(exported.response["containerimage.digest"], digest);
    assert_eq!(exported.response["image.name"], "docker.io/library/app:1.0");
    let again = fixture.export(&["image"]).unwrap().image.unwrap();
    assert_eq!(again, image);
    // Another machine, another store, the same bytes.
    let elsewhere = Fixture::new().export(&["image"]).unwrap().image.unwrap();
    assert_eq!(elsewhere.root, image.root);
}

#[test]
fn every_compression_gives_a_valid_image_with_the_same_config() {
    let fixture = Fixture::new();
    let mut ids = std::collections::BTreeSet::new();
    for options in [
        "compression=gzip",
        "compression=gzip compression-level=9 force-compression=true",
        "compression=zstd",
        "compression=uncompressed",
    ] {
        let exported = fixture.export(&[&format!("image - {options}")]).unwrap();
        let image = exported.image.unwrap();
        validate::image(&fixture.content, &image.root).unwrap();
        ids.insert(image.id.to_string());
    }
    assert_eq!(ids.len(), 1);
}

#[test]
fn archives_hold_every_blob_once_and_name_the_image() {
    let fixture = Fixture::new();
    let exported = fixture
        .export(&["docker d.tar", "oci o.tar", "oci again.tar"])
        .unwrap();
    let oci = list(&fixture.path("o.tar"));
    let image = exported.image.unwrap();
    let index = json(&oci["index.json"]);
    let entry = &index["manifests"][0];
    assert_eq!(entry["digest"], image.root.digest.to_string());
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        "docker.io/library/app:1.0"
    );
    assert_eq!(
        entry["annotations"]["org.opencontainers.image.ref.name"],
        "1.0"
    );
    // Three small files, two folders, manifest, config and two layers.
    assert_eq!(oci.len(), 2 + 2 + 4);
    for (path, bytes) in &oci {
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            assert_eq!(crate::oci::Digest::of(bytes).hex(), hex);
        }
    }
    let bytes = |name: &str| std::fs::read(fixture.path(name)).unwrap();
    assert_eq!(bytes("o.tar"), bytes("again.tar"));
    let docker = list(&fixture.path("d.tar"));
    let table = json(&docker["manifest.json"]);
    assert_eq!(table[0]["RepoTags"][0], "app:1.0");
    let config = table[0]["Config"].as_str().unwrap();
    assert_eq!(json(&docker[config])["architecture"], "amd64");
    assert_eq!(table[0]["Layers"].as_array().unwrap().len(), 2);
    assert!(json(&docker["repositories"])["app"]["1.0"].is_string());
}

#[test]
fn a_layout_folder_keeps_other_images_and_replaces_its_own() {
    let fixture = Fixture::new();
    fixture.export(&["oci layout tar=false"]).unwrap();
    fixture
        .export(&["oci layout tar=false compression=zstd"])
        .unwrap();
    fixture
        .export(&["oci layout tar=false name=other"])
        .unwrap();
    let index = json(&std::fs::read(fixture.path("layout/index.json")).unwrap());
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            entry["annotations"]["io.containerd.image.name"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(
        names,
        [
            "docker.io/library/app:1.0",
            "docker.io/library/other:latest"
        ]
    );
    // The folder is a content store of its own.
    let copy = ContentStore::open(&fixture.path("layout")).unwrap();
    for (_, descriptor) in copy.images().list().unwrap() {
        validate::image(&copy, &descriptor).unwrap();
    }
}

#[test]
fn trees_are_written_whole() {
    let fixture = Fixture::new();
    let exported = fixture.export(&["tar root.tar", "local out"]).unwrap();
    assert!(exported.image.is_none() && exported.response.is_empty());
    let tar = list(&fixture.path("root.tar"));
    let names: Vec<&str> = tar.keys().map(String::as_str).collect();
    assert_eq!(names, ["etc", "etc/first", "link1", "link2", "second"]);
    assert_eq!(tar["etc/first"], b"text 1");
    let read = |name: &str| std::fs::read(fixture.path("out").join(name)).unwrap();
    assert_eq!(read("second"), b"text 2");
    assert_eq!(read("etc/first"), b"text 1");
}

#[test]
fn any_corrupt_blob_fails_the_export_and_leaves_no_file() {
    let fixture = Fixture::new();
    let image = fixture.export(&["image"]).unwrap().image.unwrap();
    let bundle = Bundle::collect(
        &fixture.content,
        &[ArchivedImage {
            root: image.root.clone(),
            names: Vec::new(),
        }],
        ArchiveForm::Oci,
        &Platform::host(),
    )
    .unwrap();
    assert_eq!(bundle.blobs.len(), 4);
    for blob in &bundle.blobs {
        let path = fixture.content.path(&blob.digest);
        let mut bytes = Vec::new();
        std::fs::File::open(&path)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        let mut broken = bytes.clone();
        broken[bytes.len() / 2] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &broken).unwrap();
        assert!(validate::image(&fixture.content, &image.root).is_err());
        let saved = save_to(&fixture, &image.root, "broken.tar");
        assert!(saved.is_err(), "{}", blob.media_type);
        assert!(!fixture.path("broken.tar").exists());
        std::fs::write(&path, &bytes).unwrap();
    }
    save_to(&fixture, &image.root, "whole.tar").unwrap();
}

fn save_to(fixture: &Fixture, root: &Descriptor, name: &str) -> Result<(), Error> {
    let images = [ArchivedImage {
        root: root.clone(),
        names: Vec::new(),
    }];
    let what = Save {
        images: &images,
        form: ArchiveForm::Docker,
        platform: &Platform::host(),
        destination: &ArchiveDestination::Tar(Destination::File(fixture.path(name))),
    };
    let (vertex, cancel) = (VertexProgress::silent(), CancellationToken::new());
    save(&fixture.content, what, &vertex, &cancel)
}

#[test]
fn a_cancelled_export_writes_nothing() {
    let fixture = Fixture::new();
    let image = fixture.export(&["image"]).unwrap().image.unwrap();
    let images = [ArchivedImage {
        root: image.root,
        names: Vec::new(),
    }];
    let destination = ArchiveDestination::Tar(Destination::File(fixture.path("never.tar")));
    let what = Save {
        images: &images,
        form: ArchiveForm::Oci,
        platform: &Platform::host(),
        destination: &destination,
    };
    let (vertex, cancel) = (VertexProgress::silent(), CancellationToken::new());
    cancel.cancel();
    let saved = save(&fixture.content, what, &vertex, &cancel);
    assert!(matches!(saved, Err(Error::Cancelled)));
    assert!(!fixture.path("never.tar").exists());
}

#[test]
fn a_push_needs_a_name_and_an_index_needs_an_image() {
    let fixture = Fixture::new();
    let missing = Descriptor::of(crate::oci::media_type::OCI_MANIFEST, b"{}");
    assert!(save_to(&fixture, &missing, "x.tar").is_err());
    let index = crate::oci::Index::default();
    let bytes = serde_json::to_vec(&index).unwrap();
    fixture.content.put(&bytes).unwrap();
    let descriptor = Descriptor::of(crate::oci::media_type::OCI_INDEX, &bytes);
    assert!(matches!(
        save_to(&fixture, &descriptor, "x.tar"),
        Err(Error::NoImageForPlatform { .. })
    ));
}
