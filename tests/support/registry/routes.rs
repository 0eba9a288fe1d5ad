//! What the registry does: blobs, uploads, manifests, tags, and files beside them.

use std::net::SocketAddr;
use std::sync::Arc;

use cooper::oci::Digest;

use super::State;
use super::connection::{Answer, Incoming};
use super::tokens::{refuse, token};

/// Does what a request asks.
pub(super) fn respond(state: &mut State, request: &Incoming, address: SocketAddr) -> Answer {
    let path = request.logged.path.clone();
    if path == "/token" {
        return token(state, request);
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        return plain(state, request);
    };
    // Who sends a body was looked at before it was read.
    if request.body.is_empty()
        && let Some(refusal) = refuse(state, request, address)
    {
        return refusal;
    }
    if rest.is_empty() {
        return Answer::new(200);
    }
    if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
        return uploads(state, request, repository, upload);
    }
    if let Some((repository, digest)) = rest.split_once("/blobs/") {
        return blobs(state, request, repository, digest);
    }
    if let Some((repository, "")) = rest.split_once("/tags/list") {
        return tags(state, request, repository);
    }
    match rest.split_once("/manifests/") {
        Some((repository, name)) => manifests(state, request, repository, name),
        None => Answer::error(404, "NAME_UNKNOWN", "no such thing"),
    }
}

/// Answers paths outside the registry's API: files of the repository `files`.
fn plain(state: &State, request: &Incoming) -> Answer {
    let key = (
        "files".to_owned(),
        request.logged.path.trim_start_matches('/').to_owned(),
    );
    match state.blobs.get(&key) {
        Some(bytes) => ranged(request, Answer::new(200), bytes),
        None => Answer::new(404),
    }
}

pub(super) fn tags_of(state: &State, repository: &str) -> Vec<String> {
    let keys = state.manifests.keys();
    let names = keys.filter(|(r, name)| r == repository && !name.contains(':'));
    names.map(|(_, name)| name.clone()).collect()
}

/// Lists tags in pages.
fn tags(state: &State, request: &Incoming, repository: &str) -> Answer {
    let fields = parse_query(&request.logged.query);
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
    };
    let last = field("last").unwrap_or_default();
    // Small pages, so that there are several.
    let length = field("n")
        .and_then(|n| n.parse().ok())
        .unwrap_or(3_usize)
        .min(3);
    let mut tags = tags_of(state, repository);
    tags.retain(|tag| *tag > last);
    let more = tags.len() > length;
    tags.truncate(length);
    let body = serde_json::json!({"name": repository, "tags": tags}).to_string();
    let answer = Answer::new(200).body(body);
    match (more, tags.last()) {
        (true, Some(last)) => {
            let next = format!("</v2/{repository}/tags/list?n={length}&last={last}>; rel=\"next\"");
            answer.header("Link", next)
        }
        _ => answer,
    }
}

fn blobs(state: &State, request: &Incoming, repository: &str, digest: &str) -> Answer {
    let key = (repository.to_owned(), digest.to_owned());
    match state.blobs.get(&key) {
        Some(bytes) => ranged(
            request,
            Answer::new(200).header("Docker-Content-Digest", digest),
            bytes,
        ),
        None => Answer::error(404, "BLOB_UNKNOWN", "blob unknown"),
    }
}

fn ranged(request: &Incoming, mut answer: Answer, bytes: &Arc<Vec<u8>>) -> Answer {
    let range = request.logged.header("range");
    let range = range.and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.parse::<usize>().ok();
    let Some((start, last)) = range.and_then(|(start, last)| Some((number(start)?, last))) else {
        answer.body = bytes.clone();
        return answer;
    };
    if start >= bytes.len() {
        return Answer::new(416);
    }
    let last = number(last).map_or(bytes.len() - 1, |last| last.min(bytes.len() - 1));
    answer.status = 206;
    let range = format!("bytes {start}-{last}/{}", bytes.len());
    answer
        .header("Content-Range", range)
        .body(&bytes[start..=last])
}

