//! The graph of a solve: the vertices that the results need, each once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use super::edge::Edge;
use crate::llb::{Loaded, Vertex, VertexDigest, pb};

/// Names a vertex of a [`Graph`]. Inputs have smaller indexes than their users.
pub type VertexIx = NodeIndex<u32>;

/// A vertex and where its inputs come from.
#[derive(Debug, Clone)]
pub struct Node {
    /// The vertex.
    pub vertex: Arc<Vertex>,
    /// Its inputs, in order.
    pub inputs: Vec<Edge>,
    /// Vertices that are solved before it runs, although it uses nothing of them.
    pub after: Vec<VertexIx>,
}

/// The vertices that the results need, and those that must be finished before some of these.
/// Every petgraph edge leads from an input to its user and
/// carries the number of that input.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: DiGraph<Node, usize>,
    results: Vec<Option<Edge>>,
    awaited: Vec<VertexIx>,
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
                after: Vec::new(),
            });
            for (number, input) in inputs.iter().enumerate() {
                graph.nodes.add_edge(input.vertex, user, number);
            }
            indexes.insert(digest, user);
        }
        graph.add_order(&indexes);
        let edge_of = |result: crate::llb::OutputRef| {
            let vertex = *indexes.get(&result.vertex)?;
            let output = result.index;
            Some(Edge { vertex, output })
        };
        let results = loaded.results.into_iter();
        graph.results = results.map(|result| result.and_then(edge_of)).collect();
        graph
    }

    /// Notes who waits for whom without using it. Where the awaited vertex itself needs the one
    /// that would wait, as when two stages have a step in common, nobody waits.
    fn add_order(&mut self, indexes: &HashMap<VertexDigest, VertexIx>) {
        let mut waiting: BTreeMap<VertexIx, Vec<VertexIx>> = BTreeMap::new();
        for index in self.indexes() {
            for awaited in earlier(self.vertex(index)) {
                if let Some(awaited) = indexes.get(awaited) {
                    waiting.entry(*awaited).or_default().push(index);
                }
            }
        }
        for (awaited, users) in waiting {
            let needed = self.needed_by(awaited);
            for user in users {
                if !needed[user.index()] {
                    self.nodes[user].after.push(awaited);
                }
            }
            self.awaited.push(awaited);
        }
    }

    /// Says of each vertex whether it must be solved before `vertex` is.
    fn needed_by(&self, vertex: VertexIx) -> Vec<bool> {
        let mut needed = vec![false; self.len()];
        let mut open = vec![vertex];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut needed[index.index()], true) {
                open.extend(self.inputs(index).iter().map(|input| input.vertex));
                open.extend(self.after(index));
            }
        }
        needed
    }

    /// Returns the vertices that are solved before another runs which uses nothing of them.
    pub fn awaited(&self) -> &[VertexIx] {
        &self.awaited
    }

    /// Returns the vertices that are solved before `index` runs, beside its inputs.
    pub fn after(&self, index: VertexIx) -> &[VertexIx] {
        &self.nodes[index].after
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

/// Returns what must be solved before a vertex runs, beside its inputs. Sources wait for nothing:
/// they are read before anything is known of the steps.
fn earlier(vertex: &Vertex) -> impl Iterator<Item = &VertexDigest> {
    let waits = !matches!(vertex.op, pb::op::Op::Source(_));
    vertex.metadata.after.iter().filter(move |_| waits)
}

/// Collects what the results need, and what must be finished before.
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
            open.extend(earlier(vertex));
        }
    }
    needed
}
