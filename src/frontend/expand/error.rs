//! What can be wrong with a word.

use super::{MAX_DEPTH, MAX_EXPANDED_BYTES, Missing};
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::Word;

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote that is never closed.
    #[error("the quote {quote} is never closed")]
    OpenQuote {
        /// The quote.
        quote: char,
        /// Where it stands, in bytes from the start of the word.
        offset: usize,
    },
    /// A `${` without its `}`.
    #[error("`${{` is never closed")]
    OpenBrace {
        /// Where it stands.
        offset: usize,
    },
    /// A `${…}` that has no name, or no form the language knows.
    #[error("`${{…}}` is not written in a way that is known")]
    BadSubstitution {
        /// Where it stands.
        offset: usize,
    },
    /// A `${v…}` with an unknown operator.
    #[error("unknown operator `{operator}` in a variable")]
    UnknownOperator {
        /// The operator.
        operator: String,
        /// Where it stands.
        offset: usize,
    },
    /// A `${v?m}` or `${v:?m}` without a value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the word says about it.
        message: String,
        /// Where it stands.
        offset: usize,
    },
    /// A pattern that cannot be read.
    #[error("the pattern `{pattern}` cannot be read: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
        /// Where its `${` stands.
        offset: usize,
    },
    /// `${…}` nested deeper than [`MAX_DEPTH`].
    #[error("`${{…}}` is nested more than {MAX_DEPTH} deep")]
    TooDeep {
        /// Where the innermost stands.
        offset: usize,
    },
    /// A result longer than [`MAX_EXPANDED_BYTES`].
    #[error("the text grows beyond {MAX_EXPANDED_BYTES} bytes")]
    TooLong {
        /// How far the word was read.
        offset: usize,
    },
}

impl ExpandError {
    /// Returns the variable without which the word cannot be read; it may be set, but empty.
    pub(crate) fn required(&self) -> Option<Missing> {
        let Self::Required { name, offset, .. } = self else {
            return None;
        };
        Some(Missing {
            name: name.clone(),
            offset: offset + "${".len(),
            has_fallback: true,
        })
    }

    /// Where in the word the mistake stands, in bytes.
    pub fn offset(&self) -> usize {
        match self {
            Self::OpenQuote { offset, .. }
            | Self::OpenBrace { offset }
            | Self::BadSubstitution { offset }
            | Self::UnknownOperator { offset, .. }
            | Self::Required { offset, .. }
            | Self::BadPattern { offset, .. }
            | Self::TooDeep { offset }
            | Self::TooLong { offset } => *offset,
        }
    }

    /// The finding to show for a word of the file.
    pub fn diagnostic(&self, word: &Word) -> Diagnostic {
        let start = self.offset();
        let length = word
            .raw
            .get(start..)
            .and_then(|rest| rest.chars().next())
            .map_or(0, char::len_utf8);
        let help = match self {
            Self::OpenQuote { .. } => "close the quote, or put the escape character before it",
            Self::OpenBrace { .. } => "close it with `}`",
            Self::BadSubstitution { .. } => "write `${NAME}`, or `\\${` for the text itself",
            Self::UnknownOperator { .. } => "the operators are :- - :+ + :? ? # ## % %% / and //",
            Self::BadPattern { .. } => "only `*`, `?` and the escape character can be escaped",
            Self::Required { .. } => "pass it with --build-arg, or set it with ARG or ENV",
            Self::TooDeep { .. } | Self::TooLong { .. } => "spread it over several variables",
        };
        Diagnostic::error(word.part_span(start, start + length), self.to_string()).with_help(help)
    }
}
