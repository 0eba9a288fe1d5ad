//! The graph of a solve: the vertices that the results need, each once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::edge::Edge;
use crate::llb::{Loaded, Vertex, VertexDigest};

/// Names a vertex of a [`Graph`]. Inputs have smaller indexes than their users.
pub type VertexIx = NodeIndex<u32>;

/// A vertex and where its inputs come from.
#[derive(Debug, Clone)]
pub struct Node {
    /// The vertex.
    pub vertex: Arc<Vertex>,
    /// Its inputs, in order.
    pub inputs: Vec<Edge>,
}

/// The vertices that the results need. Every petgraph edge leads from an input to its user and
/// carries the number of that input.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: DiGraph<Node, usize>,
    results: Vec<Option<Edge>>,
}

impl Graph {
    /// Takes what the results of a definition need, in the definition's order.
    pub fn new(loaded: Loaded) -> Self {
        let needed = needed(&loaded);
        let mut graph = Self::default();
        let mut indexes: HashMap<VertexDigest, VertexIx> = HashMap::new();
        for vertex in loaded.vertices {
            if !needed.contains(&vertex.digest) {
                continue;
            }
            // The definition has been checked: every input stands before its user.
            let edge_of = |input: &crate::llb::OutputRef| {
                let vertex = *indexes.get(&input.vertex)?;
                let output = input.index;
                Some(Edge { vertex, output })
            };
            let inputs: Vec<Edge> = vertex.inputs.iter().filter_map(edge_of).collect();
            let digest = vertex.digest.clone();
            let user = graph.nodes.add_node(Node {
                vertex: Arc::new(vertex),
                inputs: inputs.clone(),
            });
            for (number, input) in inputs.iter().enumerate() {
                graph.nodes.add_edge(input.vertex, user, number);
            }
            indexes.insert(digest, user);
        }
        let edge_of = |result: crate::llb::OutputRef| {
            let vertex = *indexes.get(&result.vertex)?;
            let output = result.index;
            Some(Edge { vertex, output })
        };
        let results = loaded.results.into_iter();
        graph.results = results.map(|result| result.and_then(edge_of)).collect();
        graph
    }

    /// Returns the wanted outputs; `None` for the empty (scratch) result.
    pub fn results(&self) -> &[Option<Edge>] {
        &self.results
    }

    /// Tells whether an output of a vertex is wanted.
    pub fn is_result(&self, vertex: VertexIx) -> bool {
        let mut results = self.results.iter().flatten();
        results.any(|result| result.vertex == vertex)
    }

    /// Returns how many vertices there are.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Tells whether there are no vertices.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all vertices, inputs before users.
    pub fn indexes(&self) -> impl DoubleEndedIterator<Item = VertexIx> + use<> {
        self.nodes.node_indices()
    }

    /// Returns a vertex.
    pub fn vertex(&self, index: VertexIx) -> &Arc<Vertex> {
        &self.nodes[index].vertex
    }

    /// Returns the inputs of a vertex, in order.
    pub fn inputs(&self, index: VertexIx) -> &[Edge] {
        &self.nodes[index].inputs
    }

    /// Returns the users of a vertex with the number of the input that it is to them, in order.
    pub fn users(&self, index: VertexIx) -> Vec<(VertexIx, usize)> {
        let mut walk = self
            .nodes
            .neighbors_directed(index, Direction::Outgoing)
            .detach();
        let mut users = Vec::new();
        while let Some((edge, user)) = walk.next(&self.nodes) {
            users.push((user, self.nodes[edge]));
        }
        users.sort_unstable();
        users
    }
}

/// Collects what the results need.
fn needed(loaded: &Loaded) -> HashSet<VertexDigest> {
    let by_digest: HashMap<&VertexDigest, &Vertex> =
        loaded.vertices.iter().map(|v| (&v.digest, v)).collect();
    let mut needed = HashSet::new();
    let mut open: Vec<&VertexDigest> = loaded.results.iter().flatten().map(|r| &r.vertex).collect();
    while let Some(digest) = open.pop() {
        if needed.insert(digest.clone())
            && let Some(vertex) = by_digest.get(digest)
        {
            open.extend(vertex.inputs.iter().map(|input| &input.vertex));
        }
    }
    needed
}
