//! A line chart as inline SVG, whole without a script; what a pointer over it shows lies beside it as data.

use std::fmt::Write as _;

use serde::Serialize;

use super::{each, escape};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// About so many lines across.
const TICKS: f64 = 5.0;

/// One direction.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) label: String,
    min: f64,
    max: f64,
    logarithmic: bool,
    /// Where lines are, and what stands there.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to at least `max`, with even steps.
    pub(super) fn linear(label: impl Into<String>, max: f64, show: impl Fn(f64) -> String) -> Self {
        let step = nice_step(max.max(f64::MIN_POSITIVE) / TICKS);
        let count = (max / step).ceil().max(1.0) as u32;
        let ticks = (0..=count).map(|tick| f64::from(tick) * step).map(|at| (at, show(at))).collect();
        Self { label: label.into(), min: 0.0, max: f64::from(count) * step, logarithmic: false, ticks }
    }

    /// Over what is given, with a line at each 1, 2 and 5 times a power of ten.
    pub(super) fn logarithmic(
        label: impl Into<String>,
        min: f64,
        max: f64,
        show: impl Fn(f64) -> String,
    ) -> Self {
        let min = min.max(1.0);
        let decades = min.log10().floor() as i32..=max.max(min).log10().ceil() as i32;
        let marks: Vec<f64> =
            decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|mark| mark * 10f64.powi(decade))).collect();
        let low = marks.iter().copied().rfind(|mark| *mark <= min).unwrap_or(min);
        let high = marks.iter().copied().find(|mark| *mark >= max && *mark > low).unwrap_or(max);
        let within: Vec<f64> = marks.into_iter().filter(|mark| (low..=high).contains(mark)).collect();
        // Many decades have room for their powers of ten alone.
        let powers_only = within.len() > 10;
        let keep = |mark: &f64| !powers_only || (mark.log10().fract()).abs() < 1e-9;
        let ticks = within.into_iter().filter(keep).map(|at| (at, show(at))).collect();
        Self { label: label.into(), min: low, max: high, logarithmic: true, ticks }
    }

    /// Over exactly this, with these lines.
    pub(super) fn given(label: impl Into<String>, max: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { label: label.into(), min: 0.0, max, logarithmic: false, ticks }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.max(self.min).log10() } else { value };
        let (min, max) = (scale(self.min), scale(self.max));
        if max > min { ((scale(value) - min) / (max - min)).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= least).unwrap_or(least)
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// Its colour, as the style sheet names it.
    pub(super) class: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

/// The whole.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// A part to be set off, and what it is.
    pub(super) shade: Option<(f64, f64, &'static str)>,
    /// How a point's place and value are told.
    pub(super) show: fn(f64, f64) -> (String, String),
    pub(super) filled: bool,
}

/// What the page's script needs: places in the picture, and words.
#[derive(Serialize)]
struct Hover<'a> {
    top: f64,
    bottom: f64,
    series: Vec<HoverSeries<'a>>,
}

#[derive(Serialize)]
struct HoverSeries<'a> {
    name: &'a str,
    class: &'a str,
    points: Vec<(f64, f64, String, String)>,
}

impl Chart {
    /// As a `figure` element.
    pub(super) fn render(&self, description: &str) -> String {
        let mut svg = String::new();
        self.frame(&mut svg);
        for series in &self.series {
            self.line(&mut svg, series);
        }
        let legend = each(&self.series, |series| {
            format!("<span class=\"key {}\"><i></i>{}</span>", series.class, escape(series.name))
        });
        // A closing tag within a string would end the script element.
        let hover = serde_json::to_string(&self.hover()).unwrap_or_default().replace('<', "\\u003c");
        format!(
            "<figure class=\"chart\"><div class=\"legend\">{legend}</div>\
             <div class=\"plot\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">{svg}\
             <line class=\"cursor\" y1=\"{TOP}\" y2=\"{}\"/></svg><div class=\"tip\"></div></div>\
             <script type=\"application/json\">{hover}</script></figure>",
            escape(description),
            HEIGHT - BOTTOM
        )
    }

