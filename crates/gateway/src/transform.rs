//! Values between a department's own form and the standard's.

use crate::declare::{ElementKind, Transform};

/// A stored value: text, or bytes where the column's encoding is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Text.
    Text(String),
    /// Bytes in a declared encoding.
    Bytes(Vec<u8>),
}

/// Turns a stored value into the standard's. The error never holds the value.
pub(crate) fn to_standard(
    stored: Stored,
    transforms: &[Transform],
    kind: ElementKind,
) -> Result<String, String> {
    let mut value = match stored {
        Stored::Text(text) => text,
        Stored::Bytes(bytes) => {
            let (text, _, bad) = encoding_rs::GBK.decode(&bytes);
            if bad {
                return Err("the bytes are not GBK".into());
            }
            text.into_owned()
        }
    };
    for transform in transforms {
        value = match transform {
            Transform::Gbk => value,
            Transform::Trim => value.trim_matches(|c: char| c.is_whitespace() || c == '\u{3000}').to_owned(),
            Transform::HalfWidth => value.chars().map(half_width).collect(),
            Transform::Date(pattern) => {
                date_from(&value, pattern).ok_or("the date does not fit its pattern")?
            }
            Transform::Codes(codes) => {
                codes.get(&value).cloned().ok_or("the code is not in the declared list")?
            }
            Transform::YuanToFen => yuan_to_fen(&value).ok_or("the amount is not a number of yuan")?,
            Transform::UnitGroups(_) => value.chars().filter(char::is_ascii_alphanumeric).collect(),
        };
    }
    check(&value, kind)
}

/// Turns a standard value into the form it is stored in.
pub(crate) fn to_stored(value: &str, transforms: &[Transform]) -> Result<Stored, String> {
    let mut value = value.to_owned();
    let mut bytes = None;
    for transform in transforms.iter().rev() {
        match transform {
            Transform::Trim | Transform::HalfWidth => {}
            Transform::Gbk => {
                let (encoded, _, bad) = encoding_rs::GBK.encode(&value);
                if bad {
                    return Err("a character cannot be written in GBK".into());
                }
                bytes = Some(encoded.into_owned());
            }
            Transform::Date(pattern) => value = date_to(&value, pattern).ok_or("not a date")?,
            Transform::Codes(codes) => {
                let found = codes.iter().find(|(_, word)| **word == value);
                value = found.ok_or("the word is not in the declared code list")?.0.clone();
            }
            Transform::YuanToFen => {
                let fen: i64 = value.parse().map_err(|_| "not a whole number of fen")?;
                value = format!("{}.{:02}", fen / 100, fen % 100);
            }
            Transform::UnitGroups(separator) => {
                let code = model::identifier::unit(&value).map_err(|_| "not a unit code")?;
                let (mut parts, mut rest) = (Vec::new(), code.as_str());
                for length in [6, 3, 3, 2, 5, 1, 8] {
                    let (part, tail) = rest.split_at(length);
                    parts.push(part);
                    rest = tail;
                }
                value = parts.join(separator);
            }
        }
    }
    Ok(bytes.map_or(Stored::Text(value), Stored::Bytes))
}

/// Checks that a value is one of its element's kind.
pub(crate) fn check(value: &str, kind: ElementKind) -> Result<String, String> {
    use model::identifier;
    let wrong = |what: &str| format!("the value is not a valid {what}");
    match kind {
        ElementKind::Text | ElementKind::Code => Ok(value.to_owned()),
        ElementKind::ResidentId => identifier::resident(value).map_err(|_| wrong("resident identity number")),
        ElementKind::CreditCode => identifier::credit(value).map_err(|_| wrong("credit code")),
        ElementKind::UnitCode => identifier::unit(value).map_err(|_| wrong("unit code")),
        ElementKind::Date => date_from(value, "yyyy-mm-dd").ok_or_else(|| wrong("date")),
        ElementKind::Integer => {
            value.parse::<i64>().map(|n| n.to_string()).map_err(|_| wrong("whole number"))
        }
    }
}

