//! Rules by example.

use super::*;

const ALPINE: &str = "docker-image://docker.io/library/alpine:3.19";

fn policy(text: &str) -> SourcePolicy {
    SourcePolicy::parse("policy.json", text.as_bytes()).unwrap()
}

/// Judges a source; what it became, or the error.
fn judged(policies: &[&str], identifier: &str, attrs: &[(&str, &str)]) -> Result<String, String> {
    let policies: Vec<SourcePolicy> = policies.iter().map(|text| policy(text)).collect();
    let mut source = pb::SourceOp {
        identifier: identifier.to_owned(),
        attrs: attrs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let before = source.clone();
    match evaluate(&policies, &mut source) {
        Ok(is_replaced) => {
            assert_eq!(is_replaced, source != before, "{identifier}");
            let attrs = source.attrs.iter();
            let attrs = attrs.map(|(key, value)| format!(" {key}={value}"));
            Ok(source.identifier.clone() + &attrs.collect::<String>())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn rule(action: &str, kind: &str, identifier: &str, more: &str) -> String {
    format!(
        r#"{{"action":"{action}","selector":{{"identifier":"{identifier}","match_type":"{kind}"}}{more}}}"#
    )
}

fn rules(rules: &[String]) -> String {
    format!(r#"{{"rules":[{}]}}"#, rules.join(","))
}

#[test]
fn sources_are_selected_by_their_names() {
    for (kind, identifier, is_meant) in [
        ("EXACT", ALPINE, true),
        ("EXACT", "docker-image://docker.io/library/alpine:*", false),
        (
            "WILDCARD",
            "docker-image://docker.io/library/alpine:*",
            true,
        ),
        ("WILDCARD", "*alpine*", true),
        ("WILDCARD", "alpine", false),
        (
            "WILDCARD",
            "docker-image://docker.io/library/alpine:3?19",
            false,
        ),
        ("REGEX", "alpine", true),
        ("REGEX", "alpine$", false),
        ("REGEX", "^docker-image://docker\\\\.io/", true),
        ("WILDCARD", "", false),
        ("REGEX", "", true),
    ] {
        let denying = rules(&[rule("DENY", kind, identifier, "")]);
        let judged = judged(&[&denying], ALPINE, &[]);
        assert_eq!(judged.is_err(), is_meant, "{kind} {identifier}");
    }
}

#[test]
fn the_last_rule_counts_and_silence_allows() {
    let allow = || rule("ALLOW", "EXACT", ALPINE, "");
    let deny = || rule("DENY", "WILDCARD", "*", "");
    let judged = |list: &[String]| judged(&[&rules(list)], ALPINE, &[]);
    assert!(judged(&[deny(), allow()]).is_ok());
    assert_eq!(
        judged(&[allow(), deny()]).unwrap_err(),
        format!("source {ALPINE:?} denied by policy: rule 2 (\"*\") of policy.json")
    );
    assert!(judged(&[allow()]).is_ok());
    assert!(judged(&[]).is_ok());
}

#[test]
fn every_policy_has_to_agree() {
    let allow = rules(&[rule("ALLOW", "WILDCARD", "*", "")]);
    let deny = rules(&[rule("DENY", "WILDCARD", "*", "")]);
    assert!(judged(&[&deny, &allow], ALPINE, &[]).is_err());
    assert!(judged(&[&allow, &deny], ALPINE, &[]).is_err());
}

#[test]
fn attributes_are_conditions() {
    for (condition, value, attrs, is_denied) in [
        ("EQUAL", "a", &[("k", "a")][..], true),
        ("EQUAL", "a", &[("k", "b")], false),
        ("EQUAL", "", &[], true),
        ("NOTEQUAL", "a", &[("k", "b")], true),
        ("NOTEQUAL", "a", &[("k", "a")], false),
        ("NOTEQUAL", "a", &[], true),
        ("MATCHES", "^a+$", &[("k", "aa")], true),
        ("MATCHES", "^a+$", &[("k", "ab")], false),
    ] {
        let text = format!(
            r#"{{"rules":[{{"action":"DENY","selector":{{"identifier":"*",
            "constraints":[{{"key":"k","value":"{value}","condition":"{condition}"}}]}}}}]}}"#
        );
        let judged = judged(&[&text], "https://host/file", attrs);
        assert_eq!(judged.is_err(), is_denied, "{condition} {value} {attrs:?}");
    }
}

