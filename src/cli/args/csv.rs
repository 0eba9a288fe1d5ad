//! Comma-separated `key=value` fields, as in `-o type=oci,dest=image.tar`.

/// Splits one line of comma-separated values. A field that begins with `"` ends at the next
/// single `"`; `""` inside stands for one.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)
                .ok_or_else(|| format!("invalid value {line:?}: a quote is not closed"))?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(format!(
                        "invalid value {line:?}: a quote inside a field that is not quoted"
                    ));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => {
                return Err(format!(
                    "invalid value {line:?}: expected a comma after a closing quote"
                ));
            }
        }
    }
}

/// Splits a line into `key=value` pairs; keys become lower case.
pub(crate) fn pairs(line: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => Err(format!("invalid field {field:?}: must be a key=value pair")),
    };
    fields(line)?.into_iter().map(pair).collect()
}

fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let quote = rest.find('"')?;
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        for (line, expected) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            ("", &[""]),
            ("a,", &["a", ""]),
            (r#"type=image,"name=a,b""#, &["type=image", "name=a,b"]),
            (r#""say ""hi""",x"#, &[r#"say "hi""#, "x"]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for bad in [r#""a"#, r#"a"b"#, r#""a"b"#] {
            assert!(fields(bad).is_err(), "{bad}");
        }
        assert!(pairs("a=1,b").is_err());
    }
}
