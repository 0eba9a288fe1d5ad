//! Walks `tests/fixtures/lower`: each folder holds a Dockerfile, perhaps options, and what comes
//! out: the graph and the config, or the error; and the warnings.
//!
//! Images are made up: an image whose name the options do not mention has one layer and a `PATH`.

mod fix;
mod scans;
mod subrequests;

use std::collections::BTreeMap;
use std::path::Path;

use futures::executor::block_on;
use futures::future::{BoxFuture, ready};
use prost::Message as _;
use serde::Deserialize;

use super::diagnostic::Source;
use super::options::{HostAddress, Ulimit};
use super::*;
use crate::llb::{dump, pb};
use crate::oci::{Digest, ImageConfig, Platform};

/// The options of a fixture.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fixture {
    target: Option<String>,
    build_args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    platform: Option<String>,
    build_platforms: Option<Vec<String>>,
    multi_platform: bool,
    no_cache: Option<Vec<String>>,
    resolve_mode: Option<String>,
    network: Option<String>,
    add_hosts: BTreeMap<String, String>,
    shm_size_bytes: Option<u64>,
    ulimits: BTreeMap<String, (i64, i64)>,
    hostname: String,
    cgroup_parent: String,
    ignore: Vec<String>,
    context: Option<String>,
    contexts: BTreeMap<String, String>,
    source_date_epoch: Option<i64>,
    images: BTreeMap<String, Option<serde_json::Value>>,
}

impl Fixture {
    /// Reads `options.json` of a folder, if there is one.
    pub(super) fn read(dir: &Path) -> Self {
        match std::fs::read_to_string(dir.join("options.json")) {
            Ok(json) => serde_json::from_str(&json).unwrap(),
            Err(_) => Self::default(),
        }
    }

    /// The images it mentions.
    pub(super) fn images(&self) -> Images<'_> {
        Images(&self.images)
    }

    /// What the frontend is asked for.
    pub(super) fn options(&self) -> FrontendOptions {
        let platforms = |texts: &[String]| texts.iter().map(|p| p.parse().unwrap()).collect();
        let amd64 = ["linux/amd64".to_owned()];
        FrontendOptions {
            target: self.target.clone(),
            build_args: self.build_args.clone(),
            labels: self.labels.clone(),
            platform: self.platform.as_ref().map(|p| p.parse().unwrap()),
            build_platforms: platforms(self.build_platforms.as_deref().unwrap_or(&amd64)),
            multi_platform: self.multi_platform,
            no_cache: match &self.no_cache {
                None => NoCache::Nothing,
                Some(stages) if stages.is_empty() => NoCache::All,
                Some(stages) => NoCache::Stages(stages.clone()),
            },
            resolve_mode: match self.resolve_mode.as_deref() {
                Some("pull") => ResolveMode::Pull,
                Some("local") => ResolveMode::Local,
                _ => ResolveMode::Default,
            },
            network: match self.network.as_deref() {
                Some("host") => Network::Host,
                Some("none") => Network::None,
                _ => Network::Sandbox,
            },
            add_hosts: self.add_hosts.iter().map(host).collect(),
            shm_size_bytes: self.shm_size_bytes,
            ulimits: self.ulimits.iter().map(ulimit).collect(),
            hostname: self.hostname.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            context: match &self.context {
                Some(text) => text.parse().unwrap(),
                None => ContextSource::Local {
                    name: "context".to_owned(),
                    excludes: self.ignore.clone(),
                },
            },
            contexts: self
                .contexts
                .iter()
                .map(|(name, text)| (name.clone(), text.parse().unwrap()))
                .collect(),
            source_date_epoch: self.source_date_epoch,
            ..FrontendOptions::default()
        }
    }
}

fn host((name, address): (&String, &String)) -> (String, HostAddress) {
    let address = match address.as_str() {
        "host-gateway" => HostAddress::Gateway,
        address => HostAddress::Ip(address.parse().unwrap()),
    };
    (name.clone(), address)
}

