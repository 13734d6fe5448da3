//! Metrics, read from the folded counts when they are asked for.
//!
//! Must not know: how they are fetched. Labels are few and fixed: stage, release, class, reason, cause, name.

use std::fmt::Error;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use api::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::admin::Observed;
use crate::count::{JudgedSums, Sums};
use crate::totals::{Cut, Reason, Totals, Unshaken};

/// Upper bounds of the published histogram, in microseconds; the counts inside are eight times finer.
const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Reads everything at each scrape.
#[derive(Debug)]
pub(crate) struct Metrics(pub(crate) Arc<Observed>);

struct Release {
    stage: String,
    release: String,
    sums: Sums,
    latency: Histogram,
    /// Of the rollout under way.
    judged: Option<JudgedSums>,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let releases: Vec<Release> = {
            let snapshot = self.0.control.published().load_full();
            let rollout = |stage: &str| Some(snapshot.stage_named(stage)?.guard.as_ref()?.rollout);
            let mut ledger = self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let folded = ledger.fold().map(|(stage, release, entry)| Release {
                stage: stage.to_string(),
                release: format!("r{release}"),
                sums: entry.sums(),
                latency: entry.latency(),
                judged: rollout(stage).and_then(|rollout| entry.judged(rollout)),
            });
            folded.collect()
        };
        requests(&mut encoder, &releases)?;
        durations(&mut encoder, &releases)?;
        counter(&mut encoder, "unanswered", "Requests that got no whole answer", &releases, |sums| sums.unanswered)?;
        counter(&mut encoder, "grpc_errors", "gRPC answers other than OK", &releases, |sums| sums.grpc_errors)?;
        let mut family = encoder.encode_descriptor("outstanding", "Requests in flight", None, MetricType::Gauge)?;
        for one in &releases {
            ConstGauge::new(one.sums.outstanding as i64).encode(family.encode_family(&labels(one))?)?;
        }
        judged(&mut encoder, "judged", "Requests that count for a rollout", &releases, |sums| sums.requests)?;
        judged(&mut encoder, "judged_failed", "Of these, those that failed", &releases, |sums| sums.failed)?;
        judged(&mut encoder, "judged_slow", "Of these, those that were slow", &releases, |sums| sums.slow)?;
        self.totals(&mut encoder)?;
        self.0.control.issuers().encode(&mut encoder)?;
        self.state(&mut encoder)
    }
}

impl Metrics {
    fn totals(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let sum = |of: &dyn Fn(&Totals) -> u64| -> u64 { self.0.totals.iter().map(|totals| of(totals)).sum() };
        let connections = sum(&|totals| totals.connections.load(Relaxed));
        gauge(encoder, "connections", "Open connections of clients", connections)?;
        gauge(encoder, "in_flight", "Requests being answered", sum(&|totals| totals.outstanding.load(Relaxed)))?;
        total(encoder, "accepted", "Connections accepted", sum(&|totals| totals.accepted.load(Relaxed)))?;
        let help = "Requests that the proxy answered itself";
        let mut refused = encoder.encode_descriptor("refused", help, None, MetricType::Counter)?;
        for reason in Reason::ALL {
            let count = ConstCounter::new(sum(&|totals| totals.refused(*reason)));
            count.encode(refused.encode_family(&[("reason", reason.label())])?)?;
        }
        let failures = sum(&Totals::policy_failures);
        total(encoder, "policy_failures", "Questions for which a policy could not be evaluated", failures)?;
        let help = "Connections and streams that the proxy ended though the client had not finished";
        let mut cut = encoder.encode_descriptor("cut", help, None, MetricType::Counter)?;
        for cause in Cut::ALL {
            let count = ConstCounter::new(sum(&|totals| totals.was_cut(*cause)));
            count.encode(cut.encode_family(&[("cause", cause.label())])?)?;
        }
        let help = "TLS handshakes that the proxy refused";
        let mut unshaken = encoder.encode_descriptor("handshakes_refused", help, None, MetricType::Counter)?;
        for reason in Unshaken::ALL {
            let count = ConstCounter::new(sum(&|totals| totals.was_unshaken(*reason)));
            count.encode(unshaken.encode_family(&[("reason", reason.label())])?)?;
        }
        match &self.0.log_dropped {
            Some(dropped) => {
                total(encoder, "access_log_dropped", "Lines that could not be logged", dropped.load(Relaxed))
            }
            None => Ok(()),
        }
    }

