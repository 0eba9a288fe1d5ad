//! A tree with packages of every kind, and what the readers make of odd files.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::attestation::Predicate as _;
use crate::oci::{Descriptor, media_type};

/// A folder to scan.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, bytes) in files {
            tree.write(path, bytes, 0o644);
        }
        tree
    }

    fn write(&self, path: &str, bytes: &[u8], mode: u32) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn scan(&self) -> Inventory {
        scan(self.0.path(), &CancellationToken::new()).unwrap()
    }
}

/// Lists the package URLs of an inventory, each with its file.
fn urls(inventory: &Inventory) -> Vec<String> {
    let files = inventory.files.iter();
    files
        .flat_map(|(path, file)| {
            let line = move |package: &Package| format!("{} {}", path.display(), package.url);
            file.packages.keys().map(line)
        })
        .collect()
}

const OS_RELEASE: &[u8] = b"NAME=x\nID=debian\nVERSION_ID=\"12\"\n";

#[test]
fn dpkg_lists_what_is_installed() {
    let status = b"Package: libc6\nStatus: install ok installed\nMaintainer: Glibc <a@b>\n\
Architecture: amd64\nSource: glibc (2.36-9)\nVersion: 2.36-9+deb12u1\nDescription: C library\n more\n\n\
Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
Package: tool\nStatus: install ok installed\nArchitecture: all\nVersion: 1:0.1\n";
    let tree = Tree::new(&[
        ("etc/os-release", OS_RELEASE),
        ("var/lib/dpkg/status", status),
        ("var/lib/dpkg/info/libc6:amd64.list", b"/.\n"),
        ("var/lib/dpkg/status.d/base", b"Package: base\nVersion: 3\n"),
        ("var/lib/dpkg/status.d/base.md5sums", b"x\n"),
    ]);
    let mut inventory = tree.scan();
    assert_eq!(
        urls(&inventory),
        [
            "var/lib/dpkg/status pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12&upstream=glibc%402.36-9",
            "var/lib/dpkg/status pkg:deb/debian/tool@1:0.1?arch=all&distro=debian-12",
            "var/lib/dpkg/status.d/base pkg:deb/debian/base@3?distro=debian-12",
        ]
    );
    let came_from = |path: &Path| match path.to_str().unwrap() {
        "var/lib/dpkg/info/libc6:amd64.list" => Some(0),
        _ => Some(1),
    };
    inventory.attribute(came_from);
    let status = &inventory.files[Path::new("var/lib/dpkg/status")];
    let layers: Vec<Option<usize>> = status.packages.values().copied().collect();
    assert_eq!((status.layer, layers), (Some(1), vec![Some(0), Some(1)]));
}

#[test]
fn apk_lists_what_is_installed() {
    let installed = b"C:Q1\nP:musl\nV:1.2.4-r1\nA:x86_64\nT:libc\no:musl\nm:Me <m@e>\nL:MIT\n\
F:lib\nR:ld-musl-x86_64.so.1\n\nP:libssl3\nV:3.1-r0\nA:x86_64\nL:Apache-2.0\no:openssl\n\n";
    let tree = Tree::new(&[
        ("etc/os-release", b"ID=alpine\nVERSION_ID=3.18.2\n"),
        ("lib/apk/db/installed", installed),
    ]);
    let inventory = tree.scan();
    assert_eq!(
        urls(&inventory),
        [
            "lib/apk/db/installed pkg:apk/alpine/libssl3@3.1-r0?arch=x86_64&distro=alpine-3.18.2&upstream=openssl",
            "lib/apk/db/installed pkg:apk/alpine/musl@1.2.4-r1?arch=x86_64&distro=alpine-3.18.2",
        ]
    );
    let file = &inventory.files[Path::new("lib/apk/db/installed")];
    let musl = file.packages.keys().nth(1).unwrap();
    assert_eq!(musl.came_with, Some("lib/ld-musl-x86_64.so.1".into()));
}

/// Writes an rpm header of the tags given: text, or a number.
fn rpm_header(tags: &[(u32, Result<&str, u32>)]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, value) in tags {
        let kind: u32 = if value.is_ok() { 6 } else { 4 };
        while kind == 4 && data.len() % 4 != 0 {
            data.push(0);
        }
        for number in [*tag, kind, u32::try_from(data.len()).unwrap(), 1] {
            index.extend(number.to_be_bytes());
        }
        match value {
            Ok(text) => data.extend([text.as_bytes(), b"\0"].concat()),
            Err(number) => data.extend(number.to_be_bytes()),
        }
    }
    let counts = [tags.len(), data.len()];
    let mut header: Vec<u8> = counts
        .iter()
        .flat_map(|count| u32::try_from(*count).unwrap().to_be_bytes())
        .collect();
    header.extend([index, data].concat());
    header
}

