//! What BuildKit calls the digest of an op, hashed from JSON (`op_json`). How an op depends on its
//! inputs stands in `dependencies`.
//!
//! | op | digest of |
//! |---|---|
//! | exec | `{"Type":"buildkit.exec.v0","Exec":…,"OS":…,"Arch":…}`; without addresses of hosts, proxies, selectors of mounts, names of cache mounts that the user chose, and without mounts where there is only the writable root |
//! | file | `{"Type":"buildkit.file.v0","Actions":[base64 of each],"indexes":[[…]]}`; a copy has the base name of its source, and the indexes are left out where actions follow one another |
//! | merge, diff | `{"Type":"buildkit.merge.v0","Merge":…}`, `{"Type":"buildkit.diff.v0","Diff":…}` |
//!
//! Older versions wrote inputs and outputs that are 0, too, and `byID` for `byId`, and took secrets
//! for parts of the root ([`Dialect::Older`]).

use super::go_json::Object;
use super::op_json::{exec_json, file_json, index, with_platform};
use crate::llb::{Vertex, pb};
use crate::oci::{Digest, Platform};

/// Whose JSON is hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// That of BuildKit today.
    #[default]
    Current,
    /// That of BuildKit 0.13 and before.
    Older,
}

impl Dialect {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Current, Self::Older];
}

/// Returns what stands for a dialect in a list of all; the last where they do not differ.
pub(super) fn of_dialect<T>(all: &[T], dialect: Dialect) -> Option<&T> {
    let place = match dialect {
        Dialect::Current => 0,
        Dialect::Older => 1,
    };
    all.get(place).or(all.last())
}

/// Digests an op; `None` for one that has no key apart from what it is pinned to.
pub(super) fn digest(vertex: &Vertex, dialect: Dialect) -> Option<Digest> {
    let json = match &vertex.op {
        pb::op::Op::Exec(exec) => exec_json(exec, &vertex.platform, dialect),
        pb::op::Op::File(file) => file_json(file, vertex.inputs.len(), dialect),
        pb::op::Op::Merge(merge) => {
            let inputs = merge.inputs.iter();
            let inputs = inputs.map(|input| index(Object::new(), "input", input.input, dialect));
            let merge = Object::new().list("inputs", inputs.map(Object::end));
            let typed = Object::new().always("Type", "buildkit.merge.v0");
            typed.object("Merge", Some(merge)).end()
        }
        pb::op::Op::Diff(diff) => {
            let side = |input: i64| index(Object::new(), "input", input, dialect);
            let diff = Object::new()
                .object("lower", diff.lower.as_ref().map(|lower| side(lower.input)))
                .object("upper", diff.upper.as_ref().map(|upper| side(upper.input)));
            let typed = Object::new().always("Type", "buildkit.diff.v0");
            typed.object("Diff", Some(diff)).end()
        }
        pb::op::Op::Source(_) | pb::op::Op::Build(_) | pb::op::Op::Passthrough(_) => return None,
    };
    Some(Digest::of(json.as_bytes()))
}

/// Digests what a source was pinned to.
pub(super) fn source_digest(key: &str) -> Digest {
    Digest::of(format!("buildkit.source.v0:{key}").as_bytes())
}

/// Makes the key of an image that is pinned to the digest of its manifest or index.
pub(super) fn image_key(digest: &Digest, platform: &Platform) -> String {
    let image = Object::new().always("Digest", &digest.to_string());
    Digest::of(with_platform(image, platform).end().as_bytes()).to_string()
}

/// A file from a web server, as it was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Name of the file.
    pub filename: String,
    /// Mode, owner and group that it gets; 0 where nobody says.
    pub attributes: [u32; 3],
    /// When the server says that it was changed last, in seconds since 1970; 0 where it does not.
    pub changed_s: i64,
}

impl Download {
    /// Makes the key of the file.
    pub fn key(&self) -> String {
        let [mode, uid, gid] = self.attributes.map(|number| number.to_string());
        let changed = match self.changed_s {
            0 => None,
            seconds => jiff::Timestamp::from_second(seconds).ok(),
        };
        let changed = changed.map(|time| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let json = Object::new()
            .always("Filename", &self.filename)
            .raw("Perm", &mode)
            .raw("UID", &uid)
            .raw("GID", &gid)
            .always("Checksum", &self.digest.to_string())
            .text("LastModTime", &changed.unwrap_or_default());
        Digest::of(json.end().as_bytes()).to_string()
    }
}

/// Makes the digest of a record from that of its op and the number of the output.
pub(super) fn record(op: &Digest, output: i64) -> Digest {
    Digest::of(format!("{op}@{output}").as_bytes())
}

/// Makes the digest of a record that stands for contents.
pub(super) fn content_record(contents: &Digest) -> Digest {
    record(contents, -1)
}

/// Returns how many outputs an op has.
pub(super) fn outputs(op: &pb::op::Op) -> u32 {
    let numbers: Vec<i64> = match op {
        pb::op::Op::Exec(exec) => exec.mounts.iter().map(|mount| mount.output).collect(),
        pb::op::Op::File(file) => file.actions.iter().map(|action| action.output).collect(),
        _ => vec![0],
    };
    let most = numbers.into_iter().max().unwrap_or(-1);
    u32::try_from(most + 1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::remote::buildkit::sample_ops::{bind, vertex};

    /// What BuildKit 0.13 exported for an image, and for the first step on it.
    #[test]
    fn records_are_those_of_buildkit() {
        let root = "sha256:4fbdc7647b237fad8c8ac41f25ffb0a359b4897b4e6e70b2fac27e9408afb124";
        let key = image_key(&root.parse().unwrap(), &Platform::linux("amd64", ""));
        let image = record(&source_digest(&key), 0);
        assert_eq!(
            image.to_string(),
            "sha256:1502193cbf01ec521b74301733f980ce963fc733f65781e775fb0b0c408fcd98"
        );
        let meta = pb::Meta {
            args: ["/bin/sh", "-c", "echo base > /base"]
                .map(str::to_owned)
                .to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            remove_mount_stubs_recursive: true,
            ..pb::Meta::default()
        };
        let op = pb::ExecOp {
            meta: Some(meta),
            mounts: vec![bind(0, "/")],
            network: pb::NetMode::Host.into(),
            ..pb::ExecOp::default()
        };
        let step = vertex(pb::op::Op::Exec(op), 1);
        let digest = digest(&step, Dialect::Current).unwrap();
        assert_eq!(
            record(&digest, 0).to_string(),
            "sha256:991fa3de55f4940fe29931a4353d3443fafbc97b9572a6e4323d3bf2a5eb4a8c"
        );
    }
}
