//! Named contexts that are stages: the frontend makes them first, and gets them as inputs.
//!
//! As buildx hands one target to another: `context:NAME=input:NAME`, and the image's settings in
//! `input-metadata:NAME`; with several platforms each under `NAME::PLATFORM`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answer::CONFIG;
use super::options::Opts;
use super::run::FrontendRun;
use crate::engine::build::Build;
use crate::engine::error::{EngineError, ErrorKind};
use crate::frontend::ContextSource;
use crate::frontend::syntax::Foreign;
use crate::gateway::{Answer, Answered, Handle};
use crate::llb::Definition;

/// Option with the stage that is wanted.
const TARGET: &str = "target";

impl Build {
    /// Has a frontend make the stages that named contexts are; returns them as inputs and tells
    /// the options of them.
    pub(super) async fn stages(
        self: &Arc<Self>,
        foreign: &Foreign,
        opts: &mut Opts,
    ) -> Result<BTreeMap<String, Arc<Definition>>, EngineError> {
        let mut inputs = BTreeMap::new();
        for (name, source) in &self.inputs.contexts {
            let ContextSource::Stage(stage) = source else {
                continue;
            };
            // A stage knows nothing of the contexts that stages are.
            let mut options = opts.clone();
            options.retain(|key, value| !key.starts_with("context:") || !value.starts_with(INPUT));
            options.insert(TARGET.to_owned(), stage.clone());
            let run = FrontendRun::first(foreign, options, BTreeMap::new());
            let answer = self.run_frontend(run).await?;
            for (name, definition, config) in parts(name, answer, stage)? {
                if let Some(config) = config {
                    let written = serde_json::json!({ CONFIG: STANDARD.encode(config) });
                    opts.insert(format!("input-metadata:{name}"), written.to_string());
                }
                opts.insert(format!("context:{name}"), format!("{INPUT}{name}"));
                inputs.insert(name, definition);
            }
        }
        Ok(inputs)
    }
}

/// Begins the value of a named context that is an input.
pub(super) const INPUT: &str = "input:";

/// A name, what is under it, and the config of that.
type Part = (String, Arc<Definition>, Option<Vec<u8>>);

/// Takes the results of an answer apart.
fn parts(name: &str, mut answer: Answer, stage: &str) -> Result<Vec<Part>, EngineError> {
    let whole = |handle: Handle| {
        handle.ok_or_else(|| {
            let text = format!("the build context {name:?} is the stage {stage:?}: it is empty");
            EngineError::new(ErrorKind::User, text)
        })
    };
    match answer.results {
        Answered::One(handle) => {
            let config = answer.metadata.remove(CONFIG);
            Ok(vec![(name.to_owned(), whole(handle)?, config)])
        }
        Answered::ByName(handles) => {
            let part = |(platform, handle): (String, Handle)| {
                let config = answer.metadata.get(&format!("{CONFIG}/{platform}"));
                let name = format!("{name}::{platform}");
                Ok((name, whole(handle)?, config.cloned()))
            };
            handles.into_iter().map(part).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_a_part_for_each_platform() {
        let some = || Some(Arc::new(Definition::default()));
        let one = Answer {
            results: Answered::One(some()),
            metadata: BTreeMap::from([(CONFIG.to_owned(), b"c".to_vec())]),
            ..Answer::default()
        };
        let found = parts("n", one, "s").unwrap();
        assert_eq!(
            (found[0].0.as_str(), found[0].2.as_deref()),
            ("n", Some(&b"c"[..]))
        );
        let several = Answer {
            results: Answered::ByName(BTreeMap::from([("linux/arm64".to_owned(), some())])),
            metadata: BTreeMap::from([(format!("{CONFIG}/linux/arm64"), b"d".to_vec())]),
            ..Answer::default()
        };
        let found = parts("n", several, "s").unwrap();
        let (name, _, config) = &found[0];
        assert_eq!(
            (name.as_str(), config.as_deref()),
            ("n::linux/arm64", Some(&b"d"[..]))
        );
        let error = parts("n", Answer::default(), "s").unwrap_err();
        assert!(error.to_string().contains("it is empty"), "{error}");
    }
}