#[test]
fn rpm_lists_what_is_in_its_sqlite_database() {
    let tree = Tree::new(&[
        ("etc/os-release", b"ID=fedora\nVERSION_ID=40\n"),
        ("var/lib/rpm/Packages", b"an older form"),
    ]);
    let path = tree.0.path().join("usr/lib/sysimage/rpm/rpmdb.sqlite");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let database = rusqlite::Connection::open(&path).unwrap();
    let create =
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)";
    database.execute(create, ()).unwrap();
    let bash = [
        (1000, Ok("bash")),
        (1001, Ok("5.2.26")),
        (1002, Ok("3.fc40")),
        (1003, Err(1)),
        (1014, Ok("GPL-3.0-or-later")),
        (1022, Ok("x86_64")),
        (1044, Ok("bash-5.2.26-3.fc40.src.rpm")),
        (1116, Err(0)),
        (1117, Ok("bash")),
        (1118, Ok("/usr/bin/")),
    ];
    let key = [(1000, Ok("gpg-pubkey")), (1001, Ok("1")), (1002, Ok("1"))];
    for blob in [rpm_header(&bash), rpm_header(&key), b"no header".to_vec()] {
        let insert = "INSERT INTO Packages (blob) VALUES (?)";
        database.execute(insert, [blob]).unwrap();
    }
    drop(database);
    let inventory = tree.scan();
    assert_eq!(
        urls(&inventory),
        [
            "usr/lib/sysimage/rpm/rpmdb.sqlite pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64&distro=fedora-40&epoch=1&upstream=bash-5.2.26-3.fc40.src.rpm"
        ]
    );
    let (_, file) = inventory.files.first_key_value().unwrap();
    let (bash, _) = file.packages.first_key_value().unwrap();
    assert_eq!(bash.version, "1:5.2.26-3.fc40");
    assert_eq!(bash.came_with, Some(PathBuf::from("usr/bin/bash")));
    assert!(inventory.notes[0].contains("only the SQLite form is read"));
}

#[test]
fn language_packages_are_found_where_they_are_installed() {
    let lock = br#"{"lockfileVersion":3,"packages":{"":{"name":"app","version":"1.0.0"},
        "node_modules/a":{"version":"1.2.3","license":"MIT"},
        "node_modules/@s/b/node_modules/c":{"version":"2.0.0"},
        "node_modules/d":{"version":"3.0.0","dev":true}}}"#;
    let old_lock = br#"{"lockfileVersion":1,"dependencies":{"x":{"version":"1.0.0",
        "dependencies":{"y":{"version":"2.0.0"}}}}}"#;
    let cargo = b"version = 4\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\n[[package]]\n\
name = \"serde\"\nversion = \"1.0.200\"\nsource = \"registry+https://x\"\ndependencies = [\n \"a\",\n]\n\n\
[metadata]\nname = \"no\"\n";
    let tree = Tree::new(&[
        (
            "usr/lib/python3/dist-packages/Py_YAML-6.0.dist-info/METADATA",
            b"Metadata-Version: 2.1\nName: Py_YAML\nVersion: 6.0\nLicense: MIT\n\nName: no\n",
        ),
        (
            "opt/x.egg-info/PKG-INFO",
            b"Name: x\nVersion: 1\nLicense: UNKNOWN\n",
        ),
        ("opt/y-1.egg-info", b"Name: y\nVersion: 1\n"),
        (
            "app/node_modules/@s/b/package.json",
            br#"{"name":"@s/b","version":"1.0.0","license":{"type":"ISC"},"author":{"name":"N"}}"#,
        ),
        (
            "app/node_modules/a/lib/package.json",
            br#"{"name":"part","version":"1.0.0"}"#,
        ),
        ("app/package.json", br#"{"name":"app","version":"1.0.0"}"#),
        ("app/package-lock.json", lock),
        ("lib/package-lock.json", lock),
        ("old/package-lock.json", old_lock),
        ("src/Cargo.lock", cargo),
        ("bad/package-lock.json", b"{"),
        ("proc/x/Cargo.lock", cargo),
    ]);
    let inventory = tree.scan();
    assert_eq!(
        urls(&inventory),
        [
            "app/node_modules/@s/b/package.json pkg:npm/%40s/b@1.0.0",
            "lib/package-lock.json pkg:npm/a@1.2.3",
            "lib/package-lock.json pkg:npm/c@2.0.0",
            "old/package-lock.json pkg:npm/x@1.0.0",
            "old/package-lock.json pkg:npm/y@2.0.0",
            "opt/x.egg-info/PKG-INFO pkg:pypi/x@1",
            "opt/y-1.egg-info pkg:pypi/y@1",
            "src/Cargo.lock pkg:cargo/serde@1.0.200",
            "usr/lib/python3/dist-packages/Py_YAML-6.0.dist-info/METADATA pkg:pypi/py-yaml@6.0",
        ]
    );
    assert_eq!(inventory.notes.len(), 1);
    assert!(inventory.notes[0].contains("/bad/package-lock.json is not in the SBOM"));
}