fn half_width(c: char) -> char {
    match c {
        '\u{3000}' => ' ',
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).expect("in the ASCII range"),
        _ => c,
    }
}

fn date_from(value: &str, pattern: &str) -> Option<String> {
    let (mut year, mut month, mut day) = (String::new(), String::new(), String::new());
    let mut chars = value.chars();
    for p in pattern.chars() {
        let c = chars.next()?;
        match p {
            'y' => year.push(c),
            'm' => month.push(c),
            'd' => day.push(c),
            _ if p == c => {}
            _ => return None,
        }
    }
    let digits = [&year, &month, &day].iter().all(|s| s.chars().all(|c| c.is_ascii_digit()));
    let fits = digits
        && (1..=12).contains(&month.parse::<u32>().ok()?)
        && (1..=31).contains(&day.parse::<u32>().ok()?);
    // a timestamp may follow the date
    fits.then(|| format!("{year}-{month}-{day}"))
}

fn date_to(value: &str, pattern: &str) -> Option<String> {
    let value = date_from(value, "yyyy-mm-dd")?;
    let (mut year, mut month, mut day) = (value[0..4].chars(), value[5..7].chars(), value[8..10].chars());
    pattern
        .chars()
        .map(|p| match p {
            'y' => year.next(),
            'm' => month.next(),
            'd' => day.next(),
            other => Some(other),
        })
        .collect()
}

fn yuan_to_fen(value: &str) -> Option<String> {
    let (yuan, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 2 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let negative = yuan.starts_with('-');
    let yuan: i64 = yuan.parse().ok()?;
    let cents: i64 = format!("{fraction:0<2}").parse().ok()?;
    let fen = yuan.checked_mul(100)?.checked_add(if negative { -cents } else { cents })?;
    Some(fen.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(stored: &str, transforms: &[Transform], kind: ElementKind, standard: &str) {
        assert_eq!(to_standard(Stored::Text(stored.into()), transforms, kind).as_deref(), Ok(standard));
        assert_eq!(to_stored(standard, transforms), Ok(Stored::Text(stored.into())));
    }

    #[test]
    fn transforms_and_their_inverse() {
        both("20180305", &[Transform::Date("yyyymmdd".into())], ElementKind::Date, "2018-03-05");
        both("2018年03月05日", &[Transform::Date("yyyy年mm月dd日".into())], ElementKind::Date, "2018-03-05");
        both("12.30", &[Transform::YuanToFen], ElementKind::Integer, "1230");
        let codes = Transform::Codes([("0".to_string(), "open".to_string())].into());
        both("0", &[codes], ElementKind::Code, "open");
        both(
            "110108-001-002-GB-00003-F-00010001",
            &[Transform::UnitGroups("-".into())],
            ElementKind::UnitCode,
            "110108001002GB00003F00010001",
        );
    }

    #[test]
    fn gbk_bytes() {
        let stored = to_stored("王小明", &[Transform::Gbk]).unwrap();
        assert_eq!(stored, Stored::Bytes(vec![0xcd, 0xf5, 0xd0, 0xa1, 0xc3, 0xf7]));
        assert_eq!(to_standard(stored, &[Transform::Gbk], ElementKind::Text).as_deref(), Ok("王小明"));
        assert!(to_stored("𠮷", &[Transform::Gbk]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_does_not_repeat_the_value() {
        let e = to_standard(Stored::Text("11010519491231002X9".into()), &[], ElementKind::ResidentId)
            .unwrap_err();
        assert!(!e.contains("1101"));
        assert!(
            to_standard(
                Stored::Text("20181305".into()),
                &[Transform::Date("yyyymmdd".into())],
                ElementKind::Date
            )
            .is_err()
        );
        assert!(
            to_standard(Stored::Text("12.305".into()), &[Transform::YuanToFen], ElementKind::Integer)
                .is_err()
        );
    }
}
