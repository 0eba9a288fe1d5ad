//! A frontend hands work to another one: to ours, or to one from an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::answer::{BASE_CONFIG, CONFIG, EPOCH};
use super::bridge::BuildBridge;
use super::options::Opts;
use super::run::FrontendRun;
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::warnings;
use crate::frontend::diagnostic::Source;
use crate::frontend::{self, FrontendOptions, LowerFailure, Lowered};
use crate::gateway::rules::{DOCKERFILE, GATEWAY};
use crate::gateway::{Answer, Answered, Files, Forward};
use crate::llb::Definition;
use crate::oci::Platform;

/// Option that names the image of a frontend.
const SOURCE: &str = "source";
/// Option that asked for a frontend out of its own sources, once.
const DEVELOPMENT: &str = "gateway-devel";
/// Option that says that a frontend was chosen already.
const COMMAND_LINE: &str = "cmdline";
/// Inputs that stand for the build context and for the folder of the Dockerfile.
const CONTEXT: &str = "context";
const DOCKERFILE_INPUT: &str = "dockerfile";
/// Name of the Dockerfile where none is given.
const DEFAULT_FILENAME: &str = "Dockerfile";

impl BuildBridge {
    /// Has another frontend do the work.
    pub(super) async fn hand_on(&self, request: Forward) -> Result<Answer, EngineError> {
        if request.frontend == GATEWAY && request.options.contains_key(DEVELOPMENT) {
            return Err(user(
                "development gateway is no longer supported".to_owned(),
            ));
        }
        let source = request.options.get(SOURCE).cloned();
        match (request.frontend.as_str(), source) {
            (DOCKERFILE, _) => self.translate(request).await,
            (GATEWAY, Some(source)) if source == DOCKERFILE => self.translate(request).await,
            (GATEWAY, Some(source)) => {
                let rules = self.build.engine.frontend_rules()?;
                let refused = rules.refuse_image(&source);
                refused.map_err(|reason| EngineError::new(ErrorKind::Config, reason))?;
                let replaced_by = self.build.inputs.contexts.get(&source).cloned();
                let run = FrontendRun {
                    source,
                    span: None,
                    replaced_by,
                    options: request.options,
                    inputs: request.inputs,
                    depth: self.depth + 1,
                };
                self.build.run_frontend(run).await
            }
            (GATEWAY, None) => Err(user("no source specified for gateway".to_owned())),
            (other, _) => Err(user(format!("frontend {other} not found"))),
        }
    }

    /// Has our own frontend translate.
    async fn translate(&self, request: Forward) -> Result<Answer, EngineError> {
        let rules = self.build.engine.frontend_rules()?;
        let refused = rules.refuse_dockerfile();
        refused.map_err(|reason| EngineError::new(ErrorKind::Config, reason))?;
        if request.options.contains_key(super::QUESTION) {
            let text = "questions are not handed on to the built-in frontend";
            return Err(user(text.to_owned()));
        }
        let (filename, text) = self.dockerfile(&request).await?;
        let options = self.frontend_options(&request, filename)?;
        if !request.options.contains_key(COMMAND_LINE)
            && let Some(foreign) = frontend::syntax::foreign(&text, &options)
        {
            let mut opts = request.options;
            opts.insert(SOURCE.to_owned(), foreign.image);
            opts.insert(COMMAND_LINE.to_owned(), foreign.command_line);
            let onward = Forward {
                frontend: GATEWAY.to_owned(),
                options: opts,
                inputs: request.inputs,
            };
            return Box::pin(self.hand_on(onward)).await;
        }
        let options = FrontendOptions {
            is_chosen: true,
            ..options
        };
        let platforms = platforms(&request.options)?;
        let mut translated = Vec::new();
        for platform in &platforms {
            let options = FrontendOptions {
                platform: platform.clone(),
                multi_platform: platforms.len() > 1,
                ..options.clone()
            };
            translated.push(self.lower(&text, &options).await?);
        }
        if let Some(first) = translated.first() {
            warnings::report(first, &self.build.progress);
        }
        self.answer(translated, &request.inputs)
    }

