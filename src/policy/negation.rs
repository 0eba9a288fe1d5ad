//! `not` as OPA has it.
//!
//! OPA finds the values that a call or a comparison is about before it asks whether that does not
//! hold: where one of them is not there, `not startswith(input.git.remote, "x")` has no value, and the
//! rule around it does not hold. The interpreter says that it is true, which would allow what OPA
//! denies. So such a negation is put into other words before it is read:
//!
//! ```text
//! not startswith(input.git.remote, "x")    not input.size > limit
//! unless([input.git.remote, "x"], [1 | startswith(…)])    unless([input.size, limit], [1 | …])
//! ```
//!
//! Names by themselves, `==` of values that need not be computed, and what this file does not
//! recognize stay as they are.

use super::words::Word;

/// The module with the function that takes the place of `not`.
pub(super) const MODULE: (&str, &str) = (
    "negations",
    "package cooper_negation\n\nunless(_, found) if count(found) == 0\n",
);
/// The function.
const UNLESS: &str = "data.cooper_negation.unless";

/// Words and signs after which an expression goes on in the next line, or with which it does.
const JOINING: [&str; 14] = [
    "=", "<", ">", "!", "+", "-", "*", "/", "%", "&", "|", ":", ".", "in",
];
/// What makes a value one that has to be computed.
const COMPUTING: [&str; 8] = ["(", "+", "-", "*", "/", "%", "&", "|"];
/// What ends an expression, or (`not`) the part of a text that is looked at for one negation.
const ENDS: [&str; 5] = [";", ",", "with", "else", "not"];

/// Puts the negations of a module, which is given with its words, into other words. Lines stay.
pub(super) fn rewritten(text: &str, words: &[Word<'_>]) -> String {
    let mut result = String::with_capacity(text.len());
    let (mut copied, mut at) = (0, 0);
    while at < words.len() {
        let start = at;
        at += 1;
        if !words[start].is("not") || start > 0 && words[start - 1].is(".") {
            continue;
        }
        let expression = &words[at..at + length(&words[at..])];
        let Some(values) = values(expression) else {
            continue;
        };
        let (Some(last), values) = (expression.last(), spelled(text, values)) else {
            continue;
        };
        at += expression.len();
        let end = last.end;
        let negated = &text[words[start].start..end];
        let lines = "\n".repeat(negated.matches('\n').count());
        let expression = spelled(text, [expression]);
        result.push_str(&text[copied..words[start].start]);
        result.push_str(&format!("{UNLESS}([{values}], [1 | {expression}]){lines}"));
        copied = end;
    }
    result.push_str(&text[copied..]);
    result
}

/// Counts the words of the expression with which they begin.
fn length(words: &[Word<'_>]) -> usize {
    let mut depth = 0_usize;
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &words[before]);
        let goes_on = before.is_none_or(|before| {
            before.line == word.line
                || JOINING
                    .iter()
                    .any(|joining| before.is(joining) || word.is(joining))
        });
        let ends = ENDS.iter().any(|end| word.is(end)) || word.closes();
        if depth == 0 && (ends || !goes_on) {
            return index;
        }
        if word.opens() {
            depth += 1;
        } else if word.closes() {
            depth -= 1;
        }
    }
    words.len()
}

/// Finds what a call or a comparison is about; `None` where it is neither.
fn values<'a, 'b>(words: &'b [Word<'a>]) -> Option<Vec<&'b [Word<'a>]>> {
    let is_plain = |word: &Word<'_>| {
        !["not", "some", "every", "_"]
            .iter()
            .any(|name| word.is(name))
    };
    // Strings over several lines would move what follows.
    if !words
        .iter()
        .all(|word| is_plain(word) && !(word.is_string && word.text.contains('\n')))
    {
        return None;
    }
    if words.first().is_some_and(|first| first.is("(")) && length(&words[1..]) + 2 == words.len() {
        return values(&words[1..words.len() - 1]);
    }
    let name = words
        .iter()
        .take_while(|word| !word.is_string && (word.is(".") || is_name(word)));
    let name = name.count();
    if name > 0 && name < words.len() && words[name].is("(") {
        let call = length(&words[name + 1..]) + name + 1;
        // Arguments end at commas.
        let mut close = call;
        while close < words.len() && words[close].is(",") {
            close += 1 + length(&words[close + 1..]);
        }
        if close + 1 == words.len() && close > name + 1 {
            return Some(vec![&words[name + 1..close]]);
        }
    }
    compared(words)
}

