//! What an SBOM is made of besides the result: `BUILDKIT_SBOM_SCAN_STAGE` and
//! `BUILDKIT_SBOM_SCAN_CONTEXT`.
//!
//! Both are arguments, before the first `FROM` for all stages or in a stage for itself, with the
//! value true, false, or names of stages. A stage is scanned when it is built anyway; the build
//! context when the stage that is built says so.

use super::{Lowerer, Lowering, StageState};
use crate::llb::state::Output;

const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
/// Name of the build context among what is scanned.
const CONTEXT_NAME: &str = "context";

impl Lowerer<'_> {
    /// Notes what a finished stage wants to have scanned.
    pub(super) fn note_scans(&mut self, state: &StageState) -> Lowering<()> {
        if !self.options.scans || state.index >= self.plan.explicit_count() {
            return Ok(());
        }
        if state.index != self.plan.target {
            if self.is_on(STAGE, state) {
                self.scans.push((self.stage_name(state), state.root));
            }
            return Ok(());
        }
        if self.is_on(CONTEXT, state) {
            let span = self.plan.stages[state.index].span;
            let context = self.main_context(span)?;
            self.scans.push((CONTEXT_NAME.to_owned(), context));
        }
        Ok(())
    }

    /// Takes what is to be scanned, each as a file system of its own.
    pub(super) fn scanned(&mut self) -> Vec<(String, Option<Output>)> {
        let scans = std::mem::take(&mut self.scans);
        let with_layers = |(name, root)| (name, self.with_layers(root));
        scans.into_iter().map(with_layers).collect()
    }

    fn is_on(&self, name: &str, state: &StageState) -> bool {
        let declared = state.declared.iter().rev();
        let own = declared.filter(|(known, _)| known == name);
        let own = own.filter_map(|(_, value)| value.as_deref()).next();
        match own.or_else(|| self.args.global.get(name)) {
            None => false,
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(names) => {
                let stage = self.stage_name(state);
                names.split(',').any(|name| name == stage)
            }
        }
    }

    /// Returns the name of a stage, or its number where it has none.
    fn stage_name(&self, state: &StageState) -> String {
        let name = self.plan.stages[state.index].name.clone();
        name.unwrap_or_else(|| state.index.to_string())
    }
}
