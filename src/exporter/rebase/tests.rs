use super::*;
use crate::archive::{Entry, EntryKind, TarWriter};
use crate::oci::{ContainerConfig, DiffId, History, Platform};
use crate::sys::metadata::Timestamp;

/// Manifest and config of an image.
type Documents = (Manifest, ImageConfig);

struct Store {
    _temp: tempfile::TempDir,
    content: ContentStore,
}

impl Store {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let content = ContentStore::open(temp.path()).unwrap();
        Self {
            _temp: temp,
            content,
        }
    }

    /// Stores a layer: `path=text` for files, `path/` for folders.
    fn layer(&self, files: &str) -> Descriptor {
        let mut tar = TarWriter::new(Vec::new());
        for word in files.split_whitespace() {
            let (path, text) = word.split_once('=').unwrap_or((word, ""));
            let kind = match path.ends_with('/') {
                true => EntryKind::Directory,
                false => EntryKind::Regular,
            };
            let text = text.replace(',', "\n");
            let entry = Entry {
                path: path.trim_end_matches('/').into(),
                kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                size: text.len() as u64,
                mtime: Timestamp::default(),
                xattrs: std::collections::BTreeMap::new(),
            };
            tar.entry(&entry).unwrap();
            tar.data(text.as_bytes()).unwrap();
        }
        let bytes = tar.finish().unwrap();
        self.content.put(&bytes).unwrap();
        Descriptor::of(media_type::OCI_LAYER, &bytes)
    }

    /// Makes an image of layers with an environment.
    fn image(&self, layers: &[&str], env: &[&str]) -> Documents {
        let layers: Vec<Descriptor> = layers.iter().map(|files| self.layer(files)).collect();
        let mut config = ImageConfig::empty(&Platform::linux("amd64", ""));
        config.config.env = env.iter().map(|line| (*line).to_owned()).collect();
        let ids = layers.iter().map(|layer| DiffId(layer.digest.clone()));
        config.rootfs.diff_ids = ids.collect();
        config.history = layers
            .iter()
            .map(|layer| History {
                created_by: layer.digest.short().to_owned(),
                ..History::default()
            })
            .collect();
        let document = document(media_type::OCI_CONFIG, serde_json::to_vec(&config).unwrap());
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            artifact_type: None,
            config: document.descriptor,
            layers,
            subject: None,
            annotations: std::collections::BTreeMap::new(),
        };
        (manifest, config)
    }
}

fn rebase<'a>(image: &'a Documents, old: &'a Documents, new: &'a Documents) -> Rebase<'a> {
    let side = |documents: &'a Documents| Side {
        manifest: &documents.0,
        config: &documents.1,
    };
    Rebase {
        image: side(image),
        old_base: side(old),
        new_base: side(new),
        base_name: ("base:2", "sha256:00"),
    }
}

const OLD: &str = "etc/ etc/os-release=ID=debian,VERSION_ID=\"12.1\" etc/passwd=root \
                   var/lib/dpkg/status=old lib/libc=old";
const NEW: &str = "etc/ etc/os-release=ID=debian,VERSION_ID=\"12.2\" etc/passwd=root \
                   var/lib/dpkg/status=new lib/libc=new";
const OTHER: &str = "etc/ etc/os-release=ID=alpine,VERSION_ID=3.20.1 etc/passwd=root";

#[test]
fn the_layers_and_settings_of_the_image_lie_on_the_new_base() {
    let store = Store::new();
    let upper = "etc/ etc/passwd=root,app app/bin=1";
    let old = store.image(&[OLD], &["PATH=/bin", "V=1"]);
    let new = store.image(&["shared=1", NEW], &["PATH=/bin", "V=2", "NEW=1"]);
    let mut image = store.image(&[OLD, upper], &["PATH=/app:/bin", "V=1", "OWN=x"]);
    image.1.config.cmd = Some(vec!["app".to_owned()]);
    let rebase = rebase(&image, &old, &new);
    assert_eq!(rebase.obstacles(&store.content).unwrap(), []);
    let made = rebase.assemble().unwrap();
    let layers = |documents: &Documents| documents.0.layers.clone();
    let expected = [layers(&new), layers(&image)[1..].to_vec()].concat();
    assert_eq!(made.manifest.layers, expected);
    assert_eq!(made.config.rootfs.diff_ids.len(), 3);
    assert_eq!(made.config.history.len(), 3);
    let env = ["PATH=/app:/bin", "V=2", "NEW=1", "OWN=x"];
    assert_eq!(made.config.config.env, env);
    assert_eq!(
        made.config.config.cmd.as_deref(),
        Some(&["app".to_owned()][..])
    );
    assert_eq!(made.manifest.annotations[BASE_NAME], "base:2");
    let descriptor = &made.manifest_document.descriptor;
    let documents = (&made.manifest_document.bytes, &made.config_document.bytes);
    crate::exporter::validate::documents(descriptor, documents.0, documents.1).unwrap();
    // And back again, as if nothing had been.
    let there = (made.manifest.clone(), made.config.clone());
    let back = super::Rebase {
        image: Side {
            manifest: &there.0,
            config: &there.1,
        },
        old_base: rebase.new_base,
        new_base: rebase.old_base,
        base_name: rebase.base_name,
    };
    assert_eq!(back.assemble().unwrap().config, image.1);
}

