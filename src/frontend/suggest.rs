//! "Did you mean": the known word nearest to a mistyped one.

/// How many single-character edits a word may be away from what was meant.
const MAX_DISTANCE: usize = 2;

/// The longest word worth comparing; nobody means a flag with something longer.
const MAX_WORD_CHARS: usize = 64;

/// The option nearest to `typed` without regard to case, if one is near enough.
///
/// Returns nothing when `typed` is itself an option: then the mistake is elsewhere.
pub fn nearest<'a>(typed: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.chars().count() > MAX_WORD_CHARS {
        return None;
    }
    let folded = typed.to_lowercase();
    let mut best: Option<(usize, &'a str)> = None;
    for option in options {
        let distance = distance(&folded, &option.to_lowercase());
        if distance == 0 {
            return (option != typed).then_some(option);
        }
        // A word as short as the number of edits would match anything.
        let near = distance <= MAX_DISTANCE && distance < folded.chars().count();
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, option));
        }
    }
    best.map(|(_, option)| option)
}

/// The variable nearest to a mistyped one: by letters as they are or, where none is near, without
/// regard to case.
pub fn variable<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.collect();
    if typed.chars().count() > MAX_WORD_CHARS || known.contains(&typed) {
        return None;
    }
    let mut best: Option<(usize, &'a str)> = None;
    let length = typed.chars().count();
    for name in &known {
        // Too long or too short a name is not worth the comparison.
        if name.chars().count().abs_diff(length) > MAX_DISTANCE {
            continue;
        }
        let distance = edits(typed, name);
        if distance <= MAX_DISTANCE && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
        .or_else(|| nearest(typed, known.iter().copied()))
}

/// The number of insertions, deletions and replacements between two words.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let replaced = last[j] + usize::from(l != *r);
            row.push(replaced.min(last[j + 1] + 1).min(row[j] + 1));
        }
        last = row;
    }
    last.last().copied().unwrap_or(0)
}

/// The words "did you mean `x`?" for [`nearest`].
pub fn did_you_mean<'a>(typed: &str, options: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(typed, options).map(|option| format!("did you mean `{option}`?"))
}

/// The number of insertions, deletions and replacements between two words, two neighbours
/// changing places counting as one.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, &l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &r) in right.iter().enumerate() {
            let replaced = last[j] + usize::from(l != r);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && l == right[j - 1] && left[i - 1] == r {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_variable() {
        let known = ["PATH", "DIR_ASSETS", "dir_assets", "a"];
        let rows = [
            ("PAHT", Some("PATH")),
            ("DIR_ASSET", Some("DIR_ASSETS")),
            ("dir_asset", Some("dir_assets")),
            ("x", Some("a")),
            ("path", Some("PATH")),
            ("VERSION", None),
            ("PATH", None),
        ];
        for (typed, expected) in rows {
            assert_eq!(variable(typed, known.into_iter()), expected, "{typed}");
        }
    }

    #[test]
    fn suggests_the_nearest_word() {
        let options = [
            "FROM",
            "RUN",
            "COPY",
            "ENTRYPOINT",
            "from",
            "chown",
            "chmod",
        ];
        let rows = [
            ("FORM", Some("FROM")),
            ("COPPY", Some("COPY")),
            ("ENTRYPIONT", Some("ENTRYPOINT")),
            ("chwon", Some("chown")),
            ("APT-GET", None),
            ("R", None),
            ("RUN", None),
            ("run", Some("RUN")),
            ("", None),
        ];
        for (typed, expected) in rows {
            assert_eq!(nearest(typed, options), expected, "{typed}");
        }
    }
}
