//! What the attributes of outputs make of an image and of a folder.

use super::*;

#[test]
fn estargz_layers_say_what_is_in_them_wherever_they_go() {
    let fixture = Fixture::new();
    let outputs = [
        "image - compression=estargz",
        "oci layout tar=false compression=estargz",
    ];
    let image = fixture.export(&outputs).unwrap().image.unwrap();
    let config = validate::image(&fixture.content, &image.root).unwrap();
    let manifest = bundle::read_manifest(&fixture.content, &image.root).unwrap();
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        assert_eq!(layer.media_type, crate::oci::media_type::OCI_LAYER_GZIP);
        let toc = &layer.annotations["containerd.io/snapshot/stargz/toc.digest"];
        assert!(toc.starts_with("sha256:"));
        let size: u64 = layer.annotations["io.containers.estargz.uncompressed-size"]
            .parse()
            .unwrap();
        let blob = std::fs::read(fixture.content.path(&layer.digest)).unwrap();
        let mut unpacked = Vec::new();
        crate::archive::decoder(&blob[..], crate::archive::Format::Gzip)
            .unwrap()
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(size, unpacked.len() as u64);
        assert_eq!(diff_id.0, crate::oci::Digest::of(&unpacked));
    }
    // The tree is that of the other kinds, and so is their id afterwards.
    let gzip = fixture.export(&["image"]).unwrap().image.unwrap();
    let of_gzip = validate::image(&fixture.content, &gzip.root).unwrap();
    assert_ne!(of_gzip.rootfs, config.rootfs);
    let difference = compare::images(&fixture.content, &image.root, &gzip.root).unwrap();
    let text = difference.map(|difference| difference.to_string());
    assert!(
        text.is_none_or(|text| !text.contains('/')),
        "the trees differ"
    );
}

#[test]
fn names_may_follow_from_the_image() {
    let fixture = Fixture::new();
    let names = |output: &str| {
        for (name, _) in fixture.content.images().list().unwrap() {
            fixture.content.images().untag(&name).unwrap();
        }
        let exported = fixture.export(&[output]).unwrap();
        let image = exported.image.unwrap();
        let digest = image.root.digest.to_string();
        let stored = fixture.content.images().list().unwrap();
        let stored: Vec<String> = stored.iter().map(|(name, _)| name.familiar()).collect();
        let told = exported.response["image.name"].clone();
        (
            stored.join(" ").replace(&digest, "D"),
            told.replace(&digest, "D").replace("docker.io/library/", ""),
        )
    };
    for (output, stored, told) in [
        ("image - name=b", "app:1.0 b:latest", "app:1.0,b:latest"),
        (
            "image - name-canonical=true",
            "app:1.0 app:1.0@D",
            "app:1.0",
        ),
        (
            "image - dangling-name-prefix=x",
            "app:1.0 x@D",
            "app:1.0,x@D",
        ),
        (
            "image - dangling-name-prefix=x danging-name-empty-only=true",
            "app:1.0",
            "app:1.0",
        ),
        (
            "image - dangling-name-prefix=x name-canonical=true",
            "app:1.0 x@D app:1.0@D",
            "app:1.0,x@D",
        ),
        ("image - store=false", "", "app:1.0"),
    ] {
        let expected = (stored.to_owned(), told.to_owned());
        assert_eq!(names(output), expected, "{output}");
    }
}

#[test]
fn layers_that_may_not_be_distributed_keep_their_address_when_asked() {
    use crate::oci::media_type;
    let mut fixture = Fixture::new();
    let blob = fixture
        .export(&["image - compression=uncompressed"])
        .unwrap();
    let root = blob.image.unwrap().root;
    let layers = bundle::read_manifest(&fixture.content, &root)
        .unwrap()
        .layers;
    let config = validate::image(&fixture.content, &root).unwrap();
    // The lowest layer, as if it had come with a base image.
    let foreign = Descriptor {
        media_type: media_type::OCI_FOREIGN.to_owned(),
        urls: vec!["https://maker.example/layer".to_owned()],
        ..layers[0].clone()
    };
    let diff_id = &config.rootfs.diff_ids[0];
    let id = LayerId::of_diff_id(diff_id);
    let store = fixture.temp.path().join("store");
    let snapshots = Snapshotter::open(&store, fixture.content.clone(), Some(Kind::Native));
    let unpacked = snapshots
        .unwrap()
        .apply(&id, &foreign, diff_id, &crate::snapshot::Unobserved);
    unpacked.unwrap();
    fixture.layers[0] = id;
    for (options, media_type, addresses) in [
        ("prefer-nondist-layers=true", media_type::OCI_FOREIGN, 1),
        (
            "prefer-nondist-layers=true oci-mediatypes=false",
            media_type::DOCKER_FOREIGN,
            1,
        ),
        ("prefer-nondist-layers=false", media_type::OCI_LAYER, 0),
        (
            "prefer-nondist-layers=true compression=gzip force-compression=true",
            media_type::OCI_LAYER_GZIP,
            0,
        ),
    ] {
        let image = fixture.export(&[&format!("image - {options}")]).unwrap();
        let root = image.image.unwrap().root;
        validate::image(&fixture.content, &root).unwrap();
        let layers = bundle::read_manifest(&fixture.content, &root)
            .unwrap()
            .layers;
        assert_eq!(layers[0].media_type, media_type, "{options}");
        assert_eq!(layers[0].urls.len(), addresses, "{options}");
    }
}

