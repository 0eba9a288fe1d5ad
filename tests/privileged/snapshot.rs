//! Layers on real file systems, with overlayfs and with copies; walks tests/fixtures/layers.

use std::path::Path;

use cooper::archive::{Format, LayerReader, TarReader};
use cooper::content::ContentStore;
use cooper::oci::{Descriptor, DiffId, Digest, media_type};
use cooper::snapshot::{
    Compression, CompressionKind, Error, Kind, LayerBlob, LayerId, LayerInfo, Snapshotter,
    Unobserved,
};

use crate::{expect, fixtures, is_root, list, tarball, tree};

const INFO: LayerInfo = LayerInfo { created_ns: 1 };

struct Store {
    _temp: tempfile::TempDir,
    content: ContentStore,
    snapshotter: Snapshotter,
}

fn store(kind: Kind) -> Store {
    let temp = tempfile::tempdir().unwrap();
    let content = ContentStore::open(temp.path()).unwrap();
    let snapshotter = Snapshotter::open(temp.path(), content.clone(), Some(kind)).unwrap();
    Store {
        _temp: temp,
        content,
        snapshotter,
    }
}

impl Store {
    /// Makes a layer by letting `write` loose on the tree of `parents`.
    fn layer(&self, parents: &[LayerId], write: impl FnOnce(&Path)) -> LayerId {
        let active = self.snapshotter.prepare(parents).unwrap();
        write(active.mounted().unwrap());
        active.commit(INFO).unwrap()
    }

    fn tree(&self, layers: &[LayerId]) -> tree::Tree {
        tree::read(self.snapshotter.view(layers).unwrap().path(), false)
    }

    fn blob(&self, id: &LayerId) -> LayerBlob {
        self.snapshotter
            .layer_blob(id, &Compression::default())
            .unwrap()
    }

    /// Lists the entries of a blob as the fixtures have them.
    fn listing(&self, blob: &LayerBlob) -> String {
        let input = self.content.open_blob(&blob.descriptor).unwrap();
        let format = Format::of_layer(&blob.descriptor.media_type).unwrap();
        let mut reader = LayerReader::new(input, format).unwrap();
        let text = tree::list_archive(&mut TarReader::new(&mut reader));
        assert_eq!(reader.finish().unwrap(), sha256(&blob.diff_id));
        text
    }

    /// Stores a tar and unpacks it as a layer.
    fn apply(&self, tar: &[u8]) -> Result<LayerId, Error> {
        let digest = self.content.put(tar).unwrap();
        let blob = Descriptor::new(media_type::OCI_LAYER, digest.clone(), tar.len() as u64);
        let diff_id = DiffId(digest);
        let id = LayerId::of_diff_id(&diff_id);
        self.snapshotter.apply(&id, &blob, &diff_id, &Unobserved)?;
        Ok(id)
    }

    /// Unpacks a blob of another store as a layer of this one.
    fn import(&self, from: &Self, blob: &LayerBlob) -> LayerId {
        let bytes = from.content.read(&blob.descriptor, 1 << 30).unwrap();
        self.content.put(&bytes).unwrap();
        let id = LayerId::of_diff_id(&blob.diff_id);
        self.snapshotter
            .apply(&id, &blob.descriptor, &blob.diff_id, &Unobserved)
            .unwrap();
        id
    }
}

fn sha256(diff_id: &DiffId) -> [u8; 32] {
    let hex = diff_id.0.hex();
    let byte = |at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    std::array::from_fn(byte)
}

#[test]
fn changes_become_layers_and_layers_become_trees() {
    if !is_root() {
        return;
    }
    for folder in list(&fixtures("layers")) {
        println!("{}", folder.display());
        let read = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            tree::parse(&text)
        };
        let (before, after) = (read("before.txt"), read("after.txt"));
        let digests: Vec<Digest> = [Kind::Overlay, Kind::Native]
            .into_iter()
            .map(|kind| round_trip(kind, &folder, &before, &after))
            .collect();
        assert_eq!(digests[0], digests[1], "{folder:?}: kinds differ");
    }
}

