//! What can be seen of issuers' keys from outside. Labels: the issuer's name, and the outcome of a fetch.

use std::fmt::Error;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::board::{Counts, Seen};
use super::{Issuers, now_ms};

impl Issuers {
    /// Writes them down.
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let (seen, now_ms) = (self.board().seen(), now_ms());
        let since = |ms: u64| (now_ms.saturating_sub(ms) / 1_000) as i64;
        let help = "Since when an issuer's keys were not fetched; they count all the same";
        gauges(encoder, "issuer_keys_age_seconds", help, &seen, |one| one.at_ms.map(since))?;
        let help = "Since when every fetch of an issuer's keys has failed";
        gauges(encoder, "issuer_failing_seconds", help, &seen, |one| Some(one.failing_ms.map_or(0, since)))?;
        let help = "Fetches of an issuer's keys by outcome";
        let mut family = encoder.encode_descriptor("issuer_fetches", help, None, MetricType::Counter)?;
        for one in &seen {
            let Counts { fetched, unreachable, refused, unusable } = one.counts;
            let counts =
                [("fetched", fetched), ("unreachable", unreachable), ("refused", refused), ("unusable", unusable)];
            for (outcome, count) in counts {
                let labels = [("issuer", &*one.name), ("outcome", outcome)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    seen: &[Seen],
    value: impl Fn(&Seen) -> Option<i64>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for one in seen {
        if let Some(value) = value(one) {
            ConstGauge::new(value).encode(family.encode_family(&[("issuer", &*one.name)])?)?;
        }
    }
    Ok(())
}
