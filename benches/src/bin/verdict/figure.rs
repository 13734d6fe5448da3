//! The figure: canary requests until a bad release is stopped, by its share of the traffic.

use std::fmt::Write as _;

/// One setting: p10, p50 and p90 of canary requests until it was called worse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) share: f64,
    pub(crate) errors: f64,
    pub(crate) low: u64,
    pub(crate) median: u64,
    pub(crate) high: u64,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Of the plot: left, right, top, bottom.
const PLOT: (f64, f64, f64, f64) = (70.0, 590.0, 56.0, 350.0);
/// Of the axes, as powers of ten: shares, canary requests.
const ACROSS: (f64, f64) = (-3.15, -0.15);
const UP: (f64, f64) = (0.0, 4.0);
/// Colours that tell apart on white and on black, also for those who see few.
const STYLE: &str = "text { font: 13px sans-serif; fill: #222 } .title { font-size: 15px; font-weight: bold } \
    .grid { stroke: #8886; stroke-width: 1 } line, path { fill: none; stroke-width: 2 } \
    .s0 { stroke: #d55e00 } .s1 { stroke: #0072b2 } .s2 { stroke: #009e73 } \
    circle.s0 { fill: #d55e00 } circle.s1 { fill: #0072b2 } circle.s2 { fill: #009e73 } .back { fill: #fff } \
    @media (prefers-color-scheme: dark) { text { fill: #eee } .back { fill: #161b22 } \
    .s1 { stroke: #56b4e9 } circle.s1 { fill: #56b4e9 } }";

/// The whole file. Every third row belongs to one rate of errors.
pub(crate) fn draw(rows: &[Row], rollouts: usize) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
    );
    text(&mut svg, PLOT.0, 24.0, "start", "title", "Canary requests until a bad release is stopped");
    let how = format!("stable fails 0.1 %; median, bars from p10 to p90 of {rollouts} simulated rollouts");
    text(&mut svg, PLOT.0, 43.0, "start", "", &how);
    grid(&mut svg);
    let mut rates: Vec<f64> = rows.iter().map(|row| row.errors).collect();
    rates.sort_by(|one, other| one.total_cmp(other));
    rates.dedup();
    for (place, errors) in rates.iter().enumerate() {
        let of_rate: Vec<&Row> = rows.iter().filter(|row| row.errors == *errors).collect();
        series(&mut svg, place, &of_rate);
        if let Some(last) = of_rate.last() {
            let label = format!("{} % fail", errors * 100.0);
            text(&mut svg, across(last.share) + 10.0, up(last.median) + 4.0, "start", "", &label);
        }
    }
    svg + "</svg>\n"
}

fn grid(svg: &mut String) {
    for power in 0..=4_u32 {
        let count = 10_u64.pow(power);
        let y = up(count);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", PLOT.0, PLOT.1);
        text(svg, PLOT.0 - 8.0, y + 4.0, "end", "", &count.to_string());
    }
    for (share, label) in [(0.001, "0.1 %"), (0.01, "1 %"), (0.1, "10 %"), (0.2, "20 %"), (0.5, "50 %")] {
        text(svg, across(share), PLOT.3 + 20.0, "middle", "", label);
    }
    text(svg, (PLOT.0 + PLOT.1) / 2.0, PLOT.3 + 44.0, "middle", "", "share of the traffic that the canary gets");
}

fn series(svg: &mut String, place: usize, rows: &[&Row]) {
    let points: Vec<String> =
        rows.iter().map(|row| format!("{:.1} {:.1}", across(row.share), up(row.median))).collect();
    let _ = writeln!(svg, "<path class=\"s{place}\" d=\"M {}\"/>", points.join(" L "));
    for row in rows {
        let (x, low, high) = (across(row.share), up(row.low), up(row.high));
        let _ =
            writeln!(svg, "<line class=\"s{place}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>");
        let _ = writeln!(svg, "<circle class=\"s{place}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\"/>", up(row.median));
        text(svg, x + 6.0, up(row.median) - 7.0, "start", "", &row.median.to_string());
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, class: &str, words: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn across(share: f64) -> f64 {
    PLOT.0 + (share.log10() - ACROSS.0) / (ACROSS.1 - ACROSS.0) * (PLOT.1 - PLOT.0)
}

fn up(requests: u64) -> f64 {
    let power = (requests.max(1) as f64).log10();
    PLOT.3 - (power - UP.0) / (UP.1 - UP.0) * (PLOT.3 - PLOT.2)
}
