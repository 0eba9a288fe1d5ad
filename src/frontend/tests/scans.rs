//! Which stages an SBOM is made of besides the result.

use futures::executor::block_on;

use super::Fixture;
use crate::frontend::{FrontendOptions, lower};

const ONE: &str = "FROM a AS one\nRUN x\nFROM one AS two\nRUN y\nFROM scratch AS out\n\
                   COPY --from=two /y /\n";

/// Names what is scanned, or nothing where it is not asked for.
fn scans(text: &str, args: &[(&str, &str)], is_asked: bool) -> String {
    let fixture = Fixture::default();
    let pairs = args.iter();
    let options = FrontendOptions {
        build_args: pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        scans: is_asked,
        ..FrontendOptions::default()
    };
    let lowered = block_on(lower(text, &options, &fixture.images())).unwrap();
    let names = lowered.scans.iter().map(|(name, definition)| {
        assert!(definition.load().is_ok());
        name.as_str()
    });
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn stages_and_the_context_are_scanned_where_their_arguments_say_so() {
    let global = |args: &str| format!("{args}\n{ONE}");
    let stage = "ARG BUILDKIT_SBOM_SCAN_STAGE=true";
    let context = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true";
    let own = ONE.replace("RUN y", &format!("{stage}\nRUN y"));
    for (text, args, expected) in [
        (ONE.to_owned(), &[][..], ""),
        (global(stage), &[], "one two"),
        (global("ARG BUILDKIT_SBOM_SCAN_STAGE=two,x"), &[], "two"),
        (global("ARG BUILDKIT_SBOM_SCAN_STAGE=0"), &[], ""),
        (own.clone(), &[], "two"),
        (own.clone(), &[("BUILDKIT_SBOM_SCAN_STAGE", "false")], ""),
        // An argument that nothing declares changes nothing.
        (ONE.to_owned(), &[("BUILDKIT_SBOM_SCAN_STAGE", "true")], ""),
        (global(context), &[], "context"),
        (
            global(&format!("{stage}\n{context}")),
            &[],
            "one two context",
        ),
        // Only the stage that is built speaks for the context.
        (ONE.replace("RUN y", &format!("{context}\nRUN y")), &[], ""),
    ] {
        assert_eq!(scans(&text, args, true), expected, "{text}");
        assert_eq!(scans(&text, args, false), "");
    }
}
