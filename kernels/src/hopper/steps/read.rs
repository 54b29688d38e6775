//! Reads recorded launches as the steps of a model.

use bytemuck::Zeroable;

use super::layout::{Cache, Plan, Product, Program};
use super::{Activation, Norm, Recorded, Scalar, Shares, Value, Variant};

/// What takes the place of `launches`, on a GPU of so many multiprocessors with so much shared memory a threadgroup: none
/// where they are anything but whole steps of one sequence, all alike, by fused kernels with weights and cache of 16 bits.
pub fn plan(launches: &[Recorded], multiprocessors: u32, shared_memory: u32) -> Option<Plan> {
    let end = 1 + launches.iter().position(|launch| launch.kernel == "advance_rows")?;
    let (first, steps) = (&launches[..end], launches.chunks(end));
    if !steps.clone().all(|step| step == first) {
        return None;
    }
    let mut step = Step::new(Reader { launches: first });
    step.read()?;
    let steps = steps.len().try_into().ok()?;
    Plan::new(step.variant?, steps, &step.products, step.caches, step.program, multiprocessors, shared_memory)
}

impl Recorded {
    fn buffer(&self, i: usize) -> Option<u64> {
        match self.values.get(i)? {
            Value::Buffer(address) => Some(*address),
            Value::Nil => Some(0),
            _ => None,
        }
    }