fn manifests(state: &mut State, request: &Incoming, repository: &str, name: &str) -> Answer {
    let key = (repository.to_owned(), name.to_owned());
    if request.logged.method == "DELETE" {
        let before = state.manifests.len();
        let gone = |bytes: &[u8]| Digest::of(bytes).to_string() == name;
        state
            .manifests
            .retain(|(r, _), (_, bytes)| r != repository || !gone(bytes));
        let found = state.manifests.len() != before;
        return Answer::new(if found { 202 } else { 404 });
    }
    if request.logged.method != "PUT" {
        return match state.manifests.get(&key) {
            Some((media_type, bytes)) => {
                let answer = Answer::new(200)
                    .header("Content-Type", media_type)
                    .header("Docker-Content-Digest", Digest::of(bytes));
                Answer {
                    body: bytes.clone(),
                    ..answer
                }
            }
            None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        };
    }
    let digest = Digest::of(&request.body);
    let document: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let layers = document["layers"].as_array().cloned().unwrap_or_default();
    let config = document.get("config").cloned();
    for blob in layers.iter().chain(&config) {
        let digest = blob["digest"].as_str().unwrap().to_owned();
        if !state
            .blobs
            .contains_key(&(repository.to_owned(), digest.clone()))
        {
            return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", &digest);
        }
    }
    let media_type = request.logged.header("content-type").unwrap_or_default();
    let value = (media_type.to_owned(), Arc::new(request.body.clone()));
    state.manifests.insert(key, value.clone());
    state
        .manifests
        .insert((repository.to_owned(), digest.to_string()), value);
    Answer::new(201).header("Docker-Content-Digest", digest)
}

fn uploads(state: &mut State, request: &Incoming, repository: &str, upload: &str) -> Answer {
    let fields = parse_query(&request.logged.query);
    let field = |name: &str| {
        let mut fields = fields.iter();
        fields.find_map(|(n, value)| (n == name).then(|| value.clone()))
    };
    if request.logged.method == "POST" {
        if let (Some(digest), Some(from)) = (field("mount"), field("from"))
            && let Some(bytes) = state.blobs.get(&(from, digest.clone())).cloned()
        {
            state.blobs.insert((repository.to_owned(), digest), bytes);
            return Answer::new(201);
        }
        state.next_id += 1;
        let id = format!("upload-{}", state.next_id);
        state.uploads.insert(id.clone(), Vec::new());
        return Answer::new(202).header("Location", place(repository, &id));
    }
    let Some(mut bytes) = state.uploads.remove(upload) else {
        return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    };
    let kept = |bytes: &Vec<u8>| format!("0-{}", bytes.len().saturating_sub(1));
    match request.logged.method.as_str() {
        "DELETE" => Answer::new(204),
        "GET" => {
            let answer = Answer::new(204)
                .header("Location", place(repository, upload))
                .header("Range", kept(&bytes));
            state.uploads.insert(upload.to_owned(), bytes);
            answer
        }
        "PATCH" => {
            let range = request.logged.header("content-range").unwrap_or_default();
            let start = range.split('-').next().unwrap_or_default();
            if start.parse() != Ok(bytes.len()) {
                return Answer::new(416);
            }
            bytes.extend(&request.body);
            let answer = Answer::new(202)
                .header("Location", place(repository, upload))
                .header("Range", kept(&bytes));
            state.uploads.insert(upload.to_owned(), bytes);
            answer
        }
        _ => {
            bytes.extend(&request.body);
            let digest = field("digest").unwrap_or_default();
            if Digest::of(&bytes).to_string() != digest {
                return Answer::error(400, "DIGEST_INVALID", "provided digest did not match");
            }
            let key = (repository.to_owned(), digest);
            state.blobs.insert(key, Arc::new(bytes));
            Answer::new(201)
        }
    }
}

fn place(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?state=x")
}

pub(super) fn parse_query(text: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("form:?{text}")).unwrap();
    let pairs = url.query_pairs();
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}