#[test]
fn what_speaks_against_it_is_named() {
    let store = Store::new();
    let path = ["PATH=/bin"];
    let old = store.image(&[OLD], &path);
    let new = store.image(&[NEW], &path);
    for (layers, new, expected) in [
        (
            &[NEW, "app=1"][..],
            &new,
            "its lowest layers are not those of the old base",
        ),
        (
            &[OLD, "var/lib/dpkg/status=mine"],
            &new,
            "it has installed packages: its list of them, /var/lib/dpkg/status, would hide that \
             of the new base",
        ),
        (
            &[OLD, "lib/libc=mine app=1"],
            &new,
            "it has its own of what the new base has changed: /lib/libc",
        ),
        // A folder takes the place of a file too, and the release is a file like any other.
        (
            &[OLD, "lib/libc/ etc/os-release=mine"],
            &new,
            "it has its own of what the new base has changed: /etc/os-release, /lib/libc",
        ),
        (&[OLD, ".wh.app var/lib/dpkg/.wh.status"], &new, ""),
        (
            &[OLD, "app=1"],
            &store.image(&[OTHER], &path),
            "the old base is debian 12 and the new one alpine 3",
        ),
        (
            &[OLD, "app=1"],
            &store.image(&["empty="], &path),
            "the old base is debian 12 and the new one no distribution",
        ),
        // The same files in other layers are the same files.
        (
            &[OLD, "etc/passwd=mine"],
            &store.image(&["etc/passwd=other", NEW], &path),
            "",
        ),
        // What a later layer of the base takes away is not there.
        (
            &[OLD, "etc/passwd=mine"],
            &store.image(&[NEW, "etc/.wh.passwd"], &path),
            "it has its own of what the new base has changed: /etc/passwd",
        ),
    ] {
        let image = store.image(layers, &path);
        let found = rebase(&image, &old, new).obstacles(&store.content).unwrap();
        let found: Vec<String> = found.iter().map(Obstacle::to_string).collect();
        assert_eq!(found.join("; "), expected, "{layers:?}");
    }
}

#[test]
fn settings_that_were_made_of_the_bases_are_obstacles() {
    let store = Store::new();
    let (old, new) = (
        store.image(&["a=1"], &["PATH=/old/bin", "HOME=/root"]),
        store.image(&["a=1"], &["PATH=/new/bin", "HOME=/root"]),
    );
    for (env, expected) in [
        ("PATH=/old/bin", ""),
        ("PATH=/mine", ""),
        (
            "PATH=/app:/old/bin",
            "the variable PATH contains the old base's, which is another one in the new base",
        ),
        ("PATH=/new/bin", ""),
    ] {
        let image = store.image(&["a=1", "b=2"], &[env, "HOME=/root/app"]);
        let found = rebase(&image, &old, &new)
            .obstacles(&store.content)
            .unwrap();
        let found: Vec<String> = found.iter().map(Obstacle::to_string).collect();
        assert_eq!(found.join("; "), expected, "{env}");
    }
    let mut arm = store.image(&["a=1"], &[]);
    arm.1.architecture = "arm64".to_owned();
    let image = store.image(&["a=1"], &[]);
    let found = rebase(&image, &old, &arm)
        .obstacles(&store.content)
        .unwrap();
    assert!(found[0].is_final() && found[0].to_string().contains("linux/arm64"));
}

#[test]
fn config_members_follow_the_base_unless_the_image_has_its_own() {
    let config = |user: &str, entrypoint: &str, cmd: &str| ContainerConfig {
        user: user.to_owned(),
        entrypoint: Some(vec![entrypoint.to_owned()]),
        cmd: Some(vec![cmd.to_owned()]),
        ..ContainerConfig::default()
    };
    let merge = |image: &ContainerConfig| {
        let (old, new) = (config("old", "e", "c"), config("new", "e2", "c2"));
        settings::merge(image, &old, &new, &mut Vec::new())
    };
    assert_eq!(merge(&config("old", "e", "c")), config("new", "e2", "c2"));
    assert_eq!(
        merge(&config("app", "e", "mine")),
        config("app", "e2", "mine")
    );
    // An ENTRYPOINT of the image's own keeps its CMD.
    assert_eq!(
        merge(&config("old", "mine", "c")),
        config("new", "mine", "c")
    );
}
