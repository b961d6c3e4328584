//! Numbers and dates as Python has them: integers of any size, `repr` of floats, `str` of dates.
//!
//! The rules are those of `SafeConstructor` in `PyYAML` 6 (`construct_yaml_int`, `_float`, `_timestamp`). What is an
//! integer, a float or a date in the first place is decided in `scalar`.

use std::fmt::{self, Write as _};

/// Python refuses to print longer integers (`sys.int_info.default_max_str_digits`).
const DIGITS_MAX: usize = 4300;

/// A whole number of any size, kept as Python prints it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Integer(String);

impl Integer {
    /// `construct_yaml_int`: `0123` is octal, `0x`, `0b`, `1:30` in base 60, underscores anywhere.
    pub(super) fn from_yaml(text: &str) -> Option<Self> {
        let text = text.trim().replace('_', "");
        let (negative, digits) = split_sign(&text);
        let mut number = Decimal::default();
        if let Some(digits) = digits.strip_prefix("0b") {
            number.push_digits(digits, 2)?;
        } else if let Some(digits) = digits.strip_prefix("0x") {
            number.push_digits(digits, 16)?;
        } else if digits.len() > 1 && digits.starts_with('0') {
            number.push_digits(digits.strip_prefix("0o").unwrap_or(digits), 8)?;
        } else {
            let mut parts = digits.split(':');
            number.push_digits(parts.next()?, 10)?;
            for part in parts {
                number.multiply_add(60, part.parse().ok().filter(|&part: &u32| part < 60)?);
            }
        }
        let decimal = number.print()?;
        Some(Self(if negative && decimal != "0" {
            format!("-{decimal}")
        } else {
            decimal
        }))
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.0 == "0"
    }

    /// The number, if it fits.
    pub fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }
}

/// Limbs of nine decimal digits, the lowest first.
#[derive(Default)]
struct Decimal(Vec<u32>);

impl Decimal {
    fn multiply_add(&mut self, factor: u32, add: u32) {
        let mut carry = u64::from(add);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = u32::try_from(carry % 1_000_000_000).unwrap_or_default();
            carry /= 1_000_000_000;
        }
        if carry > 0 {
            self.0.push(u32::try_from(carry).unwrap_or_default());
        }
    }

    fn push_digits(&mut self, digits: &str, base: u32) -> Option<()> {
        // Four binary digits give at least one decimal digit, so nothing shorter can be printed.
        if digits.is_empty() || digits.len() > 4 * DIGITS_MAX {
            return None;
        }
        for digit in digits.chars() {
            self.multiply_add(base, digit.to_digit(base)?);
        }
        Some(())
    }

    fn print(&self) -> Option<String> {
        let Some((top, rest)) = self.0.split_last() else {
            return Some("0".into());
        };
        let mut text = top.to_string();
        for limb in rest.iter().rev() {
            write!(text, "{limb:09}").ok()?;
        }
        (text.len() <= DIGITS_MAX).then_some(text)
    }
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// `construct_yaml_float`.
pub(super) fn float_from_yaml(text: &str) -> Option<f64> {
    let text = text.trim().replace('_', "").to_lowercase();
    let (negative, digits) = split_sign(&text);
    let value = match digits {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if digits.contains(':') => {
            let mut base = 1.0;
            let mut sum = 0.0;
            for part in digits.rsplit(':') {
                sum += part.parse::<f64>().ok()? * base;
                base *= 60.0;
            }
            sum
        }
        _ => digits.parse().ok()?,
    };
    Some(if negative { -value } else { value })
}

/// Python's `repr` of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16.
pub fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    // The shortest digits that read back. Of two that are equally near Python takes the even one, as exact formatting does.
    let shortest = format!("{value:e}");
    let decimals = shortest
        .split('e')
        .next()
        .and_then(|mantissa| Some(mantissa.split_once('.')?.1.len()))
        .unwrap_or_default();
    let text = Some(format!("{value:.decimals$e}"))
        .filter(|exact| exact.parse() == Ok(value))
        .unwrap_or(shortest);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let places = i32::try_from(decimals).unwrap_or_default() - exponent;
        format!("{value:.*}", usize::try_from(places).unwrap_or_default().max(1))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
    }
}

/// A date, or date and time. It prints as Python's `str()` of it does.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Date {
    /// As it stands in the file.
    pub text: String,
    python: String,
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.python)
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a date")
    }
}

