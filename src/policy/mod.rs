//! Policies: which sources a build may use, and what it uses in their place.
//!
//! Read in order: `identifier` (one spelling for each source), `rules` (BuildKit's source policies:
//! lists of rules in JSON), `file` (how such a list is written); then those in Rego, as buildx has
//! them: `options` (which ones judge), `env` and `facts` (what they may know), `input` with `git`
//! and `provenance` (how that is written), `question` (what is found out only when it is needed),
//! `words` (what a text names), `recursion` (what calls itself), `negation` (`not`), `builtins` (Rego's own functions),
//! `functions` (those of policies), `rego` (the evaluation), `decision`, `policy_test` (trying it out).
//!
//! Everything here is a function from texts and facts to a decision. Invariants: a source is judged
//! before anything is fetched from it that the policy did not ask for; what cannot be judged is
//! refused. Deliberately absent: registries, files and the network; who judges what and when is
//! the engine's business.

mod builtins;
mod decision;
mod env;
mod facts;
mod file;
mod functions;
mod git;
mod identifier;
mod input;
mod negation;
mod options;
mod policy_test;
mod provenance;
mod question;
mod recursion;
mod rego;
mod rules;
mod words;

pub use decision::Decision;
pub use env::Env;
pub use facts::{
    AttestationFacts, CommitFacts, Facts, FileFacts, GitObject, ImageFacts, ObjectFacts,
};
pub use file::InvalidPolicy;
pub use functions::PolicyFiles;
pub use identifier::{normalized, shown};
pub use input::input as input_of;
pub use options::{LogLevel, PolicyChoice, PolicyOption, chosen};
pub use policy_test::TestOutcome;
pub use provenance::PREDICATES;
pub use question::{Question, question_of};
pub use rego::{Case, RegoPolicy, Round, default_policy};
pub use rules::{Denial, SourcePolicy, evaluate};
