//! A check by a query: every value of its result within limits is well.
//!
//! Must not know: what a check is for.
//!
//! Source: Prometheus' HTTP API, `/api/v1/query` (instant queries).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use certs::call::Excess;
use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ask::Outcome;
use super::http::{NoAnswer, Way, get, refusal};
use super::line;
use crate::core::spec::Limits;

/// Longest answer that is read: a thousand series with their labels have less.
pub(super) const MOST_BYTES: usize = 1024 * 1024;

/// What counts of an answer.
#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar((IgnoredAny, String)),
    Matrix(IgnoredAny),
    String(IgnoredAny),
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    /// None: it is a histogram.
    value: Option<(IgnoredAny, String)>,
}

/// Asks once. `url`: the server's own.
///
/// A value outside of the limits is a failure, and nothing else is: a server that is away, or does not understand the query,
/// says nothing of a release.
pub(super) async fn ask(url: &str, query: &str, limits: &Limits, way: &Way<'_>) -> Outcome {
    match values(url, query, way).await {
        Ok(data) => weigh(&data, limits),
        Err(why) => Outcome::Silent(line::one(&why)),
    }
}

/// What the server answers to the query.
///
/// # Errors
/// Why it does not.
async fn values(url: &str, query: &str, way: &Way<'_>) -> Result<Data, String> {
    let url = format!("{}/api/v1/query?query={}", url.trim_end_matches('/'), encoded(query));
    let answer = get(&url, "application/json", way, MOST_BYTES, Excess::Refused).await;
    let answer = answer.map_err(|NoAnswer { why, .. }| why)?;
    match serde_json::from_slice::<Answer>(answer.body()) {
        Ok(read) if answer.status() == StatusCode::OK && read.status == "success" => {
            read.data.ok_or_else(|| "it answered without data".to_owned())
        }
        Ok(read) if read.status == "error" => Err(format!("{}: {}", read.error_type, read.error)),
        _ if answer.status() != StatusCode::OK => Err(refusal(&answer)),
        _ => Err("what it answered is no answer of Prometheus to a query".to_owned()),
    }
}

fn weigh(data: &Data, limits: &Limits) -> Outcome {
    let silent = |why: &str| Outcome::Silent(line::one(why));
    let problem = match data {
        Data::Vector(samples) if samples.is_empty() => return silent("the query has no result"),
        Data::Scalar((_, value)) if is_nan(value) => return silent(NO_NUMBER),
        Data::Vector(samples) if samples.iter().all(is_empty) => return silent(NO_NUMBER),
        Data::Vector(samples) => match of_all(samples, limits) {
            Ok(problem) => problem,
            Err(why) => return silent(&why),
        },
        Data::Scalar((_, value)) => match outside(value, limits) {
            Ok(problem) => problem,
            Err(why) => return silent(&why),
        },
        Data::Matrix(_) => return silent("the query gives a matrix: accepted is a vector or a scalar"),
        Data::String(_) => return silent("the query gives a string: accepted is a vector or a scalar"),
    };
    problem.map_or(Outcome::Well, |problem| Outcome::Failed(line::one(&problem)))
}

/// Why one of them is not accepted; none: all are. One that is outside of the limits counts whatever the others are.
///
/// # Errors
/// One that is no number.
fn of_all(samples: &[Sample], limits: &Limits) -> Result<Option<String>, String> {
    let mut no_number = None;
    for sample in samples.iter().filter(|sample| !is_empty(sample)) {
        let weighed = match &sample.value {
            Some((_, value)) => outside(value, limits),
            None => Err(format!("{} is a histogram: accepted are numbers", labels(&sample.metric))),
        };
        match weighed {
            Ok(None) => {}
            Ok(Some(problem)) if sample.metric.is_empty() => return Ok(Some(problem)),
            Ok(Some(problem)) => return Ok(Some(format!("{problem} ({})", labels(&sample.metric)))),
            Err(why) => no_number = no_number.or(Some(why)),
        }
    }
    no_number.map_or(Ok(None), Err)
}

/// A share of nothing, as 0 errors of 0 requests: no traffic is no failure, and never a pass.
const NO_NUMBER: &str = "the query gives NaN: nothing was there to take a share of";

fn is_empty(sample: &Sample) -> bool {
    sample.value.as_ref().is_some_and(|(_, value)| is_nan(value))
}

fn is_nan(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_nan)
}

/// Why a value is not accepted; none: it is.
///
/// # Errors
/// It is no number.
fn outside(text: &str, limits: &Limits) -> Result<Option<String>, String> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| !number.is_nan());
    let value = number(text).ok_or_else(|| format!("{text} is no number"))?;
    // A limit that cannot be read accepts nothing.
    if let Some(least) = &limits.least
        && number(least).is_none_or(|least| value < least)
    {
        return Ok(Some(format!("{text} is less than {least}")));
    }
    if let Some(most) = &limits.most
        && number(most).is_none_or(|most| value > most)
    {
        return Ok(Some(format!("{text} is more than {most}")));
    }
    Ok(None)
}

/// As PromQL writes them.
fn labels(metric: &BTreeMap<String, String>) -> String {
    let of = |(name, value): (&String, &String)| format!("{name}={value:?}");
    let name = metric.get("__name__").map_or("", String::as_str);
    let labels: Vec<String> = metric.iter().filter(|(name, _)| *name != "__name__").map(of).collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// For the query of a URL (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => write!(encoded, "%{other:02X}").expect("a string takes everything"),
        }
    }
    encoded
}
