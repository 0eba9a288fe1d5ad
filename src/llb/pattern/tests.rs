//! Tables and properties of path patterns.

use super::compiled::Compiled;
use super::*;

/// Pattern, path, whether the path itself matches.
const ALONE: [(&str, &str, bool); 74] = [
    ("**", "notes", true),
    ("**", "src/main.c", true),
    ("**/", "notes", true),
    ("**/**", "src/main.c", true),
    ("docs/**", "docs/index.html", true),
    ("docs/**", "docs/img/logo.svg", true),
    ("docs/**", "docs", false),
    ("docs/**", "docs2/index.html", false),
    ("docs**", "docs2/index.html", true),
    ("**/cache", "cache", true),
    ("**/cache", "var/lib/cache", true),
    ("**/cache", "mycache", false),
    ("**/obj/*", "src/obj/x.o", true),
    ("**/obj/*", "obj/obj/x.o", true),
    ("**/obj/**", "a/obj/b/x.o", true),
    ("**/obj/**", "obj", false),
    ("**lock", "lock", true),
    ("**lock", "var/lock", true),
    ("**lock", "var/Cargo.lock", true),
    ("**lock", "var/locks", false),
    ("**/lock", "var/Cargo.lock", false),
    ("**lock*", "lockfile", true),
    ("**lock*", "var/lockfile", true),
    ("**lock*", "var/flockfile", false),
    ("**/log*old", "var/log/log.1.old", true),
    ("**/*.rs", "src/llb/mod.rs", true),
    ("**/*.rs", ".rs", true),
    ("**/**/*.rs", "main.rs", true),
    ("**/**/*.rs", "src/main.c", false),
    ("p**/*.rs", "p/main.rs", true),
    ("p**/*.rs", "p/src/main.rs", true),
    ("p**/*.rs", "p.rs", true),
    ("p**/*.rs", "q/p.rs", false),
    ("p/*.rs", "p/src/main.rs", false),
    ("p/*.rs", "p/main.rs", true),
    ("p/*.rs**", "p/main.rs.bk/x", true),
    ("v[1-3]x", "vx", false),
    ("v[1-3]x", "v2x", true),
    ("v[^1-3]x", "v9x", true),
    ("v[^1-3]x", "v2x", false),
    (".*", ".git", true),
    (".*", "git", false),
    ("a.b", "axb", false),
    ("a+b", "aab", false),
    ("a?b", "axb", true),
    ("a?b", "a/b", false),
    ("x\\*y", "x*y", true),
    ("x\\*y", "xzy", false),
    ("x\\\\y", "x\\y", true),
    ("**/img/logo", "img/logo", true),
    ("**/img/logo", "web/pub/img/logo", true),
    ("**/.env", ".env", true),
    ("**/.env", "prod.env", false),
    ("f(1)/g", "f(1)/g", true),
    ("f(1)/g", "f1/g", false),
    ("$^+(){}|", "$^+(){}|", true),
    ("{src,lib}", "src", false),
    ("{src,lib}", "{src,lib}", true),
    ("src", "lib/src", false),
    ("src", "src", true),
    ("src/", "src", true),
    ("./src", "src", true),
    ("lib/../src", "src", true),
    ("/src", "src", false),
    ("*", "src", true),
    ("*", "src/main.c", false),
    ("*/main.c", "src/main.c", true),
    ("*/main.c", "main.c", false),
    ("?", "é", true),
    ("??", "é", false),
    ("src/**/t.c", "src/t.c", true),
    ("src/**/t.c", "src/a/b/t.c", true),
    ("src/**/t.c", "src/at.c", false),
    ("s***c", "s/t.c", true),
];

#[test]
fn single_patterns() {
    for (pattern, path, expected) in ALONE {
        let matcher = PatternMatcher::new(&[pattern]).unwrap();
        assert_eq!(matcher.matches(path), expected, "{pattern} on {path}");
        assert!(!matcher.has_negations());
        let compiled = Compiled::new(&clean(pattern)).unwrap();
        assert_eq!(
            compiled.matches_slowly(path.as_bytes()),
            expected,
            "{pattern} on {path}"
        );
    }
}

