//! Order and numbers: shuffled rounds, quantiles, ratios with their interval.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use crate::subject::YARDSTICK;

/// What was measured of one subject, round by round.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f64>,
}

/// The median of the ratios within a round, with its 95 % interval.
#[derive(Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    low: f64,
    high: f64,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2} {:.2}]", self.median, self.low, self.high)
    }
}

/// The series of a subject, to be added to.
pub(crate) fn series(names: impl IntoIterator<Item = &'static str>) -> Vec<Series> {
    names.into_iter().map(|name| Series { name, values: Vec::new() }).collect()
}

/// The quantile (0 is the smallest, 1 the largest) of what need not be sorted.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// The ratio of `series` to the yardstick among `all`.
pub(crate) fn ratio(series: &Series, all: &[Series]) -> Ratio {
    let tini = all.iter().find(|other| other.name == YARDSTICK);
    let ratios: Vec<f64> = tini
        .map(|tini| series.values.iter().zip(&tini.values).map(|(own, tini)| own / tini).collect())
        .unwrap_or_default();
    // The median's interval by rank: binomial, so free of any assumption about
    // the distribution; with few rounds it is their whole range.
    let half = if ratios.is_empty() { 0.0 } else { 0.98 / (ratios.len() as f64).sqrt() };
    Ratio {
        median: quantile(&ratios, 0.5),
        low: quantile(&ratios, (0.5 - half).max(0.0)),
        high: quantile(&ratios, (0.5 + half).min(1.0)),
    }
}

/// The numbers below `count` in an order of their own each time.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..count).collect();
    let seed = RandomState::new();
    order.sort_by_key(|index| {
        let mut hasher = seed.build_hasher();
        hasher.write_usize(*index);
        hasher.finish()
    });
    order
}