/// apply(diff(a, b)) on a = b; returns the digest of the diff.
fn round_trip(kind: Kind, folder: &Path, before: &tree::Tree, after: &tree::Tree) -> Digest {
    let one = store(kind);
    let base = one.layer(&[], |dir| tree::make(dir, before));
    let top = one.layer(std::slice::from_ref(&base), |dir| {
        tree::change(dir, before, after);
    });
    let stack = [base.clone(), top.clone()];
    assert_eq!(
        tree::format(&one.tree(&stack)),
        tree::format(after),
        "{folder:?} {kind:?}"
    );
    let blob = one.blob(&top);
    expect(&folder.join("layer.txt"), &one.listing(&blob));

    let two = store(kind);
    let stack = [two.import(&one, &one.blob(&base)), two.import(&one, &blob)];
    assert_eq!(
        tree::format(&two.tree(&stack)),
        tree::format(after),
        "{folder:?} {kind:?} unpacked"
    );
    // The same from the directory, without the blob that was pulled.
    two.content.delete(&blob.descriptor.digest).unwrap();
    assert_eq!(
        two.blob(&stack[1]).diff_id,
        blob.diff_id,
        "{folder:?} {kind:?}"
    );
    blob.descriptor.digest
}

#[test]
fn nothing_changed_is_an_empty_layer() {
    if !is_root() {
        return;
    }
    let tree = tree::parse("dir 0755 0:0 @5 d\nfile 0644 0:0 @5 d/f \"x\"\nlink 0:0 @5 l d\n");
    for kind in [Kind::Overlay, Kind::Native] {
        let store = store(kind);
        let base = store.layer(&[], |dir| tree::make(dir, &tree));
        let same = store.layer(std::slice::from_ref(&base), |dir| {
            // Copied up, but not changed.
            let file = dir.join("d/f");
            let now = std::fs::metadata(&file).unwrap().permissions();
            std::fs::set_permissions(&file, now).unwrap();
        });
        assert!(store.snapshotter.meta(&same).unwrap().is_empty, "{kind:?}");
        assert_eq!(store.listing(&store.blob(&same)), "");
        let empty = store.layer(&[], |_| ());
        assert_eq!(store.blob(&empty), store.blob(&same));
    }
}

#[test]
fn a_replaced_directory_hides_what_it_had_name_by_name() {
    if !is_root() {
        return;
    }
    let tree = tree::parse(
        "dir 0755 0:0 @5 d\ndir 0755 0:0 @5 d/sub\nfile 0644 0:0 @5 d/sub/x \"x\"\n\
         file 0644 0:0 @5 d/f \"x\"\nfile 0644 0:0 @5 d/g \"x\"\n",
    );
    let listings = [Kind::Overlay, Kind::Native].map(|kind| {
        let store = store(kind);
        let base = store.layer(&[], |dir| tree::make(dir, &tree));
        let top = store.layer(std::slice::from_ref(&base), |dir| {
            std::fs::remove_dir_all(dir.join("d")).unwrap();
            let again = tree::parse(
                "dir 0700 0:0 @6 d\ndir 0755 0:0 @6 d/sub\nfile 0644 0:0 @5 d/g \"x\"\n",
            );
            tree::make(dir, &again);
        });
        assert_eq!(store.tree(&[base, top.clone()]).len(), 3);
        store.listing(&store.blob(&top))
    });
    assert_eq!(listings[0], listings[1]);
    assert_eq!(
        listings[0],
        "dir  0700 0:0 @6 d\nfile 0000 0:0 @0 d/.wh.f \"\"\ndir  0755 0:0 @6 d/sub\n\
         file 0000 0:0 @0 d/sub/.wh.x \"\"\n"
    );
}

