//! Names of steps, as the progress display shows them: `[builder 2/4] RUN make`.

use super::{Lowerer, StageState, with_upper_keyword};
use crate::frontend::environment::Environment;
use crate::frontend::expand::{Expander, Variables};
use crate::oci::Platform;

impl Lowerer<'_> {
    /// Counts a step and names it.
    pub(super) fn step_name(&self, state: &mut StageState, text: &str) -> String {
        let target = target_of(&state.environment, &state.platform);
        self.prefixed(state, text, target, false)
    }

    /// Counts a step and names it, as long as nothing is known of the variables.
    pub(super) fn step_name_without_variables(&self, state: &mut StageState, text: &str) -> String {
        self.prefixed(state, text, None, false)
    }

    /// Counts a step that a trigger of the base adds, and names it.
    pub(super) fn trigger_name(&self, state: &mut StageState, text: &str) -> String {
        let target = target_of(&state.environment, &state.platform);
        self.prefixed(state, text, target, true)
    }

    fn prefixed(
        &self,
        state: &mut StageState,
        text: &str,
        target: Option<Platform>,
        is_trigger: bool,
    ) -> String {
        let stage = &self.plan.stages[state.index];
        let total = stage.counted;
        if total == 0 {
            return text.to_owned();
        }
        state.shown += 1;
        let platform = if self.options.multi_platform {
            format!("{}{} ", state.platform, cross(&state.platform, target))
        } else {
            String::new()
        };
        let label = match stage.label.as_str() {
            "" => String::new(),
            label => format!("{label} "),
        };
        let trigger = if is_trigger { "ONBUILD " } else { "" };
        let width = total.to_string().len();
        format!(
            "[{platform}{label}{:>width$}/{total}] {trigger}{text}",
            state.shown
        )
    }

    /// Returns the text of an instruction with its variables expanded.
    pub(super) fn shown_text(&self, text: &str, variables: &impl Variables) -> String {
        let expanded = Expander::new(self.plan.escape).word(text, variables);
        with_upper_keyword(expanded.map_or_else(|_| text.to_owned(), |text| text.value))
    }

    /// Returns the text of a command with its variables expanded where they are set; quotes stay.
    pub(super) fn shown_command(&self, text: &str, variables: &impl Variables) -> String {
        let expanded = Expander::display(self.plan.escape).word(text, variables);
        with_upper_keyword(expanded.map_or_else(|_| text.to_owned(), |text| text.value))
    }
}

/// Returns what a stage says it builds for, by the `TARGET…` arguments it declares.
fn target_of(environment: &Environment, platform: &Platform) -> Option<Platform> {
    if let Some(target) = environment.get("TARGETPLATFORM") {
        return target.parse().ok();
    }
    let part = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let (os, architecture) = (part("TARGETOS"), part("TARGETARCH"));
    if os.is_none() && architecture.is_none() {
        return None;
    }
    Some(
        Platform {
            os: os.unwrap_or(&platform.os).to_owned(),
            architecture: architecture.unwrap_or(&platform.architecture).to_owned(),
            variant: part("TARGETVARIANT").unwrap_or_default().to_owned(),
            os_version: String::new(),
            os_features: Vec::new(),
        }
        .normalized(),
    )
}

/// Says for which other platform a stage builds: `->arm64`.
fn cross(own: &Platform, target: Option<Platform>) -> String {
    match target {
        Some(target) if target.os != own.os => format!("->{target}"),
        Some(target) if target.architecture != own.architecture => {
            let variant = match target.variant.as_str() {
                "" => String::new(),
                variant => format!("/{variant}"),
            };
            format!("->{}{variant}", target.architecture)
        }
        _ => String::new(),
    }
}

/// Returns the first line of a heredoc's body, and dots where there are more.
pub(super) fn summary(body: &str) -> String {
    let mut lines = body.trim().lines();
    let first = lines.next().unwrap_or_default();
    let dots = if lines.next().is_some() { "..." } else { "" };
    format!("{first}{dots}")
}
