//! What is kept of a step beside its key: how to find its result, and what its key was made from.
//!
//! A [`Step`] comes from the solver, is compared with earlier ones by `explain`, and is written
//! to the column `detail` of the index as JSON:
//!
//! ```text
//! {"version": 1,                          KEY_VERSION that made the key
//!  "parts":  [{"name": "command", "value": "RUN make"}, …],
//!  "inputs": [{"name": "[1/2] FROM debian", "content": false, "hash": "<64 hex>"}, …]}
//! ```

use serde::{Deserialize, Serialize};

use super::files::ContentDigest;
use super::key::{CacheKey, ContentHash, KEY_VERSION};

/// Names a result that a worker can load again. Opaque to cache and solver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResultId(pub String);

/// Begins values that are fingerprints; nobody writes it in a Dockerfile.
const FINGERPRINT: char = '\u{1}';

/// Begins the places of steps that run a process.
pub(super) const RUN_PLACE: &str = "run ";

/// One thing that the key of a step was made from, in words. It explains and never identifies.
///
/// Names with a meaning to explanations: `command` (the words of a process as a JSON list, or
/// the instruction as people read it), `platform`, `env:NAME` and `arg:NAME` (the value is kept
/// as a hash only), `source` (what a source was pinned to), `details …` (the rest, as a
/// fingerprint). Any other name is shown as it is: `user`, `network`, `mount /x`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl KeyPart {
    /// Makes a part.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }

    /// Makes a part whose value is only a fingerprint: that it changed is all there is to say.
    pub fn fingerprint(name: impl Into<String>, value: &ContentHash) -> Self {
        let digits = value.hex();
        Self::new(name, format!("{FINGERPRINT}{}", &digits[..32]))
    }

    /// Tells whether a value is a fingerprint.
    pub(super) fn is_fingerprint(value: &str) -> bool {
        value.starts_with(FINGERPRINT)
    }

    /// Returns the part as it may lie on a disk: values of variables only as a hash.
    fn kept(&self) -> Self {
        if !has_value(self) {
            let hash = ContentHash::of(self.value.as_bytes()).hex();
            Self::new(self.name.clone(), &hash[..16])
        } else {
            self.clone()
        }
    }
}

/// Says whether a part that was kept has its value, and not just the hash of one.
pub(super) fn has_value(part: &KeyPart) -> bool {
    !(part.name.starts_with("env:") || part.name.starts_with("arg:"))
}

/// A step as the cache knows it: who it is to people, and what its key was made from.
#[derive(Debug, Clone)]
pub struct Step {
    /// What people read: `[builder 2/4] RUN make`.
    pub name: String,
    /// Which build it belongs to, so that steps of unrelated projects are not compared.
    pub scope: String,
    /// Digest of the op.
    pub op: ContentHash,
    /// What went into `op`, in words.
    pub parts: Vec<KeyPart>,
    /// The inputs, in order.
    pub inputs: Vec<StepInput>,
}

/// An input of a [`Step`].
#[derive(Debug, Clone)]
pub struct StepInput {
    /// Name of the step that it is a result of.
    pub name: String,
    /// What entered the key.
    pub used: InputUse,
}

/// What of an input entered a key.
#[derive(Debug, Clone)]
pub enum InputUse {
    /// The key of the used output.
    Key(CacheKey),
    /// The used contents.
    Content(ContentDigest),
}

impl Step {
    /// Returns where the step stands among those that do the same kind of thing: an `ADD` of a
    /// URL has two steps of one name, one that downloads and one that copies.
    pub fn place(&self) -> String {
        format!("{} {}", self.kind(), place_of(&self.name))
    }

    fn kind(&self) -> &'static str {
        let has = |name: &str| self.parts.iter().any(|part| part.name == name);
        if has("command") {
            "run"
        } else if has("source") && !has("destination") {
            "source"
        } else if has("inputs") {
            "merge"
        } else {
            "other"
        }
    }

    pub(super) fn detail(&self) -> Detail {
        Detail {
            version: KEY_VERSION,
            parts: self.parts.iter().map(KeyPart::kept).collect(),
            inputs: self.inputs.iter().map(DetailInput::of).collect(),
        }
    }
}

/// Returns the place of a step in its Dockerfile, without what may change when steps are added or
/// the platform is another: `builder 2` for `[linux/arm64 builder 2/4] RUN make`.
pub fn place_of(name: &str) -> String {
    let Some((bracket, _)) = split_name(name) else {
        return name.to_owned();
    };
    let mut numbered = false;
    let mut words = Vec::new();
    for word in bracket.split_whitespace() {
        match word.split_once('/') {
            Some((number, total)) if is_number(number) && is_number(total) => {
                numbered = true;
                words.push(number);
            }
            Some(_) => {} // a platform
            None => words.push(word),
        }
    }
    if numbered {
        words.join(" ")
    } else {
        name.to_owned()
    }
}

/// Returns the name of a step without the bracket before it.
pub(super) fn instruction_of(name: &str) -> &str {
    split_name(name).map_or(name, |(_, instruction)| instruction)
}

