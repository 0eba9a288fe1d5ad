//! From a [`Builder`] to a [`Definition`]: messages, digests, metadata, terminal op.
//!
//! Ops are encoded in the order in which they were added, which is topological because an op
//! can only name outputs of earlier ones. Equal ops become one; what is said about them is
//! joined, the later word winning.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::caps;
use super::marshal::{Body, OpWriter, Process};
use super::metadata::{Caps, Metadata};
use super::mount::Mount;
use super::pb;
use super::source_map::SourceMap;
use super::state::{
    About, Builder, Exec, FileAction, FileOp, Kind, Node, Output, Owner, UserId, Variable,
};
use super::{Definition, OutputRef, VertexDigest};
use crate::oci::Platform;

/// Variable that names the socket of the first SSH agent.
const AGENT: &str = "SSH_AUTH_SOCK";

impl Builder {
    /// Encodes what `result` needs; `None` gives the definition of the empty file system.
    pub fn finish(self, result: Option<Output>) -> Definition {
        let Some(result) = result else {
            return Definition::default();
        };
        let needed = self.reachable(result);
        let mut encoder = Encoder {
            digests: vec![None; self.nodes.len()],
            platform: self.platform,
            definition: Definition::default(),
            sources: SourceMap::new(self.files),
            caps: SharedCaps::default(),
            writer: OpWriter::default(),
        };
        for (index, node) in self.nodes.into_iter().enumerate() {
            if needed[index] {
                encoder.add(index, node);
            }
        }
        encoder.finish(result)
    }

    /// Says of each node whether `result` needs it.
    fn reachable(&self, result: Output) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open = vec![result.node];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut needed[index], true) {
                let node = &self.nodes[index];
                open.extend(node.inputs().iter().map(|input| input.node));
                open.extend(node.about.after.iter().map(|awaited| awaited.node));
            }
        }
        needed
    }
}

struct Encoder {
    /// The digests of the nodes that were added.
    digests: Vec<Option<VertexDigest>>,
    /// The platform of ops that name none.
    platform: Arc<Platform>,
    definition: Definition,
    sources: SourceMap,
    caps: SharedCaps,
    writer: OpWriter,
}

impl Encoder {
    fn add(&mut self, index: usize, node: Node) {
        let caps = node.caps();
        let has_platform = match &node.kind {
            Kind::Source(source) => source.is_platform_specific(),
            Kind::Exec(_) => true,
            Kind::File(_) | Kind::Merge(_) | Kind::Diff { .. } => false,
        };
        let Node { kind, mut about } = node;
        let mut inputs = Inputs {
            digests: &self.digests,
            list: Vec::new(),
        };
        let body = match kind {
            Kind::Source(source) => Body::message(pb::op::Op::Source(pb::SourceOp {
                identifier: source.identifier,
                attrs: source.attrs,
            })),
            Kind::Exec(exec) => Body::Process(Box::new(process(*exec, &mut inputs))),
            Kind::File(file) => Body::message(pb::op::Op::File(file_to_pb(file, &mut inputs))),
            Kind::Merge(outputs) => {
                let inputs = outputs.into_iter().map(|output| pb::MergeInput {
                    input: inputs.push(output),
                });
                Body::message(pb::op::Op::Merge(pb::MergeOp {
                    inputs: inputs.collect(),
                }))
            }
            Kind::Diff { lower, upper } => Body::message(pb::op::Op::Diff(pb::DiffOp {
                lower: Some(pb::LowerDiffInput {
                    input: inputs.index(lower),
                }),
                upper: Some(pb::UpperDiffInput {
                    input: inputs.index(upper),
                }),
            })),
        };
        let platform = about.platform.as_ref().unwrap_or(&self.platform);
        let platform = has_platform.then_some(platform);
        let bytes = self.writer.write(&inputs.list, &body, platform);
        let digest = VertexDigest::of(&bytes);
        let metadata = match self.definition.metadata.entry(digest.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                self.definition.ops.push(bytes);
                new.insert(Metadata::default())
            }
        };
        self.sources
            .add(&digest, std::mem::take(&mut about.locations));
        let after = about.after.iter().map(|awaited| awaited.node);
        let after = after.filter_map(|node| self.digests[node].clone());
        metadata.after.extend(after);
        describe(metadata, about, self.caps.shared(caps));
        self.digests[index] = Some(digest);
    }

    fn finish(mut self, result: Output) -> Definition {
        let terminal = pb::Op {
            inputs: vec![to_input(&reference(&self.digests, result))],
            ..pb::Op::default()
        };
        let bytes = Bytes::from(terminal.encode_to_vec());
        let mut needed = BTreeSet::from([caps::CONSTRAINTS, caps::PLATFORM]);
        for metadata in self.definition.metadata.values() {
            if metadata.ignore_cache {
                needed.insert(caps::META_IGNORE_CACHE);
            }
            if metadata.has_texts() {
                needed.insert(caps::META_DESCRIPTION);
            }
        }
        let metadata = Metadata {
            caps: self.caps.shared(needed),
            ..Metadata::default()
        };
        self.definition
            .metadata
            .insert(VertexDigest::of(&bytes), metadata);
        self.definition.ops.push(bytes);
        self.definition.source = Some(self.sources);
        self.definition
    }
}

