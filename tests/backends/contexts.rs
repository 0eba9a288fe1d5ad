//! Build contexts in buckets: whole builds of archives that lie there.

use std::process::{Command, Output};

use cooper::registry::Client;
use opendal::{HttpTransporter, OperationContext, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;

use crate::buckets::{ACCOUNT, ACCOUNT_KEY, azure, google, runtime, s3};
use crate::cache_store;

const DOCKERFILE: &str = "FROM scratch\nCOPY file /\n";
const KEY: &str = "team/context.tar";

/// A build context as a tar archive.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", DOCKERFILE), ("file", "from the bucket\n")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, text.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap()
}

/// Puts the archive into a bucket.
fn put(operator: Operator) {
    let client: Client = cache_store::client();
    let url = reqwest::Url::parse("http://127.0.0.1").unwrap();
    let connections = client.http().connections(&url).unwrap();
    let transport = HttpTransporter::new(ReqwestTransport::new(connections));
    let context = OperationContext::default().with_http_transport(transport);
    let operator = operator.with_context(context);
    // The emulator of Google's storage misreads what has no type.
    let written = operator.write_with(KEY, archive());
    let written = written.content_type("application/x-tar");
    runtime().block_on(async { written.await.unwrap() });
}

/// Builds, with nothing in the environment but these variables.
fn build(arguments: &[&str], variables: &[(&str, &str)]) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = Command::new(env!("CARGO_BIN_EXE_cooper"))
        .env_clear()
        .envs(variables.iter().copied())
        .arg("--root")
        .arg(dir.path().join("store"))
        .args(["build", "-o", &format!("type=local,dest={}", out.display())])
        .args(arguments)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(out.join("file")).unwrap_or_default();
    (output, text)
}

fn check(arguments: &[&str], variables: &[(&str, &str)]) {
    let (output, text) = build(arguments, variables);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text, "from the bucket\n");
}

#[test]
fn an_archive_in_an_s3_bucket_is_built() {
    let Some((server, _)) = s3() else {
        return;
    };
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let bucket = opendal::services::S3::default()
        .bucket("ci-cache")
        .region("us-east-1")
        .endpoint(&endpoint)
        .access_key_id("id")
        .secret_access_key("key");
    put(Operator::new(bucket).unwrap());
    let variables = [
        ("S3_ENDPOINT", endpoint.as_str()),
        ("S3_FORCE_PATH_STYLE", "true"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
    ];
    check(&["s3://ci-cache/team/context.tar"], &variables);
    // As one among several contexts; the Dockerfile is another one.
    let dir = tempfile::tempdir().unwrap();
    let dockerfile = "FROM scratch\nCOPY --from=bucket file /\n";
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    let folder = dir.path().to_str().unwrap();
    let named = "bucket=s3://ci-cache/team/context.tar";
    check(&["--build-context", named, folder], &variables);
    let (output, _) = build(&["s3://ci-cache/none.tar"], &variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("cannot read the build context: s3://ci-cache/none.tar"),
        "{said}"
    );
}

#[test]
fn an_archive_in_an_azure_container_is_built() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_server, url)) = azure(dir.path()) else {
        return;
    };
    let container = opendal::services::Azblob::default()
        .endpoint(&url)
        .container("ci-cache")
        .account_name(ACCOUNT)
        .account_key(ACCOUNT_KEY);
    put(Operator::new(container).unwrap());
    let variables = [
        ("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", url.as_str()),
        ("BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCESS_KEY", ACCOUNT_KEY),
    ];
    check(&["azblob://ci-cache/team/context.tar"], &variables);
}

#[test]
fn an_archive_in_a_google_bucket_is_built() {
    let Some(server) = google() else {
        return;
    };
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let bucket = opendal::services::Gcs::default()
        .bucket("ci-cache")
        .endpoint(&endpoint)
        .skip_signature();
    put(Operator::new(bucket).unwrap());
    let variables = [("STORAGE_EMULATOR_HOST", endpoint.as_str())];
    check(&["gs://ci-cache/team/context.tar"], &variables);
}