fn split_name(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix('[')?.split_once("] ")
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The part of a [`Step`] that is kept as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) version: u32,
    pub(super) parts: Vec<KeyPart>,
    pub(super) inputs: Vec<DetailInput>,
}

/// An input as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DetailInput {
    pub(super) name: String,
    pub(super) content: bool,
    pub(super) hash: String,
}

impl DetailInput {
    fn of(input: &StepInput) -> Self {
        let (content, hash) = match &input.used {
            InputUse::Key(key) => (false, key.hex()),
            InputUse::Content(content) => (true, content.digest.hex()),
        };
        Self {
            name: input.name.clone(),
            content,
            hash,
        }
    }
}

/// A finished step to be kept.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Its result key: identity of the record, and what users of the result put in their keys.
    pub id: CacheKey,
    /// The keys under which it shall be found: definition key and content key.
    pub keys: Vec<CacheKey>,
    /// Result keys of the used outputs of its inputs; `None` for a local folder.
    pub made_from: Vec<Option<CacheKey>>,
    /// How to load the result.
    pub result: ResultId,
    /// Bytes that the step added to the store.
    pub size_bytes: u64,
    /// How long the step ran: what it costs to make the result again.
    pub duration_ns: u64,
    /// The step.
    pub step: Step,
}

/// A record that a key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Identity of the record: the result key of the step.
    pub id: CacheKey,
    /// How to load the result.
    pub result: ResultId,
    /// Result keys of the inputs at the time the key was stored; see [`NewRecord::made_from`].
    pub made_from: Vec<Option<CacheKey>>,
    /// Whether it is older than the user wants any result to be; see [`super::age`].
    pub too_old: bool,
}

/// A record as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordInfo {
    /// Identity of the record.
    pub id: CacheKey,
    /// How to load the result.
    pub result: ResultId,
    /// Name of the step.
    pub description: String,
    /// Bytes that the step added to the store.
    pub size_bytes: u64,
    /// When the step ran.
    pub created_ns: i64,
    /// When a build last found it.
    pub last_used_ns: i64,
    /// How often a build found it.
    pub uses: u64,
    /// How long the step ran; 0 where nobody measured.
    pub duration_ns: u64,
    /// Which build it belongs to; see [`Step::scope`].
    pub scope: String,
}

/// Says why a record has no result any more. The record stays a while, to explain the miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It was pruned.
    Pruned,
    /// It was not yet safely on the disk when the machine went down.
    LostAtRestart,
    /// The worker could not load it.
    Missing,
}

impl Gone {
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Pruned => 1,
            Self::LostAtRestart => 2,
            Self::Missing => 3,
        }
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        [Self::Pruned, Self::LostAtRestart, Self::Missing]
            .into_iter()
            .find(|gone| gone.code() == code)
    }
}

/// Writes `made_from` as 32 bytes for each input, zeros for `None`.
pub(super) fn encode_inputs(inputs: &[Option<CacheKey>]) -> Vec<u8> {
    let zeros = CacheKey([0; 32]);
    inputs
        .iter()
        .flat_map(|key| key.as_ref().unwrap_or(&zeros).0)
        .collect()
}

/// Reads what [`encode_inputs`] wrote.
pub(super) fn decode_inputs(bytes: &[u8]) -> Option<Vec<Option<CacheKey>>> {
    let (chunks, rest) = bytes.as_chunks::<32>();
    let key = |chunk: &[u8; 32]| (chunk != &[0; 32]).then_some(CacheKey(*chunk));
    rest.is_empty().then(|| chunks.iter().map(key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_ignores_totals_and_platforms() {
        let cases = [
            ("[2/4] RUN make", "2"),
            ("[builder 2/4] RUN make", "builder 2"),
            ("[builder 2/7] RUN make -j2", "builder 2"),
            ("[builder  2/17] RUN make -j2", "builder 2"),
            ("[linux/arm64 builder 2/4] RUN make", "builder 2"),
            (
                "[internal] load build context",
                "[internal] load build context",
            ),
            ("git clone", "git clone"),
            ("[odd RUN", "[odd RUN"),
        ];
        for (name, place) in cases {
            assert_eq!(place_of(name), place, "{name}");
        }
    }

    #[test]
    fn inputs_survive_encoding() {
        let inputs = vec![Some(CacheKey([7; 32])), None, Some(CacheKey([1; 32]))];
        assert_eq!(decode_inputs(&encode_inputs(&inputs)), Some(inputs));
        assert_eq!(decode_inputs(&[]), Some(Vec::new()));
        assert_eq!(decode_inputs(&[1; 33]), None);
    }

    #[test]
    fn values_of_variables_are_kept_as_hashes() {
        let kept = KeyPart::new("arg:TOKEN", "hunter2").kept();
        assert_eq!(kept.name, "arg:TOKEN");
        assert!(!kept.value.contains("hunter2"));
        let command = KeyPart::new("command", "RUN make");
        assert_eq!(command.kept(), command);
    }
}