/// The inputs of one op while it is encoded; each output stands there once.
struct Inputs<'a> {
    digests: &'a [Option<VertexDigest>],
    list: Vec<OutputRef>,
}

impl Inputs<'_> {
    /// Adds an input even if it is there already.
    fn push(&mut self, output: Output) -> i64 {
        self.add(reference(self.digests, output))
    }

    /// Returns the index of `output` among the inputs; -1 for the empty file system.
    fn index(&mut self, output: Option<Output>) -> i64 {
        let Some(output) = output else {
            return -1;
        };
        let input = reference(self.digests, output);
        match self.list.iter().position(|known| *known == input) {
            Some(index) => position(index),
            None => self.add(input),
        }
    }

    fn add(&mut self, input: OutputRef) -> i64 {
        self.list.push(input);
        position(self.list.len() - 1)
    }
}

fn position(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn reference(digests: &[Option<VertexDigest>], output: Output) -> OutputRef {
    let digest = digests[output.node].clone();
    OutputRef {
        vertex: digest.expect("an op names outputs of earlier ones"),
        index: output.index,
    }
}

/// Sets of capabilities, each made once.
#[derive(Default)]
struct SharedCaps(BTreeMap<BTreeSet<&'static str>, Arc<Caps>>);

impl SharedCaps {
    fn shared(&mut self, needed: BTreeSet<&'static str>) -> Arc<Caps> {
        if let Some(known) = self.0.get(&needed) {
            return Arc::clone(known);
        }
        let caps = needed.iter().map(|cap| ((*cap).to_owned(), true));
        let caps = Arc::new(caps.collect());
        self.0.insert(needed, Arc::clone(&caps));
        caps
    }
}

fn describe(metadata: &mut Metadata, about: About, caps: Arc<Caps>) {
    metadata.ignore_cache |= about.ignore_cache;
    if !about.name.is_empty() {
        metadata.name = about.name;
    }
    metadata.command = about.command.or(metadata.command.take());
    metadata.progress_group = about.progress_group.or(metadata.progress_group.take());
    match metadata.caps.is_empty() {
        true => metadata.caps = caps,
        false if metadata.caps == caps => {}
        false => Arc::make_mut(&mut metadata.caps).extend(Caps::clone(&caps)),
    }
}

fn to_input(output: &OutputRef) -> pb::Input {
    pb::Input {
        digest: output.vertex.to_string(),
        index: i64::from(output.index),
    }
}

fn process(mut exec: Exec, inputs: &mut Inputs<'_>) -> Process {
    let mut mounts =
        Vec::with_capacity(1 + exec.mounts.len() + exec.secrets.len() + exec.ssh.len());
    let mut outputs = 0;
    for mount in exec.take_sorted_mounts() {
        let input = inputs.index(Mount::source(&mount));
        let output = if mount.has_output() { outputs } else { -1 };
        outputs += i64::from(mount.has_output());
        mounts.push(mount.into_pb(input, output));
    }
    mounts.extend(exec.secrets.iter().filter_map(|s| s.mount_to_pb()));
    mounts.extend(exec.ssh.iter().enumerate().map(|(i, s)| s.to_pb(i)));
    let message = pb::ExecOp {
        network: exec.network.into(),
        security: exec.security.into(),
        secretenv: exec.secrets.iter().filter_map(|s| s.env_to_pb()).collect(),
        cdi_devices: exec.devices,
        meta: None,
        mounts,
    };
    let meta = pb::Meta {
        args: Vec::new(),
        env: Vec::new(),
        cwd: exec.cwd,
        user: exec.user,
        proxy_env: exec.proxy,
        extra_hosts: exec.extra_hosts,
        hostname: exec.hostname,
        ulimit: exec.ulimits,
        cgroup_parent: exec.cgroup_parent,
        remove_mount_stubs_recursive: true,
        valid_exit_codes: Vec::new(),
    };
    let agent = exec.ssh.first().map(|agent| agent.target_or_default(0));
    let agent = agent.filter(|_| !exec.env.iter().any(|variable| variable.name() == AGENT));
    Process {
        args: exec.args,
        env: exec.env,
        agent: agent.map(|socket| Variable::new(AGENT, &socket)),
        meta,
        exec: message,
    }
}

/// Chains the actions: the first works on the base, each later one on the result before it,
/// and the last one's result is the op's only output.
fn file_to_pb(file: FileOp, inputs: &mut Inputs<'_>) -> pb::FileOp {
    let base = inputs.index(file.base);
    let sources: Vec<i64> = file
        .actions
        .iter()
        .map(|action| inputs.index(action.source))
        .collect();
    let count = inputs.list.len();
    let number = file.actions.len();
    let mut actions = Vec::with_capacity(number);
    for (index, action) in file.actions.into_iter().enumerate() {
        let last = index + 1 == number;
        actions.push(pb::FileAction {
            input: match index.checked_sub(1) {
                Some(previous) => position(count + previous),
                None => base,
            },
            secondary_input: sources[index],
            output: if last { 0 } else { -1 },
            action: Some(owned_action(action, base)),
        });
    }
    pb::FileOp { actions }
}

fn owned_action(action: FileAction, base: i64) -> pb::file_action::Action {
    use pb::file_action::Action;
    let mut message = action.action;
    let Some(owner) = action.owner else {
        return message;
    };
    let owner = Some(owner_to_pb(&owner, base));
    match &mut message {
        Action::Copy(copy) => copy.owner = owner,
        Action::Mkfile(file) => file.owner = owner,
        Action::Mkdir(dir) => dir.owner = owner,
        Action::Symlink(link) => link.owner = owner,
        Action::Rm(_) => {}
    }
    message
}

fn owner_to_pb(owner: &Owner, base: i64) -> pb::ChownOpt {
    let user = |id: &UserId| pb::UserOpt {
        user: Some(match id {
            UserId::Name(name) => pb::user_opt::User::ByName(pb::NamedUserOpt {
                name: name.clone(),
                input: base,
            }),
            UserId::Id(id) => pb::user_opt::User::ById(*id),
        }),
    };
    pb::ChownOpt {
        user: owner.user.as_ref().map(user),
        group: owner.group.as_ref().map(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::dump;
    use crate::llb::mount::{BindAccess, MountKind, SshMount};
    use crate::llb::source_map::{Location, Range, SourceFile};
    use crate::llb::state::Source;

    fn builder() -> Builder {
        let file = SourceFile {
            filename: "Dockerfile".to_owned(),
            language: "Dockerfile".to_owned(),
            text: "FROM a\n".to_owned(),
        };
        Builder::new(Platform::linux("amd64", ""), vec![file])
    }

    fn image(builder: &mut Builder, name: &str) -> Output {
        let source = Source::new(format!("docker-image://{name}"), caps::SOURCE_IMAGE);
        builder.source(source, About::named(format!("FROM {name}")))
    }

    fn copy(src: &str, dest: &str) -> pb::file_action::Action {
        pb::file_action::Action::Copy(pb::FileActionCopy {
            src: src.to_owned(),
            dest: dest.to_owned(),
            mode: -1,
            timestamp: -1,
            ..pb::FileActionCopy::default()
        })
    }

    #[test]
    fn the_empty_file_system_has_an_empty_definition() {
        let definition = builder().finish(None);
        assert_eq!(definition, Definition::default());
        assert_eq!(dump::text(&definition).unwrap(), "result scratch\n");
    }

    #[test]
    fn equal_ops_become_one_and_unneeded_ones_vanish() {
        let mut b = builder();
        let first = image(&mut b, "a");
        let unneeded = image(&mut b, "b");
        let second = image(&mut b, "a");
        let merged = b.merge(&[Some(first), None, Some(second)], About::default());
        let definition = b.finish(merged);
        assert_ne!(first, unneeded);
        assert_eq!(
            dump::text(&definition).unwrap(),
            "%0 source docker-image://a\n    platform linux/amd64\n    name FROM a\n\
             %1 merge %0 %0\nresult %1\n"
        );
        assert_eq!(definition.load().unwrap().vertices.len(), 2);
    }

    #[test]
    fn mounts_are_sorted_and_number_the_outputs() {
        let mut b = builder();
        let root = image(&mut b, "a");
        let tools = image(&mut b, "b");
        let exec = Exec {
            root: Some(root),
            args: vec!["make".to_owned()],
            cwd: "/".to_owned(),
            mounts: vec![Mount {
                target: "/tools".to_owned(),
                kind: MountKind::Bind {
                    source: Some(tools),
                    selector: "/bin".to_owned(),
                    access: BindAccess::ReadOnly,
                },
            }],
            ssh: vec![SshMount {
                id: String::new(),
                target: None,
                uid: 0,
                gid: 0,
                mode: 0o600,
                optional: true,
            }],
            ..Exec::default()
        };
        let location = Location {
            file: 0,
            ranges: vec![Range {
                start_line: 1,
                start_column: 0,
                end_line: 1,
                end_column: 6,
            }],
        };
        let about = About {
            ignore_cache: true,
            locations: vec![location],
            ..About::default()
        };
        let output = b.exec(exec, about);
        let definition = b.finish(Some(output));
        assert_eq!(
            dump::text(&definition).unwrap(),
            "%0 source docker-image://a\n    platform linux/amd64\n    name FROM a\n\
             %1 source docker-image://b\n    platform linux/amd64\n    name FROM b\n\
             %2 exec\n    args [\"make\"]\n    env SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0\n    \
             cwd /\n    mount / BIND %0 output=0\n    \
             mount /tools BIND %1 selector=/bin readonly no-output\n    \
             mount /run/buildkit/ssh_agent.0 SSH id=\"\" 0:0 0600 optional\n    \
             platform linux/amd64\n    ignore-cache\n    at Dockerfile:1-1\nresult %2\n"
        );
        let terminal = VertexDigest::of(definition.ops.last().unwrap());
        let needed: Vec<&str> = definition.metadata[&terminal]
            .caps
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            needed,
            [
                "constraints",
                "meta.description",
                "meta.ignorecache",
                "platform"
            ]
        );
    }

    #[test]
    fn actions_form_a_chain_and_owners_are_looked_up_in_the_base() {
        let mut b = builder();
        let base = image(&mut b, "a");
        let from = image(&mut b, "b");
        let action = |source, src: &str| FileAction {
            source,
            owner: Some(Owner::parse("me:7")),
            action: copy(src, "/d/"),
        };
        let file = FileOp {
            base: Some(base),
            actions: vec![action(Some(from), "/x"), action(None, "/y")],
        };
        let output = b.file(file, About::default());
        let text = dump::text(&b.finish(Some(output))).unwrap();
        assert!(
            text.ends_with(
                "%2 file\n    0: on %0 copy %1:/x /d/ owner=me@0:7\n    \
                 1: on action 0 copy scratch:/y /d/ owner=me@0:7 output=0\nresult %2\n"
            ),
            "{text}"
        );
    }

    /// The bytes of an op name it for ever: this digest may only change on purpose.
    #[test]
    fn an_op_keeps_its_digest() {
        let mut b = builder();
        let output = image(&mut b, "docker.io/library/alpine:latest");
        let definition = b.finish(Some(output));
        assert_eq!(
            crate::oci::hex_of(&definition.ops[0]),
            "1a300a2e646f636b65722d696d6167653a2f2f646f636b65722e696f2f6c6962726172792f616c70\
             696e653a6c6174657374520e0a05616d64363412056c696e75785a00"
        );
        let json = dump::json(&definition).unwrap();
        assert!(
            json.contains(r#"{"Op":{"Op":{"source":{"identifier":"docker-image://docker.io"#),
            "{json}"
        );
        assert_eq!(json.lines().count(), 2);
        assert!(dump::dot(&definition).unwrap().contains("shape=ellipse"));
    }
}
