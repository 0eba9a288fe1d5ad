//! Signatures that GnuPG and OpenSSH made (`tests/fixtures/signatures`), good and bad.

use std::io::Read;
use std::path::PathBuf;

use super::openpgp::{self, Validity};
use super::ssh;

/// The first of June 2023, when all of them were made, and a day of 2026.
const MADE_S: i64 = 1_685_577_600;
const NOW_S: i64 = 1_780_000_000;

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signatures");
    std::fs::read(folder.join(name)).unwrap()
}

fn text(name: &str) -> String {
    String::from_utf8(fixture(name)).unwrap()
}

/// Verifies a signature of `data`; says why it does not count.
fn verified(signature: &str, keys: &str, data: &[u8], times: (Validity, i64)) -> Option<String> {
    let open =
        || Ok::<_, std::io::Error>(Box::new(std::io::Cursor::new(data.to_vec())) as Box<dyn Read>);
    let verified = openpgp::verify(signature, keys, &open, times.0, times.1);
    verified.err().map(|error| error.to_string())
}

#[test]
fn openpgp_signatures_count_when_one_of_the_keys_made_them() {
    let data = fixture("data.txt");
    let then = (Validity::WhenSigned, NOW_S);
    let all: Vec<String> = ["rsa", "ed", "ec", "subkey"]
        .iter()
        .map(|name| text(&format!("{name}.pub.asc")))
        .collect();
    let all = all.join("\n");
    for name in ["rsa", "ed", "ec", "subkey", "rsa_text"] {
        let signature = text(&format!("{name}.asc"));
        assert_eq!(verified(&signature, &all, &data, then), None, "{name}");
        let still = (Validity::Now, NOW_S);
        assert_eq!(verified(&signature, &all, &data, still), None, "{name}");
        let wrong = verified(&signature, &all, b"other text\n", then).unwrap();
        assert!(wrong.contains("does not fit"), "{name}: {wrong}");
    }
}

#[test]
fn openpgp_signatures_that_prove_nothing_do_not_count() {
    let data = fixture("data.txt");
    let then = (Validity::WhenSigned, NOW_S);
    let still = (Validity::Now, NOW_S);
    for (signature, key, times, expected) in [
        (
            "rsa.asc",
            "ed.pub.asc",
            then,
            "which is none of the given keys",
        ),
        (
            "ed_sha1.asc",
            "ed.pub.asc",
            then,
            "the hash SHA1, which is not accepted",
        ),
        (
            "short.asc",
            "short.pub.asc",
            then,
            "an RSA key of 1024 bits",
        ),
        ("revoked.asc", "revoked.pub.asc", then, "was revoked"),
        ("old.asc", "old.pub.asc", still, "the key"),
        ("ed_expired.asc", "ed.pub.asc", still, "the signature of"),
        (
            "rsa.asc",
            "rsa.pub.asc",
            (Validity::WhenSigned, MADE_S - 1000),
            "in the future",
        ),
    ] {
        let said = verified(&text(signature), &text(key), &data, times);
        let said = said.unwrap_or_else(|| panic!("{signature} counts"));
        assert!(said.contains(expected), "{signature}: {said}");
    }
    // What has ended since counted when it was made.
    for (signature, key) in [("old.asc", "old.pub.asc"), ("ed_expired.asc", "ed.pub.asc")] {
        assert_eq!(
            verified(&text(signature), &text(key), &data, then),
            None,
            "{signature}"
        );
    }
}

#[test]
fn what_is_no_signature_or_key_is_said_to_be_none() {
    let data = fixture("data.txt");
    let then = (Validity::WhenSigned, NOW_S);
    let (good, key) = (text("ed.asc"), text("ed.pub.asc"));
    for (signature, keys, expected) in [
        ("", key.as_str(), "the OpenPGP signature cannot be read"),
        ("nonsense", &key, "the OpenPGP signature cannot be read"),
        (&key, &key, "the OpenPGP signature cannot be read"),
        (&good, "", "the OpenPGP public key cannot be read"),
        (&good, &good, "the OpenPGP public key cannot be read"),
    ] {
        let said = verified(signature, keys, &data, then).unwrap();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn ssh_signatures_count_when_one_of_the_keys_made_them() {
    let data = fixture("data.txt");
    let all: String = ["sshed", "sshrsa", "sshec", "sshec256"]
        .iter()
        .map(|name| text(&format!("{name}.pub")))
        .collect();
    for name in ["sshed", "sshrsa", "sshec", "sshec256"] {
        let signature = text(&format!("{name}.sig"));
        ssh::verify(&signature, &all, &data, "git").unwrap();
        let wrong = ssh::verify(&signature, &all, b"other text\n", "git").unwrap_err();
        assert!(
            wrong.to_string().contains("does not fit"),
            "{name}: {wrong}"
        );
    }
    for (signature, key, expected) in [
        (
            "sshed.sig",
            "sshrsa.pub",
            "which is none of the given keys (SHA256:",
        ),
        ("sshed_file.sig", "sshed.pub", "it was made for \"file\""),
        ("ed.asc", "sshed.pub", "the SSH signature cannot be read"),
        (
            "sshed.sig",
            "ed.pub.asc",
            "the SSH public key cannot be read",
        ),
    ] {
        let error = ssh::verify(&text(signature), &text(key), &data, "git").unwrap_err();
        assert!(error.to_string().contains(expected), "{signature}: {error}");
    }
}
