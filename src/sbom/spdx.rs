//! An inventory as an SPDX 2.3 document.
//!
//! ```text
//! SPDXRef-DOCUMENT   DESCRIBES  SPDXRef-Root        what was scanned
//! SPDXRef-Root       CONTAINS   SPDXRef-Package-…   one for each package and file it was found in
//! SPDXRef-Package-…  OTHER      SPDXRef-File-…      "evident-by": the file that tells of it
//! ```
//!
//! Files and packages have the comment `layerID: DIGEST` with the layer that brought them, as
//! BuildKit's have. The name of the document's space is made from its content, so the same tree
//! at the same time gives the same document.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::licence;
use super::package::{FoundFile, Inventory, Package};
use crate::attestation::Predicate;
use crate::oci::{Descriptor, Digest};

const VERSION: &str = "SPDX-2.3";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const ROOT: &str = "SPDXRef-Root";
/// What is not known.
const NO_ASSERTION: &str = "NOASSERTION";
/// Who wrote the document.
const TOOL: &str = concat!(
    "Tool: ",
    env!("CARGO_PKG_NAME"),
    "-",
    env!("CARGO_PKG_VERSION")
);
/// Digits of a hash that tell names apart.
const SHORT: usize = 16;

/// An inventory that is to become a document.
#[derive(Debug, Clone)]
pub struct SpdxDocument {
    /// What was scanned, for people.
    pub name: String,
    /// When, RFC 3339 in whole seconds.
    pub created: String,
    /// What was found.
    pub inventory: Inventory,
}

impl Predicate for SpdxDocument {
    fn write(&self, layers: &[Descriptor]) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.document(layers))
    }
}

impl SpdxDocument {
    /// Writes the document; `layers` are those of the image, lowest first.
    fn document(&self, layers: &[Descriptor]) -> Value {
        let mut parts = Parts {
            layers,
            ..Parts::default()
        };
        parts.relate(DOCUMENT, "DESCRIBES", ROOT, None);
        for (path, file) in &self.inventory.files {
            parts.add(path, file);
        }
        let mut creation = json!({ "created": self.created, "creators": [TOOL] });
        if !self.inventory.notes.is_empty() {
            creation["comment"] = self.inventory.notes.join("\n").into();
        }
        let mut packages = vec![self.root()];
        packages.append(&mut parts.packages);
        let mut document = json!({
            "spdxVersion": VERSION,
            "dataLicense": "CC0-1.0",
            "SPDXID": DOCUMENT,
            "name": self.name,
            "documentNamespace": "",
            "creationInfo": creation,
            "packages": packages,
            "files": parts.files,
            "relationships": parts.relationships,
        });
        if !parts.licences.is_empty() {
            let licence = |(id, text)| json!({ "licenseId": id, "extractedText": text });
            let licences = parts.licences.into_iter().map(licence);
            document["hasExtractedLicensingInfos"] = licences.collect();
        }
        document["documentNamespace"] = namespace(&document).into();
        document
    }

    /// Describes what was scanned.
    fn root(&self) -> Value {
        let mut root = json!({
            "SPDXID": ROOT,
            "name": self.name,
            "downloadLocation": NO_ASSERTION,
            "filesAnalyzed": false,
            "primaryPackagePurpose": "CONTAINER",
            "licenseConcluded": NO_ASSERTION,
            "licenseDeclared": NO_ASSERTION,
            "copyrightText": NO_ASSERTION,
        });
        if !self.inventory.distribution.is_empty() {
            root["comment"] = format!("distribution: {}", self.inventory.distribution).into();
        }
        root
    }
}

/// Makes a UUID (of version 8, for hashes) from the content of a document.
fn namespace(document: &Value) -> String {
    let hex = Digest::of(document.to_string().as_bytes()).hex().to_owned();
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..15],
        &hex[15..18],
        &hex[18..30]
    )
}

/// The lists of a document while they grow.
#[derive(Default)]
struct Parts<'a> {
    layers: &'a [Descriptor],
    packages: Vec<Value>,
    files: Vec<Value>,
    relationships: Vec<Value>,
    /// Texts of licences that SPDX does not know, by their references.
    licences: BTreeMap<String, String>,
}

