//! Sizes as text: `nh * hs`, `ceil(T / block_size)`, `first_row + rows <= N`, over named dimensions.
//!
//! Arithmetic is on `u64` and checked: an overflow is an error, never a wrapped number.

use super::{Dims, GeometryError};

/// Value of `text` for the given dimensions.
pub(super) fn value(text: &'static str, dims: &Dims) -> Result<u64, GeometryError> {
    let mut reader = Reader::new(text, dims);
    let value = reader.sum()?;
    reader.end()?;
    Ok(value)
}

/// Whether the comparison `text` (`a <= b`, `a < b` or `a == b`) holds.
pub(super) fn holds(text: &'static str, dims: &Dims) -> Result<bool, GeometryError> {
    let mut reader = Reader::new(text, dims);
    let left = reader.sum()?;
    let comparison = ["<=", "==", "<"].into_iter().find(|c| reader.take(c));
    let right = reader.sum()?;
    reader.end()?;
    match comparison {
        Some("<=") => Ok(left <= right),
        Some("==") => Ok(left == right),
        Some(_) => Ok(left < right),
        None => Err(GeometryError::Expression { text }),
    }
}

/// The dimensions that `text` names, in their order.
pub(super) fn names(text: &'static str) -> impl Iterator<Item = &'static str> {
    let words = text.split(|c| !is_word(c)).filter(|word| word.starts_with(|c: char| !c.is_ascii_digit()));
    words.filter(|word| !["ceil", "max"].contains(word))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

struct Reader<'d> {
    text: &'static str,
    rest: &'static str,
    dims: &'d Dims,
}

impl<'d> Reader<'d> {
    fn new(text: &'static str, dims: &'d Dims) -> Self {
        let rest = text;
        Self { text, rest, dims }
    }

    fn take(&mut self, symbol: &str) -> bool {
        self.rest = self.rest.trim_start();
        let after = self.rest.strip_prefix(symbol);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn end(&self) -> Result<(), GeometryError> {
        if self.rest.trim_start().is_empty() {
            return Ok(());
        }
        Err(GeometryError::Expression { text: self.text })
    }

    fn checked(&self, result: Option<u64>) -> Result<u64, GeometryError> {
        result.ok_or(GeometryError::Overflow { text: self.text })
    }

    fn sum(&mut self) -> Result<u64, GeometryError> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                let next = self.product()?;
                value = self.checked(value.checked_add(next))?;
            } else if self.take("-") {
                let next = self.product()?;
                value = self.checked(value.checked_sub(next))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<u64, GeometryError> {
        let mut value = self.atom()?;
        loop {
            if self.take("*") {
                let next = self.atom()?;
                value = self.checked(value.checked_mul(next))?;
            } else if self.take("%") {
                let next = self.atom()?;
                value = self.checked(value.checked_rem(next))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<u64, GeometryError> {
        let unreadable = GeometryError::Expression { text: self.text };
        if self.take("max(") {
            let first = self.sum()?;
            let second = if self.take(",") { self.sum()? } else { return Err(unreadable) };
            return if self.take(")") { Ok(first.max(second)) } else { Err(unreadable) };
        }
        if self.take("(") {
            let inner = self.sum()?;
            return if self.take(")") { Ok(inner) } else { Err(unreadable) };
        }
        if self.take("ceil(") {
            let dividend = self.sum()?;
            if !self.take("/") {
                return Err(unreadable);
            }
            let divisor = self.sum()?;
            if !self.take(")") {
                return Err(unreadable);
            }
            let quotient = (divisor > 0).then(|| dividend.div_ceil(divisor));
            return self.checked(quotient);
        }
        self.rest = self.rest.trim_start();
        let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        if word.is_empty() {
            return Err(unreadable);
        }
        match word.parse() {
            Ok(number) => Ok(number),
            Err(_) => self.dims.get(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims() -> Dims {
        Dims::new(&[("T", 33), ("hs", 64), ("nh", 3), ("huge", u64::MAX / 2)])
    }

    #[test]
    fn values() {
        assert_eq!(value("nh * hs + 2", &dims()), Ok(194));
        assert_eq!(value("ceil(T / 32)*2", &dims()), Ok(4));
        assert_eq!(value("2 * (T + 1) * max(nh, 2)", &dims()), Ok(204));
        assert_eq!(value("hs % 7", &dims()), Ok(1));
        assert_eq!(holds("T + 1 <= hs", &dims()), Ok(true));
        assert_eq!(holds("hs % 4 == 0", &dims()), Ok(true));
        assert_eq!(holds("hs < nh", &dims()), Ok(false));
    }

    #[test]
    fn overflow_is_an_error() {
        for text in ["huge * 3", "huge + huge + 2", "nh - T", "ceil(T / 0)", "T % 0"] {
            assert_eq!(value(text, &dims()), Err(GeometryError::Overflow { text }));
        }
    }

    #[test]
    fn names_are_found() {
        let found: Vec<_> = names("2 * (T + 1) * max(nh, ceil(hs / 32)) <= n_blocks").collect();
        assert_eq!(found, ["T", "nh", "hs", "n_blocks"]);
    }

    #[test]
    fn unknown_names_and_nonsense_are_errors() {
        assert!(matches!(value("C", &dims()), Err(GeometryError::MissingDimension { .. })));
        assert!(matches!(value("T T", &dims()), Err(GeometryError::Expression { .. })));
        assert!(matches!(value("", &dims()), Err(GeometryError::Expression { .. })));
    }
}
