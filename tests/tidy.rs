//! Holds the tree to its own rules: who imports whom, headers, sizes, links.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have, its tests not counted.
const FILE_LINES_MAX: usize = 800;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let name = |path: &Path| {
        path.strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    files_under(&src, ".rs")
        .into_iter()
        .map(|path| (name(&path), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// Returns a file without the test module at its end.
fn without_tests(text: &str) -> &str {
    let end = text
        .match_indices("\n#[cfg(test)]\n")
        .map(|(start, marker)| (start, &text[start + marker.len()..]))
        .find(|(_, rest)| rest.lines().next().is_some_and(|line| line.ends_with('{')))
        .map(|(start, _)| start + 1);
    &text[..end.unwrap_or(text.len())]
}

/// Returns the code of a file without comments, strings and its test module.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    for line in without_tests(text).lines() {
        let line = line.split("//").next().unwrap();
        let mut inside = false;
        for piece in line.split('"') {
            if !inside {
                code.push_str(piece);
            }
            inside = !inside;
        }
        code.push('\n');
    }
    code
}

/// Reads the table *Who may import whom* of docs/architecture.md.
fn import_table() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table = text
        .split("| Module | may import |")
        .nth(1)
        .expect("the import table");
    let mut rows: Vec<(String, BTreeSet<String>)> = Vec::new();
    for line in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let allowed = match cells[1].strip_prefix("everything above") {
            Some(rest) => {
                let except: BTreeSet<&str> = rest
                    .trim_matches([' ', '(', ')'])
                    .trim_start_matches("not ")
                    .split(", ")
                    .collect();
                let above = rows.iter().map(|(name, _)| name.clone());
                above
                    .filter(|name| !except.contains(name.as_str()))
                    .collect()
            }
            None => cells[1]
                .split(' ')
                .filter(|word| *word != "–")
                .map(str::to_owned)
                .collect(),
        };
        rows.push((cells[0].to_owned(), allowed));
    }
    rows
}

