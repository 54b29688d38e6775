//! Shapes to measure, and the types of their weights.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use thermite_formats::{DType, quant};
use thermite_model::random::{SHAPES, Shape};

/// A shape by its name.
pub(super) fn shape() -> impl TypedValueParser<Value = Shape> {
    let names = PossibleValuesParser::new(SHAPES.iter().map(|shape| shape.name));
    names.try_map(|name| Shape::named(&name).ok_or("no such shape"))
}

/// A type that matrices can be written in.
pub(super) fn weight_type() -> impl TypedValueParser<Value = DType> {
    let types = || DType::ALL.iter().copied().filter(|&dtype| quant::is_writable(dtype));
    let names = PossibleValuesParser::new(types().map(|dtype| dtype.name()));
    names.try_map(move |name| {
        types().find(|dtype| dtype.name().eq_ignore_ascii_case(&name)).ok_or("no such type")
    })
}
