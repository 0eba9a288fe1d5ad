//! Names of signals, for `STOPSIGNAL`.

/// Signals of Linux without `SIG`.
const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

/// How far real-time signals reach behind `RTMIN` and before `RTMAX`.
const REAL_TIME_STEPS: std::ops::RangeInclusive<u32> = 1..=15;

/// Returns whether a text names a signal: `9`, `KILL`, `SIGKILL`, `SIGRTMIN+3`. A number may be
/// any but 0, as in BuildKit: what it means is up to the system that runs the container.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if NAMES.contains(&name) || name == "RTMAX" {
        return true;
    }
    let step = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"));
    let step = step.and_then(|step| step.parse::<u32>().ok());
    step.is_some_and(|step| REAL_TIME_STEPS.contains(&step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for good in [
            "9",
            "64",
            "99",
            "-1",
            "KILL",
            "SIGKILL",
            "sigterm",
            "SIGRTMIN+15",
            "RTMAX-1",
            "SIGRTMAX",
        ] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "SIG", "SIGX", "RTMIN+0", "RTMIN+16", "RTMAX+1"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
