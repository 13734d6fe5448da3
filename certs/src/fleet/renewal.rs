//! Keeps a member's certificate from growing old: a fresh key and certificate at two thirds of its life.
//!
//! The clock on the wall is looked at every few seconds, and never waited for: a machine that slept, or whose clock was
//! set, goes on from where it is. A certificate that is past its end is renewed as well, for [`super::GRACE`].
//!
//! Must not know: what connections are for. What is open goes on; the new certificate counts from the next one.

use std::time::{Duration, Instant, SystemTime};

use api::Digest;
use api::fleet::RenewRequest;
use api::fleet::membership_client::MembershipClient;
use rcgen::{CertificateParams, KeyPair};
use tracing::{debug, info, warn};

use super::GRACE;
use super::identity::Identity;
use super::validity::{Validity, rfc3339};
use crate::CertsError;

/// How often the clock is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// For connecting and for an answer that is written to a disk first.
const DEADLINE: Duration = Duration::from_secs(20);
/// First and longest wait after an attempt that failed. Not longer: most of a day is left, and nothing else is waited for.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MOST: Duration = Duration::from_secs(60);

/// When to renew a certificate: at two thirds of its life, less up to a tenth of it by `seed`, so that a fleet that
/// joined at once does not renew at once.
fn due_at(validity: Validity, seed: u64) -> SystemTime {
    let life = validity.lifetime();
    validity.from + life * 2 / 3 - (life / 10).mul_f64((seed % 1_000) as f64 / 1_000.0)
}

/// Doubles from 1 s to a minute, less up to a half by `random`.
fn backoff(failures: u32, random: u64) -> Duration {
    let full = WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(WAIT_MOST);
    full - full.mul_f64((random % 1_000) as f64 / 2_000.0)
}

/// How often to look at a certificate of this life: a short one, of a test, is looked at more often.
fn look_every(validity: Validity) -> Duration {
    (validity.lifetime() / 20).clamp(Duration::from_millis(100), LOOK)
}

/// A moment by both clocks: the one on the wall may be set, the other stands still while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Moment {
    wall: SystemTime,
    steady: Instant,
}

impl Moment {
    fn now() -> Self {
        Self { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// How long ago `earlier` was, by whichever clock says more.
    fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        wall.max(self.steady.saturating_duration_since(earlier.steady))
    }
}

/// What became of the attempts so far.
#[derive(Debug)]
struct Pace {
    /// The start of the process.
    began: Moment,
    renewed: Option<Moment>,
    /// The last attempt, when it failed, and how many there were in a row.
    failed: Option<Moment>,
    failures: u32,
}

impl Pace {
    fn new(began: Moment) -> Self {
        Self { began, renewed: None, failed: None, failures: 0 }
    }

    /// Whether to try now. `refused`: the controller has just not taken the certificate, so that it is there and can be
    /// asked.
    fn is_due(&self, validity: Validity, seed: u64, refused: bool, now: Moment) -> bool {
        // By a wrong clock every certificate may be too old: then one is asked for so often and not without end.
        if self.renewed.is_some_and(|last| now.since(last) < validity.lifetime() / 8) {
            return false;
        }
        let wait = if refused { WAIT } else { backoff(self.failures, seed.wrapping_mul(u64::from(self.failures))) };
        if self.failed.is_some_and(|last| now.since(last) < wait) {
            return false;
        }
        // A clock that is behind says for too long that there is time.
        let held = now.since(self.renewed.unwrap_or(self.began));
        refused || due_at(validity, seed) <= now.wall || held >= validity.lifetime() * 2 / 3
    }

