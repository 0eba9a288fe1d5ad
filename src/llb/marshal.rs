//! Ops as bytes.
//!
//! The bytes are those of the protobuf messages, fields in the order of their numbers. What many
//! ops share (variables, arguments, the platform) is written straight from where it lies: a
//! message would own a copy of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::{Message, encode_length_delimiter, length_delimiter_len};

use super::pb;
use super::platform;
use super::state::Variable;
use super::{OutputRef, VertexDigest};
use crate::oci::{Digest, Platform};

/// Wire types, as they stand in the key of a field.
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// Numbers of the fields that are written here.
const OP_INPUTS: u8 = 1;
const OP_EXEC: u8 = 2;
const INPUT_DIGEST: u8 = 1;
const INPUT_INDEX: u8 = 2;
const EXEC_META: u8 = 1;
const META_ARGS: u8 = 1;
const META_ENV: u8 = 2;

/// What an op does, ready to be written.
pub(super) enum Body {
    /// All of it is in the message.
    Message(Box<pb::op::Op>),
    /// A process.
    Process(Box<Process>),
}

impl Body {
    /// Takes a whole message.
    pub(super) fn message(op: pb::op::Op) -> Self {
        Self::Message(Box::new(op))
    }
}

/// A process whose long texts are not in the messages.
pub(super) struct Process {
    /// Command and arguments.
    pub(super) args: Vec<String>,
    /// Environment.
    pub(super) env: Arc<Vec<Variable>>,
    /// A variable behind those.
    pub(super) agent: Option<Variable>,
    /// The rest of `meta`.
    pub(super) meta: pb::Meta,
    /// The rest of the op.
    pub(super) exec: pb::ExecOp,
}

/// Writes one op after the other into one buffer.
#[derive(Debug, Default)]
pub(super) struct OpWriter {
    buffer: Vec<u8>,
    /// What follows the body of ops for each platform, and of those for none.
    tails: BTreeMap<Option<Arc<Platform>>, Vec<u8>>,
}

impl OpWriter {
    /// Writes an op.
    pub(super) fn write(
        &mut self,
        inputs: &[OutputRef],
        body: &Body,
        platform: Option<&Arc<Platform>>,
    ) -> Bytes {
        self.buffer.clear();
        for input in inputs {
            self.input(&input.vertex, input.index);
        }
        match body {
            Body::Message(op) => op.encode(&mut self.buffer),
            Body::Process(process) => self.process(process),
        }
        let tail = match self.tails.get(&platform.cloned()) {
            Some(tail) => tail,
            None => {
                let tail = tail(platform.map(|platform| &**platform));
                self.tails.entry(platform.cloned()).or_insert(tail)
            }
        };
        self.buffer.extend_from_slice(tail);
        Bytes::copy_from_slice(&self.buffer)
    }

    fn input(&mut self, VertexDigest(digest): &VertexDigest, index: u32) {
        let length = digest_len(digest);
        let output = usize::try_from(index).unwrap_or(usize::MAX);
        let index_len = match output {
            0 => 0,
            output => 1 + length_delimiter_len(output),
        };
        self.header(OP_INPUTS, field_len(length) + index_len);
        self.header(INPUT_DIGEST, length);
        self.put(digest.algorithm().as_str());
        self.put(":");
        self.put(digest.hex());
        if output != 0 {
            self.buffer.push(INPUT_INDEX << 3 | VARINT);
            put_number(&mut self.buffer, output);
        }
    }

    fn process(&mut self, process: &Process) {
        let variables = || process.env.iter().chain(&process.agent).map(Variable::pair);
        let args = process.args.iter().map(String::len);
        let texts = args.chain(variables().map(str::len)).map(field_len);
        let meta_len = texts.sum::<usize>() + process.meta.encoded_len();
        self.header(OP_EXEC, field_len(meta_len) + process.exec.encoded_len());
        self.header(EXEC_META, meta_len);
        for arg in &process.args {
            self.text(META_ARGS, arg);
        }
        for pair in variables() {
            self.text(META_ENV, pair);
        }
        put_message(&mut self.buffer, &process.meta);
        put_message(&mut self.buffer, &process.exec);
    }

    fn text(&mut self, field: u8, text: &str) {
        self.header(field, text.len());
        self.put(text);
    }

    fn header(&mut self, field: u8, length: usize) {
        self.buffer.push(field << 3 | LENGTH_DELIMITED);
        put_number(&mut self.buffer, length);
    }

    fn put(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
    }
}

/// Writes what stands behind the body of an op.
fn tail(platform: Option<&Platform>) -> Vec<u8> {
    let op = pb::Op {
        platform: platform.map(platform::to_pb),
        constraints: Some(pb::WorkerConstraints::default()),
        ..pb::Op::default()
    };
    op.encode_to_vec()
}

/// Returns the length of a digest as text.
fn digest_len(digest: &Digest) -> usize {
    digest.algorithm().as_str().len() + 1 + digest.hex().len()
}

/// Returns the length of a field with so many bytes in it.
fn field_len(length: usize) -> usize {
    1 + length_delimiter_len(length) + length
}

fn put_number(buffer: &mut Vec<u8>, number: usize) {
    encode_length_delimiter(number, buffer).expect("a buffer in memory grows");
}

fn put_message(buffer: &mut Vec<u8>, message: &impl Message) {
    message.encode(buffer).expect("a buffer in memory grows");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_message() {
        let long = "x".repeat(300);
        let agent = Variable::new("SSH_AUTH_SOCK", "/run/agent");
        let meta = pb::Meta {
            cwd: "/src".to_owned(),
            user: "1".to_owned(),
            remove_mount_stubs_recursive: true,
            ..pb::Meta::default()
        };
        let exec = pb::ExecOp {
            mounts: vec![pb::Mount {
                dest: "/".to_owned(),
                ..pb::Mount::default()
            }],
            network: pb::NetMode::Host.into(),
            ..pb::ExecOp::default()
        };
        let process = Process {
            args: vec!["/bin/sh".to_owned(), String::new(), long.clone()],
            env: Arc::new(vec![Variable::new("A", ""), Variable::new("B=", &long)]),
            agent: Some(agent),
            meta: meta.clone(),
            exec: exec.clone(),
        };
        let inputs: Vec<OutputRef> = [0, 1, 300]
            .map(|index| OutputRef {
                vertex: VertexDigest::of(b"input"),
                index,
            })
            .into();
        let platform = Arc::new(Platform::linux("arm", "v7"));
        let message = pb::Op {
            inputs: inputs
                .iter()
                .map(|input| pb::Input {
                    digest: input.vertex.to_string(),
                    index: input.index.into(),
                })
                .collect(),
            platform: Some(platform::to_pb(&platform)),
            constraints: Some(pb::WorkerConstraints::default()),
            op: Some(pb::op::Op::Exec(pb::ExecOp {
                meta: Some(pb::Meta {
                    args: process.args.clone(),
                    env: vec![
                        "A=".to_owned(),
                        format!("B=={long}"),
                        "SSH_AUTH_SOCK=/run/agent".to_owned(),
                    ],
                    ..meta
                }),
                ..exec
            })),
        };
        let mut writer = OpWriter::default();
        let body = Body::Process(Box::new(process));
        let written = writer.write(&inputs, &body, Some(&platform));
        assert_eq!(written, message.encode_to_vec());
        let merge = pb::op::Op::Merge(pb::MergeOp { inputs: Vec::new() });
        let message = pb::Op {
            op: Some(merge.clone()),
            platform: None,
            ..message
        };
        let written = writer.write(&inputs, &Body::message(merge), None);
        assert_eq!(written, message.encode_to_vec());
    }
}
