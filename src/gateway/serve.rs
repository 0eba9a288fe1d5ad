//! The connection with one frontend: gRPC on its standard streams.

use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::Service as _;

use super::bridge::{Answer, Bridge, Outcome};
use super::service::Service;
use super::table::Table;

/// Largest message, either way; BuildKit's.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes that may be on the way for one call.
const CALL_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes that may be on the way for all calls.
const WINDOW_BYTES: u32 = 16 << 20;
/// Most calls at a time.
const CALLS_MAX: u32 = 1024;

/// What remains of a connection: what the frontend named, and what it returned.
#[derive(Debug, Clone)]
pub struct Connection {
    table: Arc<Table>,
    service: Service,
}

impl Connection {
    /// Prepares to serve a frontend.
    pub fn new(bridge: Arc<dyn Bridge>) -> Self {
        let table = Arc::new(Table::default());
        let service = Service::new(bridge, Arc::clone(&table));
        Self { table, service }
    }

    /// Waits until the frontend has returned something.
    pub async fn returned(&self) {
        self.table.returned().await;
    }

    /// Ends the containers that the frontend left, and returns what it returned.
    pub async fn finish(self) -> Option<Outcome<Answer>> {
        let containers = self.table.take_containers();
        let ending = containers.iter().map(|container| container.release());
        futures::future::join_all(ending).await;
        self.table.take_answer()
    }
}

/// Serves a frontend until its end of the stream is closed.
pub async fn serve(
    connection: &Connection,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(), hyper::Error> {
    let server = LlbBridgeServer::new(connection.service.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (mut server, limits) = (server.clone(), Arc::clone(&connection.table.limits));
        async move { server.call(limits.passed_on(request).await?).await }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(CALLS_MAX);
    builder
        .serve_connection(TokioIo::new(stream), service)
        .await
}
