//! Pure. The fixed-width fields of a payload, *not available* among their values.

use super::Row;

/// An integer of the wire that has a value for *not available*: all ones in an unsigned field,
/// the most negative value in a signed one.
pub(super) trait Field: Copy + Eq {
    const NOT_AVAILABLE: Self;

    fn available(self) -> Option<Self> {
        (self != Self::NOT_AVAILABLE).then_some(self)
    }
}

impl Field for u8 {
    const NOT_AVAILABLE: Self = Self::MAX;
}
impl Field for u16 {
    const NOT_AVAILABLE: Self = Self::MAX;
}
impl Field for u32 {
    const NOT_AVAILABLE: Self = Self::MAX;
}
impl Field for u64 {
    const NOT_AVAILABLE: Self = Self::MAX;
}
impl Field for i16 {
    const NOT_AVAILABLE: Self = Self::MIN;
}
impl Field for i32 {
    const NOT_AVAILABLE: Self = Self::MIN;
}

/// The field's value on the wire.
pub(super) fn wire<F: Field>(value: Option<F>) -> F {
    value.unwrap_or(F::NOT_AVAILABLE)
}

/// A column of whole numbers.
pub(super) fn put_integer<F: Into<i64>>(row: &mut impl Row, value: Option<F>) {
    match value {
        Some(value) => row.integer(value.into()),
        None => row.null(),
    }
}

/// A column in physical units: the wire's number divided by `per_unit`, a power of ten. The
/// quotient is the double nearest to the decimal that was meant, so that rounding its product
/// with `per_unit` gives the wire's number back.
pub(super) fn put_real<F: Into<f64>>(row: &mut impl Row, value: Option<F>, per_unit: f64) {
    match value {
        Some(value) => row.real(value.into() / per_unit),
        None => row.null(),
    }
}