#[test]
fn modules_import_only_what_their_row_allows() {
    let table = import_table();
    let rows: BTreeMap<&str, &BTreeSet<String>> = table
        .iter()
        .map(|(name, allowed)| (name.as_str(), allowed))
        .collect();
    for (index, (name, allowed)) in table.iter().enumerate() {
        let above: BTreeSet<&String> = table[..index].iter().map(|(above, _)| above).collect();
        let below = allowed.iter().find(|module| !above.contains(module));
        assert_eq!(
            below, None,
            "the row of {name} names a module that does not stand above it"
        );
    }
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let module = file.split(['/', '.']).next().unwrap();
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed = rows
            .get(module)
            .unwrap_or_else(|| panic!("{module} has no row in the table"));
        let code = code_of(&text);
        for reached in code.split("crate::").skip(1) {
            let groups: Vec<&str> = match reached.strip_prefix('{') {
                Some(group) => group.split('}').next().unwrap().split(',').collect(),
                None => vec![reached],
            };
            for group in groups {
                let word = |c: char| c.is_alphanumeric() || c == '_';
                let imported = group.trim().split(|c| !word(c)).next().unwrap();
                if imported != module && !imported.is_empty() && !allowed.contains(imported) {
                    broken.push(format!("src/{file} imports {imported}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_introduces_itself_and_keeps_its_size() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        if !text.starts_with("//! ") {
            broken.push(format!("src/{file} has no header"));
        }
        let lines = without_tests(&text).lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("src/{file} has {lines} lines; split it"));
        }
        if code_of(&text).contains("super::super") {
            broken.push(format!("src/{file} reaches for super::super"));
        }
        if code_of(&text).contains("unsafe ") && !file.starts_with("sys/") {
            broken.push(format!("src/{file} holds unsafe code; it belongs in sys"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn links_between_documents_resolve() {
    let mut broken = Vec::new();
    let mut documents = files_under(&root().join("docs"), ".md");
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        documents.push(root().join(name));
    }
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap().split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !document.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_fixture_folder_is_used() {
    let fixtures = root().join("tests/fixtures");
    let mut text: String = sources().into_iter().map(|(_, text)| text).collect();
    for file in files_under(&root().join("tests"), ".rs") {
        text.push_str(&fs::read_to_string(file).unwrap());
    }
    for entry in fs::read_dir(fixtures).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let ways = [format!("fixtures/{name}"), format!("fixtures(\"{name}\")")];
        assert!(
            ways.iter().any(|way| text.contains(way)),
            "nothing reads tests/fixtures/{name}"
        );
    }
}

#[test]
fn every_fuzz_target_is_listed_and_seeded() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let script = fs::read_to_string(root().join("scripts/fuzz.sh")).unwrap();
    let targets = files_under(&root().join("fuzz/targets"), ".rs");
    assert!(!targets.is_empty());
    for target in &targets {
        let name = target.file_stem().unwrap().to_str().unwrap();
        let row = format!("name = \"{name}\"\npath = \"targets/{name}.rs\"\n");
        assert!(manifest.contains(&row), "fuzz/Cargo.toml has no {name}");
        assert!(
            script.contains(&format!("    {name})")),
            "{name} has no seeds"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
}

/// The names of the lint rules, as their table has them.
fn lint_rules() -> BTreeSet<String> {
    let table = fs::read_to_string(root().join("src/frontend/lint/rules.rs")).unwrap();
    let rows = table.split("= rules! {").nth(1).unwrap();
    let rows = rows.split("\n};").next().unwrap();
    let names = rows.lines().filter_map(|line| {
        let (name, page) = line.trim().strip_prefix('"')?.split_once("\" \"")?;
        page.ends_with('"').then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn lint_rules_have_pages_and_fixtures_and_these_have_rules() {
    let rules = lint_rules();
    assert_eq!(rules.len(), 22);
    let pages = root().join("docs/rules");
    let paths = files_under(&pages, ".md");
    let stems = paths.iter().map(|path| path.file_stem().unwrap());
    let mut documented: BTreeSet<String> = stems.map(|s| s.to_string_lossy().into()).collect();
    assert!(documented.remove("README"), "docs/rules has no index");
    assert_eq!(documented, rules, "pages and rules differ");
    let index = fs::read_to_string(pages.join("README.md")).unwrap();
    for rule in &rules {
        let row = format!("| [{rule}]({rule}.md)");
        assert!(index.contains(&row), "docs/rules/README.md has no {rule}");
        let page = fs::read_to_string(pages.join(format!("{rule}.md"))).unwrap();
        for part in [&format!("# {rule}\n"), "## Why", "## Bad", "## Good"] {
            assert!(page.contains(part), "docs/rules/{rule}.md has no {part}");
        }
    }
    // `check` is about options, `stages` about what is checked.
    let others = ["check", "stages"].map(str::to_owned);
    let mut shown = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests/fixtures/lint")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        shown.insert(name.split('_').next().unwrap().to_owned());
    }
    let expected: BTreeSet<String> = rules.into_iter().chain(others).collect();
    assert_eq!(shown, expected, "fixtures and rules differ");
}

/// Rows that the support table must have: prefix and highest number.
const SUPPORT_ROWS: [(&str, usize); 4] = [("L", 139), ("K", 25), ("S", 25), ("C", 46)];

/// Says whether something that a row names as its proof is there: a path below
/// `tests/fixtures`, a path of the repository, or `file.rs#function`.
fn proof_exists(proof: &str) -> bool {
    let root = root();
    if let Some((file, function)) = proof.split_once('#') {
        return fs::read_to_string(root.join(file))
            .is_ok_and(|text| text.contains(&format!("fn {function}(")));
    }
    root.join("tests/fixtures").join(proof).exists() || root.join(proof).exists()
}

#[test]
fn every_row_of_the_support_table_has_its_proof() {
    let text = fs::read_to_string(root().join("docs/dockerfile-support.md")).unwrap();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let line = line.replace("\\|", "\u{0}");
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [row, _, state, proof] = cells.as_slice() else {
            continue;
        };
        let is_id = |prefix: &str| {
            let number = row.strip_prefix(prefix);
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        };
        if !SUPPORT_ROWS.iter().any(|(prefix, _)| is_id(prefix)) {
            continue;
        }
        if !seen.insert((*row).to_owned()) {
            wrong.push(format!("{row}: twice"));
        }
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        match *state {
            "yes" | "partly" if named.is_empty() => wrong.push(format!("{row}: nothing proves it")),
            "yes" | "partly" => {
                let missing = named.iter().filter(|proof| !proof_exists(proof));
                wrong.extend(missing.map(|proof| format!("{row}: {proof} is not there")));
            }
            "no" if proof.is_empty() => wrong.push(format!("{row}: no reason given")),
            "no" => {}
            other => wrong.push(format!("{row}: {other:?} is neither yes, partly nor no")),
        }
    }
    for (prefix, highest) in SUPPORT_ROWS {
        let missing = (1..=highest).map(|number| format!("{prefix}{number}"));
        wrong.extend(
            missing
                .filter(|row| !seen.contains(row))
                .map(|row| format!("{row}: missing")),
        );
    }
    assert!(
        wrong.is_empty(),
        "docs/dockerfile-support.md:\n{}",
        wrong.join("\n")
    );
}
