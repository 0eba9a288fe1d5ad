//! The options of `cooper build` about what is said of the result.

use clap::Args;

/// Options that attach statements to the result.
#[derive(Debug, Args)]
pub(crate) struct AttestArgs {
    /// Attach how the image was built (SLSA provenance): a boolean, or mode=min|max, version=v1|v0.2,
    /// builder-id=, filename=, reproducible=BOOL, inline-only=BOOL, complete-materials=BOOL
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL | KEY=VALUE,…")]
    pub(crate) provenance: Option<String>,
    /// Attach the list of the software in the image (SPDX); the scanner is built in
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL | KEY=VALUE,…")]
    pub(crate) sbom: Option<String>,
    /// Attach a statement: type=provenance, type=sbom, or one of your own (repeatable)
    ///
    /// Your own: type=custom,predicate-type=URI,file=PATH[,filename=NAME], where the file is JSON.
    /// Short names of predicate types: cyclonedx, openvex, scai, spdx, test-result, vuln.
    #[arg(long = "attest", value_name = "type=TYPE,…")]
    pub(crate) attest: Vec<String>,
    /// Sign what is pushed, and the statements about it, as cosign does: key=FILE
    ///
    /// Environment: COSIGN_PASSWORD for a key that is encrypted.
    #[arg(long, value_name = "key=FILE")]
    pub(crate) sign: Option<String>,
}
