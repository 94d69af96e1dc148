//! Values between a department's own form and the standard's.

use crate::{
    compile::Resolved,
    declare::{AddressForm, ElementKind, Groups, Transform},
};

/// A stored value: text, or bytes where the column's encoding is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Text.
    Text(String),
    /// Bytes in a declared encoding.
    Bytes(Vec<u8>),
}

impl Stored {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// The longest stored value, in bytes.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 16;

/// Turns a stored value into the standard's; none where what is stored means that there is none. The error never holds the value.
pub(crate) fn read_cell(stored: Option<Stored>, column: &Resolved) -> Result<Option<String>, String> {
    let Some(stored) = stored else { return Ok(None) };
    let text = decode(stored)?;
    if column.none.contains(&text) {
        return Ok(None);
    }
    let Some(by) = &column.parted else {
        return to_standard(text, &column.transform, column.kind).map(Some);
    };
    let parts =
        text.split(by.as_str()).map(|part| to_standard(part.to_owned(), &column.transform, column.kind));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    Ok(Some(serde_json::to_string(&parts).expect("a list of texts can be written as JSON")))
}

fn decode(stored: Stored) -> Result<String, String> {
    let text = match stored {
        Stored::Text(text) => text,
        Stored::Bytes(bytes) => {
            let (text, _, bad) = encoding_rs::GBK.decode(&bytes);
            if bad {
                return Err("the bytes are not GBK".into());
            }
            text.into_owned()
        }
    };
    if text.len() > VALUE_BYTES_MAX { Err("the value is too long".into()) } else { Ok(text) }
}

fn to_standard(mut value: String, transforms: &[Transform], kind: ElementKind) -> Result<String, String> {
    for transform in transforms {
        value = match transform {
            Transform::Gbk => value,
            Transform::Trim => value.trim_matches(white).to_owned(),
            Transform::NoSpace => value.chars().filter(|c| !white(*c)).collect(),
            Transform::HalfWidth => value.chars().map(half_width).collect(),
            Transform::Upper => value.to_uppercase(),
            Transform::Replace(texts) => {
                texts.iter().fold(value, |value, (from, to)| value.replace(from.as_str(), to))
            }
            Transform::Date(pattern) => {
                date_from(&value, pattern).ok_or("the date does not fit its pattern")?
            }
            Transform::Codes(codes) => {
                codes.get(&value).cloned().ok_or("the code is not in the declared list")?
            }
            Transform::YuanToFen => yuan_to_fen(&value).ok_or("the amount is not a number of yuan")?,
            Transform::UnitGroups(_) => value.chars().filter(char::is_ascii_alphanumeric).collect(),
            Transform::OldId => model::identifier::renewed(&value).unwrap_or(value),
            Transform::Address(form) => address(&value, form).ok_or("it is not a whole address")?,
        };
    }
    check(&value, kind)
}

fn white(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

/// A value somebody asks with, in the form the column's values come to.
pub(crate) fn normal(value: &str, column: &Resolved) -> Result<String, String> {
    let forms: Vec<Transform> = column
        .transform
        .iter()
        .filter(|t| !t.undoes() || matches!(t, Transform::Trim | Transform::HalfWidth | Transform::OldId))
        .cloned()
        .collect();
    to_standard(value.to_owned(), &forms, column.kind)
}

/// The forms in which a standard value may be stored.
pub(crate) fn stored_forms(value: &str, column: &Resolved) -> Result<Vec<Stored>, String> {
    let mut forms = Vec::new();
    // several codes may stand for one word
    for only in one_code_each(value, &column.transform) {
        forms.push(to_stored(value, &only)?);
    }
    if column.kind == ElementKind::ResidentId
        && let Some(rest) = value.strip_suffix('X')
    {
        forms.push(to_stored(&format!("{rest}x"), &column.transform)?);
    }
    if column.transform.contains(&Transform::OldId)
        && let Some(old) = model::identifier::before_renewal(value)
    {
        forms.push(to_stored(&old, &column.transform)?);
    }
    Ok(forms)
}

fn one_code_each(value: &str, transforms: &[Transform]) -> Vec<Vec<Transform>> {
    let listed = transforms.iter().enumerate().find_map(|(i, t)| match t {
        Transform::Codes(codes) => Some((i, codes)),
        _ => None,
    });
    let Some((at, codes)) = listed else { return vec![transforms.to_vec()] };
    let of_value = codes.iter().filter(|(_, word)| *word == value);
    let only = of_value.map(|(code, word)| {
        let mut transforms = transforms.to_vec();
        transforms[at] = Transform::Codes([(code.clone(), word.clone())].into());
        transforms
    });
    only.collect()
}

/// Turns a standard value into the form it is stored in.
pub(crate) fn to_stored(value: &str, transforms: &[Transform]) -> Result<Stored, String> {
    let mut value = value.to_owned();
    let mut bytes = None;
    for transform in transforms.iter().rev() {
        match transform {
            // written as it is; where a value is looked for, these are refused or compared after reading
            Transform::Trim
            | Transform::HalfWidth
            | Transform::OldId
            | Transform::NoSpace
            | Transform::Upper
            | Transform::Replace(_)
            | Transform::Address(_) => {}
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
                let (sign, fen) = (if fen < 0 { "-" } else { "" }, fen.unsigned_abs());
                value = format!("{sign}{}.{:02}", fen / 100, fen % 100);
            }
            Transform::UnitGroups(groups) => {
                let code = model::identifier::unit(&value).map_err(|_| "not a unit code")?;
                let (by, lengths): (_, &[usize]) = match groups {
                    Groups::Standard(by) => (by, &[6, 3, 3, 2, 5, 1, 8]),
                    Groups::Of { by, lengths } => (by, lengths),
                };
                let (mut parts, mut rest) = (Vec::new(), code.as_str());
                for length in lengths {
                    let (part, tail) =
                        rest.split_at_checked(*length).ok_or("the groups are longer than a code")?;
                    parts.push(part);
                    rest = tail;
                }
                value = parts.join(by);
            }
        }
    }
    Ok(bytes.map_or(Stored::Text(value), Stored::Bytes))
}

/// One form for the many in which an address is written: what stands before the first number, then the numbers, parted by `/`.
/// `3号楼2单元501室`, `3楼2门501`, `3-2-501` and `三号楼二单元501室` say the same.
fn address(text: &str, form: &AddressForm) -> Option<String> {
    let text = arabic(&plain_address(text, &form.drop));
    let begin = text.find(|c: char| c.is_ascii_digit())?;
    let (street, rest) = text.split_at(begin);
    let numbers = address_numbers(rest);
    let whole = !street.is_empty() && numbers.len() == form.numbers && numbers.iter().all(|n| !n.is_empty());
    whole.then(|| format!("{street}/{}", numbers.join("/")))
}

/// The numbers of an address after its street, each with what is said before it and is no unit (`甲3`, `南501`); such words after
/// the last are one more. Nothing that tells two places apart is dropped.
pub(crate) fn address_numbers(rest: &str) -> Vec<String> {
    const UNITS: &str = "号院楼单元门室层栋幢座弄户第";
    let (mut all, mut word, mut number) = (Vec::new(), String::new(), String::new());
    for c in rest.chars().chain(['/']) {
        if c.is_ascii_alphanumeric() {
            number.push(c.to_ascii_uppercase());
            continue;
        }
        if !number.is_empty() {
            all.push(format!("{word}{}", number.trim_start_matches('0')));
            word.clear();
            number.clear();
        }
        if c.is_alphanumeric() && !UNITS.contains(c) {
            word.push(c);
        }
    }
    all.extend(Some(word).filter(|word| !word.is_empty()));
    all
}

/// An address without white space and full-width characters, and without the names that may stand in front of it.
pub(crate) fn plain_address(text: &str, drop: &[String]) -> String {
    let text: String = text.chars().map(half_width).filter(|c| !white(*c)).collect();
    let mut rest = text.as_str();
    for name in drop {
        rest = rest.strip_prefix(name.as_str()).unwrap_or(rest);
    }
    rest.to_owned()
}

/// Chinese numerals that count yards, buildings, entrances, floors or rooms become digits; those in names stay.
pub(crate) fn arabic(text: &str) -> String {
    const COUNTED: &str = "号楼院单元门室层栋幢座-";
    let chars: Vec<char> = text.chars().collect();
    let digit = |c: char| "零一二三四五六七八九".chars().position(|d| d == c).or((c == '〇').then_some(0));
    let (mut out, mut i) = (String::new(), 0);
    while i < chars.len() {
        let run = chars[i..].iter().take_while(|c| digit(**c).is_some() || matches!(c, '十' | '百')).count();
        let counts = chars.get(i + run).is_none_or(|next| COUNTED.contains(*next));
        if run == 0 || !counts {
            out.extend(&chars[i..i + run.max(1)]);
            i += run.max(1);
            continue;
        }
        let numeral = &chars[i..i + run];
        if numeral.iter().any(|c| matches!(c, '十' | '百')) {
            let (mut sum, mut last) = (0, None);
            for c in numeral {
                match c {
                    '十' => sum += last.take().unwrap_or(1) * 10,
                    '百' => sum += last.take().unwrap_or(1) * 100,
                    c => last = digit(*c),
                }
            }
            out += &(sum + last.unwrap_or(0)).to_string();
        } else {
            out.extend(numeral.iter().filter_map(|c| digit(*c)).map(|d| char::from(b'0' + d as u8)));
        }
        i += run;
    }
    out
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
        ElementKind::Number => {
            let number = value.parse::<f64>().ok().filter(|n| n.is_finite());
            number.map(|n| n.to_string()).ok_or_else(|| wrong("number"))
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
    let mut chars = value.chars().peekable();
    let (one_m, one_d) = (pattern.matches('m').count() == 1, pattern.matches('d').count() == 1);
    for p in pattern.chars() {
        let c = chars.next()?;
        // a single letter is one digit or two
        let second = chars.peek().copied().filter(char::is_ascii_digit);
        match p {
            'm' | 'd' if (p == 'm' && one_m) || (p == 'd' && one_d) => {
                let number: String = [Some(c), second].into_iter().flatten().collect();
                chars.next_if(|_| second.is_some());
                let part = if p == 'm' { &mut month } else { &mut day };
                *part = format!("{number:0>2}");
            }
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
    let short = |part: &mut std::str::Chars<'_>| part.as_str().trim_start_matches('0').to_owned();
    let (one_m, one_d) = (pattern.matches('m').count() == 1, pattern.matches('d').count() == 1);
    pattern
        .chars()
        .map(|p| match p {
            'm' if one_m => Some(short(&mut month)),
            'd' if one_d => Some(short(&mut day)),
            'y' => year.next().map(String::from),
            'm' => month.next().map(String::from),
            'd' => day.next().map(String::from),
            other => Some(other.to_string()),
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

    fn column(transform: &[Transform], kind: ElementKind) -> Resolved {
        let (name, transform, none) = ("c".into(), transform.to_vec(), vec!["00000000".into()]);
        Resolved { name, kind, transform, none, parted: None, scan: false }
    }

    fn read(stored: Stored, transforms: &[Transform], kind: ElementKind) -> Result<String, String> {
        read_cell(Some(stored), &column(transforms, kind)).map(|value| value.expect("a value"))
    }

    fn both(stored: &str, transforms: &[Transform], kind: ElementKind, standard: &str) {
        assert_eq!(read(Stored::Text(stored.into()), transforms, kind).as_deref(), Ok(standard));
        assert_eq!(to_stored(standard, transforms), Ok(Stored::Text(stored.into())));
    }

    #[test]
    fn transforms_and_their_inverse() {
        both("20180305", &[Transform::Date("yyyymmdd".into())], ElementKind::Date, "2018-03-05");
        both("2018/3/5", &[Transform::Date("yyyy/m/d".into())], ElementKind::Date, "2018-03-05");
        both("2018/11/25", &[Transform::Date("yyyy/m/d".into())], ElementKind::Date, "2018-11-25");
        both("3.12.2018", &[Transform::Date("d.m.yyyy".into())], ElementKind::Date, "2018-12-03");
        let short = [Transform::Date("yyyy/m/d".into())];
        for (stored, standard) in [("2018/03/05 08:00", Ok("2018-03-05")), ("2018/13/1", Err(()))] {
            let found = read(Stored::Text(stored.into()), &short, ElementKind::Date);
            assert_eq!(found.as_deref().map_err(drop), standard, "{stored}");
        }
        both("2018年03月05日", &[Transform::Date("yyyy年mm月dd日".into())], ElementKind::Date, "2018-03-05");
        both("12.30", &[Transform::YuanToFen], ElementKind::Integer, "1230");
        let codes = Transform::Codes([("0".to_string(), "open".to_string())].into());
        both("0", &[codes], ElementKind::Code, "open");
        both(
            "110108-001-002-GB-00003-F-00010001",
            &[Transform::UnitGroups(Groups::Standard("-".into()))],
            ElementKind::UnitCode,
            "110108001002GB00003F00010001",
        );
    }

    #[test]
    fn gbk_bytes() {
        let stored = to_stored("王小明", &[Transform::Gbk]).unwrap();
        assert_eq!(stored, Stored::Bytes(vec![0xcd, 0xf5, 0xd0, 0xa1, 0xc3, 0xf7]));
        assert_eq!(read(stored, &[Transform::Gbk], ElementKind::Text).as_deref(), Ok("王小明"));
        assert!(to_stored("𠮷", &[Transform::Gbk]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_does_not_repeat_the_value() {
        let e = read(Stored::Text("11010519491231002X9".into()), &[], ElementKind::ResidentId).unwrap_err();
        assert!(!e.contains("1101"));
        assert!(
            read(Stored::Text("20181305".into()), &[Transform::Date("yyyymmdd".into())], ElementKind::Date)
                .is_err()
        );
        assert!(read(Stored::Text("12.305".into()), &[Transform::YuanToFen], ElementKind::Integer).is_err());
    }

    #[test]
    fn groups_of_a_departments_own() {
        let groups = Groups::Of { by: " ".into(), lengths: vec![6, 6, 7, 9] };
        both(
            "110108 001001 GB00002 F00060015",
            &[Transform::UnitGroups(groups)],
            ElementKind::UnitCode,
            "110108001001GB00002F00060015",
        );
    }

    #[test]
    fn addresses_in_their_many_forms_are_one() {
        let form = AddressForm { drop: vec!["某市".into(), "某区".into(), "某".into()], numbers: 4 };
        let standard = "三里河街/5/12/2/1702";
        for text in [
            "某市某区三里河街5号院12号楼2单元1702室",
            "某三里河街5号院12楼2门1702",
            "三里河街5号院12-2-1702",
            "某市 某区 三里河街 ５号院 十二号楼 二单元 1702室",
            "某区三里河街五号院十二号楼二单元一七〇二室",
        ] {
            assert_eq!(address(text, &form).as_deref(), Some(standard), "{text}");
        }
        let not =
            ["三里河街5号院12号楼", "5号院12号楼2单元1702室", "三里河街5号院12号楼2单元1702室-3", "", "某市"];
        for text in not {
            assert_eq!(address(text, &form), None, "{text}");
        }
        for other in [
            "三里河街5号院12号楼2单元1703室",
            "三里河街5号院甲12号楼2单元1702室",
            "三里河街5号院12号楼2单元地下1702室",
        ] {
            assert_ne!(address(other, &form).as_deref(), Some(standard), "{other}");
        }
    }

    #[test]
    fn chinese_numerals() {
        for (text, arabized) in [
            ("十号楼", "10号楼"),
            ("二十一单元", "21单元"),
            ("一百零三室", "103室"),
            ("五道口", "五道口"),
            ("一二〇三", "1203"),
        ] {
            assert_eq!(arabic(text), arabized);
        }
    }

    #[test]
    fn old_numbers_become_new_ones_and_are_looked_for_in_both_forms() {
        let column = column(&[Transform::OldId], ElementKind::ResidentId);
        let cell = |text: &str| read_cell(Some(Stored::Text(text.into())), &column);
        assert_eq!(cell("110105491231002"), Ok(Some("11010519491231002X".into())));
        assert_eq!(cell("11010519491231002x"), Ok(Some("11010519491231002X".into())));
        let forms = stored_forms("11010519491231002X", &column).unwrap();
        let expected = ["11010519491231002X", "11010519491231002x", "110105491231002"];
        assert_eq!(forms, expected.map(|t| Stored::Text(t.into())));
        assert_eq!(cell("00000000"), Ok(None));
    }

    #[test]
    fn names_with_rare_characters_and_dots() {
        let dots = [("•", "·"), ("・", "·"), ("．", "·")].map(|(a, b)| (a.into(), b.into()));
        let transforms = [Transform::NoSpace, Transform::Replace(dots.into())];
        let value =
            read(Stored::Text("古丽娜尔・ 阿依\u{3000}古丽𡌛".into()), &transforms, ElementKind::Text);
        assert_eq!(value.as_deref(), Ok("古丽娜尔·阿依古丽𡌛"));
    }

    #[test]
    fn several_values_in_a_cell() {
        let mut column = column(&[Transform::Trim], ElementKind::Text);
        column.parted = Some("、".into());
        let read = read_cell(Some(Stored::Text("王一、 李二".into())), &column);
        assert_eq!(read, Ok(Some(r#"["王一","李二"]"#.into())));
    }
}
