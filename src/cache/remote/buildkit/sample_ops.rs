//! Ops for tests.

use crate::llb::pb::file_action::Action;
use crate::llb::{OutputRef, Vertex, VertexDigest, pb};
use crate::oci::Platform;

pub(super) fn vertex(op: pb::op::Op, inputs: usize) -> Vertex {
    let input = OutputRef {
        vertex: VertexDigest::of(b""),
        index: 0,
    };
    Vertex {
        digest: VertexDigest::of(b""),
        op,
        inputs: vec![input; inputs],
        platform: Platform::linux("amd64", ""),
        metadata: crate::llb::Metadata::default(),
    }
}

pub(super) fn exec(mounts: Vec<pb::Mount>) -> pb::ExecOp {
    let meta = pb::Meta {
        args: vec!["a<b".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        cwd: "/".to_owned(),
        proxy_env: Some(pb::ProxyEnv::default()),
        extra_hosts: vec![pb::HostIp {
            host: "h".to_owned(),
            ip: "1.2.3.4".to_owned(),
        }],
        ..pb::Meta::default()
    };
    pb::ExecOp {
        meta: Some(meta),
        mounts,
        ..pb::ExecOp::default()
    }
}

pub(super) fn bind(input: i64, dest: &str) -> pb::Mount {
    pb::Mount {
        input,
        dest: dest.to_owned(),
        ..pb::Mount::default()
    }
}

pub(super) fn cache(id: &str, sharing: pb::CacheSharingOpt) -> pb::Mount {
    pb::Mount {
        output: -1,
        mount_type: pb::MountType::Cache.into(),
        cache_opt: Some(pb::CacheOpt {
            id: id.to_owned(),
            sharing: sharing.into(),
        }),
        ..bind(-1, "/c")
    }
}

pub(super) fn copy(source: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: source.to_owned(),
        dest: "/d".to_owned(),
        mode: -1,
        allow_wildcard: true,
        ..pb::FileActionCopy::default()
    }
}

pub(super) fn action(indexes: [i64; 3], copy: pb::FileActionCopy) -> pb::FileAction {
    let [input, secondary_input, output] = indexes;
    pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(Action::Copy(copy)),
    }
}
