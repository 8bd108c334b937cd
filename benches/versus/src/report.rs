//! The figures of a run: a line of JSON each, and a table of their medians.

use std::{
    fmt::Write as _,
    fs::File,
    io::{IsTerminal, Write},
    path::Path,
};

use crate::{
    Result,
    measure::{Figure, Unit, median},
    plot::Series,
};

const OURS: &str = "treepie";

/// All figures so far.
#[derive(Debug, Default)]
pub struct Report {
    entries: Vec<Entry>,
    json: Option<File>,
}

#[derive(Clone, Debug)]
struct Entry {
    engine: &'static str,
    figure: Figure,
}

impl Report {
    /// A report that also goes to a file, line by line.
    pub fn new(json: Option<&Path>) -> Result<Report> {
        Ok(Report { entries: Vec::new(), json: json.map(File::create).transpose()? })
    }

    /// Adds the figures of a turn.
    pub fn add(&mut self, engine: &'static str, round: u32, figures: &[Figure]) -> Result<()> {
        for figure in figures {
            let line = json_line(engine, round, figure);
            if let Some(json) = &mut self.json {
                writeln!(json, "{line}")?;
            }
            if std::io::stderr().is_terminal() {
                eprintln!("{line}");
            }
            self.entries.push(Entry { engine, figure: figure.clone() });
        }
        Ok(())
    }

    /// The medians, one row per figure, one column per engine; then Treepie's figure divided by
    /// the best of the other engines (1.00 is a tie; where less is better, so is a small ratio).
    pub fn table(&self) -> String {
        let engines = self.engines();
        let mut lines = vec![header(&engines)];
        for (row, unit) in self.rows() {
            let medians: Vec<_> = engines.iter().map(|e| self.median_of(e, row)).collect();
            let mut line = vec![row.to_owned(), unit.name().to_owned()];
            line.extend(medians.iter().map(|m| m.map_or("-".into(), number)));
            line.push(ratio(&engines, &medians, unit).map_or("-".into(), |r| format!("{r:.2}")));
            lines.push(line);
        }
        align(&lines)
    }

    /// Transactions per second against threads, for a plot.
    pub fn series(&self) -> Vec<Series> {
        let mut all = Vec::new();
        for engine in self.engines() {
            for (prefix, combined) in [("puts-", false), ("combined-", true)] {
                let point = |(row, _)| {
                    let threads = str::strip_prefix(row, prefix)?.parse().ok()?;
                    Some((threads, self.median_of(engine, row)?))
                };
                let mut points: Vec<(f64, f64)> =
                    self.rows().into_iter().filter_map(point).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                if !points.is_empty() {
                    all.push(Series { engine: engine.to_owned(), combined, points });
                }
            }
        }
        all
    }

    fn engines(&self) -> Vec<&'static str> {
        let mut engines: Vec<_> = self.entries.iter().map(|entry| entry.engine).collect();
        engines.sort_unstable_by_key(|&engine| (engine != OURS, engine));
        engines.dedup();
        engines
    }

    fn rows(&self) -> Vec<(&str, Unit)> {
        let mut rows: Vec<(&str, Unit)> = Vec::new();
        for Entry { figure, .. } in &self.entries {
            if !rows.iter().any(|(row, _)| *row == figure.row) {
                rows.push((&figure.row, figure.unit));
            }
        }
        rows
    }

    fn median_of(&self, engine: &str, row: &str) -> Option<f64> {
        let same = self.entries.iter().filter(|e| e.engine == engine && e.figure.row == row);
        median(&same.map(|entry| entry.figure.value).collect::<Vec<_>>())
    }
}

fn header(engines: &[&str]) -> Vec<String> {
    let mut header = vec!["workload".to_owned(), "unit".to_owned()];
    header.extend(engines.iter().map(|engine| (*engine).to_owned()));
    header.push("treepie/best".to_owned());
    header
}

