//! Samples into a median and a spread. Nothing here measures.

/// Middle of a set of samples, and how far its middle half reaches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Half of the samples are below.
    pub median: f64,
    /// A quarter of the samples are below.
    pub low: f64,
    /// A quarter of the samples are above.
    pub high: f64,
}

impl Summary {
    /// `None` without samples.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Some(Self { median: quantile(&sorted, 0.5)?, low: quantile(&sorted, 0.25)?, high: quantile(&sorted, 0.75)? })
    }
}

/// Linear between the two nearest samples.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_half_lies_between_the_quarters() {
        let samples = [5.0, 1.0, 2.0, 4.0, 3.0];
        assert_eq!(Summary::of(samples), Some(Summary { median: 3.0, low: 2.0, high: 4.0 }));
    }

    #[test]
    fn a_quarter_between_two_samples_is_interpolated() {
        assert_eq!(Summary::of([0.0, 2.0]), Some(Summary { median: 1.0, low: 0.5, high: 1.5 }));
    }

    #[test]
    fn no_samples_have_no_median() {
        assert_eq!(Summary::of([]), None);
    }
}
