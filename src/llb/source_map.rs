//! Where each vertex stands in the user's files.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::VertexDigest;
use super::pb;
use crate::oci::Digest;

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
    pub fn add(&mut self, vertex: &VertexDigest, locations: Vec<Location>) {
        if locations.is_empty() {
            return;
        }
        match self.locations.entry(vertex.clone()) {
            Entry::Vacant(new) => {
                new.insert(locations);
            }
            Entry::Occupied(known) => {
                let known = known.into_mut();
                for location in locations {
                    if !known.contains(&location) {
                        known.push(location);
                    }
                }
            }
        }
    }

    /// Returns the files.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// Returns the places of a vertex.
    pub fn of(&self, vertex: &VertexDigest) -> &[Location] {
        self.locations.get(vertex).map_or(&[], Vec::as_slice)
    }

    /// Returns the vertices that have places, in the order of their digests.
    pub fn iter(&self) -> impl Iterator<Item = (&VertexDigest, &[Location])> {
        let locations = self.locations.iter();
        locations.map(|(vertex, locations)| (vertex, locations.as_slice()))
    }

    /// Converts from the message.
    pub fn from_pb(message: pb::Source) -> Self {
        let locations = message.locations.into_iter();
        let locations = locations.filter_map(|(digest, locations)| {
            let digest = VertexDigest(digest.parse::<Digest>().ok()?);
            let locations = locations.locations.iter().filter_map(location_from_pb);
            Some((digest, locations.collect()))
        });
        let files = message.infos.into_iter().map(|info| SourceFile {
            filename: info.filename,
            language: info.language,
            text: String::from_utf8_lossy(&info.data).into_owned(),
        });
        Self {
            locations: locations.collect(),
            files: files.collect(),
        }
    }

    /// Converts to the message.
    pub fn to_pb(&self) -> pb::Source {
        let locations = self.locations.iter().map(|(vertex, locations)| {
            let locations = locations.iter().map(location_to_pb).collect();
            (vertex.to_string(), pb::Locations { locations })
        });
        let infos = self.files.iter().map(|file| pb::SourceInfo {
            filename: file.filename.clone(),
            data: file.text.clone().into_bytes(),
            definition: None,
            language: file.language.clone(),
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

/// Converts a place; one in no file at all is none.
fn location_from_pb(message: &pb::Location) -> Option<Location> {
    let number = |number: i32| u32::try_from(number).unwrap_or(0);
    let ranges = message.ranges.iter().map(|range| {
        let (start, end) = (
            range.start.unwrap_or_default(),
            range.end.unwrap_or_default(),
        );
        Range {
            start_line: number(start.line),
            start_column: number(start.character),
            end_line: number(end.line),
            end_column: number(end.character),
        }
    });
    Some(Location {
        file: usize::try_from(message.source_index).ok()?,
        ranges: ranges.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_wire() {
        let file = SourceFile {
            filename: "Dockerfile".to_owned(),
            language: "Dockerfile".to_owned(),
            text: "FROM a\n".to_owned(),
        };
        let place = |start_line| Location {
            file: 0,
            ranges: vec![Range {
                start_line,
                start_column: 0,
                end_line: start_line,
                end_column: 6,
            }],
        };
        let vertex = VertexDigest::of(b"op");
        let mut map = SourceMap::new(vec![file]);
        map.add(&vertex, vec![place(1)]);
        map.add(&vertex, vec![place(1), place(2)]);
        map.add(&VertexDigest::of(b"other"), Vec::new());
        assert_eq!(map.of(&vertex), [place(1), place(2)]);
        assert_eq!(map.iter().count(), 1);
        assert_eq!(SourceMap::from_pb(map.to_pb()), map);
    }
}