    fn state(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let version = self.0.control.have().map(|(version, _)| version).unwrap_or_default();
        gauge(encoder, "snapshot_term", "Term of the snapshot that is served", version.term)?;
        gauge(encoder, "snapshot_number", "Number of the snapshot that is served", version.number)?;
        let saved = self.0.control.saved().borrow().problem.is_empty();
        gauge(encoder, "snapshot_saved", "1 while the journal can be written", u64::from(saved))?;
        gauge(encoder, "overrides", "Break-glass overrides in force", self.0.control.overrides().len() as u64)?;
        self.certificates(encoder)?;
        let snapshot = self.0.control.published().load_full();
        let help = "1 while the tripwire keeps a rollout's canary from what weights deal out";
        let mut tripped = encoder.encode_descriptor("rollout_tripped", help, None, MetricType::Gauge)?;
        for stage in snapshot.stages() {
            if let Some(guard) = &stage.guard {
                let value = i64::from(guard.is_tripped());
                ConstGauge::new(value).encode(tripped.encode_family(&[("stage", &*stage.text)])?)?;
            }
        }
        let mut health =
            encoder.encode_descriptor("endpoint_healthy", "1 while an endpoint is healthy", None, MetricType::Gauge)?;
        for stage in snapshot.stages() {
            for backend in &stage.backends {
                for endpoint in &backend.endpoints {
                    let (address, release) = (endpoint.address.to_string(), format!("r{}", backend.release));
                    let labels = [("stage", &*stage.text), ("release", &release), ("address", &address)];
                    let healthy = i64::from(endpoint.health.is_healthy());
                    ConstGauge::new(healthy).encode(health.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Metrics {
    fn certificates(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        // Two environments may have certificates for one name: by their resources they are told apart.
        let help = "When a certificate that is served expires, since the Unix epoch";
        let mut expires = encoder.encode_descriptor("certificate_expires_seconds", help, None, MetricType::Gauge)?;
        for (name, at) in self.0.control.expiries() {
            ConstGauge::new(at as i64).encode(expires.encode_family(&[("name", &*name)])?)?;
        }
        Ok(())
    }
}

fn total(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn labels(one: &Release) -> [(&'static str, &str); 2] {
    [("stage", &one.stage), ("release", &one.release)]
}

fn requests(encoder: &mut DescriptorEncoder<'_>, releases: &[Release]) -> Result<(), Error> {
    let mut family =
        encoder.encode_descriptor("requests", "Answers of a release by class of status", None, MetricType::Counter)?;
    for one in releases {
        for (class, count) in CLASSES.into_iter().zip(one.sums.by_class) {
            let labels = [("stage", &*one.stage), ("release", &one.release), ("class", class)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn durations(encoder: &mut DescriptorEncoder<'_>, releases: &[Release]) -> Result<(), Error> {
    let help = "From a request to the head of its answer";
    let mut family = encoder.encode_descriptor("request_duration_seconds", help, None, MetricType::Histogram)?;
    for one in releases {
        let (buckets, total) = coarse(&one.latency);
        let sum = one.latency.sum_us() as f64 / 1e6;
        family.encode_family(&labels(one))?.encode_histogram::<NoLabelSet>(sum, total, &buckets, None)?;
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    releases: &[Release],
    value: fn(&Sums) -> u64,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for one in releases {
        ConstCounter::new(value(&one.sums)).encode(family.encode_family(&labels(one))?)?;
    }
    Ok(())
}

/// They begin at 0 with each rollout, which is a reset as any other.
fn judged(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    releases: &[Release],
    value: fn(&JudgedSums) -> u64,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for one in releases {
        if let Some(sums) = &one.judged {
            ConstCounter::new(value(sums)).encode(family.encode_family(&labels(one))?)?;
        }
    }
    Ok(())
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value as i64).encode(metric)
}

/// Counts per published bucket (not cumulative: the encoder adds them up), and the total.
fn coarse(histogram: &Histogram) -> (Vec<(f64, u64)>, u64) {
    let mut buckets: Vec<(f64, u64)> =
        BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::MAX]).map(|bound| (bound, 0)).collect();
    for (fine, count) in histogram.counts().iter().enumerate() {
        let above = Histogram::upper_bound_us(fine);
        let place = BOUNDS_US.iter().position(|bound| above <= *bound + 1).unwrap_or(BOUNDS_US.len());
        buckets[place].1 += count;
    }
    (buckets, histogram.total())
}
