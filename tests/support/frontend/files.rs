//! Looking into folders of the user.

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;

use crate::graph::Graph;
use crate::{Gateway, Outcome, image, read, solve, told};

/// Looks at the Dockerfile and the build context.
pub(crate) async fn files(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let mut lines = Vec::new();
    let (graph, name) = Graph::source("local://dockerfile", &[]);
    let folder = solve(gateway, graph.of(&name)).await?.id;
    let text = read(gateway, &folder, &options["filename"]).await?;
    lines.push(format!("dockerfile: {:?}", text.lines().last().unwrap()));
    lines.push(format!("command line: {}", options["cmdline"]));
    lines.push(format!("target: {}", options["target"]));
    let (graph, name) = Graph::source(
        "local://context",
        &[("local.excludepatterns", "[\"secret\"]")],
    );
    let folder = solve(gateway, graph.of(&name)).await?.id;
    let request = wire::ReadDirRequest {
        r#ref: folder.clone(),
        dir_path: "/".to_owned(),
        include_pattern: "*.txt".to_owned(),
        ..wire::ReadDirRequest::default()
    };
    for stat in gateway.read_dir(request).await?.into_inner().entries {
        lines.push(format!("{} {:o} {}", stat.path, stat.mode, stat.size));
    }
    let request = wire::ReadFileRequest {
        r#ref: folder.clone(),
        file_path: "a.txt".to_owned(),
        range: Some(wire::FileRange {
            offset: 1,
            length: 2,
        }),
        ..wire::ReadFileRequest::default()
    };
    let piece = gateway.read_file(request).await?.into_inner().data;
    lines.push(format!("piece: {}", String::from_utf8(piece).unwrap()));
    let request = wire::StatFileRequest {
        r#ref: folder.clone(),
        path: "link".to_owned(),
        ..wire::StatFileRequest::default()
    };
    let stat = gateway.stat_file(request).await?.into_inner().stat.unwrap();
    lines.push(format!("link: {}", stat.path));
    for path in ["secret", "../../../etc/passwd", "out"] {
        let refused = read(gateway, &folder, path).await.unwrap_err();
        lines.push(format!("{path}: {}", refused.message()));
    }
    for (reference, path) in [("", "a"), ("result-99", "a")] {
        let refused = read(gateway, reference, path).await.unwrap_err();
        lines.push(format!("{reference:?}: {}", refused.message()));
    }
    let inputs = gateway.inputs(wire::InputsRequest {}).await?.into_inner();
    lines.push(format!("inputs: {}", inputs.definitions.len()));
    told(gateway, &lines.join("\n")).await
}

/// Returns the build context itself.
pub(crate) async fn context(gateway: &mut Gateway) -> Outcome {
    let (graph, name) = Graph::source("local://context", &[]);
    Ok(image(solve(gateway, graph.of(&name)).await?))
}

/// Returns the stage that is wanted, or says what came of the one that is a context.
pub(crate) async fn stages(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    if let Some(stage) = options.get("target") {
        assert!(!options.contains_key("context:tools"));
        return told(gateway, &format!("the stage {stage}")).await;
    }
    let inputs = gateway.inputs(wire::InputsRequest {}).await?.into_inner();
    let definition = inputs.definitions["tools"].clone();
    let input = solve(gateway, definition).await?.id;
    let text = read(gateway, &input, "told").await?;
    let lines = [
        text,
        options["context:tools"].clone(),
        format!(
            "config: {}",
            options["input-metadata:tools"].contains("containerimage.config")
        ),
    ];
    told(gateway, &lines.join("\n")).await
}
