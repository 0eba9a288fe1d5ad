//! Reads every archive of tests/fixtures/hostile. The privileged tests unpack them, too; here
//! it is enough that reading ends, with clean paths or an error.

use super::{TarReader, clean_path};

#[allow(dead_code, reason = "shared with tests that use all of it")]
#[path = "../../tests/support/escape.rs"]
mod escape;
#[path = "../../tests/support/tarball.rs"]
mod tarball;

#[test]
fn hostile_archives_yield_clean_paths_or_errors() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hostile");
    let mut refused = 0;
    for file in std::fs::read_dir(fixtures).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let (body, _) = text.split_once("\nexpect ").unwrap();
        let body: String = body
            .lines()
            .filter(|line| !line.starts_with("mode "))
            .fold(String::new(), |body, line| body + line + "\n");
        let archive = tarball::assemble(&body.replace("@OUTSIDE@", "/outside"));
        for end in [archive.len(), archive.len() / 2] {
            let mut reader = TarReader::new(&archive[..end]);
            loop {
                match reader.next_entry() {
                    Ok(Some(entry)) => {
                        let path = entry.path.as_os_str().as_encoded_bytes();
                        let clean = path.is_empty() || clean_path(path).unwrap() == entry.path;
                        assert!(clean && entry.path.is_relative(), "{text}");
                    }
                    Ok(None) => break,
                    Err(_) => {
                        refused += 1;
                        break;
                    }
                }
            }
        }
    }
    assert!(refused > 30);
}
