//! What goes wrong with requests: on demand, or at random from a seed.

use std::time::Duration;

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Action {
    /// Answers with a status and headers, and `body`.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Does what is asked and closes the connection without an answer.
    Hang,
    /// Sends only so many bytes of the body, then closes.
    CutAfter(usize),
    /// Sends the body with its first byte changed.
    WrongBytes,
    /// Sends the body without its last byte, as if that were all.
    Shorter,
    /// Answers as if no `Range` had been asked for.
    IgnoreRange,
    /// Waits before the answer.
    Wait(Duration),
    /// Reads so many bytes of an upload, keeps them, and closes.
    CutUploadAfter(usize),
    /// Changes the headers of the answer.
    Header(&'static str, String),
}

/// Goes wrong for requests of `method` whose path contains `part`, `times` times.
#[derive(Debug, Clone)]
pub struct Fault {
    pub method: &'static str,
    pub part: &'static str,
    pub times: usize,
    pub action: Action,
}

/// Trouble at random, from a seed.
#[derive(Debug, Clone)]
pub struct Chaos {
    pub state: u64,
    /// Of a thousand requests so many go wrong.
    pub per_mille: u64,
    /// Whether what arrived of a cut upload is forgotten.
    pub forgets: bool,
    /// How many went wrong so far.
    pub faults: usize,
}

impl Chaos {
    pub fn new(seed: u64, per_mille: u64) -> Self {
        Self {
            state: seed.wrapping_mul(2).wrapping_add(1),
            per_mille,
            forgets: false,
            faults: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    /// Decides what happens to a request with a body of `length` bytes.
    pub(super) fn fault(&mut self, length: usize) -> Option<Trouble> {
        if self.draw(1000) >= self.per_mille {
            return None;
        }
        self.faults += 1;
        let refused = |status, headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(k, v)| (*k, (*v).to_owned()));
            Trouble::Refused(status, headers.collect())
        };
        Some(match self.draw(6) {
            0 => refused(500, &[]),
            1 => refused(503, &[("Retry-After", "0")]),
            2 => refused(429, &[("Retry-After", "0")]),
            3 => refused(408, &[]),
            _ if length > 0 => {
                let bytes = self.draw(length as u64) as usize;
                Trouble::Cut {
                    bytes,
                    keep: !self.forgets,
                }
            }
            _ => Trouble::Cut {
                bytes: 0,
                keep: false,
            },
        })
    }
}

/// What happens before a body is read.
pub(super) enum Trouble {
    /// An answer without reading the body.
    Refused(u16, Vec<(&'static str, String)>),
    /// So much of the body is read, then the connection breaks.
    Cut { bytes: usize, keep: bool },
}
