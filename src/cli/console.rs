//! The two ends a person sees: results on stdout, everything else on stderr.

use std::io::{self, IsTerminal, Write};

use jiff::Timestamp;

use super::args::{ProgressArgs, ProgressMode};
use super::env::Environment;
use super::progress::palette::Palette;
use super::progress::plain::Plain;
use super::progress::rawjson::RawJson;
use super::progress::tty::{LOG_LINES, Tty, TtyLook};
use super::progress::{Display, Renderer, Silent};

/// Writes for people and programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    /// Whether stderr takes colours.
    color: bool,
    /// Whether stderr is a terminal that can be redrawn.
    live: bool,
    /// Whether stdout is a terminal.
    stdout_is_terminal: bool,
}

impl Console {
    /// Looks at the process's streams.
    pub(crate) fn of_process(environment: &Environment) -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            color: terminal && !environment.no_color(),
            live: terminal && !environment.is_dumb(),
            stdout_is_terminal: io::stdout().is_terminal(),
        }
    }

    /// Says whether results would land on somebody's screen.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Prints a result. A reader that has seen enough (`| head`) is no failure.
    pub(crate) fn result(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match write!(out, "{text}{end}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Prints a result that is no text.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    /// Tells a person something.
    pub(crate) fn note(&self, text: &str) {
        let mut err = io::stderr().lock();
        // Nobody is there to hear that nobody is there.
        let _ = writeln!(err, "{text}");
    }

    /// Tells a person what might go wrong.
    pub(crate) fn warn(&self, text: &str) {
        self.note(&format!("{} {text}", self.paint("33", "WARNING:")));
    }

    /// Tells a person what went wrong.
    pub(crate) fn error(&self, text: &str) {
        self.note(&format!("{} {text}", self.paint("31", "ERROR:")));
    }

    /// Starts the display that was asked for: option, then environment, then what fits.
    pub(crate) fn display(
        &self,
        args: &ProgressArgs,
        environment: &Environment,
        start: Timestamp,
    ) -> Result<Display, String> {
        let mode = self.mode(args, environment)?;
        let renderer: Box<dyn Renderer> = match mode {
            ProgressMode::Quiet => Box::new(Silent),
            ProgressMode::Rawjson => Box::new(RawJson::new(io::stderr(), start)),
            ProgressMode::Tty if self.live => Box::new(Tty::on_stderr(self.look(environment))),
            ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain => {
                Box::new(Plain::new(io::stderr()))
            }
        };
        Display::start(renderer).map_err(|error| format!("cannot start a thread: {error}"))
    }

    /// Reads how the live display is to look; what makes no sense there counts as not said.
    fn look(&self, environment: &Environment) -> TtyLook {
        let colors = environment.text("BUILDKIT_COLORS").unwrap_or_default();
        let log_lines = environment.text("BUILDKIT_TTY_LOG_LINES");
        TtyLook {
            palette: self.color.then(|| Palette::new(&colors)),
            log_lines: log_lines
                .and_then(|text| text.parse().ok())
                .unwrap_or(LOG_LINES),
        }
    }

    /// Decides on the form of progress.
    pub(crate) fn mode(
        &self,
        args: &ProgressArgs,
        environment: &Environment,
    ) -> Result<ProgressMode, String> {
        if args.quiet {
            return Ok(ProgressMode::Quiet);
        }
        let mode = match (args.progress, environment.text("BUILDKIT_PROGRESS")) {
            (Some(mode), _) => mode,
            (None, Some(text)) if !text.is_empty() => {
                <ProgressMode as clap::ValueEnum>::from_str(&text, true)
                    .map_err(|_| format!("invalid BUILDKIT_PROGRESS {text:?}"))?
            }
            (None, _) => ProgressMode::Auto,
        };
        Ok(match mode {
            ProgressMode::Auto if self.live => ProgressMode::Tty,
            ProgressMode::Auto => ProgressMode::Plain,
            mode => mode,
        })
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_how_the_live_display_looks() {
        let console = Console {
            color: true,
            live: true,
            stdout_is_terminal: false,
        };
        for (variable, expected) in [("", LOG_LINES), ("3", 3), ("0", 0), ("many", LOG_LINES)] {
            let environment = Environment::of(&[("BUILDKIT_TTY_LOG_LINES", variable)]);
            assert_eq!(console.look(&environment).log_lines, expected, "{variable}");
        }
        let environment = Environment::of(&[("BUILDKIT_COLORS", "run=green")]);
        let green = Palette::new("run=green");
        assert_eq!(console.look(&environment).palette, Some(green));
    }

    #[test]
    fn the_option_wins_over_the_environment_and_that_over_the_terminal() {
        use ProgressMode::{Auto, Plain, Quiet, Rawjson, Tty};
        for (quiet, typed, variable, live, expected) in [
            (false, None, "", true, Tty),
            (false, None, "", false, Plain),
            (false, None, "plain", true, Plain),
            (false, None, "auto", false, Plain),
            (false, Some(Rawjson), "plain", true, Rawjson),
            (false, Some(Auto), "plain", true, Tty),
            (true, Some(Plain), "", true, Quiet),
        ] {
            let console = Console {
                color: false,
                live,
                stdout_is_terminal: false,
            };
            let progress = typed;
            let args = ProgressArgs { progress, quiet };
            let environment = Environment::of(&[("BUILDKIT_PROGRESS", variable)]);
            assert_eq!(console.mode(&args, &environment), Ok(expected));
        }
    }
}
