//! The values of flags: what is wrong with one is part of it, and sizes and durations do not
//! overflow.

#![no_main]

use cooper_fuzz::frontend::diagnostic::{Position, Span};
use cooper_fuzz::frontend::dockerfile::duration::parse_duration;
use cooper_fuzz::frontend::dockerfile::run_value::{FlagError, parse_size};
use cooper_fuzz::frontend::dockerfile::{
    Word, parse_check, parse_device, parse_mount, parse_mount_with, parse_network, parse_security,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    check(text, parse_mount(text));
    let mut twice = |value: &str| Ok(format!("{value}{value}"));
    check(text, parse_mount_with(text, &mut twice));
    check(text, parse_device(text));
    check(text, parse_network(text));
    check(text, parse_security(text));
    let _ = parse_check(text);
    let _ = parse_size(text);
    let _ = parse_duration(text);
});

fn check<T>(text: &str, outcome: Result<T, FlagError>) {
    if let Err(error) = outcome {
        let start = Position::START;
        let word = Word::new(text, Span { start, end: start });
        assert!(!error.diagnostic(&word).message.is_empty());
    }
}
