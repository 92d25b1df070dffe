//! The outcome as a page: one file with everything in it, readable in any browser, with or without scripts.

mod chart;

use std::fmt::Write as _;

use super::ceiling::{Ceiling, Share};
use super::contender::Contender;
use super::latency::Percentiles;
use super::outcome::{Cost, Figures, Flow, Outcome};
use super::table::{self, latency_cells, named_flows, named_latencies};
use super::units::{figures, megabytes, time};
use crate::cli::output;
use chart::{Axis, Chart, Series};

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");

/// The outcome as a page.
pub(super) fn render(outcome: &Outcome) -> String {
    let plan = &outcome.plan;
    let title = format!("sagwan bench {}", plan.workload.name());
    let mut body = format!(
        "<header><p class=\"brand\">sagwan bench</p><h1>{}</h1><p class=\"lead\">{}</p><p class=\"lead\">{}</p>\
         <p class=\"dim\">{} &middot; {}</p></header>",
        plan.workload.name(),
        escape(&plan.describe_cast()),
        escape(&plan.describe_load()),
        escape(&outcome.started_at),
        escape(&table::place(outcome))
    );
    body += &cards(outcome);
    body += &section("Throughput over time", &throughput(&outcome.summary), THROUGHPUT_NOTE);
    if !named_latencies(&outcome.summary).is_empty() {
        body += &section("Latency", &latency(&outcome.summary), LATENCY_NOTE);
    }
    if let Some(ceiling) = &outcome.ceiling {
        body += &section("How near to the ceiling", &limits(outcome, ceiling), CEILING_NOTE);
    }
    if outcome.rounds.len() > 1 {
        body += &section("Rounds", &rounds(&outcome.rounds), "");
    }
    body += &section("Processes", &processes(&outcome.summary), "");
    body += &section("Setting", &setting(outcome), "");
    if !outcome.notes.is_empty() {
        let notes = each(&outcome.notes, |note| format!("<li>{}</li>", escape(note)));
        body += &section("To know", &format!("<ul class=\"notes\">{notes}</ul>"), "");
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main>{body}</main>\
         <script>{SCRIPT}</script></body></html>\n"
    )
}

const THROUGHPUT_NOTE: &str = "The shaded part is what is measured; before it, everything warms up, and after it \
    requests under way are answered. Of several rounds, this is the last.";
const LATENCY_NOTE: &str = "From when a request should have been sent, so that waiting behind others counts. To the right, \
    each step is ten times rarer: at p99, one of a hundred requests is slower.";
const CEILING_NOTE: &str = "The same load, from the same client, on the same machine, in turns with the broker: on a gRPC \
    service that keeps nothing, and on plain files on the same disk. Bars are medians of all rounds.";

/// Text that may stand in an element or an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What `show` makes of each, one after the other.
fn each<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> String) -> String {
    items.into_iter().map(show).collect::<Vec<_>>().concat()
}

fn section(title: &str, content: &str, note: &str) -> String {
    let note = if note.is_empty() { String::new() } else { format!("<p class=\"note\">{note}</p>") };
    format!("<section><h2>{title}</h2>{content}{note}</section>")
}

/// The figures that are looked for first.
fn cards(outcome: &Outcome) -> String {
    let mut cards = String::new();
    let mut card = |class: &str, name: &str, value: &str, unit: &str, below: &str| {
        let _ = write!(
            cards,
            "<div class=\"card {class}\"><p>{name}</p><b>{value}<small>{unit}</small></b><p class=\"dim\">{below}</p></div>"
        );
    };
    for (name, flow) in named_flows(&outcome.summary) {
        let records = output::thousands(flow.records_per_s as u64);
        card(class_of(name), name, &figures(flow.bytes_per_s / 1e6), "MB/s", &format!("{records} records/s"));
    }
    let latencies =
        [("acknowledgement", &outcome.summary.acknowledgement), ("end to end", &outcome.summary.end_to_end)];
    for (name, latency) in latencies {
        if let Some(latency) = latency {
            let (value, unit) = split(&time(latency.p99_ns));
            card(class_of(name), name, &value, &unit, &format!("at p99; p50 {}", time(latency.p50_ns)));
        }
    }
    if let Some(limit) = outcome.ceiling.as_ref().and_then(|ceiling| ceiling.limits.first())
        && let Some(share) = limit.share
    {
        let below = format!("{:.0} to {:.0} % in single rounds", 100.0 * share.least, 100.0 * share.most);
        card("limit", "of a bare gRPC service", &format!("{:.0}", 100.0 * share.median), "%", &below);
    }
    if let Some(cost) = outcome.summary.server
        && let Some(cpu) = cost.cpu_s_per_gb()
    {
        let memory = output::size(cost.peak_resident_bytes);
        card("", "broker", &figures(cpu), "CPU s/GB", &format!("{memory} at peak"));
    }
    if let Some(records) = outcome.verified_records {
        card(
            "verified",
            "verified",
            "&#10003;",
            "",
            &format!("{} records, in order, once", output::thousands(records)),
        );
    }
    format!("<div class=\"cards\">{cards}</div>")
}

