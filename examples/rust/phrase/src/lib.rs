//! Phrases with numbers in them.

/// Says how far it counted.
pub fn count_to(number: usize) -> String {
    format!("counted to {}", itoa::Buffer::new().format(number))
}
