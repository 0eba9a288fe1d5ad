//! What a file op uses of its inputs, hashed for the cache.

use prost::Message;

use crate::cache::content_hash::{self, Modes, Rules};
use crate::cache::stat_cache::StatCache;
use crate::cache::{ContentDigest, ContentHash};
use crate::llb::pb;
use crate::llb::pb::file_action::Action;
use crate::llb::pb::user_opt::User;
use crate::session::tree::select::SelectError;
use crate::session::tree::{CopySource, Origin, Selection};

use super::FileOpError;
use super::mode::ModeChange;

/// Says whether an op uses only parts of an input, so that their contents can stand for it.
///
/// An input that actions change is used as a whole.
pub fn is_used_by_content(op: &pb::FileOp, input: u32) -> bool {
    let input = i64::from(input);
    let mut used = false;
    for action in &op.actions {
        if action.input == input {
            return false;
        }
        used |= action.secondary_input == input && matches!(action.action, Some(Action::Copy(_)));
        used |= accounts(action).iter().any(|(of, _)| *of == input);
    }
    used
}

/// Describes what an op uses of one input, for telling whether [`content_digest`] gives the same
/// for another op; `None` for an op that reads names of users there.
pub fn uses(op: &pb::FileOp, input: u32) -> Option<Vec<u8>> {
    let reads = |action| {
        accounts(action)
            .iter()
            .any(|(of, _)| *of == i64::from(input))
    };
    let is_told = !op.actions.iter().any(reads);
    is_told.then(|| copied(op, input))
}

/// Hashes what selects the contents that an op uses of one input. Which names of users it reads
/// there is said by the op itself.
pub fn selector(op: &pb::FileOp, input: u32) -> ContentHash {
    ContentHash::of(&copied(op, input))
}

/// Describes what an op copies of one input.
fn copied(op: &pb::FileOp, input: u32) -> Vec<u8> {
    let mut described = pb::FileOp::default();
    for action in &op.actions {
        let Some(Action::Copy(copy)) = &action.action else {
            continue;
        };
        if action.secondary_input == i64::from(input) {
            let used = Action::Copy(what_counts(copy));
            described.actions.push(pb::FileAction {
                action: Some(used),
                ..pb::FileAction::default()
            });
        }
    }
    described.encode_to_vec()
}

/// Keeps what [`source`] and [`mode`] read, and whether an owner is named.
fn what_counts(copy: &pb::FileActionCopy) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: copy.src.clone(),
        follow_symlink: copy.follow_symlink,
        allow_wildcard: copy.allow_wildcard,
        allow_empty_wildcard: copy.allow_empty_wildcard,
        dir_copy_contents: copy.dir_copy_contents,
        include_patterns: copy.include_patterns.clone(),
        exclude_patterns: copy.exclude_patterns.clone(),
        required_paths: copy.required_paths.clone(),
        mode: copy.mode,
        mode_str: copy.mode_str.clone(),
        owner: copy.owner.as_ref().map(|_| pb::ChownOpt::default()),
        ..pb::FileActionCopy::default()
    }
}

/// Hashes what an op uses of one input.
pub fn content_digest(
    op: &pb::FileOp,
    input: u32,
    origin: &Origin,
    known: Option<&StatCache>,
    compared: Modes,
) -> Result<ContentDigest, FileOpError> {
    let input = i64::from(input);
    let mut selections: Vec<(Selection, bool, ModeChange)> = Vec::new();
    for action in &op.actions {
        if let Some(Action::Copy(copy)) = &action.action
            && action.secondary_input == input
        {
            let selection = origin.select(&source(copy))?;
            selections.push((selection, copy.owner.is_some(), mode(copy)?));
        }
        for (_, file) in accounts(action).into_iter().filter(|(of, _)| *of == input) {
            let account_file = CopySource {
                path: file,
                follow_links: true,
                ..CopySource::default()
            };
            let selection = match origin.select(&account_file) {
                Err(SelectError::NotFound { .. }) => Selection::default(),
                other => other?,
            };
            selections.push((selection, true, ModeChange::Set(0)));
        }
    }
    let modes: Vec<_> = selections
        .iter()
        .map(|(_, _, mode)| move |kind, bits| mode.apply(kind, bits))
        .collect();
    let parts: Vec<(&Selection, Rules<'_>)> = selections
        .iter()
        .zip(&modes)
        .map(|((selection, owner_replaced, _), mode)| {
            let rules = Rules {
                owner_replaced: *owner_replaced,
                modes: compared,
                mode,
            };
            (selection, rules)
        })
        .collect();
    Ok(content_hash::digest(&parts, known)?)
}

/// Reads what a copy takes from its op.
pub fn source(copy: &pb::FileActionCopy) -> CopySource<'_> {
    CopySource {
        path: &copy.src,
        follow_links: copy.follow_symlink,
        wildcards: copy.allow_wildcard,
        allow_no_match: copy.allow_empty_wildcard,
        contents_only: copy.dir_copy_contents,
        include: &copy.include_patterns,
        exclude: &copy.exclude_patterns,
        required: &copy.required_paths,
    }
}

