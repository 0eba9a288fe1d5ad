//! Unified diffs.

use std::fmt::Write as _;

use super::Line;

/// Unchanged lines around a change.
const AROUND: usize = 3;

/// Returns the changes of a file.
pub(super) fn unified(name: &str, lines: &[Line]) -> String {
    let changed: Vec<usize> = (0..lines.len())
        .filter(|index| lines[*index].after.as_ref() != Some(&lines[*index].before))
        .collect();
    if changed.is_empty() {
        return String::new();
    }
    let mut text = format!("--- a/{name}\n+++ b/{name}\n");
    let mut rest = changed.as_slice();
    while let Some(first) = rest.first() {
        // Changes whose surroundings touch share a hunk.
        let near = rest
            .windows(2)
            .take_while(|pair| pair[1] - pair[0] <= 2 * AROUND);
        let count = near.count() + 1;
        let last = rest[count - 1];
        let from = first.saturating_sub(AROUND);
        let to = (last + AROUND + 1).min(lines.len());
        hunk(&mut text, lines, from, to);
        rest = &rest[count..];
    }
    text
}

fn hunk(text: &mut String, lines: &[Line], from: usize, to: usize) {
    let kept = |lines: &[Line]| lines.iter().filter(|line| line.after.is_some()).count();
    let (before, after) = (to - from, kept(&lines[from..to]));
    let start = kept(&lines[..from]);
    let range = |start: usize, count: usize| match count {
        // A range without lines names the line before it.
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        count => format!("{},{count}", start + 1),
    };
    let _ = writeln!(
        text,
        "@@ -{} +{} @@",
        range(from, before),
        range(start, after)
    );
    // Removals of neighbouring lines stand together, before what takes their place.
    let mut added = String::new();
    for line in &lines[from..to] {
        match &line.after {
            Some(after) if *after == line.before => {
                text.push_str(&added);
                added.clear();
                push(text, ' ', after);
            }
            after => {
                push(text, '-', &line.before);
                if let Some(after) = after {
                    push(&mut added, '+', after);
                }
            }
        }
    }
    text.push_str(&added);
}

fn push(text: &mut String, mark: char, line: &str) {
    text.push(mark);
    text.push_str(line);
    if !line.ends_with('\n') {
        text.push_str("\n\\ No newline at end of file\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(before: &str, after: Option<&str>) -> Line {
        Line {
            before: before.to_owned(),
            after: after.map(str::to_owned),
        }
    }

    #[test]
    fn changes_far_apart_are_hunks_of_their_own() {
        let mut lines = vec![line("a\n", Some("A\n")), line("b\n", None)];
        lines.extend((1..=8).map(|n| line(&format!("{n}\n"), Some(&format!("{n}\n")))));
        lines.push(line("end", Some("END")));
        assert_eq!(
            unified("f", &lines),
            "--- a/f\n+++ b/f\n\
             @@ -1,5 +1,4 @@\n-a\n-b\n+A\n 1\n 2\n 3\n\
             @@ -8,4 +7,4 @@\n 6\n 7\n 8\n-end\n\\ No newline at end of file\n\
             +END\n\\ No newline at end of file\n"
        );
        assert_eq!(unified("f", &[line("a\n", Some("a\n"))]), "");
        let one = unified("f", &[line("a\n", None)]);
        assert_eq!(one, "--- a/f\n+++ b/f\n@@ -1 +0,0 @@\n-a\n");
    }
}
