//! How near two addresses are: a score, where they need not be written the same way, or in full.

use crate::{
    declare::Nearest,
    transform::{arabic, plain_address},
};

/// What the words before the first number count for, of 100; the numbers count for the rest.
const STREET: f64 = 40.0;
/// What they count for where one of the two has a name more in front (a district or a community).
const STREET_WITHIN: f64 = 36.0;
/// What they count for where one of the two has none.
const STREET_LEFT_OUT: f64 = 20.0;

/// An address in parts: what stands before the first number, and the numbers (yard, building, entrance, room).
struct Parts {
    street: String,
    numbers: Vec<String>,
}

fn parts(text: &str, drop: &[String]) -> Parts {
    let text = arabic(&plain_address(text, drop));
    let begin = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let (street, rest) = text.split_at(begin);
    let numbers = rest
        .split(|c: char| !c.is_ascii_alphanumeric())
        .map(|part| part.trim_start_matches('0').to_ascii_uppercase())
        .filter(|part| !part.is_empty());
    Parts { street: street.to_owned(), numbers: numbers.collect() }
}

/// How near two addresses are, from 0 to 100. 100: they say the same, whatever form they are written in. 90 and more: nothing
/// contradicts, and every number is there. Less, down to 60: numbers are left out, or the street's name differs. Below: a number
/// contradicts, so that they are different places, or too little is said.
pub(crate) fn score(one: &str, other: &str, nearest: &Nearest) -> u32 {
    let (one, other) = (parts(one, &nearest.drop), parts(other, &nearest.drop));
    let (a, b) = (one.street.as_str(), other.street.as_str());
    let street = if a == b && !a.is_empty() {
        STREET
    } else if a.is_empty() || b.is_empty() {
        STREET_LEFT_OUT
    } else if a.ends_with(b) || b.ends_with(a) {
        STREET_WITHIN
    } else {
        // squared: one sign more or less in a name of four may be another street
        STREET * strsim::normalized_levenshtein(a, b).powi(2)
    };
    let (short, long) = match one.numbers.len() <= other.numbers.len() {
        true => (&one.numbers, &other.numbers),
        false => (&other.numbers, &one.numbers),
    };
    // what one leaves out contradicts nothing, but the last number is the door
    let mut rest = long.iter();
    let agrees = short.last() == long.last() && short.iter().all(|number| rest.any(|other| other == number));
    let share = if agrees && !short.is_empty() { short.len() as f64 / long.len() as f64 } else { 0.0 };
    (street + (100.0 - STREET) * share).round() as u32
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
            assert_eq!(score(at, other, &nearest), score(other, at, &nearest), "{other}");
            score(at, other, &nearest)
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
        // another building, another door, nothing but the street, nothing at all
        for other in ["三里河街5号院4号楼2单元501室", "三里河街5-3-2-502", "三里河街", "", "？"]
        {
            assert!(near(other) <= 40, "{other}: {}", near(other));
        }
        // numbers in another order are other numbers
        assert!(near("三里河街3-5-2-501") <= 40);
        assert_eq!(score("", "", &nearest), 20, "nothing is no match");
    }
}
