//! The graph as provenance shows it: steps with numbers instead of digests.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Map, Value, json};

use crate::attestation::without_credentials;
use crate::llb::dump::op_to_json;
use crate::llb::source_map::Location;
use crate::llb::{Definition, OutputRef, SourceMap, VertexDigest, pb};
use crate::oci::Descriptor;

/// Attributes of sources that differ from run to run.
const OF_THE_RUN: [&str; 2] = ["local.session", "local.unique"];

/// How many of the lowest layers of the result an output consists of.
pub type StepLayers = BTreeMap<OutputRef, usize>;

/// The steps of a definition, inputs first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Steps {
    ops: Vec<(VertexDigest, pb::Op)>,
    numbers: BTreeMap<VertexDigest, usize>,
    source: Option<SourceMap>,
}

impl Steps {
    /// Numbers the ops that the result needs: each after its inputs, in the order in which they
    /// are found from the result. What cannot be decoded is left out.
    pub fn of(definition: &Definition) -> Self {
        let mut ops = BTreeMap::new();
        let mut last = None;
        for bytes in &definition.ops {
            let Ok(op) = pb::Op::decode(bytes.clone()) else {
                continue;
            };
            let digest = VertexDigest::of(bytes);
            last = Some(digest.clone());
            ops.insert(digest, op);
        }
        let mut steps = Self {
            source: definition.source.clone(),
            ..Self::default()
        };
        let Some(last) = last else {
            return steps;
        };
        // Depth first without recursion: a stage of many steps is a long chain.
        let mut seen = BTreeSet::from([last.clone()]);
        let mut open = vec![(last, 0)];
        while let Some((digest, next)) = open.last_mut() {
            let input = ops.get(digest).and_then(|op| op.inputs.get(*next));
            *next += 1;
            match input {
                Some(input) => {
                    let known = input.digest.parse().ok().map(VertexDigest);
                    if let Some(input) = known.filter(|input| ops.contains_key(input))
                        && seen.insert(input.clone())
                    {
                        open.push((input, 0));
                    }
                }
                None => {
                    let digest = digest.clone();
                    open.pop();
                    if let Some(op) = ops.remove(&digest) {
                        steps.numbers.insert(digest.clone(), steps.ops.len());
                        steps.ops.push((digest, op));
                    }
                }
            }
        }
        steps
    }

    /// Writes the steps and which digests they had.
    pub(super) fn build_config(&self) -> Value {
        let mapping: Map<String, Value> = self
            .numbers
            .iter()
            .map(|(digest, number)| (digest.to_string(), step_name(*number).into()))
            .collect();
        json!({ "llbDefinition": self.definition(), "digestMapping": mapping })
    }

    fn definition(&self) -> Vec<Value> {
        let step = |(number, (_, op)): (usize, &(VertexDigest, pb::Op))| {
            let inputs: Vec<String> = op.inputs.iter().map(|i| self.input_name(i)).collect();
            let mut shown = op.clone();
            shown.inputs = Vec::new();
            if let Some(pb::op::Op::Source(source)) = &mut shown.op {
                source
                    .attrs
                    .retain(|key, _| !OF_THE_RUN.contains(&key.as_str()));
            }
            let mut op = op_to_json(&shown);
            hide_credentials(&mut op);
            let mut step = json!({ "id": step_name(number), "op": op });
            if !inputs.is_empty() {
                step["inputs"] = inputs.into();
            }
            step
        };
        self.ops.iter().enumerate().map(step).collect()
    }

    fn input_name(&self, input: &pb::Input) -> String {
        let digest = input.digest.parse().ok().map(VertexDigest);
        let number = digest.and_then(|digest| self.numbers.get(&digest).copied());
        format!("{}:{}", step_name(number.unwrap_or_default()), input.index)
    }

    /// Writes the Dockerfile and which of its lines each step comes from.
    pub(super) fn source(&self) -> Option<Value> {
        let source = self.source.as_ref().filter(|s| !s.files().is_empty())?;
        let located = source
            .iter()
            .filter_map(|(digest, locations)| Some((*self.numbers.get(digest)?, locations)));
        let located: BTreeMap<usize, &[Location]> = located.collect();
        let located = located.into_iter().map(|(number, locations)| {
            let places: Vec<Value> = locations.iter().map(location).collect();
            (step_name(number), json!({ "locations": places }))
        });
        let infos = source.files().iter().map(|file| {
            json!({
                "filename": file.filename,
                "language": file.language,
                "data": STANDARD.encode(without_credentials(&file.text)),
            })
        });
        Some(json!({
            "locations": located.collect::<Map<_, _>>(),
            "infos": infos.collect::<Vec<_>>(),
        }))
    }

    /// Writes the layers that outputs of steps consist of; `None` where nothing is known.
    pub(super) fn layers(&self, known: &StepLayers, layers: &[Descriptor]) -> Option<Value> {
        let named = known.iter().filter_map(|(output, count)| {
            let number = self.numbers.get(&output.vertex)?;
            let layers = layers.get(..*count).filter(|layers| !layers.is_empty())?;
            Some(((number, output.index), layers))
        });
        let named: BTreeMap<_, _> = named.collect();
        let named = named.into_iter().map(|((number, index), layers)| {
            (format!("{}:{index}", step_name(*number)), json!([layers]))
        });
        let named: Map<String, Value> = named.collect();
        (!named.is_empty()).then_some(Value::Object(named))
    }
}

fn step_name(number: usize) -> String {
    format!("step{number}")
}

fn location(location: &Location) -> Value {
    let mut shown = Map::new();
    if location.file != 0 {
        shown.insert("sourceIndex".to_owned(), location.file.into());
    }
    let ranges = location.ranges.iter().map(|range| {
        json!({
            "start": position(range.start_line, range.start_column),
            "end": position(range.end_line, range.end_column),
        })
    });
    shown.insert("ranges".to_owned(), ranges.collect());
    Value::Object(shown)
}

fn position(line: u32, column: u32) -> Value {
    let members = [("line", line), ("character", column)];
    let members = members.into_iter().filter(|(_, number)| *number != 0);
    let members = members.map(|(key, number)| (key.to_owned(), number.into()));
    Value::Object(members.collect())
}

/// Hides passwords in the URLs of every text.
pub(super) fn hide_credentials(value: &mut Value) {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) if text.contains("://") => *text = without_credentials(text),
            Value::Array(values) => open.extend(values),
            Value::Object(members) => open.extend(members.values_mut()),
            _ => {}
        }
    }
}
