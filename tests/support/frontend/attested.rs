//! Saying something about a result.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend as wire;

use crate::graph::Graph;
use crate::{Gateway, Outcome, image, solve};

/// Returns an image with a predicate and a bundle of statements.
pub(crate) async fn attested(gateway: &mut Gateway) -> Outcome {
    let result = solve(gateway, Graph::file("/told", "attested")).await?;
    let predicate = solve(gateway, Graph::file("/p.json", "{\"said\":1}")).await?;
    let statement = "{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicateType\":\"https://x/bundled\",\
                     \"subject\":[{\"name\":\"elsewhere\",\"digest\":{\"sha256\":\"00\"}}],\
                     \"predicate\":{\"said\":2}}";
    let bundle = solve(gateway, Graph::file("/two.json", statement)).await?;
    let subject = wire::InTotoSubject {
        name: "another name".to_owned(),
        ..wire::InTotoSubject::default()
    };
    let attestation = vec![
        wire::Attestation {
            r#ref: Some(predicate),
            path: "/p.json".to_owned(),
            in_toto_predicate_type: "https://x/said".to_owned(),
            in_toto_subjects: vec![subject],
            ..wire::Attestation::default()
        },
        wire::Attestation {
            kind: wire::AttestationKind::Bundle as i32,
            r#ref: Some(bundle),
            path: "/".to_owned(),
            ..wire::Attestation::default()
        },
    ];
    Ok(wire::Result {
        attestations: HashMap::from([(
            "linux/amd64".to_owned(),
            wire::Attestations { attestation },
        )]),
        ..image(result)
    })
}
