//! What a grammar may ask for. `llguidance` bounds the work of its lexer and its parser; what it does to a schema before
//! that is bounded here.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Grammar, GrammarError};

/// Bytes of a grammar's source, at most.
const MAX_SOURCE: usize = 1 << 16;

/// Brackets of a source may be nested so deep.
const MAX_DEPTH: usize = 64;

/// The least common multiple of a schema's `multipleOf`, in units of their last digit: an automaton has as many states.
const MAX_MULTIPLE: u128 = 10_000;

/// Choices that a schema may multiply: `allOf` of several `anyOf` is compiled as the `anyOf` of all their combinations.
const MAX_COMBINATIONS: u64 = 500;

/// Checks the size of `grammar`, and what its schemas multiply.
pub(super) fn check(grammar: &Grammar) -> Result<(), GrammarError> {
    let kind = grammar.kind();
    let (len, depth) = match grammar {
        Grammar::JsonObject => return Ok(()),
        Grammar::JsonSchema(schema) => (schema.to_string().len(), depth_of(schema)),
        Grammar::Lark(source) | Grammar::Regex(source) => (source.len(), nesting(source)),
    };
    if len > MAX_SOURCE {
        return Err(GrammarError::TooLong { kind, len, limit: MAX_SOURCE });
    }
    if depth > MAX_DEPTH {
        return Err(GrammarError::TooDeep { kind, depth, limit: MAX_DEPTH });
    }
    let checked = match grammar {
        Grammar::JsonSchema(schema) => check_schema(schema),
        Grammar::Lark(source) => schemas_in(source).iter().try_for_each(check_schema),
        Grammar::JsonObject | Grammar::Regex(_) => Ok(()),
    };
    checked.map_err(|reason| GrammarError::Invalid { kind, reason })
}

fn depth_of(value: &Value) -> usize {
    children(value).map(depth_of).max().map_or(usize::from(value.is_object() || value.is_array()), |d| d + 1)
}

