//! Functions that call themselves: Rego forbids them, and the evaluation would never end.
//!
//! Rules that need themselves are found when they are evaluated; calls of functions are followed
//! here, in the text, and rather too many than too few. A definition begins a line outside of
//! brackets; a call is a name, or a string in brackets, before a parenthesis. Where a definition
//! puts functions in the place of others (`with`), whatever it names counts as called.

use std::collections::{BTreeMap, BTreeSet};

use super::words::{Word, definitions, package_of, words};

/// A function: the package it is in, and its name.
type Function = (String, String);

/// The functions of a policy, and what they call.
#[derive(Debug, Clone, Default)]
pub(super) struct Functions {
    calls: BTreeMap<Function, BTreeSet<Call>>,
}

/// A name that is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    name: String,
    /// The package it is in, as far as the text says; nothing where that may be any.
    package: Option<String>,
}

impl Functions {
    /// Adds what the functions of a module call.
    pub(super) fn add(&mut self, text: &str) {
        let words = words(text);
        let package = package_of(&words);
        for definition in definitions(&words) {
            let Some([name, open]) = definition.first_chunk::<2>() else {
                continue;
            };
            if name.is_string || open.text != "(" {
                continue;
            }
            let function = (package.clone(), name.text.to_owned());
            let calls = self.calls.entry(function).or_default();
            let replaces = definition.iter().any(|word| word.text == "with");
            for index in 1..definition.len() {
                let follows = |ahead: usize| definition.get(index + ahead).map(|word| word.text);
                let is_called =
                    follows(1) == Some("(") || (follows(1) == Some("]") && follows(2) == Some("("));
                if is_called || replaces {
                    calls.insert(call(definition, index, &package));
                }
            }
        }
    }

    /// Finds a function that calls itself, by itself or through others.
    pub(super) fn recursive(&self) -> Option<&str> {
        let mut functions = self.calls.keys();
        let found = functions.find(|function| self.reaches(function, function));
        found.map(|(_, name)| name.as_str())
    }

    /// Says whether calls of a function lead to another one.
    fn reaches(&self, from: &Function, to: &Function) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(function) = open.pop() {
            for called in self.called(function) {
                if called == to {
                    return true;
                }
                if seen.insert(called) {
                    open.push(called);
                }
            }
        }
        false
    }

    /// Returns the functions of the policy that a function calls.
    fn called<'a>(&'a self, function: &'a Function) -> impl Iterator<Item = &'a Function> {
        let calls = self.calls.get(function).into_iter().flatten();
        calls.flat_map(move |call| {
            let is_meant = move |(package, name): &&Function| {
                *name == call.name && call.package.as_ref().is_none_or(|of| of == package)
            };
            self.calls.keys().filter(is_meant)
        })
    }
}

/// Reads the name at a place, and the package before it.
fn call(words: &[Word<'_>], index: usize, own: &str) -> Call {
    let mut start = index;
    while start >= 2 && words[start - 1].text == "." {
        start -= 2;
    }
    let path: Vec<&str> = words[start..index].iter().map(|word| word.text).collect();
    let path = path.concat();
    let package = match path.strip_prefix("data.") {
        _ if words[index].is_string => None,
        Some(package) => Some(package.trim_end_matches('.').to_owned()),
        None if path.is_empty() => Some(own.to_owned()),
        None => None,
    };
    Call {
        name: words[index].text.to_owned(),
        package,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recursive(modules: &[&str]) -> Option<String> {
        let mut functions = Functions::default();
        for module in modules {
            functions.add(module);
        }
        functions.recursive().map(str::to_owned)
    }

    #[test]
    fn functions_that_call_themselves_are_found() {
        for (text, expected) in [
            ("f(x) := g(x)\ng(x) := x", None),
            ("f(x) := f(x)", Some("f")),
            ("  f(x) := f (x)", Some("f")),
            ("g(1) := 2; f(x) := f(x)", Some("f")),
            (
                "default f(_) := 1\nf(x) := y if {\n\ty := f(x - 1)\n}",
                Some("f"),
            ),
            ("f(x) := g(x)\n\ng(x) if {\n\tx\n} else := f(x)", Some("f")),
            ("f(x) := data.docker.f(x)", Some("f")),
            ("f(x) := data.docker[\"f\"](x)", Some("f")),
            ("f(x) := alias.f(x)", Some("f")),
            ("g(x) := x\nf(x) := g(x) with g as f", Some("f")),
            // A name is no call, nor is a comment, and rules are no functions.
            ("f(x) := f if x # f(x)", None),
            ("a if f(1)\nf(x) := a", None),
            ("f(x) := data.lib.f(x)", None),
            ("f(x) := count(x)", None),
        ] {
            let module = format!("package docker\n\n{text}\n");
            assert_eq!(recursive(&[&module]).as_deref(), expected, "{text}");
        }
        let own = "package docker\nf(x) := data.lib.f(x)\n";
        let lib = "package lib\nf(x) := data.docker.f(x)\n";
        assert_eq!(recursive(&[lib, own]).as_deref(), Some("f"));
        assert_eq!(recursive(&["package lib\nf(x) := x\n", own]), None);
        assert_eq!(
            recursive(&[include_str!("builtin.rego"), include_str!("default.rego")]),
            None
        );
    }
}