/// Finds the sides of a comparison.
fn compared<'a, 'b>(words: &'b [Word<'a>]) -> Option<Vec<&'b [Word<'a>]>> {
    let mut depth = 0_usize;
    let mut signs = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if word.opens() {
            depth += 1;
        } else if word.closes() {
            depth = depth.saturating_sub(1);
        } else if depth == 0
            && ["<", ">", "!", "=", ":", "in"]
                .iter()
                .any(|sign| word.is(sign))
        {
            signs.push(index);
        }
    }
    let (first, last) = (*signs.first()?, *signs.last()?);
    let sign: Vec<&str> = words[first..=last].iter().map(|word| word.text).collect();
    let mut sides = vec![&words[..first], &words[last + 1..]];
    if sides.iter().any(|side| side.is_empty()) {
        return None;
    }
    match sign.concat().as_str() {
        "<" | ">" | "<=" | ">=" | "!=" | "in" => {}
        // Of these, only what has to be computed comes first.
        "==" => sides.retain(|side| is_computed(side)),
        _ => return None,
    }
    (!sides.is_empty()).then_some(sides)
}

/// Says whether a value is that of a call or a sum, or made of others.
fn is_computed(words: &[Word<'_>]) -> bool {
    if words.first().is_some_and(Word::opens) {
        return true;
    }
    let mut depth = 0_usize;
    for word in words {
        if depth == 0 && COMPUTING.iter().any(|sign| word.is(sign)) {
            return true;
        }
        if word.opens() {
            depth += 1;
        } else if word.closes() {
            depth = depth.saturating_sub(1);
        }
    }
    false
}

/// Writes words as they stand, without comments and in one line; parts get commas between them.
fn spelled<'a, 'b: 'a>(text: &str, parts: impl IntoIterator<Item = &'a [Word<'b>]>) -> String {
    let parts = parts.into_iter().map(|words| {
        let mut written = String::new();
        let mut last = None;
        for word in words {
            if last.is_some_and(|last| last != word.start) {
                written.push(' ');
            }
            written.push_str(&text[word.start..word.end]);
            last = Some(word.end);
        }
        written
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn is_name(word: &Word<'_>) -> bool {
    word.text
        .starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::words::words;
    use super::*;

    #[track_caller]
    fn becomes(text: &str, expected: &str) {
        let expected = expected.replace("UNLESS", UNLESS);
        assert_eq!(rewritten(text, &words(text)), expected);
    }

    #[test]
    fn calls_and_comparisons_find_their_values_first() {
        becomes(
            "a if not startswith(input.git.remote, \"x)\") # why\nb := 1",
            "a if UNLESS([input.git.remote, \"x)\"], [1 | startswith(input.git.remote, \"x)\")]) # why\nb := 1",
        );
        becomes(
            "a if { not input.x in {1, 2}; not lib.f(g(1)[0]) }",
            "a if { UNLESS([input.x, {1, 2}], [1 | input.x in {1, 2}]); UNLESS([g(1)[0]], [1 | lib.f(g(1)[0])]) }",
        );
        becomes(
            "a if not f(x) with input as {\"y\": 1}",
            "a if UNLESS([x], [1 | f(x)]) with input as {\"y\": 1}",
        );
        becomes(
            "a if not count(input.x) == y",
            "a if UNLESS([count(input.x)], [1 | count(input.x) == y])",
        );
        becomes(
            "a if not f([y | not y > 1])",
            "a if not f([y | UNLESS([y, 1], [1 | y > 1])])",
        );
        becomes(
            "a if not {1, input.x} == input.y",
            "a if UNLESS([{1, input.x}], [1 | {1, input.x} == input.y])",
        );
        becomes(
            "a if not (input.x > 1)",
            "a if UNLESS([input.x, 1], [1 | (input.x > 1)])",
        );
        for sign in ["<", "<=", ">", ">=", "!="] {
            becomes(
                &format!("a if not input.n {sign} 1 + m"),
                &format!("a if UNLESS([input.n, 1 + m], [1 | input.n {sign} 1 + m])"),
            );
        }
    }

    #[test]
    fn lines_stay_and_comments_go() {
        becomes(
            "a if {\n\tnot f(x, # one\n\t\ty)\n\tb\n}",
            "a if {\n\tUNLESS([x, y], [1 | f(x, y)])\n\n\tb\n}",
        );
    }

    #[test]
    fn a_string_without_an_end_ends_with_the_text() {
        becomes("a if not x > \"y", "a if UNLESS([x, \"y], [1 | x > \"y])");
    }

    #[test]
    fn the_rest_stays() {
        for text in [
            "a if not b",
            "a if not input.image.labels.x",
            "a if not x == y",
            "a if not f()",
            "a if not \"not f(x)\"",
            "a if input.not.f(x)",
            "a if not 1 / (count([]) + 0)",
            "# not f(x)\na := `not f(x)`",
            "a if not f(x)[0]",
            "a if not some x in y",
            "not",
            "a if not f(",
            "a if not <",
        ] {
            becomes(text, text);
        }
    }
}
