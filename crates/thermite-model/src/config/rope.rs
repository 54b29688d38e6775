//! Rotary positions: by which angle each pair of channels turns from one token to the next.

use std::f64::consts::TAU;

use serde_json::Value;

use super::fields::{Fields, Format, Name};
use crate::Result;

const THETA: Name = Name("rope_theta", "rope.freq_base");
const SCALING: Name = Name("rope_scaling", "");
/// What newer versions of `config.json` have in place of the two: base and scaling together.
const PARAMETERS: Name = Name("rope_parameters", "");

/// The angles of one kind of layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RopeConfig {
    /// Pair `i` of `head_dim / 2` turns by `base^(-2i / head_dim)`, before scaling.
    pub(crate) base: f64,
    pub(crate) scaling: Scaling,
    /// What each pair's angle is divided by besides, `[head_dim / 2]`; by nothing where it is empty. GGUF has the
    /// scaling of LLaMA 3 in this form.
    pub(crate) divisors: Vec<f32>,
}

/// How angles are changed for contexts longer than those of the first training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scaling {
    None,
    /// All angles are divided by a factor.
    Linear {
        factor: f64,
    },
    /// LLaMA 3.1: fast pairs stay, slow ones are divided by `factor`, those between are interpolated. A pair is slow
    /// if it turns less than `low` times within `original` tokens, and fast if more than `high` times.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

impl RopeConfig {
    /// The rotation that `fields` describe; `base` where they name none.
    pub(crate) fn read(fields: &Fields, base: f64) -> Result<Self> {
        if fields.format() == Format::Gguf {
            let base = fields.find_positive(THETA)?.unwrap_or(base);
            return Ok(Self::new(base, gguf_scaling(fields)?));
        }
        if let Some(parameters) = fields.inside(PARAMETERS)? {
            return Self::parameters(&parameters, base);
        }
        let base = fields.find_positive(THETA)?.unwrap_or(base);
        let scaling = match fields.inside(SCALING)? {
            None => Scaling::None,
            Some(inner) => {
                let scaling = scaling(&inner)?;
                inner.finish(&[])?;
                scaling
            }
        };
        Ok(Self::new(base, scaling))
    }

    /// The rotation of one kind of layer, out of `rope_parameters`.
    pub(crate) fn parameters(fields: &Fields, base: f64) -> Result<Self> {
        let base = fields.find_positive(THETA)?.unwrap_or(base);
        fields.only(Name("partial_rotary_factor", ""), &Value::from(1.0))?;
        let scaling = scaling(fields)?;
        fields.finish(&[])?;
        Ok(Self::new(base, scaling))
    }

    pub(crate) const fn new(base: f64, scaling: Scaling) -> Self {
        Self { base, scaling, divisors: Vec::new() }
    }

    /// Radians a token of each pair, `[head_dim / 2]`.
    fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let pair = |i: usize| {
            let plain = self.base.powf(-2.0 * i as f64 / head_dim as f64);
            let divisor = self.divisors.get(i).map_or(1.0, |&by| f64::from(by));
            self.scaling.apply(plain) / divisor
        };
        (0..head_dim / 2).map(pair).collect()
    }

    /// Cosine and sine interleaved of every position and pair, `[n_positions, head_dim]`.
    pub(crate) fn table(&self, head_dim: usize, n_positions: usize) -> Result<Vec<f32>> {
        /// Positions after which the running product starts afresh: its error stays below that of a float32.
        const RUN: usize = 256;
        let frequencies = self.frequencies(head_dim);
        let steps: Vec<_> = frequencies.iter().map(|f| f.sin_cos()).collect();
        let mut table = Vec::new();
        let len = n_positions.saturating_mul(head_dim);
        table.try_reserve_exact(len).map_err(|error| thermite_device::Error::Memory {
            bytes: len.saturating_mul(size_of::<f32>()),
            reason: error.to_string(),
        })?;
        let mut now = vec![(0.0, 0.0); steps.len()];
        for position in 0..n_positions {
            if position.is_multiple_of(RUN) {
                for (now, f) in now.iter_mut().zip(&frequencies) {
                    *now = (position as f64 * f).sin_cos();
                }
            }
            for ((sin, cos), (step_sin, step_cos)) in now.iter_mut().zip(&steps) {
                table.extend([*cos as f32, *sin as f32]);
                (*sin, *cos) = (*sin * step_cos + *cos * step_sin, *cos * step_cos - *sin * step_sin);
            }
        }
        Ok(table)
    }
}

impl Scaling {
    fn apply(&self, angle: f64) -> f64 {
        match *self {
            Self::None => angle,
            Self::Linear { factor } => angle / factor,
            Self::Llama3 { factor, low, high, original } => {
                let turns = original * angle / TAU;
                let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                angle * (fast + (1.0 - fast) / factor)
            }
        }
    }
}

/// `rope_scaling`, or the scaling within `rope_parameters`.
fn scaling(fields: &Fields) -> Result<Scaling> {
    const KIND: Name = Name("rope_type", "");
    const NEED: &str = "one of default, linear, llama3";
    // the older name of the same field stands beside it in some files
    let older = fields.find::<String>(Name("type", ""), NEED)?;
    let kind = fields.find::<String>(KIND, NEED)?.or(older);
    let number = |name| fields.get_positive(Name(name, ""));
    Ok(match kind.as_deref() {
        None | Some("default") => Scaling::None,
        Some("linear") => Scaling::Linear { factor: number("factor")? },
        Some("llama3") => {
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            if high <= low {
                let need = format!("more than low_freq_factor ({low})");
                return Err(fields.refuse(Name("high_freq_factor", ""), &Value::from(high), &need));
            }
            let original = number("original_max_position_embeddings")?;
            Scaling::Llama3 { factor: number("factor")?, low, high, original }
        }
        Some(other) => return Err(fields.refuse(KIND, &Value::from(other), NEED)),
    })
}

/// `rope.scaling.*` of GGUF metadata.
fn gguf_scaling(fields: &Fields) -> Result<Scaling> {
    const KIND: Name = Name("", "rope.scaling.type");
    const NEED: &str = "none or linear";
    let kind = fields.find::<String>(KIND, NEED)?;
    // an older key says the same as a linear scaling
    let older = fields.find_positive(Name("", "rope.scale_linear"))?;
    let factor = fields.find_positive(Name("", "rope.scaling.factor"))?.or(older);
    match kind.as_deref() {
        Some("none") => Ok(Scaling::None),
        None | Some("linear") => Ok(factor.map_or(Scaling::None, |factor| Scaling::Linear { factor })),
        Some(other) => Err(fields.refuse(KIND, &Value::from(other), NEED)),
    }
}
