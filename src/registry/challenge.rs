//! `WWW-Authenticate`: what a registry wants to see (RFC 9110 §11.6.1).

/// One challenge: a scheme with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`.
    pub(super) scheme: String,
    /// Parameters, names in lower case, in order.
    pub(super) parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        parameters.find_map(|(n, value)| (n == name).then_some(value.as_str()))
    }
}

/// Parses one header, which may hold several challenges. What cannot be understood is left out.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    for item in split_items(header) {
        let (scheme, parameter) = split_scheme(item);
        if let Some(scheme) = scheme {
            challenges.push(Challenge {
                scheme: scheme.to_lowercase(),
                parameters: Vec::new(),
            });
        }
        let (Some(challenge), Some((name, value))) = (challenges.last_mut(), parameter) else {
            continue;
        };
        let (name, value) = (name.trim().to_lowercase(), unquote(value.trim()));
        challenge.parameters.push((name, value));
    }
    challenges
}

/// Splits at commas outside quotes.
fn split_items(header: &str) -> Vec<&str> {
    let (mut items, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in header.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                items.push(header[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(header[start..].trim());
    items.retain(|item| !item.is_empty());
    items
}

/// Splits `Scheme name=value`, `Scheme`, `Scheme token68` or `name=value`.
fn split_scheme(item: &str) -> (Option<&str>, Option<(&str, &str)>) {
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let pair = |text: &'_ str| -> Option<(usize, usize)> {
        let equals = text.find('=')?;
        // Padding, not a value: a token68.
        let padding = text[equals..].bytes().all(|b| b == b'=');
        (!padding && word(text[..equals].trim())).then_some((equals, equals + 1))
    };
    match item.split_once([' ', '\t']) {
        Some((scheme, rest)) if word(scheme) && !rest.trim_start().starts_with('=') => {
            let rest = rest.trim_start();
            (
                Some(scheme),
                pair(rest).map(|(end, from)| (&rest[..end], &rest[from..])),
            )
        }
        None if word(item) => (Some(item), None),
        _ => (
            None,
            pair(item).map(|(end, from)| (&item[..end], &item[from..])),
        ),
    }
}

fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        return value.to_owned();
    };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> String {
        let challenges = parse(header);
        let texts: Vec<String> = challenges
            .iter()
            .map(|challenge| {
                let parameters: Vec<String> = challenge
                    .parameters
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!("{}[{}]", challenge.scheme, parameters.join("; "))
            })
            .collect();
        texts.join(" ")
    }

    #[test]
    fn challenges_of_real_and_odd_registries_are_read() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#,
                "bearer[realm=https://auth.example/token; service=r.example; scope=repository:a/b:pull,push]",
            ),
            (r#"Basic realm="a, b""#, "basic[realm=a, b]"),
            ("basic", "basic[]"),
            (
                r#"BASIC Realm=x , bearer realm = "y" ,error="insufficient_scope""#,
                "basic[realm=x] bearer[realm=y; error=insufficient_scope]",
            ),
            (
                r#"Negotiate YWJj==, Basic realm="q\"uote\\d""#,
                r#"negotiate[] basic[realm=q"uote\d]"#,
            ),
            (r#"Bearer realm="unclosed"#, "bearer[realm=unclosed]"),
            ("", ""),
            (",,,", ""),
            ("realm=alone", ""),
            ("=", ""),
            ("Bearer =", ""),
            ("Bearer x=", "bearer[]"),
        ] {
            assert_eq!(shown(header), expected, "{header}");
        }
    }
}
