//! Errors on their way through a frontend: out to it, and back to the user.

use serde_json::{Value, json};

use crate::engine::error::{EngineError, ErrorKind};
use crate::frontend::diagnostic::{Diagnostic, Source, Span};
use crate::gateway::{BridgeError, Code};
use crate::llb::{Definition, VertexDigest};

/// Types of details, as BuildKit names them.
const VERTEX_DETAIL: &str = "github.com/moby/buildkit/errdefs.Vertex+json";
const SOURCE_DETAIL: &str = "github.com/moby/buildkit/errdefs.Source+json";

/// Tells a frontend why something failed.
pub(super) fn to_frontend(error: &EngineError) -> BridgeError {
    let code = match error.kind {
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
        _ => Code::Unknown,
    };
    let told = BridgeError::new(code, error.message.clone());
    let Some(step) = &error.step else {
        return told;
    };
    let mut told = told.with_detail(VERTEX_DETAIL, &json!({"digest": step.vertex.to_string()}));
    if let Some(place) = &step.place {
        use base64::Engine as _;
        let line = |line: u32| json!({"line": line});
        let data = base64::engine::general_purpose::STANDARD.encode(&*place.text);
        let ranges = [json!({"start": line(place.first_line), "end": line(place.last_line)})];
        let info = json!({"filename": place.filename, "data": data, "language": "Dockerfile"});
        told = told.with_detail(SOURCE_DETAIL, &json!({"info": info, "ranges": ranges}));
    }
    told
}

/// Tells the user what a frontend returned. A failure that it only passes on is told as it was.
pub(super) fn to_user(
    error: BridgeError,
    frontend: &str,
    failures: Vec<EngineError>,
) -> EngineError {
    if error.code == Code::Cancelled {
        return EngineError::cancelled();
    }
    let vertex = error.detail(VERTEX_DETAIL);
    let vertex = vertex.as_ref().and_then(|vertex| vertex["digest"].as_str());
    let is_passed_on = |failure: &EngineError| {
        let step = failure.step.as_ref().map(|step| step.vertex.to_string());
        let is_step = step.is_some() && step.as_deref() == vertex;
        is_step || error.message.contains(&failure.message)
    };
    if let Some(failure) = failures.into_iter().rev().find(is_passed_on) {
        return failure;
    }
    let drawn = error.detail(SOURCE_DETAIL);
    let drawn = drawn.and_then(|detail| draw(&error.message, &detail));
    let text = format!("{} (frontend {frontend})", error.message);
    let told = EngineError::new(ErrorKind::User, text).with_source(error);
    match drawn {
        Some(drawn) => told.with_diagnostic(drawn),
        None => told,
    }
}

/// Draws the place that a frontend's error is about.
fn draw(message: &str, detail: &Value) -> Option<String> {
    use base64::Engine as _;
    let info = &detail["info"];
    let data = base64::engine::general_purpose::STANDARD.decode(info["data"].as_str()?);
    let text = String::from_utf8(data.ok()?).ok()?;
    let range = detail["ranges"].get(0)?;
    let line = |end: &str| {
        range[end]["line"]
            .as_u64()
            .and_then(|l| u32::try_from(l).ok())
    };
    let (first, last) = (line("start")?, line("end")?);
    let source = Source::new(info["filename"].as_str()?, text);
    let span = Span::of_lines(&source.text, first, last)?;
    Some(Diagnostic::error(span, message).render(&source))
}

/// Says that a definition of a frontend is not one.
pub(super) fn invalid_definition(error: impl std::error::Error) -> BridgeError {
    BridgeError::invalid(error.to_string())
}

/// Names the result of a definition: equal definitions have equal names.
pub(super) fn result_of(
    definition: &Definition,
) -> Result<Option<(VertexDigest, u32)>, BridgeError> {
    let loaded = definition.load().map_err(invalid_definition)?;
    let result = loaded.results.into_iter().next().flatten();
    Ok(result.map(|result| (result.vertex, result.index)))
}