/// Treepie's median divided by the best of the other engines' (the bare disk is none).
fn ratio(engines: &[&str], medians: &[Option<f64>], unit: Unit) -> Option<f64> {
    let pairs = || engines.iter().zip(medians).filter_map(|(e, m)| m.map(|m| (*e, m)));
    let ours = pairs().find(|(engine, _)| *engine == OURS)?.1;
    let others = pairs().filter(|(engine, _)| *engine != OURS && *engine != "bare");
    let better = if unit.less_is_better() { f64::min } else { f64::max };
    Some(ours / others.map(|(_, value)| value).reduce(better)?)
}

fn json_line(engine: &str, round: u32, figure: &Figure) -> String {
    let Figure { row, value, unit } = figure;
    let unit = unit.name();
    format!(
        r#"{{"workload":"{row}","engine":"{engine}","value":{value:.3},"unit":"{unit}","round":{round}}}"#
    )
}

/// Three significant digits at least; digits of large numbers in groups of three.
fn number(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 1000.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A Markdown table whose columns line up; the first two to the left, the others to the right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|c| lines.iter().map(|line| line[c].chars().count()).max().unwrap_or(0).max(3))
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let cell = if column < 2 { format!("{cell}{pad}") } else { format!("{pad}{cell}") };
            text.push_str("| ");
            text.push_str(&cell);
            text.push(' ');
        }
        text.push_str("|\n");
        if index == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width - 1);
                let rule = if column < 2 { format!("-{dashes}") } else { format!("{dashes}:") };
                let _ = write!(text, "| {rule} ");
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(figures: &[(&'static str, &'static str, f64, Unit)]) -> Report {
        let mut report = Report::default();
        for &(engine, row, value, unit) in figures {
            report.add(engine, 0, &[Figure::new(row, value, unit)]).unwrap();
        }
        report
    }

    #[test]
    fn table_has_medians_and_the_ratio_to_the_best() {
        let table = report(&[
            ("lmdb", "get-1", 400_000.0, Unit::Gets),
            ("redb", "get-1", 500_000.0, Unit::Gets),
            ("treepie", "get-1", 900_000.0, Unit::Gets),
            ("treepie", "get-1", 1_100_000.0, Unit::Gets),
            ("lmdb", "put-1-p50", 400.0, Unit::Microseconds),
            ("treepie", "put-1-p50", 200.0, Unit::Microseconds),
            ("bare", "put-1-p50", 100.0, Unit::Microseconds),
        ])
        .table();
        let lines: Vec<&str> = table.lines().collect();
        let cells = |line: &str| -> Vec<String> {
            line.split('|').map(|cell| cell.trim().to_owned()).filter(|c| !c.is_empty()).collect()
        };
        let heads = ["workload", "unit", "treepie", "bare", "lmdb", "redb", "treepie/best"];
        assert_eq!(cells(lines[0]), heads);
        let gets = ["get-1", "gets/s", "1,000,000", "-", "400,000", "500,000", "2.00"];
        assert_eq!(cells(lines[2]), gets);
        let p50 = ["put-1-p50", "us", "200.0", "100.0", "400.0", "-", "0.50"];
        assert_eq!(cells(lines[3]), p50);
    }

    #[test]
    fn series_are_the_rows_that_end_in_a_number_of_threads() {
        let report = report(&[
            ("lmdb", "puts-8", 40.0, Unit::Commits),
            ("lmdb", "puts-1", 20.0, Unit::Commits),
            ("lmdb", "puts-1", 30.0, Unit::Commits),
            ("lmdb", "puts-1-p50", 99.0, Unit::Microseconds),
            ("lmdb", "combined-8", 50.0, Unit::Commits),
            ("redb", "get-1", 60.0, Unit::Gets),
        ]);
        let line = |combined, points: &[(f64, f64)]| {
            let points = points.to_vec();
            Series { engine: "lmdb".to_owned(), combined, points }
        };
        let expected = [line(false, &[(1.0, 25.0), (8.0, 40.0)]), line(true, &[(8.0, 50.0)])];
        assert_eq!(report.series(), expected);
    }

    #[test]
    fn json_line_names_workload_engine_and_round() {
        let line = json_line("lmdb", 2, &Figure::new("get-1", 12.5, Unit::Gets));
        let expected =
            r#"{"workload":"get-1","engine":"lmdb","value":12.500,"unit":"gets/s","round":2}"#;
        assert_eq!(line, expected);
    }
}
