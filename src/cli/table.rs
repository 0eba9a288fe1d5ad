//! Columns of text, and ages in words.

use jiff::Timestamp;

/// Spaces between two columns.
const GAP: usize = 3;

/// Rows of cells that are padded to the same width.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// Starts with a row of headings.
    pub(crate) fn new(headings: &[&str; COLUMNS]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned)],
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }

    /// Returns the rows as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &[String; COLUMNS]| {
            let cells = row.iter().zip(widths);
            let padded = cells.map(|(cell, width)| format!("{cell:width$}"));
            let line = padded.collect::<Vec<_>>().join(&" ".repeat(GAP));
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// Says how long ago a time (RFC 3339) was, as docker does.
pub(crate) fn age(time: Option<&str>, now: Timestamp) -> String {
    let Some(time) = time.and_then(|text| text.parse::<Timestamp>().ok()) else {
        return "N/A".to_owned();
    };
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        0 => "Less than a second ago".to_owned(),
        1 => "1 second ago".to_owned(),
        2..60 => format!("{seconds} seconds ago"),
        60..120 => "About a minute ago".to_owned(),
        120..3600 => format!("{minutes} minutes ago"),
        3600..7200 => "About an hour ago".to_owned(),
        7200..172_800 => format!("{hours} hours ago"),
        _ if days < 14 => format!("{days} days ago"),
        _ if days < 60 => format!("{} weeks ago", days / 7),
        _ if days < 730 => format!("{} months ago", days / 30),
        _ => format!("{} years ago", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wide é".to_owned(), "x".to_owned()]);
        assert_eq!(table.lines(), ["A        LONG", "wide é   x"]);
    }

    #[test]
    fn ages_are_words() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        for (time, words) in [
            (Some("2026-03-01T00:00:00Z"), "Less than a second ago"),
            (Some("2026-02-28T23:59:30Z"), "30 seconds ago"),
            (Some("2026-02-28T23:58:59.5Z"), "About a minute ago"),
            (Some("2026-02-28T12:00:00Z"), "12 hours ago"),
            (Some("2026-02-21T00:00:00Z"), "8 days ago"),
            (Some("2026-01-21T00:00:00Z"), "5 weeks ago"),
            (Some("1970-01-01T00:00:00Z"), "56 years ago"),
            (Some("2027-01-01T00:00:00Z"), "Less than a second ago"),
            (Some("yesterday"), "N/A"),
            (None, "N/A"),
        ] {
            assert_eq!(age(time, now), words);
        }
    }
}
