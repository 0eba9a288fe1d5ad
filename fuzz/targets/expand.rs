//! A word with variables: offsets lie in the word, results are bounded, and what is cut into
//! words stands where it says.

#![no_main]

use cooper_fuzz::frontend::diagnostic::{Position, Span};
use cooper_fuzz::frontend::dockerfile::Word;
use cooper_fuzz::frontend::expand::{Escapes, Expander, MAX_EXPANDED_BYTES, Quotes, Unset};
use libfuzzer_sys::fuzz_target;

const VARIABLES: [(&str, &str); 4] = [
    ("A", "usr/local/lib.tar.gz"),
    ("B", "$A \"b\" 'c' \\ "),
    ("EMPTY", ""),
    ("LONG", "xyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxyxy"),
];

fuzz_target!(|input: (u8, &str)| {
    let (mode, text) = input;
    let escape = if mode & 1 == 0 { '\\' } else { '`' };
    let expander = Expander {
        quotes: [Quotes::Remove, Quotes::Keep, Quotes::Ignore][usize::from(mode >> 1) % 3],
        escapes: [Escapes::Remove, Escapes::Keep][usize::from(mode >> 3) % 2],
        unset: [Unset::Empty, Unset::Keep][usize::from(mode >> 4) % 2],
        ..Expander::new(escape)
    };
    match expander.word(text, VARIABLES.as_slice()) {
        Ok(expanded) => {
            assert!(expanded.value.len() <= MAX_EXPANDED_BYTES + text.len());
            for missing in &expanded.missing {
                assert!(text.get(missing.offset..).is_some());
            }
        }
        Err(error) => {
            assert!(error.offset() <= text.len());
            let start = Position::START;
            let word = Word::new(text, Span { start, end: start });
            assert!(!error.diagnostic(&word).message.is_empty());
        }
    }
    if let Ok(words) = expander.source_words(text, VARIABLES.as_slice()) {
        for word in words.value {
            assert!(!word.text.is_empty());
            assert!(text.get(word.range).is_some());
        }
    }
});
