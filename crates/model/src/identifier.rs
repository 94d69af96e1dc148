//! Check-digit rules of the identifiers that departments match people, organisations and property by.

/// Why a text is not an identifier of its kind. Never holds the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// The length or the characters are wrong.
    #[error("wrong length or characters")]
    Form,
    /// The date of birth does not exist.
    #[error("the date of birth does not exist")]
    Date,
    /// The check digit does not fit.
    #[error("the check digit does not fit")]
    Check,
}

/// The check character of a resident identity number (GB 11643-1999, ISO 7064 MOD 11-2) over its first 17 digits.
pub fn resident_check(first17: &[u8]) -> Option<u8> {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    if first17.len() != 17 || !first17.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let sum: u32 = first17.iter().zip(WEIGHTS).map(|(d, w)| u32::from(d - b'0') * w).sum();
    Some(b"10X98765432"[(sum % 11) as usize])
}

/// Reads an 18-character resident identity number (公民身份号码): a final `x` becomes `X`.
pub fn resident(text: &str) -> Result<String, IdentifierError> {
    let text = text.trim().to_ascii_uppercase();
    let bytes = text.as_bytes();
    if bytes.len() != 18 {
        return Err(IdentifierError::Form);
    }
    let check = resident_check(&bytes[..17]).ok_or(IdentifierError::Form)?;
    if !(bytes[17].is_ascii_digit() || bytes[17] == b'X') {
        return Err(IdentifierError::Form);
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().expect("checked digits");
    let (year, month, day) = (number(6..10), number(10..12), number(12..14));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return Err(IdentifierError::Date),
    };
    if !(1850..=2200).contains(&year) || !(1..=days).contains(&day) {
        return Err(IdentifierError::Date);
    }
    if bytes[17] != check {
        return Err(IdentifierError::Check);
    }
    Ok(text)
}

/// The number of 18 characters that GB 11643-1999 makes of an old one of 15 digits: the century 19 and a check character. The
/// register may have given a person another one.
pub fn renewed(old: &str) -> Option<String> {
    if old.len() != 15 || !old.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let first17 = format!("{}19{}", &old[..6], &old[6..]);
    let check = resident_check(first17.as_bytes())?;
    Some(format!("{first17}{}", char::from(check)))
}

/// The old number of 15 digits that became this one by [`renewed`].
pub fn before_renewal(number: &str) -> Option<String> {
    let old = format!("{}{}", number.get(..6)?, number.get(8..17)?);
    (renewed(&old).as_deref() == Some(number)).then_some(old)
}

/// The day a person was born, `yyyy-mm-dd`, out of their resident identity number; none where it is no such number.
pub fn born(number: &str) -> Option<String> {
    let number = resident(number).ok()?;
    Some(format!("{}-{}-{}", &number[6..10], &number[10..12], &number[12..14]))
}

/// How many whole years old a person is on a day, both `yyyy-mm-dd`; a birthday counts from its own day on (PRC Civil Code, article 200
/// and following, count ages in whole years).
pub fn age(born: &str, on: &str) -> Option<u32> {
    let year = |day: &str| day.get(..4)?.parse::<u32>().ok();
    let had_birthday = on.get(5..)? >= born.get(5..)?;
    (year(on)? + u32::from(had_birthday)).checked_sub(year(born)? + 1)
}

/// The check character of an organisation code (GB 11714-1997, modulus 11) over its first 8 characters.
pub fn organisation_check(first8: &[u8]) -> Option<u8> {
    const WEIGHTS: [u32; 8] = [3, 7, 9, 10, 5, 8, 4, 2];
    if first8.len() != 8 {
        return None;
    }
    let mut sum = 0;
    for (c, w) in first8.iter().zip(WEIGHTS) {
        sum += w * match c {
            b'0'..=b'9' => u32::from(c - b'0'),
            b'A'..=b'Z' => u32::from(c - b'A') + 10,
            _ => return None,
        };
    }
    match 11 - sum % 11 {
        10 => Some(b'X'),
        11 => Some(b'0'),
        digit => Some(b'0' + digit as u8),
    }
}