/// A figure and its unit.
fn split(text: &str) -> (String, String) {
    let (value, unit) = text.split_once(' ').unwrap_or((text, ""));
    (value.to_owned(), unit.to_owned())
}

/// What the style sheet calls the colour of something.
fn class_of(name: &str) -> &'static str {
    match name {
        "produced" | "acknowledgement" => "one",
        "followed" | "end to end" | "read warm" | "warm read" => "two",
        _ => "three",
    }
}

fn throughput(summary: &Figures) -> String {
    let timeline = &summary.timeline;
    let flows = [
        (
            "produced",
            timeline.iter().map(|point| (point.at_s, point.bytes_per_s.produced)).collect::<Vec<_>>(),
        ),
        ("followed", timeline.iter().map(|point| (point.at_s, point.bytes_per_s.followed)).collect()),
        ("caught up", timeline.iter().map(|point| (point.at_s, point.bytes_per_s.caught_up)).collect()),
    ];
    let series: Vec<Series> = flows
        .into_iter()
        .filter(|(_, points)| points.iter().any(|(_, rate)| *rate > 0.0))
        .map(|(name, points)| Series { name, class: class_of(name), points })
        .collect();
    let most = series.iter().flat_map(|series| &series.points).map(|(_, rate)| *rate).fold(0.0, f64::max);
    let end_s = timeline.last().map_or(0.0, |point| point.at_s);
    if series.is_empty() {
        return "<p>Too short to show.</p>".to_owned();
    }
    let (from, to) = summary.steady_s;
    let chart = Chart {
        x: Axis::given("seconds", end_s, seconds(end_s)),
        y: Axis::linear("MB/s", most / 1e6, |rate| format!("{rate}")),
        series: series
            .into_iter()
            .map(|series| Series {
                points: series.points.into_iter().map(|(at, rate)| (at, rate / 1e6)).collect(),
                ..series
            })
            .collect(),
        shade: Some((from, to.min(end_s), "measured")),
        show: |at, rate| (format!("{at:.1} s"), format!("{} MB/s", figures(rate))),
        filled: true,
    };
    chart.render("Throughput over time")
}

/// Whole steps within so many seconds.
fn seconds(end_s: f64) -> Vec<(f64, String)> {
    let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
    let step = steps.into_iter().find(|step| end_s / step <= 12.0).unwrap_or(3_600.0);
    (0..=(end_s / step) as u32)
        .map(|tick| f64::from(tick) * step)
        .map(|at| (at, if step < 1.0 { format!("{at:.1}") } else { format!("{at:.0}") }))
        .collect()
}