#[test]
fn pulled_layers_depend_on_what_lies_below_only_when_used() {
    if !is_root() {
        return;
    }
    // Made without directory entries, and with a link to a file of the layer below.
    let upper = tarball::assemble(
        "file lib/new data=1\nfile etc/deep/conf data=2\nhardlink bin/second usr/bin/tool\n\
         file none/f data=3\n",
    );
    let merged = tarball::assemble(
        "dir usr mode=0o755\ndir usr/lib mode=0o711 uid=7\nfile usr/lib/old data=0\n\
         symlink lib usr/lib\ndir etc mode=0o750 mtime=77\ndir usr/bin mode=0o755\n\
         file usr/bin/tool mode=0o4755 data=tool\ndir bin mode=0o755\n",
    );
    let plain = tarball::assemble(
        "dir lib mode=0o700\ndir usr mode=0o755\ndir usr/bin mode=0o755\n\
         file usr/bin/tool mode=0o755 data=other\n",
    );
    for kind in [Kind::Overlay, Kind::Native] {
        let store = store(kind);
        // The order does not matter.
        let upper = store.apply(&upper).unwrap();
        let on_merged = [store.apply(&merged).unwrap(), upper.clone()];
        let on_plain = [store.apply(&plain).unwrap(), upper.clone()];
        assert_eq!(
            tree::format(&store.tree(&on_merged)),
            "dir  0755 0:0 @100 bin\nfile 4755 0:0 @100 bin/second \"tool\"\n\
             dir  0750 0:0 @77 etc\ndir  0755 0:0 @0 etc/deep\n\
             file 0644 0:0 @100 etc/deep/conf \"2\"\nlink 0:0 @100 lib usr/lib\n\
             dir  0755 0:0 @0 none\nfile 0644 0:0 @100 none/f \"3\"\n\
             dir  0755 0:0 @100 usr\ndir  0755 0:0 @100 usr/bin\nhard usr/bin/tool bin/second\n\
             dir  0711 7:0 @100 usr/lib\nfile 0644 0:0 @100 usr/lib/new \"1\"\n\
             file 0644 0:0 @100 usr/lib/old \"0\"\n",
            "{kind:?}"
        );
        assert_eq!(
            tree::format(&store.tree(&on_plain)),
            "dir  0755 0:0 @0 bin\nfile 0755 0:0 @100 bin/second \"other\"\n\
             dir  0755 0:0 @0 etc\ndir  0755 0:0 @0 etc/deep\n\
             file 0644 0:0 @100 etc/deep/conf \"2\"\n\
             dir  0700 0:0 @100 lib\nfile 0644 0:0 @100 lib/new \"1\"\n\
             dir  0755 0:0 @0 none\nfile 0644 0:0 @100 none/f \"3\"\n\
             dir  0755 0:0 @100 usr\ndir  0755 0:0 @100 usr/bin\nhard usr/bin/tool bin/second\n",
            "{kind:?}"
        );
        let alone = store.snapshotter.view(&[upper]);
        assert!(matches!(alone, Err(Error::BrokenLink { .. })), "{alone:?}");
    }
}

#[test]
fn whiteouts_that_hide_nothing_are_not_seen() {
    if !is_root() {
        return;
    }
    let layer = tarball::assemble(
        "dir d mode=0o755\nfile d/.wh.gone\nfile d/new data=1\nfile .wh.top\nfile a/b/.wh.c\n",
    );
    let below = tarball::assemble("dir d mode=0o755\nfile d/gone data=1\nfile top data=1\n");
    for kind in [Kind::Overlay, Kind::Native] {
        let store = store(kind);
        let layer = store.apply(&layer).unwrap();
        let below = store.apply(&below).unwrap();
        let names = |stack: &[LayerId]| {
            // Also as a process sees them.
            let active = store.snapshotter.prepare(stack).unwrap();
            let seen = tree::read(active.mounted().unwrap(), false);
            assert_eq!(seen, store.tree(stack), "{kind:?}");
            let names: Vec<_> = seen.into_keys().collect();
            names
        };
        let expected = ["a", "a/b", "d", "d/new"].map(Path::new);
        assert_eq!(names(std::slice::from_ref(&layer)), expected);
        assert_eq!(names(&[below.clone(), layer.clone()]), expected);
        assert_eq!(names(&[below.clone(), layer.clone(), below]).len(), 6);
    }
}

#[test]
fn an_opaque_root_hides_every_layer_below() {
    if !is_root() {
        return;
    }
    for kind in [Kind::Overlay, Kind::Native] {
        let store = store(kind);
        let stack = [
            store
                .apply(&tarball::assemble("file old data=1\n"))
                .unwrap(),
            store
                .apply(&tarball::assemble("file .wh..wh..opq\nfile new data=1\n"))
                .unwrap(),
        ];
        let names: Vec<_> = store.tree(&stack).into_keys().collect();
        assert_eq!(names, [Path::new("new")], "{kind:?}");
    }
}

#[test]
fn the_root_directory_keeps_its_mode_and_owner() {
    if !is_root() {
        return;
    }
    for kind in [Kind::Overlay, Kind::Native] {
        let store = store(kind);
        let base = store
            .apply(&tarball::assemble(
                "dir ./ mode=0o711 uid=3\nfile f data=1\n",
            ))
            .unwrap();
        let next = store.layer(std::slice::from_ref(&base), |dir| {
            std::fs::write(dir.join("g"), "1").unwrap();
        });
        let root = |stack: &[LayerId]| {
            let view = store.snapshotter.view(stack).unwrap();
            let found = cooper::sys::metadata::Metadata::of_path(view.path()).unwrap();
            (found.mode, found.uid)
        };
        let mut stack = vec![base, next.clone()];
        assert_eq!(root(&stack), (0o711, 3), "{kind:?}");
        assert!(!store.listing(&store.blob(&next)).contains("./"));
        let closed = store.layer(&stack, |dir| {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(dir, mode).unwrap();
        });
        assert!(
            store
                .listing(&store.blob(&closed))
                .contains("dir  0700 3:0")
        );
        stack.push(closed);
        assert_eq!(root(&stack), (0o700, 3), "{kind:?}");
    }
}

