//! Of the module `frontend` what reads text.

#[path = "../../../src/frontend/diagnostic.rs"]
pub mod diagnostic;
#[path = "../../../src/frontend/dockerfile/mod.rs"]
pub mod dockerfile;
#[path = "../../../src/frontend/excerpt.rs"]
mod excerpt;
#[path = "../../../src/frontend/expand/mod.rs"]
pub mod expand;
#[path = "../../../src/frontend/ignore.rs"]
pub mod ignore;
#[path = "../../../src/frontend/lines.rs"]
mod lines;
#[path = "../../../src/frontend/suggest.rs"]
pub mod suggest;