fn latency(summary: &Figures) -> String {
    let shown = named_latencies(summary);
    let series: Vec<Series> = shown
        .iter()
        .map(|(name, latency)| Series {
            name,
            class: class_of(name),
            points: latency.curve.iter().map(|(nines, ns)| (*nines, *ns as f64)).collect(),
        })
        .collect();
    let values = || series.iter().flat_map(|series| &series.points).map(|(_, ns)| *ns).filter(|ns| *ns > 0.0);
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let most_nines =
        series.iter().flat_map(|series| &series.points).map(|(nines, _)| *nines).fold(1.0, f64::max);
    let ticks = [
        (std::f64::consts::LOG10_2, "p50"),
        (1.0, "p90"),
        (2.0, "p99"),
        (3.0, "p99.9"),
        (4.0, "p99.99"),
        (5.0, "p99.999"),
    ];
    let ticks = ticks.into_iter().filter(|(at, _)| *at <= most_nines);
    let chart = Chart {
        x: Axis::given(
            "share of requests that are faster",
            most_nines,
            ticks.map(|(at, text)| (at, text.to_owned())).collect(),
        ),
        // The very fastest few would only stretch the axis.
        y: Axis::logarithmic("latency", least.min(most), most, plain_time),
        series,
        shade: None,
        show: |nines, ns| (percentile(nines), time(ns as u64)),
        filled: false,
    };
    let rows = each(&shown, |(name, latency)| {
        format!("<tr><th class=\"{}\">{name}</th>{}</tr>", class_of(name), cells(latency))
    });
    format!(
        "{}<table><thead><tr><th></th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th>\
         <th>requests</th></tr></thead><tbody>{rows}</tbody></table>",
        chart.render("Latency by percentile")
    )
}

fn cells(latency: &Percentiles) -> String {
    each(latency_cells(latency), |cell| format!("<td>{cell}</td>"))
}