    /// Reads the Dockerfile: out of an input, or the one of the build.
    async fn dockerfile(&self, request: &Forward) -> Result<(String, String), EngineError> {
        let inputs = &self.build.inputs;
        let filename = request.options.get("filename").cloned();
        let Some(input) = request.inputs.get(DOCKERFILE_INPUT) else {
            let filename = filename.unwrap_or_else(|| inputs.filename.clone());
            if filename != inputs.filename {
                let text = format!("the Dockerfile {filename} is not the one of this build");
                return Err(user(text));
            }
            return Ok((filename, inputs.text.clone()));
        };
        let filename = filename.unwrap_or_else(|| DEFAULT_FILENAME.to_owned());
        let files: Arc<Files> = {
            use crate::gateway::Bridge as _;
            let handle = Some(Arc::clone(input));
            let files = self.files(&handle).await;
            files.map_err(|error| user(error.message))?
        };
        let bytes = files.read(&filename, None);
        let bytes = bytes.map_err(|error| user(format!("failed to read dockerfile: {error}")))?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| user(format!("{filename} is not valid UTF-8")))?;
        Ok((filename, text))
    }

    fn frontend_options(
        &self,
        request: &Forward,
        filename: String,
    ) -> Result<FrontendOptions, EngineError> {
        let build = &self.build;
        let opts = &request.options;
        let own = crate::engine::options::frontend_options(&build.request, &build.inputs)?;
        let prefixed = |prefix: &str| {
            let found = opts.iter();
            let found = found.filter_map(|(key, value)| {
                Some((key.strip_prefix(prefix)?.to_owned(), value.clone()))
            });
            found.collect::<BTreeMap<String, String>>()
        };
        let mut contexts = own.contexts;
        for (name, text) in prefixed("context:") {
            let source = match text.strip_prefix("input:") {
                Some(input) => input_folder(input),
                None => match contexts.get(&name) {
                    Some(known) => known.clone(),
                    None => text
                        .parse()
                        .map_err(|error: frontend::options::InvalidContext| {
                            user(error.to_string())
                        })?,
                },
            };
            contexts.insert(name, source);
        }
        let context = match request.inputs.contains_key(CONTEXT) {
            true => input_folder(CONTEXT),
            false => own.context,
        };
        let no_cache = match opts.get("no-cache").map(String::as_str) {
            None => own.no_cache,
            Some("") => frontend::NoCache::All,
            Some(list) => frontend::NoCache::Stages(list.split(',').map(str::to_owned).collect()),
        };
        Ok(FrontendOptions {
            filename,
            target: opts.get("target").cloned(),
            build_args: prefixed("build-arg:"),
            labels: prefixed("label:"),
            no_cache,
            context,
            contexts,
            ..own
        })
    }

    async fn lower(&self, text: &str, options: &FrontendOptions) -> Result<Lowered, EngineError> {
        let resolver = self.build.resolver();
        let lowered = frontend::lower(text, options, &resolver).await;
        lowered.map_err(|LowerFailure { error, warnings }| {
            let source = Source::new(&options.filename, text);
            warnings::send(&warnings, &source, &self.build.progress);
            EngineError::from_frontend(error, &source)
        })
    }

    /// Writes what our frontend made as another frontend would return it.
    fn answer(
        &self,
        translated: Vec<Lowered>,
        inputs: &BTreeMap<String, Arc<Definition>>,
    ) -> Result<Answer, EngineError> {
        let is_several = translated.len() > 1;
        let mut metadata = BTreeMap::new();
        let mut handles = BTreeMap::new();
        let mut named = Vec::new();
        for lowered in translated {
            let definition = inputs
                .iter()
                .try_fold(lowered.definition, |whole, (name, input)| {
                    whole.grafted(&input_identifier(name), input)
                });
            let definition = definition.map_err(|error| user(error.to_string()))?;
            let platform = lowered.image.platform().normalized();
            let id = platform.to_string();
            let key = |key: &str| match is_several {
                true => format!("{key}/{id}"),
                false => key.to_owned(),
            };
            let json = |value: &crate::oci::ImageConfig| {
                serde_json::to_vec(value).map_err(|error| user(error.to_string()))
            };
            metadata.insert(key(CONFIG), json(&lowered.image)?);
            if let Some(base) = &lowered.base_image {
                metadata.insert(key(BASE_CONFIG), json(base)?);
            }
            if let Some(epoch) = lowered.epoch {
                metadata.insert(key(EPOCH), epoch.to_string().into_bytes());
            }
            named.push(written(&id, &platform));
            handles.insert(
                id,
                (!definition.ops.is_empty()).then(|| Arc::new(definition)),
            );
        }
        let platforms = serde_json::json!({"Platforms": named});
        metadata.insert(
            "refs.platforms".to_owned(),
            platforms.to_string().into_bytes(),
        );
        let results = match is_several {
            true => Answered::ByName(handles),
            false => Answered::One(handles.into_values().next().flatten()),
        };
        Ok(Answer {
            results,
            metadata,
            ..Answer::default()
        })
    }
}

/// Writes a platform with its id.
fn written(id: &str, platform: &Platform) -> serde_json::Value {
    let mut fields = serde_json::Map::new();
    for (key, value) in [
        ("architecture", &platform.architecture),
        ("os", &platform.os),
        ("os.version", &platform.os_version),
        ("variant", &platform.variant),
    ] {
        if !value.is_empty() {
            fields.insert(key.to_owned(), value.as_str().into());
        }
    }
    serde_json::json!({"ID": id, "Platform": fields})
}

/// Stands for an input until the translation is done.
fn input_folder(name: &str) -> frontend::ContextSource {
    frontend::ContextSource::Local {
        name: input_name(name),
        excludes: Vec::new(),
    }
}

fn input_name(name: &str) -> String {
    format!("input of a frontend: {name}")
}

fn input_identifier(name: &str) -> String {
    format!("local://{}", input_name(name))
}

fn platforms(opts: &Opts) -> Result<Vec<Option<Platform>>, EngineError> {
    let Some(list) = opts.get("platform").filter(|list| !list.is_empty()) else {
        return Ok(vec![None]);
    };
    let parse = |text: &str| match text.parse::<Platform>() {
        Ok(platform) => Ok(Some(platform)),
        Err(error) => Err(user(format!("platform {text:?}: {error}"))),
    };
    list.split(',').map(parse).collect()
}

fn user(text: String) -> EngineError {
    EngineError::new(ErrorKind::User, text)
}
