//! How near two addresses are: a score, where they need not be written the same way, or in full.

use crate::{
    declare::Nearest,
    transform::{address_numbers, arabic, plain_address},
};

/// What the words before the first number count for, of 100; the numbers count for the rest.
const STREET: f64 = 40.0;
/// What they count for where one of the two has a name more in front (a district or a community).
const STREET_WITHIN: f64 = 36.0;
/// What they count for at most where they differ: the numbers alone reach no ninety.
const STREET_OTHER: f64 = 29.0;
/// What they count for where one of the two has none.
const STREET_LEFT_OUT: f64 = 20.0;

/// An address in parts, to be compared.
pub(crate) struct Address {
    /// What stands before the first number.
    street: String,
    /// The numbers: yard, building, entrance, room.
    numbers: Vec<String>,
}

impl Address {
    pub(crate) fn new(text: &str, nearest: &Nearest) -> Self {
        let text = arabic(&plain_address(text, &nearest.drop));
        let begin = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let (street, rest) = text.split_at(begin);
        let numbers = address_numbers(rest).into_iter().filter(|number| !number.is_empty());
        Self { street: street.to_owned(), numbers: numbers.collect() }
    }

    /// How near two addresses are, from 0 to 100. 100: they say the same, whatever form they are written in. 96: one has a name
    /// more in front. Less, but over 40: numbers are left out, or the street's name differs. 40 and less: a number contradicts, or
    /// none is said.
    pub(crate) fn score(&self, other: &Self) -> u32 {
        let (a, b) = (self.street.as_str(), other.street.as_str());
        let street = if a == b && !a.is_empty() {
            STREET
        } else if a.is_empty() || b.is_empty() {
            STREET_LEFT_OUT
        } else if a.ends_with(b) || b.ends_with(a) {
            STREET_WITHIN
        } else {
            // squared: one sign more or less in a name of four may be another street
            (STREET * strsim::normalized_levenshtein(a, b).powi(2)).min(STREET_OTHER)
        };
        let (short, long) = match self.numbers.len() <= other.numbers.len() {
            true => (&self.numbers, &other.numbers),
            false => (&other.numbers, &self.numbers),
        };
        // what one leaves out contradicts nothing, but the last number is the door
        let mut rest = long.iter();
        let agrees =
            short.last() == long.last() && short.iter().all(|number| rest.any(|other| other == number));
        let share = if agrees && !short.is_empty() { short.len() as f64 / long.len() as f64 } else { 0.0 };
        (street + (100.0 - STREET) * share).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_place_is_near_and_what_is_not_is_far() {
        let nearest = Nearest {
            column: "address".parse().unwrap(),
            to: "at".parse().unwrap(),
            drop: vec!["某市".into(), "某区".into()],
            least: 60,
        };
        let at = "某市某区三里河街5号院3号楼2单元501室";
        let near = |other: &str| {
            let (one, other) = (Address::new(at, &nearest), Address::new(other, &nearest));
            assert_eq!(one.score(&other), other.score(&one));
            one.score(&other)
        };
        for same in
            [at, "三里河街5号院三号楼二单元501室", "某区三里河街 5-3-2-501", "三里河街５号院３楼２门０５０１"]
        {
            assert_eq!(near(same), 100, "{same}");
        }
        assert_eq!(near("月坛街道三里河街5-3-2-501"), 96);
        // left out: the entrance; the yard and the entrance; the street
        assert_eq!(near("三里河街5号院3号楼501"), 85);
        assert_eq!(near("三里河街3号楼501"), 70);
        assert_eq!(near("5号院3号楼2单元501室"), 80);
        // another street by its name
        assert_eq!(near("三里河东街5-3-2-501"), 86);
        assert!((60..70).contains(&near("阜成路5-3-2-501")));
        // however long its name: only what says the same street reaches ninety
        let long = |text: &str| Address::new(text, &nearest);
        let one = long("月坛街道三里河第一小区东街5-3-2-501");
        assert_eq!(one.score(&long("月坛街道三里河第一小区西街5-3-2-501")), 89);
        // another building, another door, nothing but the street, nothing at all
        for other in ["三里河街5号院4号楼2单元501室", "三里河街5-3-2-502", "三里河街", "", "？"]
        {
            assert!(near(other) <= 40, "{other}: {}", near(other));
        }
        // numbers in another order are other numbers
        assert!(near("三里河街3-5-2-501") <= 40);
        assert_eq!(long("").score(&long("")), 20, "nothing is no match");
    }
}