/// The fields of `timestamp_regexp`; whether they make a date is for [`Stamp::date`].
pub(super) struct Stamp {
    year: i16,
    month: i8,
    day: i8,
    time: Option<(i8, i8, i8)>,
    micros: u32,
    /// Minutes east of Greenwich.
    zone: Option<i32>,
}

impl Stamp {
    /// Matches what `PyYAML` takes for a timestamp; one digit for month or day only when a time follows, or when `tagged`.
    pub(super) fn parse(text: &str, tagged: bool) -> Option<Self> {
        let mut rest = text;
        let year = digits(&mut rest, 4, 4)?;
        rest = rest.strip_prefix('-')?;
        let month = digits(&mut rest, 1, 2)?;
        rest = rest.strip_prefix('-')?;
        let day = digits(&mut rest, 1, 2)?;
        let mut stamp = Self {
            year: i16::try_from(year).ok()?,
            month: i8::try_from(month).ok()?,
            day: i8::try_from(day).ok()?,
            time: None,
            micros: 0,
            zone: None,
        };
        if rest.is_empty() {
            return (tagged || text.len() == 10).then_some(stamp);
        }
        rest = match rest.strip_prefix(['T', 't']) {
            Some(after) => after,
            None => rest.strip_prefix([' ', '\t'])?.trim_start_matches([' ', '\t']),
        };
        stamp.time(&mut rest)?;
        stamp.zone = zone(rest)?;
        Some(stamp)
    }

    fn time(&mut self, rest: &mut &str) -> Option<()> {
        let hour = digits(rest, 1, 2)?;
        *rest = rest.strip_prefix(':')?;
        let minute = digits(rest, 2, 2)?;
        *rest = rest.strip_prefix(':')?;
        let second = digits(rest, 2, 2)?;
        self.time = Some((i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, i8::try_from(second).ok()?));
        if let Some(after) = rest.strip_prefix('.') {
            let length = after.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, after) = after.split_at(length);
            self.micros = format!("{fraction:0<6.6}").parse().ok()?;
            *rest = after;
        }
        Some(())
    }

    /// The date, unless Python refuses it (month 13, 30 February, hour 24, a zone of a day or more, year 0).
    pub(super) fn date(&self, text: &str) -> Option<Date> {
        let day = jiff::civil::Date::new(self.year, self.month, self.day)
            .ok()
            .filter(|day| day.year() > 0)?;
        let mut python = day.to_string();
        if let Some((hour, minute, second)) = self.time {
            jiff::civil::Time::new(hour, minute, second, 0).ok()?;
            write!(python, " {hour:02}:{minute:02}:{second:02}").ok()?;
            if self.micros > 0 {
                write!(python, ".{:06}", self.micros).ok()?;
            }
        }
        if let Some(zone) = self.zone {
            let (sign, minutes) = (if zone < 0 { '-' } else { '+' }, zone.abs());
            if minutes >= 24 * 60 {
                return None;
            }
            write!(python, "{sign}{:02}:{:02}", minutes / 60, minutes % 60).ok()?;
        }
        Some(Date {
            text: text.to_owned(),
            python,
        })
    }
}

/// Between `least` and `most` ASCII digits from the front.
fn digits(rest: &mut &str, least: usize, most: usize) -> Option<u32> {
    let length = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if length < least {
        return None;
    }
    let (number, after) = rest.split_at(length);
    *rest = after;
    number.parse().ok()
}

/// `[ \t]*(Z|[-+]hh?(:mm)?)` or nothing at all, up to the end.
#[expect(clippy::option_option, reason = "no zone is an answer, a wrong one is not")]
fn zone(rest: &str) -> Option<Option<i32>> {
    if rest.is_empty() {
        return Some(None);
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    if rest == "Z" {
        return Some(Some(0));
    }
    let sign = if rest.starts_with('-') { -1 } else { 1 };
    let mut rest = rest.strip_prefix(['-', '+'])?;
    let hours = digits(&mut rest, 1, 2)?;
    let minutes = match rest.strip_prefix(':') {
        Some(after) => {
            rest = after;
            digits(&mut rest, 2, 2)?
        }
        None => 0,
    };
    rest.is_empty().then_some(())?;
    Some(Some(sign * i32::try_from(hours * 60 + minutes).ok()?))
}
