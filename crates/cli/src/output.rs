// SPDX-License-Identifier: Apache-2.0
//! What commands write to standard output: lines, tables, sizes and times.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;

use crate::failure::Failure;

/// Writes a text and a line break.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::system("write to standard output"))
}

/// Writes JSON for people.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).expect("what commands show is plain data"))
}

/// Writes rows below each other, each column as wide as its widest cell.
pub(crate) fn table<const COLUMNS: usize>(names: [&str; COLUMNS], rows: &[[&str; COLUMNS]]) -> String {
    let lines: Vec<[&str; COLUMNS]> = std::iter::once(names).chain(rows.iter().copied()).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let written = lines.iter().map(|line| {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    });
    written.collect::<Vec<String>>().join("\n")
}

/// Writes unix seconds as RFC 3339, in UTC.
pub(crate) fn time(seconds: i64) -> String {
    // Beyond the year 9999 only a store that somebody else wrote can be.
    Timestamp::from_second(seconds)
        .map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}

/// Writes a number of bytes with a unit and at most one digit after the point.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => {
            let tenths = bytes / (unit / 10);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(i64::MAX), "9223372036854775807 s after 1970");
    }

    #[test]
    fn sizes_have_a_unit() {
        let sizes = [0, 999, 1000, 1999, 999_999, 1_000_000, 47_300_000, u64::MAX].map(size);
        let expected =
            ["0 B", "999 B", "1.0 kB", "1.9 kB", "999.9 kB", "1.0 MB", "47.3 MB", "18446744073.7 GB"];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn a_table_has_aligned_columns() {
        let expected = "A       LONG\nsecond  x\nb       yy";
        assert_eq!(table(["A", "LONG"], &[["second", "x"], ["b", "yy"]]), expected);
    }
}
