//! A container on what is left of a failed step.

use std::collections::BTreeMap;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;
use bollard_buildkit_proto::pb;
use prost::Message;

use crate::containers::Talk;
use crate::graph::Graph;
use crate::{Gateway, Outcome, solve, told};

/// Lets a step fail, and looks at what it wrote.
pub(crate) async fn failed(gateway: &mut Gateway, options: &BTreeMap<String, String>) -> Outcome {
    let args = ["/bin/sh", "-c", "echo half > /made; exit 3"];
    let step = solve(gateway, Graph::step(&options["build-arg:IMAGE"], &args)).await?;
    let request = wire::EvaluateRequest { r#ref: step.id };
    let status = gateway.evaluate(request).await.unwrap_err();
    let details = rpc::Status::decode(status.details()).unwrap().details;
    let detail = details
        .iter()
        .find(|detail| detail.type_url.ends_with("/errdefs.Solve+json"))
        .unwrap();
    let detail: serde_json::Value = serde_json::from_slice(&detail.value).unwrap();
    let mut lines = vec![format!(
        "command: {}",
        detail["op"]["exec"]["meta"]["args"][2]
    )];
    for (kind, script) in [
        ("mountIDs", "cat /made"),
        ("inputIDs", "[ -e /made ] || echo nothing was made"),
    ] {
        let result_id = detail[kind][0].as_str().unwrap().to_owned();
        let request = wire::NewContainerRequest {
            container_id: "c".to_owned(),
            mounts: vec![pb::Mount {
                dest: "/".to_owned(),
                result_id,
                ..pb::Mount::default()
            }],
            ..wire::NewContainerRequest::default()
        };
        gateway.new_container(request).await?;
        let mut talk = Talk::open(gateway).await?;
        talk.start(kind, &["/bin/sh", "-c", script], false).await;
        lines.push(format!("{kind}: {:?}", talk.end(kind).await?));
        let release = wire::ReleaseContainerRequest {
            container_id: "c".to_owned(),
        };
        gateway.release_container(release).await?;
    }
    told(gateway, &lines.join("\n")).await
}
