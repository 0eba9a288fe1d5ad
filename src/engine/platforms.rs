//! For which platforms a build is, and whether it makes an index of them.

use super::error::{EngineError, ErrorKind};
use super::request::BuildRequest;
use crate::exporter::OutputSpec;
use crate::oci::Platform;

/// Build argument that decides whether an index is made, whatever the number of platforms.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// What a build is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Targets {
    /// The platforms, each once, in the order asked for; `None` alone where nobody asked.
    pub(super) platforms: Vec<Option<Platform>>,
    /// Whether the result is an index, and trees get a folder for each platform.
    pub(super) multi_platform: bool,
}

/// Decides what a build is for, and refuses outputs that cannot hold it.
pub(super) fn targets(request: &BuildRequest) -> Result<Targets, EngineError> {
    let mut platforms: Vec<Option<Platform>> = Vec::new();
    for platform in &request.platforms {
        let platform = Some(platform.clone().normalized());
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    let is_several = request.platforms.len() > 1;
    let user = |text: String| EngineError::new(ErrorKind::User, text);
    let multi_platform = match request.build_args.get(MULTI_PLATFORM).map(String::as_str) {
        None | Some("") => is_several,
        Some(text) => boolean(text).ok_or_else(|| {
            user(format!("invalid {MULTI_PLATFORM} {text:?}")).with_hint("expected true or false")
        })?,
    };
    if is_several && !multi_platform {
        let text = format!("{MULTI_PLATFORM} is off and several platforms are asked for");
        return Err(user(text).with_hint("name one platform, or leave the build argument out"));
    }
    if multi_platform && request.outputs.iter().any(is_docker) {
        return Err(crate::exporter::Error::DockerIndex.into());
    }
    let host = Platform::host();
    let mut named: Vec<&Platform> = platforms.iter().flatten().collect();
    if named.is_empty() {
        named.push(&host);
    }
    for options in request.outputs.iter().filter_map(OutputSpec::image_options) {
        let oci = options.oci_media_types;
        // What is said about an image stands beside it, in an index.
        let has_index = multi_platform || !request.attestations.is_empty();
        options.annotations.check(&named, has_index, oci)?;
    }
    if platforms.is_empty() {
        platforms.push(None);
    }
    Ok(Targets {
        platforms,
        multi_platform,
    })
}

impl Targets {
    /// Returns what a frontend answered for, where it says for which platforms.
    pub(super) fn answered(
        &self,
        platforms: Option<Vec<Platform>>,
        multi_platform: bool,
        request: &BuildRequest,
    ) -> Result<Self, EngineError> {
        if multi_platform && request.outputs.iter().any(is_docker) {
            return Err(crate::exporter::Error::DockerIndex.into());
        }
        let named = platforms.map(|all| all.into_iter().map(Some).collect());
        Ok(Self {
            platforms: named.unwrap_or_else(|| vec![None]),
            multi_platform,
        })
    }
}

/// Says whether an output holds one image only, in Docker's form.
fn is_docker(output: &OutputSpec) -> bool {
    let loads = matches!(output, OutputSpec::Image { load: Some(_), .. });
    loads || matches!(output, OutputSpec::Docker { .. })
}

/// Reads a boolean in Go's spelling.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