/// Patterns, path, whether the path or a parent matches in the end.
const LISTS: [(&[&str], &str, bool); 24] = [
    (&["foo"], "foo/bar/baz", true),
    (&["foo"], "a/foo/bar", false),
    (&["a/b"], "a/b/c/d", true),
    (&["a/*/c"], "a/b/c/d", true),
    (&["**/node_modules"], "x/node_modules/y/z.js", true),
    (&["*.md"], "README.md/x", true),
    (&["*.md", "!README.md"], "README.md", false),
    (&["*.md", "!README.md"], "CHANGES.md", true),
    (
        &["*.md", "!README*.md", "README-secret.md"],
        "README-secret.md",
        true,
    ),
    (
        &["*.md", "README-secret.md", "!README*.md"],
        "README-secret.md",
        false,
    ),
    (&["*", "!src"], "src/main.rs", false),
    (&["*", "!src", "src/*.tmp"], "src/x.tmp", true),
    (&["**", "!a/b/c"], "a/b/c", false),
    (&["**", "!a/b/c"], "a/b", true),
    (&["**", "!a/b/c"], "a/b/c/d", false),
    (&["dir", "!dir/keep"], "dir/keep/x", false),
    (&["dir", "!dir/keep"], "dir/drop", true),
    (&["!dir", "dir"], "dir/x", true),
    (&["dir", "!**/*.txt"], "dir/a/b.txt", false),
    (&["", "  ", "a"], "a", true),
    (&["!a"], "a", false),
    (&[], "a", false),
    (&["a", "!a/b/c", "a/b"], "a/b/c", true),
    (&["**/*.o", "!**/keep/**"], "x/keep/a.o", false),
];

#[test]
fn lists_of_patterns() {
    for (patterns, path, expected) in LISTS {
        let matcher = PatternMatcher::new(patterns).unwrap();
        assert_eq!(
            matcher.matches_or_parent(path),
            expected,
            "{patterns:?} on {path}"
        );
    }
}

#[test]
fn the_deciding_pattern_is_told() {
    let matcher = PatternMatcher::new(&["", "*.md", "!README*.md", "README-secret.md"]).unwrap();
    assert_eq!(matcher.decide("a.md"), Some((1, true)));
    assert_eq!(matcher.decide("README.md/x"), Some((2, false)));
    assert_eq!(matcher.decide("README-secret.md"), Some((3, true)));
    assert_eq!(matcher.decide("a.rs"), None);
}

#[test]
fn bad_patterns_are_refused() {
    let rows = [
        ("!", "`!` without a pattern"),
        ("[", "bad pattern `[`: `[` is never closed"),
        ("[a", "bad pattern `[a`: `[` is never closed"),
        (
            "[]a]",
            "bad pattern `[]a]`: a class of characters is empty or has a range without an end",
        ),
        (
            "[^]",
            "bad pattern `[^]`: a class of characters is empty or has a range without an end",
        ),
        (
            "[a-]",
            "bad pattern `[a-]`: a class of characters is empty or has a range without an end",
        ),
        (
            "[z-a]",
            "bad pattern `[z-a]`: a range of characters ends before it starts",
        ),
        ("a\\", "bad pattern `a\\`: it ends with a backslash"),
        ("!a[", "bad pattern `!a[`: `[` is never closed"),
    ];
    for (pattern, message) in rows {
        let error = PatternMatcher::new(&["ok", pattern]).unwrap_err();
        assert_eq!(error.to_string(), message, "{pattern}");
        assert_eq!(error.index(), 1);
    }
}

#[test]
fn names_that_are_not_utf8() {
    let matcher = PatternMatcher::new(&["a?c", "x*"]).unwrap();
    assert!(matcher.matches(b"a\xffc"));
    assert!(!matcher.matches(b"a\xff\xffc"));
    assert!(matcher.matches(b"x\xff\xfe"));
}

