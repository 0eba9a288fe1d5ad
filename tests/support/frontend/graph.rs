//! Definitions under construction.

use bollard_buildkit_proto::pb;
use prost::Message;
use sha2::{Digest, Sha256};

/// A graph under construction.
#[derive(Clone, Default)]
pub(crate) struct Graph {
    ops: Vec<Vec<u8>>,
}

impl Graph {
    pub(crate) fn push(&mut self, op: pb::op::Op, inputs: &[String]) -> String {
        let input = |digest: &String| pb::Input {
            digest: digest.clone(),
            index: 0,
        };
        let bytes = pb::Op {
            inputs: inputs.iter().map(input).collect(),
            op: Some(op),
            ..pb::Op::default()
        }
        .encode_to_vec();
        let name = digest(&bytes);
        self.ops.push(bytes);
        name
    }

    pub(crate) fn source(identifier: &str, attrs: &[(&str, &str)]) -> (Self, String) {
        let mut graph = Self::default();
        let attrs = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let op = pb::SourceOp {
            identifier: identifier.to_owned(),
            attrs: attrs.collect(),
        };
        let name = graph.push(pb::op::Op::Source(op), &[]);
        (graph, name)
    }

    /// A file system with one file.
    pub(crate) fn file(path: &str, text: &str) -> pb::Definition {
        let make = pb::FileActionMkFile {
            path: path.to_owned(),
            mode: 0o644,
            data: text.as_bytes().to_vec(),
            timestamp: 1,
            ..pb::FileActionMkFile::default()
        };
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::file_action::Action::Mkfile(make)),
        };
        let mut graph = Self::default();
        let op = pb::FileOp {
            actions: vec![action],
        };
        let name = graph.push(pb::op::Op::File(op), &[]);
        graph.of(&name)
    }

    /// A step in an image.
    pub(crate) fn step(image: &str, args: &[&str]) -> pb::Definition {
        let (mut graph, root) = Self::source(&format!("docker-image://{image}"), &[]);
        let exec = pb::ExecOp {
            meta: Some(meta(args)),
            mounts: vec![pb::Mount {
                dest: "/".to_owned(),
                ..pb::Mount::default()
            }],
            ..pb::ExecOp::default()
        };
        let name = graph.push(pb::op::Op::Exec(exec), &[root]);
        graph.of(&name)
    }

    pub(crate) fn of(mut self, result: &str) -> pb::Definition {
        let terminal = pb::Op {
            inputs: vec![pb::Input {
                digest: result.to_owned(),
                index: 0,
            }],
            ..pb::Op::default()
        };
        self.ops.push(terminal.encode_to_vec());
        pb::Definition {
            def: self.ops,
            ..pb::Definition::default()
        }
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

pub(crate) fn meta(args: &[&str]) -> pb::Meta {
    pb::Meta {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        ..pb::Meta::default()
    }
}