    fn int(&self, i: usize) -> Option<i32> {
        match self.values.get(i)? {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    fn count(&self, i: usize) -> Option<u32> {
        self.int(i)?.try_into().ok()
    }

    fn float(&self, i: usize) -> Option<f32> {
        match self.values.get(i)? {
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    fn is_of_one_row(&self) -> bool {
        self.dims.get("N").or_else(|_| self.dims.get("rows")).is_ok_and(|rows| rows == 1)
    }
}

/// The launches that are not read yet.
struct Reader<'l> {
    launches: &'l [Recorded],
}

impl<'l> Reader<'l> {
    fn is_at(&self, prefix: &str) -> bool {
        self.launches.first().is_some_and(|launch| launch.kernel.starts_with(prefix))
    }

    /// The next launch, if its name begins so; and the rest of the name.
    fn take(&mut self, prefix: &str) -> Option<(&'l Recorded, &'l str)> {
        let (launch, rest) = self.launches.split_first()?;
        let name = launch.kernel.strip_prefix(prefix)?;
        self.launches = rest;
        launch.is_of_one_row().then_some((launch, name))
    }
}

/// A step as far as it is read.
struct Step<'l> {
    reader: Reader<'l>,
    program: Program,
    products: Vec<Product>,
    caches: Vec<Cache>,
    variant: Option<Variant>,
    /// The residual stream.
    residual: u64,
}

impl<'l> Step<'l> {
    fn new(reader: Reader<'l>) -> Self {
        let program = Program::zeroed();
        Self { reader, program, products: Vec::new(), caches: Vec::new(), variant: None, residual: 0 }
    }

    fn read(&mut self) -> Option<()> {
        let weights = self.embedding()?;
        while self.reader.is_at("decode_qkv_") {
            self.layer(weights)?;
        }
        self.head(weights)?;
        self.choice()?;
        self.reader.launches.is_empty().then_some(())
    }

    fn embedding(&mut self) -> Option<Scalar> {
        let (embedding, _) = self.reader.take("embedding_forward")?;
        let (weights, _) = Scalar::in_name(&embedding.kernel, "embedding_forward")?;
        self.program.embedding = embedding.buffer(0)?;
        self.program.tokens = embedding.buffer(1)?;
        self.residual = embedding.buffer(2)?;
        self.program.n_embd = embedding.count(3)?;
        if let Some((positional, name)) = self.reader.take("positional_embedding_add") {
            let is_alike = name == format!("_{}", weights.suffix());
            (is_alike && positional.buffer(2)? == self.residual).then_some(())?;
            self.program.positional = positional.buffer(0)?;
            self.program.positions = positional.buffer(1)?;
        }
        Some(weights)
    }

    fn layer(&mut self, weights: Scalar) -> Option<()> {
        let (qkv, name) = self.reader.take("decode_qkv_")?;
        let (norm, name) = norm_in(name)?;
        let (of, cache) = name.split_once('_')?;
        let cache = Scalar::of_suffix(cache)?;
        let [c, n_head, n_kv_head, hs, block_size] = [11, 12, 13, 14, 15].map(|i| qkv.count(i));
        let (c, n_head, n_kv_head, hs, block_size) = (c?, n_head?, n_kv_head?, hs?, block_size?);
        (Scalar::of_suffix(of)? == weights && qkv.buffer(0)? == self.residual).then_some(())?;
        (c == self.program.n_embd && c % 8 == 0 && n_kv_head > 0 && n_head % n_kv_head == 0).then_some(())?;
        matches!(hs, 32 | 64 | 128).then_some(())?;
        let program = &mut self.program;
        program.freqs = qkv.buffer(5)?;
        program.positions = qkv.buffer(6)?;
        program.slots = qkv.buffer(7)?;
        program.n_head = n_head;
        program.n_kv_head = n_kv_head;
        let weight = qkv.buffer(3)?;
        let second = weight + u64::from(hs / 2 * c) * 2;
        let pairs = (n_head + 2 * n_kv_head) * hs / 2;
        let qkv_product = Product::of([weight, second], qkv.buffer(4)?, c, 2, pairs);
        self.products.push(qkv_product.normed(qkv.buffer(1)?, qkv.buffer(2)?, qkv.float(16)?));

        let (attend, _) = self.reader.take("decode_attend")?;
        (attend.buffer(0)? == qkv.buffer(8)? && attend.count(7)? == n_head * hs).then_some(())?;
        self.program.block_table = attend.buffer(3)?;
        self.program.lengths = attend.buffer(4)?;
        self.program.max_blocks = attend.count(11)?;
        let (scale, window, cap) = (attend.float(12)?, attend.int(13)?, attend.float(14)?);
        self.caches.push(Cache { k: attend.buffer(1)?, v: attend.buffer(2)?, scale, cap, window, unused: 0 });

        let (output, name) = self.reader.take("decode_output_")?;
        (output.buffer(0)? == attend.buffer(5)?).then_some(())?;
        self.adds(output.buffer(4)?, output.count(8)?, name, weights)?;
        self.products.push(Product::of([output.buffer(2)?, 0], output.buffer(3)?, n_head * hs, 1, c));

        let (activation, inner, n_inner) = self.expand(norm, weights)?;
        let (down, name) = self.reader.take("decode_down_")?;
        (down.buffer(0)? == inner && down.count(4)? == n_inner).then_some(())?;
        self.adds(down.buffer(3)?, down.count(5)?, name, weights)?;
        self.products.push(Product::of([down.buffer(1)?, 0], down.buffer(2)?, n_inner, 1, c));
        self.program.n_layer += 1;

        let (sharing, capped) = (n_head / n_kv_head, cap != 0.0);
        let (head_size, shares) = (hs, Shares::default()); // which Plan::new finds
        let variant =
            Variant { weights, cache, head_size, sharing, block_size, norm, activation, capped, shares };
        (self.variant.replace(variant).is_none_or(|before| before == variant)).then_some(())
    }

    /// Whether a product of these rows adds to the residual stream, with weights of the model's type.
    fn adds(&self, residual: u64, rows: u32, suffix: &str, weights: Scalar) -> Option<()> {
        let fits = residual == self.residual && rows == self.program.n_embd;
        (fits && Scalar::of_suffix(suffix)? == weights).then_some(())
    }

    /// What the activation gives: its kind, where it lies, how long it is.
    fn expand(&mut self, norm: Norm, weights: Scalar) -> Option<(Activation, u64, u32)> {
        let c = self.program.n_embd;
        let gated = [("decode_swiglu_", Activation::SwiGlu), ("decode_geglu_", Activation::GeGlu)];
        for (prefix, activation) in gated {
            let Some((up, name)) = self.reader.take(prefix) else { continue };
            let n_inner = up.count(6)?;
            let fits = up.buffer(0)? == self.residual && up.count(5)? == c && norm == Norm::Rms;
            (fits && Scalar::of_suffix(name)? == weights && n_inner % 8 == 0).then_some(())?;
            let product = Product::of([up.buffer(2)?, up.buffer(3)?], 0, c, 2, n_inner);
            self.products.push(product.normed(up.buffer(1)?, 0, up.float(7)?));
            return Some((activation, up.buffer(4)?, n_inner));
        }
        let (up, name) = self.reader.take("decode_up_gelu_")?;
        let n_inner = up.count(7)?;
        let fits = up.buffer(0)? == self.residual && up.count(6)? == c && norm == Norm::Layer;
        (fits && Scalar::of_suffix(name)? == weights && n_inner % 8 == 0).then_some(())?;
        let product = Product::of([up.buffer(3)?, 0], up.buffer(4)?, c, 1, n_inner);
        self.products.push(product.normed(up.buffer(1)?, up.buffer(2)?, up.float(8)?));
        Some((Activation::Gelu, up.buffer(5)?, n_inner))
    }

    fn head(&mut self, weights: Scalar) -> Option<()> {
        let (head, name) = self.reader.take("decode_head_")?;
        let (norm, of) = norm_in(name)?;
        let fits = head.buffer(0)? == self.residual && head.count(6)? == self.program.n_embd;
        (fits && Scalar::of_suffix(of)? == weights && norm == self.variant?.norm).then_some(())?;
        self.program.logits = head.buffer(5)?;
        let product =
            Product::of([head.buffer(3)?, 0], head.buffer(4)?, self.program.n_embd, 1, head.count(7)?);
        self.products.push(product.normed(head.buffer(1)?, head.buffer(2)?, head.float(8)?));
        Some(())
    }

    /// The likeliest token, and the next step's beginning.
    fn choice(&mut self) -> Option<()> {
        let chosen = match self.reader.take("argmax_parts") {
            Some((parts, _)) => {
                (parts.buffer(0)? == self.program.logits).then_some(())?;
                self.reader.take("argmax_final")?.0.buffer(2)?
            }
            None => {
                let (argmax, _) = self.reader.take("argmax_sample")?;
                (argmax.buffer(0)? == self.program.logits).then_some(())?;
                argmax.buffer(1)?
            }
        };
        let (advance, _) = self.reader.take("advance_rows")?;
        let program = &mut self.program;
        let same = [
            (advance.buffer(0)?, chosen),
            (advance.buffer(1)?, program.block_table),
            (advance.buffer(2)?, program.tokens),
            (advance.buffer(3)?, program.positions),
            (advance.buffer(4)?, program.slots),
            (advance.buffer(5)?, program.lengths),
        ];
        same.iter().all(|(a, b)| a == b).then_some(())?;
        program.chosen = chosen;
        program.history = advance.buffer(6)?;
        program.kept = advance.count(10)?;
        Some(())
    }
}

/// The norm that a name begins with, and the rest of the name.
fn norm_in(name: &str) -> Option<(Norm, &str)> {
    let norm = |prefix, norm| name.strip_prefix(prefix).map(|rest| (norm, rest));
    norm("rms_", Norm::Rms).or_else(|| norm("layer_", Norm::Layer))
}
