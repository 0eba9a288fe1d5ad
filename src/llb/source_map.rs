//! Where each vertex stands in the user's files.

use std::collections::BTreeMap;

use super::VertexDigest;
use super::pb;

/// A file that vertices point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Name shown to the user.
    pub filename: String,
    /// Language of the text, by linguist's names: `Dockerfile`.
    pub language: String,
    /// The text.
    pub text: String,
}

/// A range of lines and columns.
///
/// Lines count from 1 and the last one belongs to the range; columns count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First line.
    pub start_line: u32,
    /// Column of the first character in the first line.
    pub start_column: u32,
    /// Last line.
    pub end_line: u32,
    /// Column behind the last character in the last line.
    pub end_column: u32,
}

/// A place in one of the files of a [`SourceMap`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Which file.
    pub file: usize,
    /// Which parts of it.
    pub ranges: Vec<Range>,
}

/// The files and the places of vertices in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceMap {
    files: Vec<SourceFile>,
    locations: BTreeMap<VertexDigest, Vec<Location>>,
}

impl SourceMap {
    /// Starts a map over `files`.
    pub fn new(files: Vec<SourceFile>) -> Self {
        Self {
            files,
            locations: BTreeMap::new(),
        }
    }

    /// Says that `vertex` comes from `locations`, among others.
    pub fn add(&mut self, vertex: &VertexDigest, locations: &[Location]) {
        if locations.is_empty() {
            return;
        }
        let known = self.locations.entry(vertex.clone()).or_default();
        for location in locations {
            if !known.contains(location) {
                known.push(location.clone());
            }
        }
    }

    /// Converts to the message.
    pub fn into_pb(self) -> pb::Source {
        let locations = self.locations.iter().map(|(vertex, locations)| {
            let locations = locations.iter().map(location_to_pb).collect();
            (vertex.to_string(), pb::Locations { locations })
        });
        let infos = self.files.into_iter().map(|file| pb::SourceInfo {
            filename: file.filename,
            data: file.text.into_bytes(),
            definition: None,
            language: file.language,
        });
        pb::Source {
            locations: locations.collect(),
            infos: infos.collect(),
        }
    }
}

fn location_to_pb(location: &Location) -> pb::Location {
    let position = |line: u32, column: u32| pb::Position {
        line: i32::try_from(line).unwrap_or(i32::MAX),
        character: i32::try_from(column).unwrap_or(i32::MAX),
    };
    let ranges = location.ranges.iter().map(|range| pb::Range {
        start: Some(position(range.start_line, range.start_column)),
        end: Some(position(range.end_line, range.end_column)),
    });
    pb::Location {
        source_index: i32::try_from(location.file).unwrap_or(i32::MAX),
        ranges: ranges.collect(),
    }
}
