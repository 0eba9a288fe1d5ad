//! The words of a policy's text, as far as they say what it reads: names and strings by line.

/// A piece of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word<'a> {
    /// Line, from 1.
    pub(super) line: u32,
    /// Where it begins, in bytes.
    pub(super) start: usize,
    /// Where it ends, quotes included.
    pub(super) end: usize,
    /// The text: of a string, what stands between its quotes; else a name, or one character.
    pub(super) text: &'a str,
    /// Whether it is a string.
    pub(super) is_string: bool,
}

impl Word<'_> {
    /// Says whether it is this name or character, and no string.
    pub(super) fn is(&self, text: &str) -> bool {
        !self.is_string && self.text == text
    }

    /// Says whether it opens a bracket.
    pub(super) fn opens(&self) -> bool {
        !self.is_string && ["(", "[", "{"].contains(&self.text)
    }

    /// Says whether it closes a bracket.
    pub(super) fn closes(&self) -> bool {
        !self.is_string && [")", "]", "}"].contains(&self.text)
    }
}

/// Takes a text apart; comments and spaces are left out.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, word) = match first {
            '#' => (rest.find('\n').unwrap_or(rest.len()), None),
            '"' | '`' => {
                let length = string_length(rest, first);
                let inner = &rest[1..length];
                (
                    length,
                    Some((inner.strip_suffix(first).unwrap_or(inner), true)),
                )
            }
            first if is_name(first) => {
                let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                (length, Some((&rest[..length], false)))
            }
            first if first.is_whitespace() => (first.len_utf8(), None),
            first => (first.len_utf8(), Some((&rest[..first.len_utf8()], false))),
        };
        if let Some((text, is_string)) = word {
            words.push(Word {
                line,
                start: at,
                end: at + length,
                text,
                is_string,
            });
        }
        let passed = rest[..length].matches('\n').count();
        line += u32::try_from(passed).unwrap_or(u32::MAX);
        at += length;
    }
    words
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns how long a string is, quotes included; one that does not end is all of the rest.
fn string_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if quote == '"' => is_escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns how deep brackets stand in brackets.
pub(super) fn nesting(words: &[Word<'_>]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for word in words {
        if word.opens() {
            depth += 1;
        } else if word.closes() {
            depth = depth.saturating_sub(1);
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Splits a module where a line begins outside of brackets.
pub(super) fn definitions<'a, 'b>(words: &'b [Word<'a>]) -> Vec<&'b [Word<'a>]> {
    let mut starts = Vec::new();
    let (mut depth, mut line) = (0_usize, 0);
    for (index, word) in words.iter().enumerate() {
        let is_name = !word.is_string
            && word
                .text
                .starts_with(|c: char| c.is_alphabetic() || c == '_');
        if depth == 0 && word.line > line && is_name && word.text != "else" {
            starts.push(match word.text {
                "default" => index + 1,
                _ => index,
            });
        }
        line = word.line;
        if word.opens() {
            depth += 1;
        } else if word.closes() {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && word.text == ";" {
            // What follows may be another definition.
            line = 0;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([words.len()]);
    let ranges = starts.iter().copied().zip(ends);
    ranges
        .filter_map(|(start, end)| words.get(start..end))
        .collect()
}

/// Returns the package of a module, its parts with dots between them.
pub(super) fn package_of(words: &[Word<'_>]) -> String {
    let clause = words
        .iter()
        .position(|word| word.text == "package" && !word.is_string);
    let clause = clause.map_or(&[][..], |start| &words[start..]);
    let line = clause.first().map_or(0, |word| word.line);
    let rest = clause.iter().skip(1).take_while(|word| word.line == line);
    // Packages that are renamed have their parts in brackets.
    let parts = rest.filter(|word| !["[", "]", "."].contains(&word.text));
    parts.map(|word| word.text).collect::<Vec<_>>().join(".")
}

/// Returns the packages of `data` that a module imports.
pub(super) fn imports(text: &str) -> Vec<Vec<String>> {
    let words = words(text);
    let starts = words.iter().enumerate().filter(|(index, word)| {
        let data = words.get(index + 1);
        !word.is_string
            && word.text == "import"
            && data.is_some_and(|data| data.text == "data" && data.line == word.line)
    });
    let imports = starts.map(|(index, word)| {
        let rest = words[index + 2..].iter();
        let rest = rest.take_while(|next| next.line == word.line && next.text != "as");
        let parts = rest.filter(|next| next.is_string || next.text.starts_with(is_name));
        parts.map(|part| part.text.to_owned()).collect::<Vec<_>>()
    });
    imports.filter(|parts| !parts.is_empty()).collect()
}

/// Puts a module into another package; its lines stay where they are.
pub(super) fn with_package(text: &str, package: &[String]) -> String {
    let words = words(text);
    let clause = words.windows(2).find(|pair| pair[0].text == "package");
    let Some([package_word, name]) = clause else {
        return text.to_owned();
    };
    let end = words
        .iter()
        .find(|word| word.start > name.start && (word.line > package_word.line || word.text == ";"))
        .map_or(text.len(), |word| word.start);
    let end = text[..end].trim_end().len().max(name.start);
    // A comment behind the name stays one.
    let old = &text[name.start..end];
    let (_, comment) = old.split_once('#').unwrap_or((old, ""));
    let path: Vec<String> = package.iter().map(|part| format!("[{part:?}]")).collect();
    let path = format!(
        "{}{}",
        first_part(package),
        path.get(1..).unwrap_or_default().concat()
    );
    let comment = match comment {
        "" => String::new(),
        comment => format!(" #{comment}"),
    };
    format!("{}{path}{comment}{}", &text[..name.start], &text[end..])
}

fn first_part(package: &[String]) -> &str {
    package.first().map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_taken_apart() {
        let text = "package a # b\nx := `r\n\"`.y[\"q\\\"\"] if é";
        let found: Vec<(u32, &str, bool)> = words(text)
            .into_iter()
            .map(|word| (word.line, word.text, word.is_string))
            .collect();
        assert_eq!(
            found,
            [
                (1, "package", false),
                (1, "a", false),
                (2, "x", false),
                (2, ":", false),
                (2, "=", false),
                (2, "r\n\"", true),
                (3, ".", false),
                (3, "y", false),
                (3, "[", false),
                (3, "q\\\"", true),
                (3, "]", false),
                (3, "if", false),
                (3, "é", false),
            ]
        );
        assert_eq!(words("\"open").len(), 1);
    }

    #[test]
    fn brackets_are_counted() {
        assert_eq!(nesting(&words("f([{1}], (2)) # ((((\n\"((((\"")), 3);
        assert_eq!(nesting(&words("))(")), 1);
    }

    #[test]
    fn packages_are_named() {
        for (text, expected) in [
            ("# package x\npackage a.b # c\nx := 1", "a.b"),
            ("package lib[\"x\"]\n", "lib.x"),
            ("x := 1", ""),
        ] {
            assert_eq!(package_of(&words(text)), expected);
        }
    }

    #[test]
    fn imports_name_packages() {
        let text = "package a\nimport rego.v1\nimport data.lib.x as y # data.no\nimport data.z[\"w-1\"]\nimport data\n";
        let expected = [vec!["lib", "x"], vec!["z", "w-1"]];
        assert_eq!(imports(text), expected);
    }

    #[test]
    fn packages_are_renamed() {
        let package = ["lib".to_owned(), "x".to_owned()];
        for (text, expected) in [
            ("package a\n\nx := 1\n", "package lib[\"x\"]\n\nx := 1\n"),
            (
                "# first\npackage a.b # why\nx := 1",
                "# first\npackage lib[\"x\"] # why\nx := 1",
            ),
            ("package a", "package lib[\"x\"]"),
        ] {
            assert_eq!(with_package(text, &package), expected);
        }
    }
}
