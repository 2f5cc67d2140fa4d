use super::named;
use crate::detectors::rank;

#[test]
fn few_names_are_all_told_and_many_are_counted() {
    let list = |n: u32| named((1..=n).map(|n| n.to_string()));
    assert_eq!([list(1), list(3), list(5)], ["1", "1, 2, 3", "1, 2, 3 and 2 more"]);
}

#[test]
fn no_cause_is_its_own_symptom() {
    assert_eq!(rank::circle(), None);
}