/// Pattern, name, result: `None` for a pattern that is refused.
const GO_MATCH: [(&str, &str, Option<bool>); 44] = [
    ("main", "main", Some(true)),
    ("*", "main", Some(true)),
    ("*n", "main", Some(true)),
    ("m*", "m", Some(true)),
    ("m*/n", "main/n", Some(true)),
    ("m*/n", "m/ai/n", Some(false)),
    ("m*", "ma/in", Some(false)),
    ("s*r*c*/o", "search/o", Some(true)),
    ("s*r*c*/o", "sxrxxcxx/o", Some(true)),
    ("s*r*c*/o", "sxrxc/x/o", Some(false)),
    ("s*r*c*/o", "sxrxc/oo", Some(false)),
    ("*a?b*b", "xaabxaxbzb", Some(true)),
    ("*a?b*b", "xaabxaxbzc", Some(false)),
    ("ma[i]n", "main", Some(true)),
    ("ma[h-j]n", "main", Some(true)),
    ("ma[a-d]n", "main", Some(false)),
    ("ma[^i]n", "main", Some(false)),
    ("ma[^a-d]n", "main", Some(true)),
    ("m\\*n", "m*n", Some(true)),
    ("m\\*n", "man", Some(false)),
    ("m?n", "m→n", Some(true)),
    ("m[^n]n", "m→n", Some(true)),
    ("m???n", "m→n", Some(false)),
    ("[a-ω]*", "β", Some(true)),
    ("*[a-ω]", "Z", Some(false)),
    ("m?n", "m/n", Some(false)),
    ("m*n", "m/n", Some(false)),
    ("m[^x]n", "m/n", Some(true)),
    ("[\\]m]", "]", Some(true)),
    ("[\\-]", "-", Some(true)),
    ("[m\\-]", "n", Some(false)),
    ("[\\-m]", "a", Some(false)),
    ("[]m]", "]", None),
    ("[-]", "-", None),
    ("[m-]", "m", None),
    ("[-m]", "m", None),
    ("\\", "m", None),
    ("[a-c-e]", "a", None),
    ("[", "m", None),
    ("[^mn", "m", None),
    ("m[", "m", None),
    ("xx[", "y", None),
    ("{a,b}", "a", Some(false)),
    ("", "", Some(true)),
];

#[test]
fn go_filepath_match() {
    for (pattern, name, expected) in GO_MATCH {
        assert_eq!(
            go_match(pattern, name).ok(),
            expected,
            "{pattern} on {name}"
        );
    }
    assert_eq!(go_match("?", b"\xff"), Ok(true));
}

#[test]
fn cleaning_is_lexical() {
    let rows = [
        ("", "."),
        (".", "."),
        ("a//b/", "a/b"),
        ("./a/./b", "a/b"),
        ("a/../b", "b"),
        ("../a", "../a"),
        ("a/../..", ".."),
        ("/../a", "/a"),
        ("/", "/"),
        ("!a/", "!a"),
    ];
    for (path, expected) in rows {
        assert_eq!(clean(path), expected, "{path}");
    }
}

/// Patterns, hidden directory, whether a walk may skip it.
#[test]
fn hidden_directories_are_pruned_when_nothing_below_can_come_back() {
    let rows: [(&[&str], &str, bool); 15] = [
        (&["dir"], "dir", true),
        (&["dir", "!other"], "dir", true),
        (&["dir", "!dir/keep"], "dir", false),
        (&["dir", "!dir/a/keep"], "dir", false),
        (&["dir", "!dir"], "dir", false),
        (&["dir", "!*.txt"], "dir", true),
        (&["dir", "!**/*.txt"], "dir", false),
        (&["dir", "!*/*.txt"], "dir", false),
        (&["dir", "!d*/keep"], "dir", false),
        (&["dir", "!e*/keep"], "dir", true),
        (&["!dir/keep", "dir"], "dir", true),
        (&["**", "!a/b"], "c", true),
        (&["**", "!a/b"], "a", false),
        (&["**", "!a**/b"], "abc", false),
        (&["**", "!x/**"], "y", true),
    ];
    for (patterns, directory, prunes) in rows {
        let matcher = PatternMatcher::new(patterns).unwrap();
        let info = matcher.enter(directory, &MatchInfo::default());
        assert_eq!(info.prunes(), prunes, "{patterns:?} at {directory}");
    }
}

/// Texts over a small alphabet, in order.
fn words(alphabet: &[&str], longest: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..longest {
        last = last
            .iter()
            .flat_map(|word| alphabet.iter().map(move |piece| format!("{word}{piece}")))
            .collect();
        all.extend(last.clone());
    }
    all
}

