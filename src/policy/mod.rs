//! Policies: which sources a build may use, and what it uses in their place.
//!
//! Read in order: `identifier` (one spelling for each source), `rules` (BuildKit's source policies:
//! lists of rules in JSON), `file` (how such a list is written).
//!
//! Everything here is a function from texts and facts to a decision. Invariants: a source is judged
//! before anything is fetched from it; what cannot be judged is refused. Deliberately absent:
//! registries, files and the network; who judges what and when is the engine's business.

mod file;
mod identifier;
mod rules;

pub use file::InvalidPolicy;
pub use identifier::normalized;
pub use rules::{Denial, SourcePolicy, evaluate};
