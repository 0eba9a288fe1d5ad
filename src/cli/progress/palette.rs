//! The colours of the live display, which `BUILDKIT_COLORS` may change:
//! `run=blue:warning=light-yellow:error=255,0,0:cancel=…`.

/// Names of colours, with the number that a terminal knows them by.
const NAMES: [(&str, u8); 17] = [
    ("default", 39),
    ("black", 30),
    ("red", 31),
    ("green", 32),
    ("yellow", 33),
    ("blue", 34),
    ("magenta", 35),
    ("cyan", 36),
    ("white", 37),
    ("light-black", 90),
    ("light-red", 91),
    ("light-green", 92),
    ("light-yellow", 93),
    ("light-blue", 94),
    ("light-magenta", 95),
    ("light-cyan", 96),
    ("light-white", 97),
];

/// What is shown in a colour of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The headline.
    Run,
    /// A step whose result was known.
    Hit,
    /// A step that was cancelled.
    Cancel,
    /// A step that failed.
    Error,
    /// A remark.
    Warning,
}

/// The codes that switch colours on; without any nothing is coloured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Palette {
    run: String,
    hit: String,
    cancel: String,
    error: String,
    warning: String,
}

impl Palette {
    /// Reads `BUILDKIT_COLORS`; what makes no sense there is passed over.
    pub(crate) fn new(colors: &str) -> Self {
        let mut palette = Self {
            run: code("34"),
            hit: code("36"),
            cancel: code("33"),
            error: code("31"),
            warning: code("33"),
        };
        for field in colors.split(':') {
            let Some((role, color)) = field.split_once('=') else {
                continue;
            };
            let slot = match role.to_ascii_lowercase().as_str() {
                "run" => &mut palette.run,
                "cancel" => &mut palette.cancel,
                "error" => &mut palette.error,
                "warning" => &mut palette.warning,
                _ => continue,
            };
            if let Some(color) = color_code(color) {
                *slot = color;
            }
        }
        palette
    }

    /// Puts a text in the colour of its role.
    pub(crate) fn paint(&self, role: Role, text: &str) -> String {
        let code = match role {
            Role::Run => &self.run,
            Role::Hit => &self.hit,
            Role::Cancel => &self.cancel,
            Role::Error => &self.error,
            Role::Warning => &self.warning,
        };
        format!("{code}{text}\u{1b}[0m")
    }
}

fn code(number: &str) -> String {
    format!("\u{1b}[{number}m")
}

/// Returns the code of a colour by name or by its three parts, each 0 to 255.
fn color_code(color: &str) -> Option<String> {
    let lower = color.to_ascii_lowercase();
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == lower) {
        return Some(code(&number.to_string()));
    }
    let parts: Vec<u8> = color
        .split(',')
        .map(|part| part.trim().parse().ok())
        .collect::<Option<_>>()?;
    let [red, green, blue] = parts[..] else {
        return None;
    };
    Some(code(&format!("38;2;{red};{green};{blue}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_have_names_or_parts() {
        let usual = Palette::new("");
        for (colors, role, expected) in [
            ("", Role::Run, "34"),
            ("run=green", Role::Run, "32"),
            ("error=yellow:RUN=Light-Blue", Role::Run, "94"),
            ("warning=1,2,255", Role::Warning, "38;2;1;2;255"),
        ] {
            let painted = Palette::new(colors).paint(role, "x");
            assert_eq!(painted, format!("\u{1b}[{expected}mx\u{1b}[0m"), "{colors}");
        }
        for nonsense in [
            "run",
            "run=",
            "run=1,2",
            "run=1,2,256",
            "walk=red",
            "run=a=b",
        ] {
            assert_eq!(Palette::new(nonsense), usual, "{nonsense}");
        }
    }
}