/// Writes an ELF file of 64 bits with one section besides that of the names.
fn elf(name: &str, section: &[u8]) -> Vec<u8> {
    let names = format!("\0{name}\0.shstrtab\0");
    let (at_names, at_section) = (64, 64 + names.len());
    let at_table = at_section + section.len();
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(40, 0);
    bytes.extend((at_table as u64).to_le_bytes());
    bytes.resize(58, 0);
    for number in [64_u16, 3, 2] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(names.as_bytes());
    bytes.extend(section);
    let places = [
        (0, 0, 0),
        (1, at_section, section.len()),
        (2 + name.len(), at_names, names.len()),
    ];
    for (name, offset, size) in places {
        let mut header = [0_u8; 64];
        header[..4].copy_from_slice(&u32::try_from(name).unwrap().to_le_bytes());
        header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        bytes.extend(header);
    }
    bytes.resize(bytes.len().max(8192), 0);
    bytes
}

/// Writes what the Go linker does.
fn go_section(version: &str, modules: &str) -> Vec<u8> {
    let mut section = b"\xff Go buildinf:\x08\x02".to_vec();
    section.resize(32, 0);
    let marked = format!("{}{modules}{}", "0".repeat(16), "1".repeat(16));
    for text in [version, &marked] {
        let mut length = text.len();
        while length >= 0x80 {
            section.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        section.push(u8::try_from(length).unwrap());
        section.extend(text.as_bytes());
    }
    section
}

#[test]
fn programs_tell_of_their_modules_and_crates() {
    let modules = "path\tx.org/cmd\nmod\tx.org/App\t(devel)\t\ndep\tgithub.com/a/b\tv1.2.3\th1:x\n\
dep\tgithub.com/old/c\tv1.0.0\n=>\tgithub.com/new/c\tv1.1.0\th1:y\nbuild\t-compiler=gc\n";
    let list = br#"{"packages":[{"name":"serde","version":"1.0.1","source":"crates.io"},
        {"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"}]}"#;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(list).unwrap();
    let tree = Tree::new(&[]);
    let go = elf(".go.buildinfo", &go_section("go1.22.1 X:none", modules));
    tree.write("bin/go", &go, 0o755);
    tree.write("bin/not-runnable", &go, 0o644);
    tree.write("bin/rust", &elf(".dep-v0", &zlib.finish().unwrap()), 0o755);
    tree.write("bin/broken", &elf(".dep-v0", b"no zlib"), 0o755);
    let mut lying = go.clone();
    lying[40..48].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    tree.write("bin/lying", &lying, 0o755);
    tree.write("bin/script", &[b'#'; 5000], 0o755);
    let inventory = tree.scan();
    assert_eq!(
        urls(&inventory),
        [
            "bin/go pkg:golang/stdlib@1.22.1",
            "bin/go pkg:golang/github.com/a/b@v1.2.3",
            "bin/go pkg:golang/github.com/new/c@v1.1.0",
            "bin/go pkg:golang/x.org/app",
            "bin/rust pkg:cargo/serde@1.0.1",
        ]
        .map(str::to_owned)
    );
    assert_eq!(inventory.notes.len(), 1, "{:?}", inventory.notes);
    assert!(inventory.notes[0].contains("/bin/broken"));
}

#[test]
fn the_document_names_layers_licences_and_evidence() {
    let tree = Tree::new(&[
        (
            "a.dist-info/METADATA",
            b"Name: a\nVersion: 1\nLicense: MIT\nSummary: s\nAuthor: Me\n",
        ),
        (
            "b.dist-info/METADATA",
            b"Name: b\nVersion: 2\nLicense: Some words of mine\n",
        ),
    ]);
    let mut inventory = tree.scan();
    inventory.attribute(|path| Some(usize::from(path.starts_with("b.dist-info"))));
    let document = SpdxDocument {
        name: "app:1.0".to_owned(),
        created: "2024-01-01T00:00:00Z".to_owned(),
        inventory,
    };
    let layers: Vec<Descriptor> = [b"0", b"1"]
        .iter()
        .map(|bytes| Descriptor::of(media_type::OCI_LAYER_GZIP, *bytes))
        .collect();
    let text = document.write(&layers).unwrap();
    assert_eq!(text, document.write(&layers).unwrap());
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["spdxVersion"], "SPDX-2.3");
    let packages = value["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 3);
    assert_eq!(packages[1]["licenseDeclared"], "MIT");
    assert_eq!(
        packages[1]["comment"],
        format!("layerID: {}", layers[0].digest)
    );
    let licence = packages[2]["licenseDeclared"].as_str().unwrap();
    assert!(licence.starts_with("LicenseRef-Some-words-of-mine-"));
    let extracted = &value["hasExtractedLicensingInfos"][0];
    assert_eq!(extracted["licenseId"], licence);
    assert_eq!(extracted["extractedText"], "Some words of mine");
    let files = value["files"].as_array().unwrap();
    assert_eq!(files[1]["fileName"], "./b.dist-info/METADATA");
    assert_eq!(
        files[1]["comment"],
        format!("layerID: {}", layers[1].digest)
    );
    assert_eq!(files[0]["checksums"][0]["algorithm"], "SHA1");
    let relations = value["relationships"].as_array().unwrap();
    assert_eq!(relations.len(), 5);
    // A tree has no layers, and another document.
    let tree: Value = serde_json::from_str(&document.write(&[]).unwrap()).unwrap();
    assert!(tree["files"][0].get("comment").is_none());
    assert_ne!(tree["documentNamespace"], value["documentNamespace"]);
}
