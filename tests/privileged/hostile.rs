//! Every archive of tests/fixtures/hostile, unpacked next to things it must not reach.

use std::path::Path;

use cooper::archive::{
    ExtractOptions, Extracted, Format, LayerReader, Unobserved, Whiteouts, extract,
};
use cooper::sys::root::Root;

use crate::{expect, fixtures, is_root, list, tarball, tree};

#[test]
fn every_hostile_archive_is_contained() {
    if !is_root() {
        return;
    }
    for file in list(&fixtures("hostile")) {
        println!("{}", file.display());
        check(&file);
    }
}

fn check(file: &Path) {
    let temp = tempfile::tempdir().unwrap();
    let (inside, outside) = (temp.path().join("root"), temp.path().join("outside"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "canary").unwrap();
    let before = tree::format(&tree::read(temp.path(), true));

    let text = std::fs::read_to_string(file).unwrap();
    let end = text.find("\nexpect ").unwrap() + 1;
    let (mode, body): (Vec<&str>, Vec<&str>) = text[..end]
        .lines()
        .partition(|line| line.starts_with("mode "));
    let body = body.join("\n");
    let place = crate::escape::escape(outside.as_os_str().as_encoded_bytes());
    let archive = tarball::assemble(&body.replace("@OUTSIDE@", &place));

    let modes: &[&str] = match mode.first() {
        Some(line) => &[line.strip_prefix("mode ").unwrap()],
        None => &["layer", "add"],
    };
    let results: Vec<String> = modes
        .iter()
        .map(|mode| {
            let result = unpack(&archive, &inside, mode);
            let text = result_text(result, &inside, &place);
            Root::open(&inside)
                .and_then(|root| cooper::sys::dir::clear_tree(&root))
                .unwrap();
            text
        })
        .collect();
    assert!(
        results.windows(2).all(|two| two[0] == two[1]),
        "{results:?}"
    );
    expect(file, &format!("{}{}", &text[..end], results[0]));

    let mut after = tree::read(temp.path(), true);
    // What is inside was looked at already; that it is still there was not.
    let root = after.get_mut(Path::new("root")).unwrap();
    assert_eq!(root.what, tree::What::Dir, "{file:?}");
    *root = tree::parse(&before)[Path::new("root")].clone();
    assert_eq!(
        tree::format(&after),
        before,
        "{file:?} changed something outside"
    );
}

fn unpack(archive: &[u8], inside: &Path, mode: &str) -> Result<Extracted, String> {
    let whiteouts = match mode {
        "layer" => Whiteouts::Overlay {
            opaque_xattr: "trusted.overlay.opaque",
        },
        _ => Whiteouts::Literal,
    };
    let options = ExtractOptions {
        whiteouts,
        owner: None,
    };
    let root = Root::open(inside).unwrap();
    let input = std::io::Cursor::new(archive.to_vec());
    let mut reader = LayerReader::new(input, Format::Plain).unwrap();
    extract(&mut reader, &root, Path::new(""), options, &Unobserved)
        .map_err(|error| error.to_string())
}

/// Writes what came out as the fixtures have it.
fn result_text(result: Result<Extracted, String>, inside: &Path, place: &str) -> String {
    let found = match result {
        Err(mut error) => {
            // Room on the disk differs from machine to machine.
            if let Some(at) = error.find(" bytes there is room for") {
                let start = error[..at].rfind(' ').unwrap();
                error.replace_range(start..at, " N");
            }
            assert!(error.len() < 1000, "{error}");
            return format!("expect error {error}\n");
        }
        Ok(found) => found,
    };
    let mut text = String::from("expect ok\n");
    if found.is_opaque {
        text += "opaque\n";
    }
    for path in &found.implied {
        text += &format!("implied {}\n", path.display());
    }
    for (name, target) in &found.missing_links {
        text += &format!("missing {} {}\n", name.display(), target.display());
    }
    let mut seen = tree::read(inside, true);
    // Undescribed directories of ADD get the present time.
    for node in seen.values_mut() {
        if node.mtime > 1_700_000_000 && node.mtime < 4_000_000_000 {
            node.mtime = 0;
        }
    }
    text += &tree::format(&seen);
    // Where the test's own folder lies differs from machine to machine.
    let inside_place = place.trim_start_matches('/');
    let is_above = |line: &str| {
        let name = line.split_whitespace().last().unwrap_or_default();
        inside_place.starts_with(&format!("{name}/"))
    };
    let kept: Vec<&str> = text.lines().filter(|line| !is_above(line)).collect();
    let text = kept.join("\n") + "\n";
    text.replace(place, "@OUTSIDE@")
        .replace(inside_place, "@OUTSIDE@")
}