#[test]
fn more_layers_than_an_option_string_holds() {
    if !is_root() {
        return;
    }
    let store = store(Kind::Overlay);
    let mut stack: Vec<LayerId> = Vec::new();
    for number in 0..400 {
        let tar = format!("file f{number} data={number}\nfile last data={number}\n");
        stack.push(store.apply(&tarball::assemble(&tar)).unwrap());
    }
    let top = store.layer(&stack, |dir| {
        assert_eq!(std::fs::read_to_string(dir.join("last")).unwrap(), "399");
        std::fs::remove_file(dir.join("f0")).unwrap();
    });
    stack.push(top);
    assert_eq!(store.tree(&stack).len(), 400);
    for number in 400..502 {
        let tar = format!("file f{number} data=1\n");
        stack.push(store.apply(&tarball::assemble(&tar)).unwrap());
    }
    let error = store.snapshotter.view(&stack).unwrap_err().to_string();
    assert!(error.contains("at most 500"), "{error}");
}

#[test]
fn a_wrong_diff_id_or_blob_leaves_nothing_and_poisons_nothing() {
    if !is_root() {
        return;
    }
    let store = store(Kind::Overlay);
    let tar = tarball::assemble("file f data=1\n");
    let digest = store.content.put(&tar).unwrap();
    let blob = Descriptor::new(media_type::OCI_LAYER, digest.clone(), tar.len() as u64);
    let wrong = DiffId(Digest::of(b"something else"));
    let apply = |diff_id: &DiffId, blob: &Descriptor| {
        let id = LayerId::of_diff_id(diff_id);
        let result = store.snapshotter.apply(&id, blob, diff_id, &Unobserved);
        assert_eq!(result.is_ok(), store.snapshotter.has(&id));
        result
    };
    assert!(matches!(
        apply(&wrong, &blob),
        Err(Error::WrongDiffId { .. })
    ));
    let right = DiffId(digest);
    let mut lying = blob.clone();
    lying.media_type = media_type::OCI_LAYER_GZIP.into();
    assert!(apply(&right, &lying).is_err());
    lying.media_type = media_type::OCI_CONFIG.into();
    assert!(matches!(
        apply(&right, &lying),
        Err(Error::NotALayer { .. })
    ));
    apply(&right, &blob).unwrap();
    assert_eq!(store.snapshotter.list().unwrap().len(), 1);
    assert_eq!(
        std::fs::read_dir(store.snapshotter.root().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    let locks = std::fs::read_dir(store.snapshotter.root().join("locks")).unwrap();
    let mut names = locks.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.any(|name| name.starts_with("snap-")));
}

#[test]
fn blobs_are_made_once_and_pulled_ones_are_used_again() {
    if !is_root() {
        return;
    }
    let store = store(Kind::Overlay);
    let tar = tarball::assemble("file f data=text repeat=1000\n");
    let pulled = store.apply(&tar).unwrap();
    let gzip = Compression::default();
    let plain = store.snapshotter.layer_blob(&pulled, &gzip).unwrap();
    assert_eq!(plain.descriptor.media_type, media_type::OCI_LAYER);
    let force = Compression {
        force: true,
        ..gzip
    };
    let forced = store.snapshotter.layer_blob(&pulled, &force).unwrap();
    assert_eq!(forced.descriptor.media_type, media_type::OCI_LAYER_GZIP);
    assert_eq!(forced.diff_id, plain.diff_id);

    let built = store.layer(&[], |dir| std::fs::write(dir.join("f"), "x").unwrap());
    let blobs: Vec<LayerBlob> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| store.blob(&built))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(blobs.windows(2).all(|two| two[0] == two[1]));
    let path = store.content.path(&blobs[0].descriptor.digest);
    let before = std::fs::metadata(&path).unwrap();
    store.blob(&built);
    assert_eq!(
        before.modified().unwrap(),
        std::fs::metadata(&path).unwrap().modified().unwrap()
    );
    store.content.delete(&blobs[0].descriptor.digest).unwrap();
    assert_eq!(store.blob(&built), blobs[0]);
    for kind in [CompressionKind::Zstd, CompressionKind::Uncompressed] {
        let compression = Compression { kind, ..gzip };
        let blob = store.snapshotter.layer_blob(&built, &compression).unwrap();
        assert_eq!(blob.diff_id, blobs[0].diff_id);
        assert_eq!(store.listing(&blob), store.listing(&blobs[0]));
    }
}

