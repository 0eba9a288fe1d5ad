//! The facts of a build: what was asked, and what went in.

use std::collections::{BTreeMap, BTreeSet};

use crate::attestation::without_credentials;
use crate::llb::{GitSource, Vertex, pb};
use crate::oci::Digest;

/// Id of the agent that a step gets when it names none.
const DEFAULT_AGENT: &str = "default";

/// What a build was made of and asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capture {
    /// What read the definition: `dockerfile.v0`.
    pub frontend: String,
    /// Options of the frontend under BuildKit's names: `target`, `build-arg:NAME`.
    pub args: BTreeMap<String, String>,
    /// Ids of secrets, and whether the build does without.
    pub secrets: BTreeMap<String, bool>,
    /// Ids of SSH agents, and whether the build does without.
    pub ssh: BTreeMap<String, bool>,
    /// Folders of the user's.
    pub locals: BTreeSet<String>,
    /// Where the definition comes from.
    pub config: ConfigSource,
    /// Everything else that went in.
    pub materials: Vec<Material>,
    /// Whether a step could reach a network.
    pub network: bool,
    /// What version control says about the folder: `source`, `revision`.
    pub vcs: BTreeMap<String, String>,
}

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// The URL of the build context; empty for a folder.
    pub uri: String,
    /// Algorithm and digest of what was there.
    pub digest: Option<(String, String)>,
    /// The path of the Dockerfile in it.
    pub path: String,
}

/// What a material is, in the order in which they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MaterialKind {
    Image,
    Commit,
    File,
}

/// Something from outside that went in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    kind: MaterialKind,
    /// Its name: a package URL of an image, or a URL.
    pub uri: String,
    /// Algorithm of the digest: `sha256`, or `sha1` of commits.
    pub algorithm: String,
    /// The digest in hex.
    pub hex: String,
}

impl Material {
    /// Names something by its digest.
    pub fn new(uri: &str, digest: &Digest) -> Self {
        let kind = match uri.starts_with("pkg:") {
            true => MaterialKind::Image,
            false => MaterialKind::File,
        };
        Self {
            kind,
            uri: without_credentials(uri),
            algorithm: digest.algorithm().as_str().to_owned(),
            hex: digest.hex().to_owned(),
        }
    }

    /// Names a commit.
    pub fn commit(source: &GitSource, commit: &str) -> Self {
        let uri = match &source.reference {
            Some(reference) => format!("{}#{reference}", source.remote),
            None => source.remote.clone(),
        };
        let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
        Self {
            kind: MaterialKind::Commit,
            uri: without_credentials(&uri),
            algorithm: algorithm.to_owned(),
            hex: commit.to_owned(),
        }
    }
}

impl Capture {
    /// Adds what the graph says: folders, secrets, agents, networks.
    pub fn read(&mut self, vertices: &[Vertex]) {
        for vertex in vertices {
            match &vertex.op {
                pb::op::Op::Exec(exec) => self.exec(exec),
                pb::op::Op::Source(source) => self.source(source),
                _ => {}
            }
        }
    }

    /// Adds a material unless it is there, and keeps them sorted.
    pub fn add(&mut self, material: Material) {
        if let Err(place) = self.materials.binary_search(&material) {
            self.materials.insert(place, material);
        }
    }

    /// Says whether everything that went in has a name and a digest.
    pub fn is_complete(&self) -> bool {
        self.locals.is_empty()
    }

    /// Says whether nothing else can have gone in.
    pub fn is_hermetic(&self) -> bool {
        self.is_complete() && !self.network
    }

    fn source(&mut self, source: &pb::SourceOp) {
        if let Some(name) = source.identifier.strip_prefix("local://") {
            self.locals.insert(name.to_owned());
        }
        if source.identifier.starts_with("git://") {
            let git = GitSource::read(source);
            for id in [git.auth_token_secret, git.auth_header_secret] {
                need(&mut self.secrets, id, true);
            }
            need(&mut self.ssh, git.ssh_agent, true);
        }
        let header = source.attrs.get("http.authheadersecret").cloned();
        need(&mut self.secrets, header, true);
    }

    fn exec(&mut self, exec: &pb::ExecOp) {
        for mount in &exec.mounts {
            if let Some(secret) = &mount.secret_opt {
                need(&mut self.secrets, Some(secret.id.clone()), secret.optional);
            }
            if let Some(agent) = &mount.ssh_opt {
                let id = match agent.id.as_str() {
                    "" => DEFAULT_AGENT.to_owned(),
                    id => id.to_owned(),
                };
                need(&mut self.ssh, Some(id), agent.optional);
            }
        }
        for secret in &exec.secretenv {
            need(&mut self.secrets, Some(secret.id.clone()), secret.optional);
        }
        self.network |= exec.network != i32::from(pb::NetMode::None);
    }
}

/// Notes an id; who needs it anywhere needs it.
fn need(ids: &mut BTreeMap<String, bool>, id: Option<String>, optional: bool) {
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        let known = ids.entry(id).or_insert(optional);
        *known &= optional;
    }
}