/// A round time without figures behind the point.
fn plain_time(ns: f64) -> String {
    let (value, unit) = match ns {
        ..1e3 => (ns, "ns"),
        ..1e6 => (ns / 1e3, "us"),
        ..1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

/// The percentile that so many nines stand for.
fn percentile(nines: f64) -> String {
    let slower = 10f64.powf(-nines);
    // Below a tenth of what is left, figures say nothing.
    let decimals = (nines.ceil() as usize).saturating_sub(2);
    format!("p{:.decimals$}", 100.0 * (1.0 - slower))
}

fn limits(outcome: &Outcome, ceiling: &Ceiling) -> String {
    let own = outcome.summary.main_flow();
    let flows = std::iter::once((Contender::Broker, own, outcome.summary.server, None))
        .chain(ceiling.limits.iter().map(|limit| (limit.contender, limit.flow, limit.server, limit.share)));
    let rate = |flow: Option<Flow>| flow.map_or(0.0, |flow| flow.records_per_s);
    let most = flows.clone().map(|(_, flow, ..)| rate(flow)).fold(f64::MIN_POSITIVE, f64::max);
    let mut bars = String::new();
    for (index, (contender, flow, cost, share)) in flows.enumerate() {
        let class = if index == 0 { "one" } else { "limit" };
        let told = flow.map_or_else(String::new, |flow| {
            let records = output::thousands(flow.records_per_s as u64);
            format!("{} MB/s, {records} records/s", megabytes(flow.bytes_per_s))
        });
        let told = match cost.and_then(|cost| Some((cost, cost.cpu_s_per_gb()?))) {
            Some((cost, cpu)) => {
                let memory = output::size(cost.peak_resident_bytes);
                format!("{told}, {} CPU s/GB, {memory} at peak", figures(cpu))
            }
            None => told,
        };
        let share = share.map_or_else(String::new, |share| {
            format!(
                "sagwan reaches <b>{:.2}</b> of it <span class=\"dim\">({:.2} to {:.2})</span>",
                share.median, share.least, share.most
            )
        });
        let _ = write!(
            bars,
            "<div class=\"bar {class}\"><p>{}<span>{share}</span></p><i style=\"width:{:.1}%\"></i><small>{told}</small></div>",
            escape(&contender.name()),
            100.0 * rate(flow) / most
        );
    }
    let mut text = format!("<div class=\"bars\">{bars}</div>");
    if !ceiling.latency_ratios.is_empty() {
        let cell = |ratio: Option<Share>| ratio.map_or_else(|| "-".to_owned(), table::share);
        let rows = each(&ceiling.latency_ratios, |ratios| {
            let [p50, p99, p99_9] = [ratios.p50, ratios.p99, ratios.p99_9].map(cell);
            let name = ratios.name;
            format!("<tr><th>{name}</th><td>{p50}</td><td>{p99}</td><td>{p99_9}</td></tr>")
        });
        let _ = write!(
            text,
            "<table><thead><tr><th class=\"left\">times as long</th><th>p50</th><th>p99</th><th>p99.9</th></tr></thead>\
             <tbody>{rows}</tbody></table>"
        );
    }
    text
}

fn rounds(rounds: &[Figures]) -> String {
    let rows = each(rounds.iter().enumerate(), |(number, round)| {
        let flows =
            each(named_flows(round), |(name, flow)| format!("{name} {} MB/s ", megabytes(flow.bytes_per_s)));
        let latency = round.acknowledgement.as_ref().map_or_else(String::new, |latency| {
            format!("p50 {}, p99 {}", time(latency.p50_ns), time(latency.p99_ns))
        });
        let number = number + 1;
        format!("<tr><th>{number}</th><td class=\"left\">{flows}</td><td class=\"left\">{latency}</td></tr>")
    });
    format!("<table><tbody>{rows}</tbody></table>")
}

fn processes(summary: &Figures) -> String {
    let row = |name: &str, cost: &Cost| {
        format!(
            "<tr><th>{name}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            figures(cost.cores()),
            cost.cpu_s_per_gb().map_or_else(|| "-".to_owned(), figures),
            output::size(cost.peak_resident_bytes),
            output::size(cost.peak_anonymous_bytes)
        )
    };
    let costs = [("broker", &summary.server), ("bench", &summary.client)];
    let rows: String = costs.into_iter().filter_map(|(name, cost)| Some(row(name, cost.as_ref()?))).collect();
    if rows.is_empty() {
        return "<p>Not measured.</p>".to_owned();
    }
    format!(
        "<table><thead><tr><th></th><th>cores busy</th><th>CPU s/GB</th><th>peak memory</th>\
         <th>of it not files</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}

/// Everything that was set, and where it ran.
fn setting(outcome: &Outcome) -> String {
    let machine = &outcome.machine;
    let unknown = || "not known".to_owned();
    let mut rows = vec![
        ("command".to_owned(), outcome.command.clone()),
        ("sagwan".to_owned(), outcome.version.to_owned()),
        ("broker".to_owned(), table::place(outcome)),
        ("cores".to_owned(), machine.cores.to_string()),
        ("processor".to_owned(), machine.cpu.clone().unwrap_or_else(unknown)),
        ("memory".to_owned(), machine.memory_bytes.map_or_else(unknown, output::size)),
        ("kernel".to_owned(), machine.kernel.clone().unwrap_or_else(unknown)),
    ];
    if let Ok(serde_json::Value::Object(plan)) = serde_json::to_value(&outcome.plan) {
        rows.extend(plan.into_iter().filter_map(|(name, value)| {
            let value = match value {
                serde_json::Value::Null | serde_json::Value::Bool(false) => return None,
                serde_json::Value::Bool(true) => "yes".to_owned(),
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            Some((name.replace('_', " "), value))
        }));
    }
    let rows = each(&rows, |(name, value)| {
        format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value))
    });
    format!("<dl>{rows}</dl>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::table::tests::outcome;

    #[test]
    fn the_page_has_everything_in_itself() {
        let page = render(&outcome("follow --verify --rate 5"));
        assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
        for fetched in ["src=", "href=", "@import", "url(", "//cdn", "fetch("] {
            assert!(!page.contains(fetched), "{fetched}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        for shown in [
            "acknowledgement",
            "end to end",
            "p99.99",
            "measured",
            "records, in order, once",
            "ext4 on /dev/vda",
        ] {
            assert!(page.contains(shown), "{shown}");
        }
        assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
    }

    #[test]
    fn what_is_named_by_others_is_escaped() {
        let mut outcome = outcome("follow");
        outcome.broker.data_dir = Some("/tmp/<b>\"&".to_owned());
        let page = render(&outcome);
        assert!(page.contains("/tmp/&lt;b&gt;&quot;&amp;") && !page.contains("/tmp/<b>"));
    }

    #[test]
    fn limits_are_bars_beside_the_broker() {
        let page = render(&outcome("produce --ceiling"));
        assert!(page.contains("bare gRPC service") && page.contains("<b>0.50</b> of it"), "{page}");
    }

    #[test]
    fn nines_are_percentiles() {
        let shown: Vec<_> = [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile).into();
        assert_eq!(shown, ["p0", "p90", "p99", "p99.9", "p99.99"]);
        assert_eq!(seconds(2.0).last().map(|(_, text)| text.as_str()), Some("2.0"));
        assert_eq!(seconds(12.0).len(), 13);
    }
}