fn ulimit((name, (soft, hard)): (&String, &(i64, i64))) -> Ulimit {
    Ulimit {
        name: name.clone(),
        soft: *soft,
        hard: *hard,
    }
}

/// Answers from the options of a fixture.
pub(super) struct Images<'a>(&'a BTreeMap<String, Option<serde_json::Value>>);

impl ImageResolver for Images<'_> {
    fn resolve<'a>(
        &'a self,
        request: &'a ImageRequest,
    ) -> BoxFuture<'a, Result<ResolvedImage, ResolveError>> {
        let name = request.reference.familiar();
        let config = match self.0.get(&name) {
            Some(None) => {
                let message = format!("{name}: not found");
                return Box::pin(ready(Err(ResolveError::not_found(message))));
            }
            Some(Some(config)) => serde_json::from_value(config.clone()).unwrap(),
            None => made_up(&request.platform.0),
        };
        Box::pin(ready(Ok(ResolvedImage {
            reference: request.reference.clone(),
            digest: Digest::of(name.as_bytes()),
            config,
        })))
    }
}

fn made_up(platform: &Platform) -> ImageConfig {
    let layer = Digest::of(b"layer");
    let mut config: ImageConfig = serde_json::from_value(serde_json::json!({
        "created": "2024-01-01T00:00:00Z",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": [layer.to_string()] },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": "made up" }],
    }))
    .unwrap();
    config.set_platform(platform);
    config
}

/// What comes out of a fixture, by file name; files with no text need not exist.
fn outcome(dir: &Path) -> BTreeMap<&'static str, String> {
    let text = std::fs::read_to_string(dir.join("Dockerfile")).unwrap();
    let fixture = Fixture::read(dir);
    let lowered = block_on(lower(&text, &fixture.options(), &fixture.images()));
    let mut files = BTreeMap::from([
        ("definition.txt", String::new()),
        ("config.json", String::new()),
        ("warnings.txt", String::new()),
        ("error.txt", String::new()),
    ]);
    match lowered {
        Ok(lowered) => {
            lowered.definition.load().unwrap();
            for op in &lowered.definition.ops {
                let message = pb::Op::decode(op.clone()).unwrap();
                assert_eq!(
                    op,
                    &message.encode_to_vec(),
                    "the bytes are the message's own"
                );
            }
            let graph = dump::text(&lowered.definition).unwrap();
            files.insert("definition.txt", short_digests(&graph));
            let config = serde_json::to_string_pretty(&lowered.image).unwrap();
            files.insert("config.json", short_digests(&config) + "\n");
            let warnings = lowered.warnings.iter().map(|w| w.render(&lowered.source));
            let remarks = lowered.remarks.iter().map(|r| format!("{r:?}\n"));
            files.insert("warnings.txt", warnings.chain(remarks).collect());
        }
        Err(LowerFailure { error, warnings }) => {
            let source = Source::new("Dockerfile", text);
            let warnings = warnings.iter().map(|w| w.render(&source));
            files.insert("warnings.txt", warnings.collect());
            files.insert("error.txt", error.render(&source));
        }
    }
    files
}

/// Cuts digests to eight digits.
fn short_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        let kept = if digits == 64 {
            &part[..8]
        } else {
            &part[..digits]
        };
        out += &format!("sha256:{kept}{}", &part[digits..]);
    }
    out
}

#[test]
fn fixtures() {
    let folders = testing::fixture_folders("lower");
    assert!(folders.len() >= 40, "fixtures are missing");
    let mut wrong = Vec::new();
    for folder in folders {
        for (name, found) in outcome(&folder) {
            let path = folder.join(name);
            let expected = std::fs::read_to_string(&path).unwrap_or_default();
            if expected == found {
                continue;
            }
            if !testing::updates_expectations() {
                wrong.push(format!("{}\n{found}", path.display()));
            } else if found.is_empty() {
                std::fs::remove_file(&path).unwrap();
            } else {
                std::fs::write(&path, found).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
