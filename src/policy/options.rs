//! Which policies in Rego judge a build: the one beside the Dockerfile, and what `--policy` says.

/// How much a policy tells of what it does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Silent,
    /// What it decides, and what it prints.
    #[default]
    Info,
    /// Also what it is given.
    Debug,
}

impl std::str::FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "panic" | "fatal" | "error" | "warn" | "warning" => Ok(Self::Silent),
            "info" => Ok(Self::Info),
            "debug" | "trace" => Ok(Self::Debug),
            _ => Err(format!(
                "not a valid log level: {text:?}: expected error, warn, info, debug or trace"
            )),
        }
    }
}

/// One `--policy`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyOption {
    /// Files that make a policy together.
    pub files: Vec<String>,
    /// Whether the policies before it do not count.
    pub reset: bool,
    /// Whether there are no policies at all.
    pub disabled: bool,
    /// Whether an older builder should refuse to build rather than not enforce it. This one always
    /// enforces policies.
    pub strict: Option<bool>,
    /// How much it tells.
    pub log_level: Option<LogLevel>,
}

/// A policy to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChoice {
    /// Its files; none for the policy beside the Dockerfile.
    pub files: Vec<String>,
    /// How much it tells.
    pub log_level: LogLevel,
}

/// Chooses policies. Options without files change the policy before them, or all that follow where
/// there is none.
pub fn chosen(has_beside: bool, options: &[PolicyOption]) -> Result<Vec<PolicyChoice>, String> {
    if let Some(disabling) = options.iter().find(|option| option.disabled) {
        let alone = PolicyOption {
            disabled: true,
            ..PolicyOption::default()
        };
        return match options.len() == 1 && *disabling == alone {
            true => Ok(Vec::new()),
            false => Err("disabled policy cannot be combined with other policy flags".to_owned()),
        };
    }
    let mut chosen = Vec::new();
    if has_beside {
        chosen.push(PolicyChoice::default());
    }
    let mut level = None;
    for option in options {
        if option.reset {
            chosen.clear();
        }
        match (option.files.is_empty(), chosen.last_mut()) {
            (false, _) => chosen.push(PolicyChoice {
                files: option.files.clone(),
                log_level: option.log_level.or(level).unwrap_or_default(),
            }),
            (true, Some(last)) => last.log_level = option.log_level.unwrap_or(last.log_level),
            (true, None) => level = option.log_level,
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(files: &[&str]) -> PolicyOption {
        PolicyOption {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            ..PolicyOption::default()
        }
    }

    /// Writes a choice as `files:level`, with `-` for the one beside the Dockerfile.
    fn shown(has_beside: bool, options: &[PolicyOption]) -> String {
        let chosen = chosen(has_beside, options).unwrap();
        let one = |choice: &PolicyChoice| match choice.files.as_slice() {
            [] => format!("-:{:?}", choice.log_level),
            files => format!("{}:{:?}", files.join("+"), choice.log_level),
        };
        chosen.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn policies_are_chosen() {
        assert_eq!(shown(false, &[]), "");
        assert_eq!(shown(true, &[]), "-:Info");
        let two = [option(&["a", "b"]), option(&["c"])];
        assert_eq!(shown(true, &two), "-:Info a+b:Info c:Info");
        let reset = PolicyOption {
            reset: true,
            ..option(&["c"])
        };
        assert_eq!(shown(true, &[option(&["a"]), reset]), "c:Info");
        let debug = PolicyOption {
            log_level: Some(LogLevel::Debug),
            ..option(&[])
        };
        assert_eq!(
            shown(true, &[debug.clone(), option(&["a"])]),
            "-:Debug a:Info"
        );
        assert_eq!(shown(false, &[debug, option(&["a"])]), "a:Debug");
        let nothing = PolicyOption {
            reset: true,
            ..option(&[])
        };
        assert_eq!(shown(true, &[nothing]), "");
        let disabled = PolicyOption {
            disabled: true,
            ..option(&[])
        };
        assert_eq!(shown(true, std::slice::from_ref(&disabled)), "");
        assert!(chosen(true, &[disabled, option(&["a"])]).is_err());
        let both = PolicyOption {
            disabled: true,
            ..option(&["a"])
        };
        assert!(chosen(true, &[both]).is_err());
    }

    #[test]
    fn levels_are_read() {
        assert_eq!("WARNING".parse(), Ok(LogLevel::Silent));
        assert_eq!("trace".parse(), Ok(LogLevel::Debug));
        assert!("loud".parse::<LogLevel>().is_err());
    }
}
