//! in-toto statements: a predicate and what it is about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::oci::Digest;

/// Type of a statement, version 1.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name: a package URL or a path; `_` where it has none.
    #[serde(default)]
    pub name: String,
    /// Its digests by algorithm.
    #[serde(default)]
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// Name of a subject that has none.
    pub const NAMELESS: &str = "_";

    /// Names something by its digest.
    pub fn new(name: &str, digest: &Digest) -> Self {
        let algorithm = digest.algorithm().as_str().to_owned();
        Self {
            name: name.to_owned(),
            digest: BTreeMap::from([(algorithm, digest.hex().to_owned())]),
        }
    }
}

/// A predicate with its subjects.
#[derive(Debug, Serialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: &'static str,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Subject>,
    predicate: Box<RawValue>,
}

impl Statement {
    /// Joins a predicate, which is JSON, to its subjects.
    pub fn new(
        predicate_type: &str,
        subject: Vec<Subject>,
        predicate: String,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            kind: STATEMENT,
            predicate_type: predicate_type.to_owned(),
            subject,
            predicate: RawValue::from_string(predicate)?,
        })
    }

    /// Writes the statement as an image stores it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Writes the statement for people.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        // The predicate stands there as it was written; read once more it is indented too.
        let value: serde_json::Value = serde_json::from_slice(&self.to_bytes()?)?;
        Ok(format!("{value:#}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_the_members_of_in_toto() {
        let digest = Digest::of(b"");
        let subject = vec![Subject::new("pkg:docker/a@b", &digest)];
        let statement = Statement::new("https://x/y", subject, "{\"z\":1}".to_owned()).unwrap();
        let expected = format!(
            "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicateType\":\"https://x/y\",\
             \"subject\":[{{\"name\":\"pkg:docker/a@b\",\"digest\":{{\"sha256\":\"{}\"}}}}],\
             \"predicate\":{{\"z\":1}}}}",
            digest.hex()
        );
        assert_eq!(statement.to_bytes().unwrap(), expected.as_bytes());
        assert!(Statement::new("t", Vec::new(), "no json".to_owned()).is_err());
    }
}