#[test]
fn one_apply_wins_and_all_see_it() {
    if !is_root() {
        return;
    }
    let store = store(Kind::Overlay);
    let tar = tarball::assemble(&"file d/f data=1\n".repeat(50));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| store.apply(&tar).unwrap());
        }
    });
    assert_eq!(store.snapshotter.list().unwrap().len(), 1);
}

#[test]
fn what_the_dead_left_is_swept() {
    if !is_root() {
        return;
    }
    let store = store(Kind::Overlay);
    let root = store.snapshotter.root();
    std::fs::create_dir_all(root.join("tmp/snap-dead/layer/fs/deep")).unwrap();
    std::fs::write(root.join("locks/snap-layer-dead"), "").unwrap();
    std::fs::write(root.join("locks/other"), "").unwrap();
    // Named, but without a record: its maker died before, or the disk lost it.
    std::fs::create_dir_all(root.join("layers/half/fs")).unwrap();
    let living = store.snapshotter.prepare(&[]).unwrap();
    assert_eq!(store.snapshotter.sweep().unwrap(), 2);
    living.commit(INFO).unwrap();
    assert_eq!(store.snapshotter.list().unwrap().len(), 1);
    assert!(!root.join("locks/snap-layer-dead").exists() && root.join("locks/other").exists());
}

#[test]
fn trees_as_deep_as_paths_go() {
    if !is_root() {
        return;
    }
    let path = "d/".repeat(1990);
    let tar = tarball::assemble(&format!("pax path={path}f\nfile x data=1\n"));
    for kind in [Kind::Overlay, Kind::Native] {
        let store = store(kind);
        let id = store.apply(&tar).unwrap();
        let force = Compression {
            force: true,
            ..Default::default()
        };
        let blob = store.snapshotter.layer_blob(&id, &force).unwrap();
        assert!(store.listing(&blob).lines().count() == 1);
        let above = store.layer(std::slice::from_ref(&id), |dir| {
            std::fs::write(dir.join("top"), "x").unwrap();
        });
        let view = store.snapshotter.view(&[id, above]).unwrap();
        let root = cooper::sys::root::Root::open(view.path()).unwrap();
        let file = path.clone() + "f";
        assert_eq!(root.lstat(Path::new(&file)).unwrap().size, 1, "{kind:?}");
    }
}

#[test]
fn layers_of_another_boot_count_only_when_they_are_durable() {
    if !is_root() {
        return;
    }
    let store = store(Kind::Overlay);
    let lost = store.layer(&[], |dir| std::fs::write(dir.join("f"), "x").unwrap());
    let kept = store.layer(&[], |dir| std::fs::write(dir.join("g"), "x").unwrap());
    store.snapshotter.settle().unwrap();
    for (id, durable) in [(&lost, false), (&kept, true)] {
        let path = store.snapshotter.root().join("layers").join(id.as_str());
        let mut meta = store.snapshotter.meta(id).unwrap();
        assert!(meta.durable);
        meta.durable = durable;
        meta.boot_id = "another".into();
        std::fs::write(path.join("meta.json"), serde_json::to_vec(&meta).unwrap()).unwrap();
    }
    assert!(!store.snapshotter.has(&lost) && store.snapshotter.has(&kept));
    assert_eq!(store.snapshotter.sweep().unwrap(), 1);
    store.snapshotter.remove(&kept).unwrap();
    assert!(store.snapshotter.list().unwrap().is_empty());
}

#[test]
fn a_dropped_tree_leaves_nothing() {
    if !is_root() {
        return;
    }
    for kind in [Kind::Overlay, Kind::Native] {
        let store = store(kind);
        let base = store.layer(&[], |dir| std::fs::write(dir.join("f"), "x").unwrap());
        let active = store
            .snapshotter
            .prepare(std::slice::from_ref(&base))
            .unwrap();
        std::fs::write(active.mounted().unwrap().join("g"), "x").unwrap();
        // Mounted again by somebody else, as a process would.
        active.root_mount().unwrap();
        std::fs::write(active.mounted().unwrap().join("h"), "x").unwrap();
        let view = store.snapshotter.view(std::slice::from_ref(&base)).unwrap();
        let shared = store.snapshotter.view(std::slice::from_ref(&base)).unwrap();
        assert_eq!(view.path(), shared.path());
        drop((active, view, shared));
        assert_eq!(store.snapshotter.list().unwrap().len(), 1);
        let left = std::fs::read_dir(store.snapshotter.root().join("tmp"))
            .unwrap()
            .count();
        assert_eq!(left, 0, "{kind:?}");
    }
}