/// The fast forms agree with the slow reading, and a pruned directory hides all below it.
#[test]
fn forms_agree_on_all_small_patterns() {
    let paths: Vec<String> = words(&["a", "b", "/"], 5)
        .into_iter()
        .filter(|path| !path.is_empty() && clean(path) == *path && !path.starts_with('/'))
        .collect();
    for pattern in words(&["a", "/", "*", "**", "?"], 4) {
        let cleaned = clean(&pattern);
        let compiled = Compiled::new(&cleaned).unwrap();
        for path in &paths {
            let slow = compiled.matches_slowly(path.as_bytes());
            assert_eq!(
                compiled.matches(path.as_bytes()),
                slow,
                "{cleaned} on {path}"
            );
            if slow {
                for parent in parents(path.as_bytes()) {
                    let parent_text = String::from_utf8_lossy(parent);
                    assert!(
                        compiled.may_match_below(parent),
                        "{cleaned} matches {path} below {parent_text}"
                    );
                }
            }
        }
    }
}

/// A walk that keeps what it knows agrees with asking for each path alone, as long as a negation
/// matches no parent that is not hidden: a walk does not ask it there and does not know later.
#[test]
fn walks_agree_with_single_questions() {
    let paths: Vec<String> = words(&["a", "b", "/"], 5)
        .into_iter()
        .filter(|path| !path.is_empty() && clean(path) == *path && !path.starts_with('/'))
        .collect();
    let singles = words(&["a", "/", "*", "b"], 3);
    for (index, first) in singles.iter().enumerate() {
        let Ok(hides) = PatternMatcher::new(std::slice::from_ref(first)) else {
            continue;
        };
        for second in singles.iter().skip(index % 5).step_by(5) {
            let patterns = [first.clone(), format!("!{second}")];
            let Ok(matcher) = PatternMatcher::new(&patterns) else {
                continue;
            };
            let Some(takes_back) = matcher.rules.last().filter(|rule| rule.negated) else {
                continue;
            };
            for path in &paths {
                let takes_back_early = parents(path.as_bytes()).any(|parent| {
                    takes_back.compiled.matches(parent) && !hides.matches_or_parent(parent)
                });
                if takes_back_early {
                    continue;
                }
                let mut info = MatchInfo::default();
                let mut pruned = false;
                for parent in parents(path.as_bytes()) {
                    info = matcher.enter(parent, &info);
                    pruned |= info.prunes();
                }
                let alone = matcher.matches_or_parent(path);
                assert_eq!(
                    matcher.matches_below(path, &info),
                    alone,
                    "{patterns:?} on {path}"
                );
                assert!(!pruned || alone, "{patterns:?} prunes above {path}");
            }
        }
    }
}

/// The lists where a walk differs, since it did not need to ask about a parent.
#[test]
fn a_walk_forgets_what_it_did_not_ask() {
    let rows: [(&[&str], bool); 2] = [(&["a", "!a/b/c", "a/b"], false), (&["a/b/c", "!a"], true)];
    for (patterns, walking) in rows {
        let matcher = PatternMatcher::new(patterns).unwrap();
        let top = matcher.enter("a", &MatchInfo::default());
        let info = matcher.enter("a/b", &top);
        assert_eq!(
            matcher.matches_below("a/b/c", &info),
            walking,
            "{patterns:?}"
        );
        assert_eq!(matcher.matches_or_parent("a/b/c"), !walking, "{patterns:?}");
    }
}

/// A hundred thousand paths against twenty patterns of all forms.
#[test]
fn many_paths_are_matched_in_little_time() {
    let patterns = [
        ".git",
        "**/node_modules",
        "*.log",
        "**/*.tmp",
        "target/**",
        "docs/*.md",
        "!docs/index.md",
        "**/.cache",
        "a**/x",
        "build*",
        "**/[Tt]est?",
        "dist",
        "**/*.py[co]",
        ".venv",
        "x/**/y/*.o",
        "**/.DS_Store",
        "coverage",
        "tmp/*",
        "!tmp/keep",
        "**/*.swp",
    ];
    let matcher = PatternMatcher::new(&patterns).unwrap();
    let mut hidden = 0;
    for directory in 0..1000 {
        let name = format!("src/module{directory}");
        let info = matcher.enter(&name, &matcher.enter("src", &MatchInfo::default()));
        for file in 0..100 {
            hidden += usize::from(matcher.matches_below(format!("{name}/file{file}.tmp"), &info));
        }
    }
    assert_eq!(hidden, 100_000);
}

#[test]
fn a_backslash_takes_the_meaning_of_a_wildcard() {
    for path in ["a*", "?", "[a]", "\\\\*"] {
        assert!(has_wildcards(path), "{path}");
    }
    for path in ["", "a]b", "a\\*b", "a\\"] {
        assert!(!has_wildcards(path), "{path}");
    }
}
