//! Frontends that are programs in images: BuildKit's gateway.
//!
//! Such a frontend runs in a container and asks, over its standard streams, for everything that
//! it needs: gRPC's `moby.buildkit.v1.frontend.LLBBridge`, with the frontend as the client.
//!
//! Read in order: [`bridge`] (the port: what a frontend can have done, implemented in `engine`),
//! [`environment`] (what a frontend is told when it starts), `caps` (what we are capable of),
//! [`rules`] (which frontends may run at all), [`files`] (looking into results), `table` (what
//! the frontend has names for), `service` (one method for each call) with `sources`, `exec` with `terminal`
//! (processes in containers that a frontend makes), `failed` (steps that did), `limits` (what messages lose), `status` (errors on the wire), `serve` (the
//! connection).
//! Invariants: a frontend sees nothing but what its calls return; a result is solved when
//! somebody looks into it, and not before; every message has a size limit, every table a count.
//! Deliberately absent: solving, images, containers: only the [`bridge::Bridge`] knows them.

pub mod bridge;
mod caps;
pub mod environment;
mod exec;
mod failed;
pub mod files;
mod limits;
pub mod rules;
pub mod serve;
mod service;
mod sources;
mod status;
mod table;
mod terminal;

pub use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;
pub use bridge::{
    Answer, Answered, AttestationChain, Attested, Blob, Bridge, BridgeError, Container,
    ContainerRequest, Detail, FailedStep, Forward, Handle, ImageMeta, ImageQuery, ProcessRequest,
    SourceMeta, SourceQuery,
};
pub use files::Files;
pub use rules::FrontendRules;
pub use serve::{Connection, serve};
pub use tonic::Code;