#[test]
fn sources_are_replaced() {
    let to = |identifier: &str| format!(r#","updates":{{"identifier":"{identifier}"}}"#);
    for (kind, from, template, expected) in [
        (
            "EXACT",
            ALPINE,
            "docker-image://m/$1",
            "docker-image://m/$1",
        ),
        (
            "WILDCARD",
            "docker-image://docker.io/library/*:*",
            "docker-image://m/${1}:$2-x",
            "docker-image://m/alpine:3.19-x",
        ),
        (
            "WILDCARD",
            "*alpine*",
            "docker-image://m/b:1",
            "docker-image://m/b:1",
        ),
        // Only what the expression found is replaced, and of a group what is there.
        (
            "REGEX",
            "docker\\\\.io/(?P<path>.*)",
            "m.example/${path}$none",
            "docker-image://m.example/library/alpine:3.19",
        ),
        (
            "REGEX",
            "(3).19",
            "$1x",
            "docker-image://docker.io/library/alpine:",
        ),
    ] {
        let text = rules(&[rule("CONVERT", kind, from, &to(template))]);
        assert_eq!(
            judged(&[&text], ALPINE, &[]).unwrap(),
            expected,
            "{kind} {from}"
        );
    }
}

#[test]
fn attributes_are_added() {
    let url = "https://host/file";
    let pin = r#","updates":{"attrs":{"http.checksum":"sha256:1"}}"#;
    let text = rules(&[rule("CONVERT", "EXACT", url, pin)]);
    let expected = format!("{url} http.checksum=sha256:1");
    assert_eq!(judged(&[&text], url, &[]).unwrap(), expected);
    // Nothing changes any more.
    let same = judged(&[&text], url, &[("http.checksum", "sha256:1")]);
    assert_eq!(same.unwrap(), expected);
}

#[test]
fn what_takes_a_place_is_judged_too() {
    let to = |identifier: &str| format!(r#","updates":{{"identifier":"{identifier}"}}"#);
    let convert = |from: &str, target: &str| rule("CONVERT", "EXACT", from, &to(target));
    // Replacing goes before denying, and the new one may be denied.
    let both = rules(&[rule("DENY", "EXACT", "a://", ""), convert("a://", "b://")]);
    assert_eq!(judged(&[&both], "a://", &[]).unwrap(), "b://");
    let deny = rules(&[rule("DENY", "EXACT", "b://", "")]);
    let denied = judged(&[&both, &deny], "a://", &[]).unwrap_err();
    assert!(denied.starts_with("source \"b://\" denied"), "{denied}");
    let circle = rules(&[convert("a://", "b://"), convert("b://", "a://")]);
    let error = judged(&[&circle], "a://", &[]).unwrap_err();
    assert!(error.contains("more than 20 times"), "{error}");
    // Twenty are not too many.
    let chain = |count: usize| {
        let name = |index: usize| format!("n{index}://");
        let list: Vec<String> = (0..count)
            .map(|i| convert(&name(i), &name(i + 1)))
            .collect();
        judged(&[&rules(&list)], "n0://", &[])
    };
    assert_eq!(chain(20).unwrap(), "n20://");
    assert!(chain(21).is_err());
}

#[test]
fn files_may_be_written_in_several_ways() {
    let denies = |bytes: &[u8]| {
        let policy = SourcePolicy::parse("p", bytes).unwrap();
        let mut source = pb::SourceOp {
            identifier: ALPINE.to_owned(),
            ..pb::SourceOp::default()
        };
        evaluate(&[policy], &mut source).is_err()
    };
    for text in [
        r#"{"rules":[{"action":1,"selector":{"identifier":"alpine","match_type":2}}]}"#,
        r#"{"Version":1,"Rules":[{"ACTION":"DENY","selector":{"Identifier":"*"},"note":"x"}]}"#,
        r#"{"rules":[{"action":"DENY","selector":{"identifier":"alpine","matchType":"REGEX"},"updates":null}]}"#,
    ] {
        assert!(denies(text.as_bytes()), "{text}");
    }
    let message = wire::Policy {
        version: 1,
        rules: vec![wire::Rule {
            action: 1,
            selector: Some(wire::Selector {
                identifier: "*".to_owned(),
                ..wire::Selector::default()
            }),
            updates: None,
        }],
    };
    assert!(denies(&prost::Message::encode_to_vec(&message)));
    assert!(!denies(b"{}"));
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[]", "the policy is not an object"),
        (r#"{"rules":{}}"#, "rules of the policy is not a list"),
        (r#"{"rules":[null]}"#, "rules[0] is not an object"),
        (
            r#"{"rules":[{"action":"DENY"}]}"#,
            "rules[0] has no selector",
        ),
        (
            r#"{"rules":[{"action":"deny","selector":{}}]}"#,
            r#"rules[0].action cannot be "deny""#,
        ),
        (
            r#"{"rules":[{"action":3,"selector":{}}]}"#,
            "rules[0].action cannot be 3",
        ),
        (
            r#"{"rules":[{"selector":{"identifier":1}}]}"#,
            "rules[0].selector.identifier is not a text",
        ),
        (
            r#"{"rules":[{"selector":{"identifier":"(","match_type":"REGEX"}}]}"#,
            r#"rules[0]: "(" is not a regular expression"#,
        ),
        (
            r#"{"rules":[{"selector":{"identifier":"a**"}}]}"#,
            r#"rules[0]: "a**" is not a wildcard"#,
        ),
        (
            r#"{"rules":[{"action":"CONVERT","selector":{}}]}"#,
            "updates are missing",
        ),
        (
            r#"{"rules":[{"selector":{},"updates":{"attrs":{"a":1}}}]}"#,
            "rules[0].updates.attrs.a is not a text",
        ),
    ] {
        let error = SourcePolicy::parse("p", text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
}