/// How deep brackets of any kind are nested in `source`, those in texts and comments counted too.
fn nesting(source: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(entries) => Box::new(entries.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// The schemas in a Lark grammar.
fn schemas_in(source: &str) -> Vec<Value> {
    let parts = source.split("%json").skip(1);
    parts.filter_map(|part| serde_json::Deserializer::from_str(part).into_iter().next()?.ok()).collect()
}

fn check_schema(schema: &Value) -> Result<(), String> {
    let multiple = common_multiple(schema)?;
    if multiple > MAX_MULTIPLE {
        return Err(format!(
            "the least common multiple of its multipleOf is {multiple} times their last digit; {MAX_MULTIPLE} is allowed"
        ));
    }
    let mut choices = Choices { root: schema, of_references: BTreeMap::new(), combined: 1 };
    choices.of(schema);
    match choices.combined {
        combined if combined > MAX_COMBINATIONS => Err(format!(
            "what has to be true together has {combined} combinations of choices; {MAX_COMBINATIONS} are allowed"
        )),
        _ => Ok(()),
    }
}

/// The least common multiple of all `multipleOf` in `schema`, in units of the last digit of any of them.
fn common_multiple(schema: &Value) -> Result<u128, String> {
    let mut numbers = Vec::new();
    let mut left = vec![schema];
    while let Some(value) = left.pop() {
        numbers.extend(value.get("multipleOf").and_then(Value::as_f64));
        left.extend(children(value));
    }
    let decimals =
        numbers.into_iter().map(|x| decimal(x).ok_or_else(|| format!("multipleOf {x} has too many digits")));
    let decimals: Vec<(u64, u32)> = decimals.collect::<Result<_, _>>()?;
    let digits = decimals.iter().map(|&(_, digits)| digits).max().unwrap_or(0);
    let scaled = decimals.into_iter().map(|(x, own)| u128::from(x) * 10_u128.pow(digits - own));
    Ok(scaled.fold(1, |all, x| if x == 0 { all } else { (all / gcd(all, x)).saturating_mul(x) }))
}

/// `x` as a whole number and how many of its digits stand behind the point, at most nine in all.
fn decimal(x: f64) -> Option<(u64, u32)> {
    let mut scaled = (0..=9).map(|digits| (x.abs() * 10_f64.powi(digits as i32), digits));
    let (whole, digits) = scaled.find(|(x, _)| (x - x.round()).abs() <= 1e-9 * x)?;
    (whole < 1e9).then_some((whole.round() as u64, digits))
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Counts the choices of schemas.
struct Choices<'a> {
    root: &'a Value,
    /// Those of what was referred to; 1 while it is being counted.
    of_references: BTreeMap<&'a str, u64>,
    /// The most that have to be combined.
    combined: u64,
}

impl<'a> Choices<'a> {
    /// Choices in `schema`, at most: those between which `anyOf` chooses are added, those that must hold together are
    /// multiplied, and of the schemas of different places the largest counts.
    fn of(&mut self, schema: &'a Value) -> u64 {
        let Value::Object(entries) = schema else {
            return children(schema).map(|child| self.of(child)).max().unwrap_or(1);
        };
        let mut together = 1_u64;
        let mut parts = 0;
        let mut places = 1;
        for (key, value) in entries {
            let choices = match (key.as_str(), value) {
                ("anyOf" | "oneOf", Value::Array(options)) => {
                    options.iter().fold(0, |sum: u64, option| sum.saturating_add(self.of(option))).max(1)
                }
                ("allOf", Value::Array(all)) => {
                    parts += all.len().saturating_sub(1);
                    all.iter().fold(1, |product: u64, schema| product.saturating_mul(self.of(schema)))
                }
                ("$ref", Value::String(reference)) => self.of_reference(reference),
                ("$defs" | "definitions", _) => {
                    self.of(value);
                    continue;
                }
                _ => {
                    places = places.max(self.of(value));
                    continue;
                }
            };
            parts += 1;
            together = together.saturating_mul(choices);
        }
        if places > 1 {
            parts += 1;
            together = together.saturating_mul(places);
        }
        if parts > 1 {
            self.combined = self.combined.max(together);
        }
        together
    }

    fn of_reference(&mut self, reference: &'a str) -> u64 {
        if let Some(&known) = self.of_references.get(reference) {
            return known;
        }
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)) else {
            return 1; // it is refused later, or is the whole
        };
        self.of_references.insert(reference, 1);
        let choices = self.of(target);
        self.of_references.insert(reference, choices);
        choices
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn multiples_are_counted_in_units_of_their_last_digit() {
        let multiple = |numbers: Value| common_multiple(&json!({ "multipleOf": 1, "items": numbers }));
        let of = |x: f64| json!({ "multipleOf": x });
        assert_eq!(multiple(json!([])), Ok(1));
        assert_eq!(multiple(json!([of(4.0), of(6.0), of(0.0)])), Ok(12));
        assert_eq!(multiple(json!([of(0.01), of(0.25)])), Ok(100));
        assert_eq!(multiple(json!([of(9973.0), of(9967.0)])), Ok(9973 * 9967));
        assert!(multiple(json!([of(1e-300)])).is_err() && multiple(json!([of(1e300)])).is_err());
        assert!(multiple(json!([of(0.1 + 0.2)])).is_ok_and(|m| m == 10 * 3));
        let lark = "start: %json { \"multipleOf\": 9973, \"allOf\": [{ \"multipleOf\": 9967 }] } \"%json\"";
        assert!(check(&Grammar::Lark(lark.to_owned())).is_err());
    }

    #[test]
    fn only_what_holds_together_is_multiplied() {
        let combined = |schema: &Value| {
            let mut choices = Choices { root: schema, of_references: BTreeMap::new(), combined: 1 };
            choices.of(schema);
            choices.combined
        };
        let three = json!({ "anyOf": [true, true, true] });
        assert_eq!(
            combined(&json!({ "properties": { "a": three, "b": three, "c": { "items": three } } })),
            1
        );
        assert_eq!(combined(&json!({ "allOf": [three, three, { "properties": { "x": three } }] })), 27);
        assert_eq!(combined(&json!({ "anyOf": [three, true], "oneOf": [true, true] })), 8);
        assert_eq!(
            combined(&json!({ "$defs": { "t": three }, "allOf": [{ "$ref": "#/$defs/t" }, three] })),
            9
        );
        assert_eq!(combined(&json!({ "$defs": { "t": { "anyOf": [{ "$ref": "#/$defs/t" }, three] } } })), 1);
        let many = json!({ "allOf": vec![three; 99] });
        assert_eq!(combined(&many), u64::MAX);
    }
}