/// Reads what a copy makes of permission bits from its op.
pub(super) fn mode(copy: &pb::FileActionCopy) -> Result<ModeChange, FileOpError> {
    if !copy.mode_str.is_empty() {
        return Ok(ModeChange::parse(&copy.mode_str)?);
    }
    Ok(match copy.mode {
        -1 => ModeChange::Keep,
        mode => ModeChange::Set(mode.cast_unsigned() & 0o7777),
    })
}

/// Returns the owner that an action names.
pub(super) fn owner(action: &pb::FileAction) -> Option<&pb::ChownOpt> {
    match action.action.as_ref()? {
        Action::Copy(copy) => copy.owner.as_ref(),
        Action::Mkfile(file) => file.owner.as_ref(),
        Action::Mkdir(dir) => dir.owner.as_ref(),
        Action::Symlink(link) => link.owner.as_ref(),
        Action::Rm(_) => None,
    }
}

/// Lists the account files that an action reads, with the index of what they are in.
fn accounts(action: &pb::FileAction) -> Vec<(i64, &'static str)> {
    let Some(owner) = owner(action) else {
        return Vec::new();
    };
    let named = |user: &Option<pb::UserOpt>, file| match user.as_ref()?.user.as_ref()? {
        User::ByName(name) => Some((name.input, file)),
        User::ById(_) => None,
    };
    let user = named(&owner.user, "/etc/passwd");
    user.into_iter()
        .chain(named(&owner.group, "/etc/group"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(change: impl FnOnce(&mut pb::FileActionCopy)) -> pb::FileOp {
        let mut copy = pb::FileActionCopy {
            src: "/src".to_owned(),
            dest: "/a".to_owned(),
            mode: -1,
            ..pb::FileActionCopy::default()
        };
        change(&mut copy);
        pb::FileOp {
            actions: vec![pb::FileAction {
                secondary_input: 1,
                action: Some(Action::Copy(copy)),
                ..pb::FileAction::default()
            }],
        }
    }

    #[test]
    fn only_what_is_read_tells_uses_apart() {
        let same = uses(&copy(|_| ()), 1).unwrap();
        let of = |change: &dyn Fn(&mut pb::FileActionCopy)| uses(&copy(|c| change(c)), 1).unwrap();
        assert_eq!(of(&|copy| copy.dest = "/b".to_owned()), same);
        assert_eq!(of(&|copy| copy.timestamp = 5), same);
        let others: [&dyn Fn(&mut pb::FileActionCopy); 9] = [
            &|copy| copy.src = "/other".to_owned(),
            &|copy| copy.mode = 0o644,
            &|copy| copy.mode_str = "u=rwX".to_owned(),
            &|copy| copy.owner = Some(pb::ChownOpt::default()),
            &|copy| copy.exclude_patterns.push("x".to_owned()),
            &|copy| copy.include_patterns.push("x".to_owned()),
            &|copy| copy.required_paths.push("x".to_owned()),
            &|copy| copy.allow_wildcard = true,
            &|copy| copy.dir_copy_contents = true,
        ];
        for (number, change) in others.into_iter().enumerate() {
            assert_ne!(of(change), same, "{number}");
        }
        assert_ne!(uses(&copy(|_| ()), 0).unwrap(), same);
        let selected = |path: &str| selector(&copy(|copy| copy.src = path.to_owned()), 1);
        assert_eq!(selected("/a/x"), selected("/a/x"));
        assert_ne!(selected("/a/x"), selected("/b/x"));
    }
}