#[test]
fn media_types_are_those_of_the_release_that_is_asked_for() {
    use crate::oci::media_type;
    let fixture = Fixture::new();
    for (output, expected) in [
        ("image", media_type::OCI_MANIFEST),
        ("image - compatibility-version=30", media_type::OCI_MANIFEST),
        (
            "image - compatibility-version=20",
            media_type::DOCKER_MANIFEST,
        ),
        (
            "image - compatibility-version=20 compression=zstd",
            media_type::OCI_MANIFEST,
        ),
        (
            "image - compatibility-version=10 oci-mediatypes=true",
            media_type::OCI_MANIFEST,
        ),
        (
            "oci o.tar compatibility-version=10",
            media_type::OCI_MANIFEST,
        ),
        ("docker d.tar", media_type::OCI_MANIFEST),
        (
            "docker d.tar compatibility-version=20",
            media_type::DOCKER_MANIFEST,
        ),
        ("docker d.tar compression=estargz", media_type::OCI_MANIFEST),
    ] {
        let image = fixture.export(&[output]).unwrap().image.unwrap();
        assert_eq!(image.root.media_type, expected, "{output}");
    }
}

#[test]
fn a_local_output_can_be_all_that_its_folder_holds() {
    let fixture = Fixture::new();
    let write = |path: &str| {
        let path = fixture.path("out").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "old").unwrap();
    };
    let there = |path: &str| fixture.path("out").join(path).symlink_metadata().is_ok();
    for path in ["stale/deep/file", "etc/stale", "linux_amd64/file", "link1"] {
        write(path);
    }
    fixture.export(&["local out"]).unwrap();
    assert!(there("stale/deep/file") && there("etc/stale") && there("etc/first"));
    fixture
        .export_for(&["linux/amd64"], Some(7), &["local out mode=delete"])
        .unwrap();
    assert!(!there("stale") && !there("etc/stale") && !there("linux_amd64"));
    assert!(there("etc/first") && there("link1") && there("second"));
    let modified = fixture
        .path("out/etc")
        .metadata()
        .unwrap()
        .modified()
        .unwrap();
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(since.as_secs(), 7);
    // Folders of platforms are the result too.
    write("linux_amd64/file");
    fixture
        .export_for(&TWO, None, &["local out mode=delete"])
        .unwrap();
    assert!(there("linux_amd64/second") && there("linux_arm64/etc/first"));
    assert!(!there("linux_amd64/file") && !there("etc") && !there("second"));
}

#[test]
fn squashed_images_have_one_layer_and_their_whole_history() {
    let fixture = Fixture::new();
    let mut output = fixture.output("image");
    if let Some(options) = output.image_options_mut() {
        options.squash = Squash::New;
    }
    let export = |output: &OutputSpec, label: Option<&str>| {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let entry = |text: &str, empty_layer| History {
            created_by: text.to_owned(),
            empty_layer,
            ..History::default()
        };
        let mut config = ImageConfig::empty(&platform);
        config.history = vec![entry("one", false), entry("env", true), entry("two", false)];
        if let Some(label) = label {
            config
                .history
                .insert(0, entry(&format!("LABEL {label}=all"), true));
            let labels = [(label.to_owned(), "all".to_owned())];
            config.config.labels = Some(BTreeMap::from(labels));
        }
        let result = PlatformResult {
            config,
            base: None,
            layers: fixture.layers.clone(),
            platform,
            epoch_s: None,
            attestations: Vec::new(),
        };
        let request = ExportRequest {
            elsewhere: std::collections::BTreeSet::new(),
            encryption: None,
            results: vec![result],
            multi_platform: false,
            names: Vec::new(),
            outputs: vec![output.clone()],
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (progress, cancel) = (Progress::silent(), CancellationToken::new());
        let export = fixture.exporter.export(request, &progress, &cancel);
        runtime.block_on(export).unwrap().image.unwrap()
    };
    let image = export(&output, None);
    let config = validate::image(&fixture.content, &image.root).unwrap();
    assert_eq!(config.rootfs.diff_ids.len(), 1);
    assert_eq!(config.history.len(), 3);
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:02Z"));
    let manifest = bundle::read_manifest(&fixture.content, &image.root).unwrap();
    let blob = std::fs::read(fixture.content.path(&manifest.layers[0].digest)).unwrap();
    let tar = crate::archive::decoder(&blob[..], crate::archive::Format::Gzip).unwrap();
    let mut reader = TarReader::new(tar);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(entry.path.to_str().unwrap().to_owned());
    }
    assert_eq!(names, ["etc", "etc/first", "link1", "link2", "second"]);
    assert_eq!(export(&output, None), image);
    // The label does the same, and leaves nothing.
    let labelled = export(&fixture.output("image"), Some(squash::LABEL));
    let again = validate::image(&fixture.content, &labelled.root).unwrap();
    assert_eq!(again.rootfs, config.rootfs);
    assert!(again.config.labels.is_none_or(|labels| labels.is_empty()));
    let plain = export(&fixture.output("image"), None);
    let plain = validate::image(&fixture.content, &plain.root).unwrap();
    assert_eq!(plain.rootfs.diff_ids.len(), 2);
}