    fn note(&mut self, succeeded: bool, now: Moment) {
        *self = if succeeded {
            Self { renewed: Some(now), failed: None, failures: 0, ..*self }
        } else {
            Self { failed: Some(now), failures: self.failures.saturating_add(1), ..*self }
        };
    }
}

/// Differs from certificate to certificate.
fn seed_of(certificate: &[u8]) -> u64 {
    let digest = Digest::of(certificate);
    digest.as_bytes().iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

impl Identity {
    /// Renews key and certificate whenever it is time; never returns.
    ///
    /// # Cancel safety
    /// Dropped between the controller's answer and the disk, the new certificate is lost and the old one stays good: the
    /// controller accepts both until the next renewal.
    pub async fn keep_renewed(&self) {
        let mut pace = Pace::new(Moment::now());
        loop {
            let validity = self.shown().current().validity;
            let refused = tokio::select! {
                () = tokio::time::sleep(look_every(validity)) => false,
                () = self.shown().refused.notified() => true,
            };
            let (current, now) = (self.shown().current(), Moment::now());
            if !pace.is_due(current.validity, seed_of(current.certificate()), refused, now) {
                continue;
            }
            let result = self.renew().await;
            match &result {
                Ok(()) => {
                    let until = rfc3339(self.shown().current().validity.until);
                    info!(until, "the certificate was renewed");
                }
                Err(problem) => self.tell(problem, pace.failures, current.validity, now.wall),
            }
            pace.note(result.is_ok(), Moment::now());
        }
    }

    /// Asks for a certificate of a fresh key, and takes it over.
    async fn renew(&self) -> Result<(), CertsError> {
        let key = KeyPair::generate()?;
        let csr_der = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        // A connection of its own, which shows the certificate as it is now.
        let mut client = MembershipClient::new(self.channel()?);
        let reply = tokio::time::timeout(DEADLINE, client.renew(RenewRequest { csr_der }))
            .await
            .map_err(|_| CertsError::Material(format!("the controller did not answer within {DEADLINE:?}")))?
            .map_err(|status| CertsError::Material(status.message().to_owned()))?
            .into_inner();
        self.renewed(reply.certificate_der, key.serialize_pem())
    }

    /// Says why it was not renewed: the first time, and whenever that keeps the controller away.
    fn tell(&self, problem: &CertsError, failures: u32, validity: Validity, now: SystemTime) {
        let until = rfc3339(validity.until);
        match now.duration_since(validity.until) {
            Ok(late) if late > GRACE => warn!(
                %problem, until, "the certificate ended too long ago to be renewed: {}", self.way_back()
            ),
            Ok(_) => {
                warn!(%problem, until, "the certificate is past its end and could not be renewed; it is tried again")
            }
            Err(_) if failures == 0 => {
                warn!(%problem, until, "the certificate could not be renewed; it is tried again")
            }
            Err(_) => debug!(%problem, until, "the certificate could still not be renewed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn day() -> Validity {
        let from = SystemTime::UNIX_EPOCH + HOUR * 10_000;
        Validity { from, until: from + HOUR * 24 }
    }

    #[test]
    fn renewal_is_due_at_two_thirds_less_a_part_by_seed() {
        let after = |seed| due_at(day(), seed).duration_since(day().from).expect("later");
        assert_eq!(after(0), HOUR * 16);
        assert_eq!(after(500), HOUR * 16 - HOUR * 24 / 20);
        assert!((0..1_000).all(|seed| after(seed) <= HOUR * 16 && after(seed) > HOUR * 13));
    }

    #[test]
    fn renewal_waits_longer_after_each_failure_and_never_longer_than_a_minute() {
        for (failures, most) in [(1, 1), (2, 2), (4, 8), (7, 60), (u32::MAX, 60)] {
            let most = Duration::from_secs(most);
            assert_eq!(backoff(failures, 0), most, "{failures}");
            assert!(backoff(failures, 999) >= most / 2 && backoff(failures, 999) < most, "{failures}");
        }
    }

    /// A pace, a moment after the beginning by wall and by steady clock, whether it was refused, and what follows.
    #[test]
    fn renewal_is_tried_when_it_can_help() {
        let steady = Instant::now();
        let at = |wall: i64, hours: u32| Moment {
            wall: SystemTime::UNIX_EPOCH + HOUR * u32::try_from(10_000 + wall).expect("later"),
            steady: steady + HOUR * hours,
        };
        let fresh = |moment| Pace::new(moment);
        let renewed = |moment| Pace { renewed: Some(moment), ..Pace::new(moment) };
        let failed = |moment, failures| Pace { failed: Some(moment), failures, ..Pace::new(moment) };
        let second = |moment: Moment, seconds| {
            let more = Duration::from_secs(seconds);
            Moment { wall: moment.wall + more, steady: moment.steady + more }
        };
        for (what, pace, refused, now, expected) in [
            ("too early", fresh(at(0, 0)), false, at(15, 15), false),
            ("time", fresh(at(15, 0)), false, at(16, 1), true),
            ("past its end", fresh(at(29, 0)), false, at(30, 1), true),
            ("the controller knows better than our clock", fresh(at(0, 0)), true, at(1, 1), true),
            ("a clock that is behind: not yet", fresh(at(-10, 0)), false, at(5, 15), false),
            ("a clock that is behind: time all the same", fresh(at(-10, 0)), false, at(6, 16), true),
            ("the same, once renewed", renewed(at(-10, 4)), false, at(5, 20), true),
            ("a clock that is ahead: it is as new as can be", renewed(at(20, 0)), false, at(21, 1), false),
            ("the same, and refused", renewed(at(20, 0)), true, at(21, 1), false),
            ("a clock that is ahead: now and then", renewed(at(20, 0)), false, at(23, 3), true),
            ("the machine slept", renewed(at(0, 0)), false, at(25, 0), true),
            ("the clock was set back", renewed(at(20, 0)), false, at(17, 3), true),
            ("failed just now", failed(at(16, 16), 7), false, second(at(16, 16), 29), false),
            ("failed a while ago", failed(at(16, 16), 7), false, second(at(16, 16), 60), true),
            ("failed, and now it is there", failed(at(16, 16), 7), true, second(at(16, 16), 1), true),
            ("not faster than that", failed(at(16, 16), 7), true, at(16, 16), false),
        ] {
            assert_eq!(pace.is_due(day(), 0, refused, now), expected, "{what}");
        }
    }

    #[test]
    fn renewal_forgets_failures_once_it_succeeds() {
        let mut pace = Pace::new(Moment::now());
        pace.note(false, Moment::now());
        pace.note(false, Moment::now());
        assert_eq!(pace.failures, 2);
        pace.note(true, Moment::now());
        assert!(pace.failures == 0 && pace.failed.is_none() && pace.renewed.is_some());
    }

    #[test]
    fn renewal_looks_often_and_at_short_lives_more_often() {
        assert_eq!(look_every(day()), LOOK);
        let short = Validity { until: day().from + Duration::from_secs(20), ..day() };
        assert_eq!(look_every(short), Duration::from_secs(1));
    }
}