/// The check character of a unified social credit code (GB 32100-2015, modulus 31) over its first 17 characters.
pub fn credit_check(first17: &[u8]) -> Option<u8> {
    const ALPHABET: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
    const WEIGHTS: [u32; 17] = [1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28];
    if first17.len() != 17 {
        return None;
    }
    let mut sum = 0;
    for (c, w) in first17.iter().zip(WEIGHTS) {
        sum += ALPHABET.iter().position(|a| a == c)? as u32 * w;
    }
    Some(ALPHABET[((31 - sum % 31) % 31) as usize])
}

/// Reads a unified social credit code (统一社会信用代码).
pub fn credit(text: &str) -> Result<String, IdentifierError> {
    let text = text.trim().to_ascii_uppercase();
    if text.len() != 18 || !text.is_ascii() {
        return Err(IdentifierError::Form);
    }
    let check = credit_check(&text.as_bytes()[..17]).ok_or(IdentifierError::Form)?;
    if text.as_bytes()[17] == check { Ok(text) } else { Err(IdentifierError::Check) }
}

/// Reads a real-estate unit code (不动产单元号, GB/T 37346): 28 characters, 6+3+3+2+5+1+8; separators are dropped.
pub fn unit(text: &str) -> Result<String, IdentifierError> {
    let text: String =
        text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect::<String>().to_ascii_uppercase();
    let bytes = text.as_bytes();
    let digit = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    let letter = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_uppercase);
    let fits = bytes.len() == 28
        && digit(0..12)
        && letter(12..14)
        && digit(14..19)
        && letter(19..20)
        && digit(20..28);
    if fits { Ok(text) } else { Err(IdentifierError::Form) }
}

/// What people may see of an identifier: the first three and last two characters.
pub fn mask(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 6 {
        return chars.iter().enumerate().map(|(i, c)| if i == 0 { *c } else { '*' }).collect();
    }
    chars.iter().enumerate().map(|(i, c)| if i < 3 || i + 2 >= chars.len() { *c } else { '*' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_numbers() {
        // the standard's own example, GB 11643-1999 appendix
        assert_eq!(resident("11010519491231002x").as_deref(), Ok("11010519491231002X"));
        assert_eq!(resident("110105194912310021"), Err(IdentifierError::Check));
        assert_eq!(resident("110105194902300026"), Err(IdentifierError::Date));
        assert_eq!(resident("1101051949123100"), Err(IdentifierError::Form));
        assert_eq!(resident("１10105194912310021"), Err(IdentifierError::Form));
    }

    #[test]
    fn old_resident_numbers() {
        assert_eq!(renewed("110105491231002").as_deref(), Some("11010519491231002X"));
        assert_eq!(before_renewal("11010519491231002X").as_deref(), Some("110105491231002"));
        for not in ["11010549123100", "11010549123100X", "11010519491231002X"] {
            assert_eq!(renewed(not), None);
        }
        for not in ["110105194912310021", "11010520491231002X", "王", ""] {
            assert_eq!(before_renewal(not), None);
        }
    }

    #[test]
    fn ages_are_whole_years() {
        let born = born("11010519491231002X").unwrap();
        assert_eq!(born, "1949-12-31");
        assert_eq!(age(&born, "1967-12-30"), Some(17));
        assert_eq!(age(&born, "1967-12-31"), Some(18));
        assert_eq!(age(&born, "1949-12-30"), None);
    }

    #[test]
    fn organisation_codes() {
        // the ninth character of the credit code 91110000600037341L is that of 60003734
        assert_eq!(organisation_check(b"60003734"), Some(b'1'));
        assert_eq!(organisation_check(b"6000373"), None);
    }

    #[test]
    fn credit_codes() {
        // python-stdnum's example of GB 32100-2015
        assert_eq!(credit("91110000600037341L").as_deref(), Ok("91110000600037341L"));
        assert_eq!(credit("91110000600037342L"), Err(IdentifierError::Check));
        assert_eq!(credit("9111000060003734IL"), Err(IdentifierError::Form));
    }

    #[test]
    fn unit_codes() {
        assert_eq!(unit("110108-001-002-GB-00003-F-00010001").as_deref(), Ok("110108001002GB00003F00010001"));
        assert!(unit("110108001002GB00003F0001000").is_err());
    }

    #[test]
    fn masks() {
        assert_eq!(mask("11010519491231002X"), "110*************2X");
        assert_eq!(mask("王小明"), "王**");
    }
}
