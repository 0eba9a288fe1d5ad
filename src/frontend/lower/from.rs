//! What a stage starts with.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::directory::is_windows;
use super::{Lowerer, Lowering, StageState, location};
use crate::frontend::environment::Environment;
use crate::frontend::options::ResolveMode;
use crate::frontend::plan::{Base, ImageBase, ResolvedBase};
use crate::frontend::{image_config, paths, windows};
use crate::llb::caps;
use crate::llb::state::{About, Output, Source};
use crate::oci::Platform;

impl Lowerer<'_> {
    /// Makes the state of a stage before its first step.
    pub(super) fn start(&mut self, index: usize) -> Lowering<StageState> {
        let plan = self.plan;
        let stage = &plan.stages[index];
        let mut state = match &stage.base {
            Base::Stage(earlier) => self.child(index, *earlier),
            base => {
                // `--platform` says which image to take; without an image it says nothing.
                let asked = stage
                    .platform
                    .clone()
                    .filter(|_| !matches!(base, Base::Scratch));
                let platform = asked.unwrap_or_else(|| self.options.target_platform());
                let mut state = fresh(index, platform);
                match base {
                    Base::Image(image) => self.start_from_image(&mut state, image),
                    Base::Context { key, source } => {
                        state.root = Some(self.context_root(key, source, stage.span)?);
                    }
                    Base::Scratch | Base::Stage(_) => {}
                }
                state
            }
        };
        for earlier in &stage.after {
            let finished = self.with_layers(self.states[earlier].root);
            state.after.extend(finished);
        }
        image_config::set_default_path(&mut state.image);
        for pair in &state.image.config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            state.environment.set(name, value);
        }
        if !state.image.config.working_dir.is_empty() {
            let written = &state.image.config.working_dir;
            let known = is_windows(&state).then(|| windows::to_slashes(written).ok());
            let path = paths::working_directory("/", known.flatten().as_ref().unwrap_or(written));
            Self::set_working_directory(&mut state, path);
        }
        Ok(state)
    }

    /// Continues an earlier stage: its files, config, variables and declared arguments.
    ///
    /// The history grows with every stage; the last stage that continues another takes it along.
    fn child(&mut self, index: usize, earlier: usize) -> StageState {
        let is_last = self.last_heirs.get(&earlier) == Some(&index);
        let Some(base) = self.states.get_mut(&earlier) else {
            unreachable!("a stage is lowered behind the one it continues");
        };
        let history = std::mem::take(&mut base.image.history);
        let mut state = base.clone();
        if !is_last {
            base.image.history.clone_from(&history);
        }
        state.image.history = history;
        StageState {
            index,
            image: image_config::inherit(state.image),
            shown: 0,
            last: BTreeMap::new(),
            ..state
        }
    }

    fn start_from_image(&mut self, state: &mut StageState, image: &ImageBase) {
        let Some(resolved) = &image.resolved else {
            unreachable!("base images of needed stages are looked up before lowering");
        };
        state.platform = Arc::new(resolved.platform.clone());
        state.image = image_config::inherit(resolved.config.clone());
        state.base_image = Some(Arc::new(resolved.config.clone()));
        state.base_name = Some(Arc::new(resolved.reference.clone()));
        let name = match &image.context {
            Some(context) if image.oci_layout.is_some() => {
                format!("[context {context}] OCI load from client")
            }
            Some(context) => format!("[context {context}] {}", resolved.reference),
            None => {
                let text = format!("FROM {}", resolved.reference);
                self.step_name_without_variables(state, &text)
            }
        };
        if !resolved.is_empty() {
            state.root = Some(self.image_root(state.index, image, resolved, name));
        }
    }

    fn image_root(
        &mut self,
        index: usize,
        image: &ImageBase,
        resolved: &ResolvedBase,
        name: String,
    ) -> Output {
        let reference = &resolved.reference;
        let mode = self.options.resolve_mode;
        let source = match &image.oci_layout {
            Some(store) => {
                Source::new(format!("oci-layout://{reference}"), caps::SOURCE_OCI_LAYOUT)
                    .with("oci.store", store)
            }
            None => {
                let identifier = format!("docker-image://{reference}");
                let source = Source::new(identifier, caps::SOURCE_IMAGE);
                match mode {
                    ResolveMode::Default => source,
                    ResolveMode::Pull => {
                        let cap = caps::SOURCE_IMAGE_RESOLVE_MODE;
                        source.with_cap("image.resolvemode", mode.as_str(), cap)
                    }
                    ResolveMode::Local => source.with("image.resolvemode", mode.as_str()),
                }
            }
        };
        let stage = &self.plan.stages[index];
        let command = Some(stage.command.clone()).filter(|text| !text.is_empty());
        self.builder.source(
            source,
            About {
                name,
                command,
                platform: Some(Arc::new(resolved.platform.clone())),
                locations: vec![location(stage.span)],
                ..About::default()
            },
        )
    }
}

/// Makes the state of a stage without files.
fn fresh(index: usize, platform: Platform) -> StageState {
    StageState {
        index,
        root: None,
        after: Vec::new(),
        image: image_config::empty(&platform),
        base_image: None,
        base_name: None,
        platform: Arc::new(platform),
        environment: Environment::default(),
        cwd: "/".to_owned(),
        declared: Vec::new(),
        has_workdir: false,
        shown: 0,
        last: BTreeMap::new(),
    }
}