impl Parts<'_> {
    fn add(&mut self, path: &Path, file: &FoundFile) {
        let path = format!("./{}", path.to_string_lossy());
        let file_id = format!("SPDXRef-File-{}", short_hash(&path));
        let mut shown = json!({
            "SPDXID": file_id,
            "fileName": path,
            "checksums": [
                { "algorithm": "SHA1", "checksumValue": file.sha1 },
                { "algorithm": "SHA256", "checksumValue": file.sha256 },
            ],
            "licenseConcluded": NO_ASSERTION,
            "copyrightText": NO_ASSERTION,
        });
        if let Some(comment) = self.layer(file.layer) {
            shown["comment"] = comment.into();
        }
        self.files.push(shown);
        for (package, layer) in &file.packages {
            let id = format!(
                "SPDXRef-Package-{}-{}-{}",
                package.url.kind,
                slug(&package.name),
                short_hash(&format!("{}\n{path}", package.url))
            );
            let shown = self.package(&id, package, file.kind, &path);
            let mut shown = Value::Object(shown);
            if let Some(comment) = self.layer(*layer) {
                shown["comment"] = comment.into();
            }
            self.packages.push(shown);
            self.relate(ROOT, "CONTAINS", &id, None);
            let evidence = "evident-by: the package is known from this file";
            self.relate(&id, "OTHER", &file_id, Some(evidence));
        }
    }

    fn package(
        &mut self,
        id: &str,
        package: &Package,
        kind: &str,
        path: &str,
    ) -> Map<String, Value> {
        let licence = self.licence(&package.licence);
        let url = json!({
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.url.to_string(),
        });
        let texts = [
            ("SPDXID", id.to_owned()),
            ("name", package.name.clone()),
            ("versionInfo", package.version.clone()),
            ("summary", package.summary.clone()),
            ("downloadLocation", NO_ASSERTION.to_owned()),
        ];
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        let texts = texts.map(|(name, text)| (name.to_owned(), Value::String(text)));
        let mut shown: Map<String, Value> = texts.collect();
        if !package.supplier.is_empty() {
            let supplier = format!("Organization: {}", one_line(&package.supplier));
            shown.insert("originator".to_owned(), supplier.into());
        }
        for (name, value) in [
            ("filesAnalyzed", false.into()),
            ("sourceInfo", format!("found in the {kind} {path}").into()),
            ("licenseConcluded", NO_ASSERTION.into()),
            ("licenseDeclared", licence.into()),
            ("copyrightText", NO_ASSERTION.into()),
            ("externalRefs", json!([url])),
        ] {
            shown.insert(name.to_owned(), value);
        }
        shown
    }

    /// Names a licence: its expression, or a reference to its text.
    fn licence(&mut self, text: &str) -> String {
        if text.is_empty() {
            return NO_ASSERTION.to_owned();
        }
        if licence::is_expression(text) {
            return text.to_owned();
        }
        let id = match text.len() <= 40 {
            true => format!("LicenseRef-{}-{}", slug(text), &short_hash(text)[..6]),
            false => format!("LicenseRef-{}", short_hash(text)),
        };
        self.licences.insert(id.clone(), text.to_owned());
        id
    }

    fn layer(&self, layer: Option<usize>) -> Option<String> {
        let layer = self.layers.get(layer?)?;
        Some(format!("layerID: {}", layer.digest))
    }

    fn relate(&mut self, from: &str, kind: &str, to: &str, comment: Option<&str>) {
        let mut relationship = json!({
            "spdxElementId": from,
            "relationshipType": kind,
            "relatedSpdxElement": to,
        });
        if let Some(comment) = comment {
            relationship["comment"] = comment.into();
        }
        self.relationships.push(relationship);
    }
}

fn short_hash(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()[..SHORT].to_owned()
}

/// Keeps letters, digits and dots; identifiers have nothing else.
fn slug(text: &str) -> String {
    let kept = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    text.chars().map(kept).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
