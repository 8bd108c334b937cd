//! Transactions per second against threads, as an SVG that is written by hand.
//!
//! Both axes are logarithmic. An engine has a colour; what its threads commit by themselves is a
//! solid line, what they commit behind a combining thread a dashed one.

use std::fmt::Write as _;

/// A line of the plot.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The engine.
    pub engine: String,
    /// Whether the threads are behind a combining one.
    pub combined: bool,
    /// Threads and transactions per second, by ascending threads.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 720.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 490.0;

/// Colours that stay apart for readers who do not tell red from green (Okabe and Ito), and two
/// more.
const COLOURS: [&str; 9] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f3c8d",
    "#8c6d31",
];

/// The ranges of both axes.
struct Axes {
    threads: (f64, f64),
    rates: (f64, f64),
}

impl Axes {
    fn of(series: &[Series]) -> Axes {
        let points = || series.iter().flat_map(|series| &series.points);
        let range = |values: Vec<f64>| {
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            (min, values.iter().copied().fold(min, f64::max))
        };
        let rates = range(points().map(|point| point.1.max(1.0)).collect());
        let decades = (rates.0.log10().floor(), rates.1.log10().floor() + 1.0);
        Axes {
            threads: range(points().map(|point| point.0).collect()),
            rates: (10_f64.powf(decades.0), 10_f64.powf(decades.1)),
        }
    }

    fn x(&self, threads: f64) -> f64 {
        LEFT + 20.0 + along(self.threads, threads) * (RIGHT - LEFT - 40.0)
    }

    fn y(&self, rate: f64) -> f64 {
        BOTTOM - along(self.rates, rate.max(1.0)) * (BOTTOM - TOP)
    }
}

/// Where a value lies in a range, 0 at its start and 1 at its end, by logarithms.
fn along((min, max): (f64, f64), value: f64) -> f64 {
    if max <= min { 0.5 } else { (value / min).ln() / (max / min).ln() }
}

/// The plot, or nothing if there is nothing to draw.
pub fn svg(series: &[Series]) -> Option<String> {
    if series.iter().all(|series| series.points.is_empty()) {
        return None;
    }
    let axes = Axes::of(series);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    let middle = (LEFT + RIGHT) / 2.0;
    text(&mut svg, (middle, 30.0), "middle", "Durable transactions of one put each");
    text(&mut svg, (middle, BOTTOM + 48.0), "middle", "threads");
    text(&mut svg, (LEFT, TOP - 12.0), "middle", "transactions/s");
    draw_grid(&mut svg, &axes, series);
    let engines = engines(series);
    for line in series {
        draw_line(&mut svg, &axes, line, colour(&engines, &line.engine));
    }
    draw_legend(&mut svg, series, &engines);
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The engines in the order in which they first appear.
fn engines(series: &[Series]) -> Vec<&str> {
    let mut engines: Vec<&str> = Vec::new();
    for line in series {
        if !engines.contains(&line.engine.as_str()) {
            engines.push(&line.engine);
        }
    }
    engines
}

fn colour(engines: &[&str], engine: &str) -> &'static str {
    let index = engines.iter().position(|name| *name == engine).unwrap_or(0);
    COLOURS[index % COLOURS.len()]
}

/// A vertical line per number of threads; a horizontal one per power of ten, and lighter ones at
/// two and five times it.
fn draw_grid(svg: &mut String, axes: &Axes, series: &[Series]) {
    let mut threads: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    threads.sort_by(f64::total_cmp);
    threads.dedup();
    for count in threads {
        let x = axes.x(count);
        line(svg, (x, TOP), (x, BOTTOM), "stroke=\"#dddddd\"");
        text(svg, (x, BOTTOM + 20.0), "middle", &count.to_string());
    }
    let mut decade = axes.rates.0;
    while decade <= axes.rates.1 * 1.001 {
        for (factor, colour) in [(1.0, "#bbbbbb"), (2.0, "#eeeeee"), (5.0, "#eeeeee")] {
            let rate = decade * factor;
            if rate > axes.rates.1 * 1.001 {
                break;
            }
            let y = axes.y(rate);
            line(svg, (LEFT, y), (RIGHT, y), &format!("stroke=\"{colour}\""));
            text(svg, (LEFT - 8.0, y + 4.0), "end", &short(rate));
        }
        decade *= 10.0;
    }
}

fn draw_line(svg: &mut String, axes: &Axes, series: &Series, colour: &str) {
    let dashes = if series.combined { " stroke-dasharray=\"7 5\"" } else { "" };
    let points: Vec<String> = series
        .points
        .iter()
        .map(|&(threads, rate)| format!("{:.1},{:.1}", axes.x(threads), axes.y(rate)))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\"{dashes}/>",
        points.join(" ")
    );
    let fill = if series.combined { "#ffffff" } else { colour };
    for &(threads, rate) in &series.points {
        let (x, y) = (axes.x(threads), axes.y(rate));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\" fill=\"{fill}\" stroke=\"{colour}\" \
             stroke-width=\"1.6\"><title>{}: {rate:.0}/s</title></circle>",
            series.engine
        );
    }
}

fn draw_legend(svg: &mut String, series: &[Series], engines: &[&str]) {
    let left = RIGHT + 24.0;
    let mut y = TOP + 10.0;
    for engine in engines {
        let style = format!("stroke=\"{}\" stroke-width=\"3\"", colour(engines, engine));
        line(svg, (left, y), (left + 30.0, y), &style);
        text(svg, (left + 38.0, y + 4.0), "start", engine);
        y += 24.0;
    }
    y += 12.0;
    for (combined, name) in [(false, "each by itself"), (true, "behind a combiner")] {
        if series.iter().any(|line| line.combined == combined) {
            let dashes = if combined { " stroke-dasharray=\"7 5\"" } else { "" };
            let style = format!("stroke=\"#555555\" stroke-width=\"2.2\"{dashes}");
            line(svg, (left, y), (left + 30.0, y), &style);
            text(svg, (left + 38.0, y + 4.0), "start", name);
            y += 24.0;
        }
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{text}</text>"
    );
}

/// 500, 2k, 1M.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{}M", rate / 1e6),
        rate if rate >= 1e3 => format!("{}k", rate / 1e3),
        rate => rate.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(engine: &str, combined: bool, points: &[(f64, f64)]) -> Series {
        Series { engine: engine.to_owned(), combined, points: points.to_vec() }
    }

    #[test]
    fn plot_has_a_line_per_series_and_a_name_per_engine() {
        let lines = [
            series("treepie", false, &[(1.0, 5000.0), (64.0, 80_000.0)]),
            series("lmdb", false, &[(1.0, 2000.0), (64.0, 1500.0)]),
            series("lmdb", true, &[(1.0, 1900.0), (64.0, 14_000.0)]),
        ];
        let svg = svg(&lines).unwrap();
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("dasharray").count(), 2, "one line and its legend");
        assert_eq!(svg.matches(">lmdb</text>").count(), 1);
        assert!(svg.contains(">10k</text>") && svg.contains(">64</text>"), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn single_point_is_inside_the_axes() {
        let axes = Axes::of(&[series("lmdb", false, &[(8.0, 1000.0)])]);
        assert!((LEFT..RIGHT).contains(&axes.x(8.0)));
        assert!((TOP..=BOTTOM).contains(&axes.y(1000.0)));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(svg(&[]), None);
    }
}