    fn x_of(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_of(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// Shade, grid and words.
    fn frame(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        if let Some((from, to, what)) = self.shade {
            let (from, to) = (self.x_of(from), self.x_of(to));
            let _ = write!(
                svg,
                "<rect class=\"shade\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>\
                 <text class=\"what\" x=\"{:.1}\" y=\"{:.1}\">{what}</text>",
                to - from,
                bottom - TOP,
                from + 6.0,
                TOP + 13.0
            );
        }
        for (at, text) in &self.y.ticks {
            let y = self.y_of(*at);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                escape(text)
            );
        }
        for (at, text) in &self.x.ticks {
            let x = self.x_of(*at);
            let _ = write!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>\
                 <text class=\"tick x\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 4.0,
                bottom + 18.0,
                escape(text)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"axis x\" x=\"{right}\" y=\"{:.1}\">{}</text>\
             <text class=\"axis y\" transform=\"translate(14 {TOP}) rotate(-90)\">{}</text>",
            HEIGHT - 6.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn line(&self, svg: &mut String, series: &Series) {
        let places: Vec<String> =
            series.points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x_of(*x), self.y_of(*y))).collect();
        let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { return };
        let line = places.join(" ");
        if self.filled {
            let bottom = HEIGHT - BOTTOM;
            let (from, to) = (self.x_of(first.0), self.x_of(last.0));
            let _ = write!(
                svg,
                "<polygon class=\"area {}\" points=\"{from:.1},{bottom} {line} {to:.1},{bottom}\"/>",
                series.class
            );
        }
        let _ = write!(svg, "<polyline class=\"line {}\" points=\"{line}\"/>", series.class);
    }

    fn hover(&self) -> Hover<'_> {
        let point = |(x, y): &(f64, f64)| {
            let (at, value) = (self.show)(*x, *y);
            let round = |place: f64| (place * 10.0).round() / 10.0;
            (round(self.x_of(*x)), round(self.y_of(*y)), at, value)
        };
        let series = self.series.iter().map(|series| HoverSeries {
            name: series.name,
            class: series.class,
            points: series.points.iter().map(point).collect(),
        });
        Hover { top: TOP, bottom: HEIGHT - BOTTOM, series: series.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        let axis = Axis::linear("MB/s", 873.0, |at| format!("{at:.0}"));
        let shown: Vec<_> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(shown, ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(Axis::linear("", 0.0, |at| at.to_string()).ticks.len(), 2);
    }

    #[test]
    fn a_logarithmic_axis_covers_what_is_shown() {
        let axis = Axis::logarithmic("", 330.0, 4_700.0, |at| format!("{at:.0}"));
        let shown: Vec<_> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(shown, ["200", "500", "1000", "2000", "5000"]);
        assert!((axis.place(1_000.0) - 0.5).abs() < 1e-9);
        let wide = Axis::logarithmic("", 10.0, 1e9, |at| format!("{at:.0}"));
        assert_eq!(wide.ticks.len(), 9);
        // One value alone has its place, too.
        assert!(Axis::logarithmic("", 100.0, 100.0, |at| at.to_string()).place(100.0) >= 0.0);
    }

    #[test]
    fn a_chart_is_whole_svg_and_its_data_is_json() {
        let chart = Chart {
            x: Axis::linear("s", 2.0, |at| at.to_string()),
            y: Axis::linear("MB/s", 10.0, |at| at.to_string()),
            series: vec![Series { name: "produced", class: "a", points: vec![(0.0, 0.0), (2.0, 10.0)] }],
            shade: Some((1.0, 2.0, "measured")),
            show: |x, y| (format!("</script>{x}"), y.to_string()),
            filled: true,
        };
        let figure = chart.render("throughput");
        assert_eq!(figure.matches("<svg").count(), 1);
        assert!(figure.contains("points=\"76.0,256.0 842.0,14.0\""), "{figure}");
        assert_eq!(figure.matches("</script>").count(), 1, "data cannot end its element");
        let data =
            figure.split_once("application/json\">").and_then(|(_, data)| data.split_once("</script>"));
        let data: serde_json::Value = serde_json::from_str(data.expect("data").0).expect("JSON");
        assert_eq!(data["series"][0]["points"][1], serde_json::json!([842.0, 14.0, "</script>2", "10"]));
    }
}
