//! Values on their way to PostgreSQL and back, by the types that it says.
//!
//! The server infers what type each parameter has; an `Int` goes as the whole number that
//! is asked for. What comes back may be wider than the column was (`SUM` of BIGINT is a
//! NUMERIC) or narrower (`1` is an INT4, `EXISTS` a BOOL): all are an `Int` here.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::super::{Row, Value};
use crate::{Error, Result};

type Boxed = Box<dyn StdError + Sync + Send>;

/// A value bound to a parameter. Its `Debug` does not show the value: the client library
/// would log it.
pub(super) struct Param<'a>(pub(super) &'a Value<'a>);

impl std::fmt::Debug for Param<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(kind(self.0))
    }
}

fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "NULL",
        Value::Int(_) => "a number",
        Value::Text(_) => "text",
        Value::Blob(_) => "bytes",
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match (self.0, ty) {
            (Value::Null, _) => return Ok(IsNull::Yes),
            (Value::Int(n), ty) if *ty == Type::INT8 => out.put_i64(*n),
            (Value::Int(n), ty) if *ty == Type::INT4 => out.put_i32(i32::try_from(*n)?),
            (Value::Int(n), ty) if *ty == Type::INT2 => out.put_i16(i16::try_from(*n)?),
            (Value::Int(n), ty) if *ty == Type::NUMERIC => put_numeric(*n, out),
            (Value::Text(text), ty) if is_text(ty) => out.put_slice(text.as_bytes()),
            (Value::Blob(bytes), ty) if *ty == Type::BYTEA => out.put_slice(bytes),
            (value, ty) => return Err(format!("a parameter is {}, the statement wants {ty}", kind(value)).into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn is_text(ty: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN].contains(ty)
}

/// NUMERIC is sent in digits of base 10,000 with the weight of the first: see
/// `numeric_send` in PostgreSQL's sources.
const NUMERIC_BASE: u64 = 10_000;
const NUMERIC_NEGATIVE: u16 = 0x4000;

fn put_numeric(n: i64, out: &mut BytesMut) {
    let mut digits = Vec::new();
    let mut rest = n.unsigned_abs();
    while rest > 0 {
        // Below 10,000.
        digits.push((rest % NUMERIC_BASE) as u16);
        rest /= NUMERIC_BASE;
    }
    // At most five.
    let len = digits.len() as u16;
    out.put_u16(len);
    out.put_i16(len.cast_signed() - 1);
    out.put_u16(if n < 0 { NUMERIC_NEGATIVE } else { 0 });
    out.put_u16(0);
    for digit in digits.iter().rev() {
        out.put_u16(*digit);
    }
}

/// A NUMERIC that is whole and fits; `None` for any other.
fn numeric(raw: &[u8]) -> Option<i64> {
    let mut words = raw.chunks_exact(2).map(|w| u16::from_be_bytes([w[0], w[1]]));
    let (len, weight, sign, _) = (words.next()?, words.next()?.cast_signed(), words.next()?, words.next()?);
    let mut value: i128 = 0;
    let mut place = i32::from(weight);
    for _ in 0..len {
        let digit = i128::from(words.next()?);
        if place >= 0 {
            value = value.checked_mul(NUMERIC_BASE.into())?.checked_add(digit)?;
        } else if digit != 0 {
            return None;
        }
        place -= 1;
    }
    // Trailing zero digits are not sent. Below zero there is nothing to make up for.
    while len > 0 && place >= 0 {
        value = value.checked_mul(NUMERIC_BASE.into())?;
        place -= 1;
    }
    match sign {
        0 => i64::try_from(value).ok(),
        NUMERIC_NEGATIVE => i64::try_from(-value).ok(),
        _ => None,
    }
}

/// A value of a row, by the column's type.
struct Cell<'a>(Value<'a>);

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Cell<'a>, Boxed> {
        let whole =
            |n: Option<i64>| n.map(Value::Int).ok_or_else(|| Boxed::from("it is not a whole number of 64 bits"));
        let value = match *ty {
            Type::INT8 => whole(raw.try_into().ok().map(i64::from_be_bytes))?,
            Type::INT4 => whole(raw.try_into().ok().map(|raw| i32::from_be_bytes(raw).into()))?,
            Type::INT2 => whole(raw.try_into().ok().map(|raw| i16::from_be_bytes(raw).into()))?,
            Type::BOOL => whole(raw.first().map(|b| i64::from(*b != 0)))?,
            Type::NUMERIC => whole(numeric(raw))?,
            Type::BYTEA => Value::Blob(raw.into()),
            Type::VOID => Value::Null,
            ref ty if is_text(ty) => Value::Text(std::str::from_utf8(raw)?.into()),
            ref other => return Err(format!("it is of type {other}").into()),
        };
        Ok(Cell(value))
    }

    fn from_sql_null(_: &Type) -> Result<Cell<'a>, Boxed> {
        Ok(Cell(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A row of a result.
pub(super) struct PgRow<'a>(pub(super) &'a tokio_postgres::Row);

impl Row for PgRow<'_> {
    fn get(&self, i: usize) -> Result<Value<'_>> {
        if i >= self.0.len() {
            return Err(Error::Database(format!("the row has no column {i}")));
        }
        match self.0.try_get::<_, Cell<'_>>(i) {
            Ok(Cell(value)) => Ok(value),
            Err(e) => {
                let why = StdError::source(&e).map_or_else(|| e.to_string(), |why| why.to_string());
                Err(Error::Corrupt(format!("column {i}: {why}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numerics_come_back(n in any::<i64>()) {
            let mut out = BytesMut::new();
            put_numeric(n, &mut out);
            prop_assert_eq!(numeric(&out), Some(n));
        }

        #[test]
        fn any_bytes_are_a_numeric_or_none(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            numeric(&raw);
        }
    }

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    #[test]
    fn numerics_of_all_shapes() {
        for n in [0, 1, -1, 9_999, 10_000, -10_000, 100_000_000, i64::MAX, i64::MIN] {
            let mut out = BytesMut::new();
            put_numeric(n, &mut out);
            assert_eq!(numeric(&out), Some(n));
        }
        // 3 with weight 2: trailing zeroes are left out.
        assert_eq!(numeric(&words(&[1, 2, 0, 0, 3])), Some(300_000_000));
        // 1.5, 1.0 with a digit that is zero, NaN, and 10^4000.
        assert_eq!(numeric(&words(&[2, 0, 0, 1, 1, 5000])), None);
        assert_eq!(numeric(&words(&[2, 0, 0, 1, 1, 0])), Some(1));
        assert_eq!(numeric(&words(&[0, 0, 0xC000, 0])), None);
        assert_eq!(numeric(&words(&[1, 1000, 0, 0, 1])), None);
    }
}
