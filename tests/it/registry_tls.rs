//! A real registry behind TLS with a private authority, and one that wants a client certificate:
//! reached with `certs.d`, `--cert-dir` and `hosts.toml`, refused without.

use std::path::Path;
use std::process::Command;

use cooper::content::ContentStore;
use cooper::oci::{Descriptor, media_type};
use cooper::progress::VertexProgress;
use cooper::registry::{Client, HostFiles, HostOptions, Hosts, Options, RetryPolicy};

use crate::registry_real::{RealRegistry, skip};

/// Makes an authority, a server certificate for 127.0.0.1 and a client certificate in a folder;
/// `false` where openssl is not installed.
fn certificates(dir: &Path) -> bool {
    let script = r#"
set -e
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -days 2 -keyout ca.key -out ca.crt 2>/dev/null
echo 'subjectAltName=IP:127.0.0.1' > server.ext
for name in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout $name.key -out $name.csr 2>/dev/null
done
printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n' > client.ext
for name in server client; do
    openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
        -extfile $name.ext -out $name.crt 2>/dev/null
done
"#;
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .status();
    match made {
        Ok(status) if status.success() => true,
        other => {
            skip(&format!("openssl made no certificates: {other:?}"));
            false
        }
    }
}

fn client(options: HostOptions) -> Client {
    Client::new(Options {
        hosts: Hosts::new(options),
        retry: RetryPolicy {
            tries_max: 1,
            ..RetryPolicy::default()
        },
        ..Options::default()
    })
}

async fn push(client: &Client, registry: &RealRegistry) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    store.put(b"layer").unwrap();
    let blob = Descriptor::of(media_type::OCI_LAYER, b"layer");
    let silent = VertexProgress::silent();
    let name = registry.name("team/app");
    let pushed = client.push_blob(&name, &blob, &store, None, &silent);
    pushed.await.map(|_| ()).map_err(|error| error.to_string())
}

fn put(dir: &Path, from: &Path, names: &[(&str, &str)]) {
    std::fs::create_dir_all(dir).unwrap();
    for (source, target) in names {
        std::fs::copy(from.join(source), dir.join(target)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_a_host_are_trusted_and_presented() {
    let pki = tempfile::tempdir().unwrap();
    if !certificates(pki.path()) {
        return;
    }
    let at = |name: &str| pki.path().join(name).display().to_string();
    let tls = format!(
        "  tls:\n    certificate: {}\n    key: {}\n    clientcas:\n      - {}\n",
        at("server.crt"),
        at("server.key"),
        at("ca.crt")
    );
    let Some(registry) = RealRegistry::start_with(&tls, "") else {
        return;
    };
    let whole = [
        ("ca.crt", "ca.crt"),
        ("client.crt", "client.cert"),
        ("client.key", "client.key"),
    ];
    let machine = tempfile::tempdir().unwrap();
    let folder = |name: &str| machine.path().join(name);
    // As docker and podman have it.
    put(&folder("certs.d").join(registry.host()), pki.path(), &whole);
    // Without our own certificate.
    put(
        &folder("half.d").join(registry.host()),
        pki.path(),
        &whole[..1],
    );
    // As containerd has it, for a registry that is this one by another name.
    let toml = folder("toml.d/named.example");
    put(&toml, pki.path(), &whole);
    let text = format!(
        "server = \"https://{}\"\nca = \"ca.crt\"\nclient = [[\"client.cert\", \"client.key\"]]\n",
        registry.host()
    );
    std::fs::write(toml.join("hosts.toml"), text).unwrap();
    let with_dir = |name: &str| HostOptions {
        files: HostFiles {
            certs_dirs: vec![folder(name)],
            ..HostFiles::default()
        },
        ..HostOptions::default()
    };
    push(&client(with_dir("certs.d")), &registry).await.unwrap();
    let typed = HostOptions {
        cert_dir: Some(folder("certs.d").join(registry.host())),
        tls_verify: Some(true),
        ..HostOptions::default()
    };
    push(&client(typed), &registry).await.unwrap();
    for (options, reason) in [
        (with_dir("half.d"), "certificate"),
        (
            HostOptions {
                tls_verify: Some(true),
                ..HostOptions::default()
            },
            "certificate",
        ),
    ] {
        let error = push(&client(options), &registry).await.unwrap_err();
        assert!(error.to_lowercase().contains(reason), "{error}");
    }
    let other: cooper::oci::Reference = "named.example/team/app".parse().unwrap();
    let there = client(with_dir("toml.d"))
        .blob_exists(&other, &Descriptor::of(media_type::OCI_LAYER, b"layer"))
        .await;
    assert!(there.unwrap());
}
