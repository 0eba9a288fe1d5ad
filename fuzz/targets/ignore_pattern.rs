//! An ignore file and a path: a walk and a single question agree about what a directory hides.

#![no_main]

use cooper_fuzz::check_findings;
use cooper_fuzz::frontend::diagnostic::Source;
use cooper_fuzz::frontend::ignore::IgnoreFile;
use cooper_fuzz::llb::pattern::MatchInfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (path, text) = input;
    let file = match IgnoreFile::parse(text) {
        Ok(file) => file,
        Err(findings) => {
            check_findings(&Source::new(".dockerignore", text), &findings.0);
            return;
        }
    };
    let decided = file.decide(path).map(|decision| decision.hidden);
    assert_eq!(decided.unwrap_or(false), file.matcher().matches_or_parent(path));
    let mut info = MatchInfo::default();
    let ends = path.match_indices('/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        let part = &path[..end];
        if part.is_empty() {
            continue;
        }
        let pruned = info.prunes();
        let matches = file.matcher().matches_below(part, &info);
        info = file.matcher().enter(part, &info);
        assert!(pruned || matches == info.is_match());
        assert!(!info.prunes() || info.is_match());
    }
});
