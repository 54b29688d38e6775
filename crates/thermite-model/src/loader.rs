//! From named tensors to weights on a device, every shape checked against the config.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use thermite_device::{Device, Layout, Linear, MatrixView, Norm};
use thermite_formats::{DType, ModelFiles, TensorView, Tensors};

use crate::config::{Format, Name};
use crate::{Error, Result, Weights};

/// Takes tensors by name and puts them on a device.
#[derive(Debug)]
pub(crate) struct Loader<'a, D: Device> {
    device: &'a D,
    tensors: &'a Tensors,
    format: Format,
    weights: Weights,
    folder: Folder,
    /// The one of `folder.roots` that names begin with.
    root: &'static str,
    taken: RefCell<BTreeSet<String>>,
    packing: Cell<Packing>,
}

/// What it took to lay out a model's matrices as the device wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packing {
    /// Bytes of memory that they take beside their file.
    pub bytes: usize,
    /// Time that it took.
    pub time: Duration,
}

/// How the names of a family's tensors begin in a Hugging Face folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder {
    /// What may stand before every name but the head's: models are stored with it and without.
    pub(crate) roots: &'static [&'static str],
    /// What stands before the number of a layer.
    pub(crate) layers: &'static str,
    /// A tensor that tells which root it is.
    pub(crate) embedding: Name,
}

/// Tensors whose names begin alike: those of one layer.
#[derive(Debug)]
pub(crate) struct Part<'l, 'a, D: Device> {
    loader: &'l Loader<'a, D>,
    prefix: String,
}

/// A matrix of `rows` outputs, with what makes its rows the ones that the forward pass expects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) name: Name,
    pub(crate) rows: usize,
    pub(crate) order: RowOrder,
}

/// In which order a file holds the rows of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// As they are used.
    Same,
    /// Within each of so many heads, the two halves that rotate together lie row by row beside each other: GGUF's
    /// queries and keys of LLaMA.
    Pairs { heads: usize },
}

impl Rows {
    pub(crate) const fn new(name: Name, rows: usize) -> Self {
        Self { name, rows, order: RowOrder::Same }
    }
}

impl RowOrder {
    /// Rows of `len` elements in the order in which they are used.
    fn restore<'b, T: Copy>(self, rows: usize, data: Cow<'b, [T]>) -> Cow<'b, [T]> {
        let Self::Pairs { heads } = self else { return data };
        let (len, head, half) = (data.len() / rows, rows / heads, rows / heads / 2);
        let from = |row: usize| {
            let (first, within) = (row / head * head, row % head);
            first + within % half * 2 + within / half
        };
        (0..rows).flat_map(|row| &data[from(row) * len..][..len]).copied().collect()
    }
}

impl<'a, D: Device> Loader<'a, D> {
    pub(crate) fn new(
        files: &'a ModelFiles,
        folder: Folder,
        format: Format,
        device: &'a D,
        weights: Weights,
    ) -> Self {
        let tensors = &files.tensors;
        let begins = |root: &&str| tensors.contains(&format!("{root}{}.weight", folder.embedding.0));
        let root = folder.roots.iter().copied().find(begins);
        let root = root.unwrap_or_else(|| folder.roots.first().copied().unwrap_or_default());
        Self {
            device,
            tensors,
            format,
            weights,
            folder,
            root,
            taken: RefCell::default(),
            packing: Cell::default(),
        }
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    pub(crate) const fn device(&self) -> &D {
        self.device
    }

    /// What the matrices took so far.
    pub(crate) const fn packing(&self) -> Packing {
        self.packing.get()
    }

    /// The tensors that stand beside the network: the head.
    pub(crate) const fn beside(&self) -> Part<'_, 'a, D> {
        Part { loader: self, prefix: String::new() }
    }

    /// The tensors of the network that belong to no layer.
    pub(crate) fn model(&self) -> Part<'_, 'a, D> {
        let prefix = match self.format {
            Format::HuggingFace => self.root.to_owned(),
            Format::Gguf => String::new(),
        };
        Part { loader: self, prefix }
    }

    /// The tensors of layer `i`.
    pub(crate) fn layer(&self, i: usize) -> Part<'_, 'a, D> {
        let prefix = match self.format {
            Format::HuggingFace => format!("{}{}{i}.", self.root, self.folder.layers),
            Format::Gguf => format!("blk.{i}."),
        };
        Part { loader: self, prefix }
    }

    /// Refuses tensors that were not taken, unless they change nothing.
    pub(crate) fn finish(&self, harmless: impl Fn(&TensorView<'_>) -> bool) -> Result<()> {
        let taken = self.taken.borrow();
        match self.tensors.iter().find(|tensor| !taken.contains(tensor.name) && !harmless(tensor)) {
            None => Ok(()),
            Some(tensor) => Err(Error::UnknownTensor {
                file: tensor.file.to_path_buf(),
                tensor: tensor.name.to_owned(),
                shape: tensor.shape.to_vec(),
            }),
        }
    }
}

impl<'a, D: Device> Part<'_, 'a, D> {
    fn full_name(&self, name: Name, suffix: &str) -> String {
        format!("{}{}{suffix}", self.prefix, name.of(self.loader.format))
    }

    /// Whether there is a `name.weight`, or whatever `suffix` says.
    pub(crate) fn contains(&self, name: Name, suffix: &str) -> bool {
        self.loader.tensors.contains(&self.full_name(name, suffix))
    }

    fn tensor(&self, name: Name, suffix: &str, shape: &[usize]) -> Result<TensorView<'a>> {
        let name = self.full_name(name, suffix);
        let tensor = self.loader.tensors.get(&name)?;
        if tensor.shape != shape {
            return Err(Error::Shape {
                file: tensor.file.to_path_buf(),
                tensor: tensor.name.to_owned(),
                have: tensor.shape.to_vec(),
                need: shape.to_vec(),
            });
        }
        self.loader.taken.borrow_mut().insert(name);
        Ok(tensor)
    }

    /// Checks the shape of a matrix that is taken later.
    pub(crate) fn check(&self, name: Name, rows: usize, cols: usize) -> Result<()> {
        self.tensor(name, ".weight", &[rows, cols]).map(|_| ())
    }

    /// The values of a vector.
    pub(crate) fn values(&self, name: Name, suffix: &str, len: usize) -> Result<Vec<f32>> {
        Ok(self.tensor(name, suffix, &[len])?.to_f32()?)
    }

    /// A matrix of `rows` outputs and `cols` inputs.
    pub(crate) fn matrix(&self, name: Name, rows: usize, cols: usize) -> Result<D::Matrix> {
        self.stacked(&[Rows::new(name, rows)], cols, Layout::RowMajor)
    }

    /// The matrices of `parts`, one under the other.
    fn stacked(&self, parts: &[Rows], cols: usize, layout: Layout) -> Result<D::Matrix> {
        let stored = parts.iter().map(|part| self.stored(*part, cols, layout));
        let stored = stored.collect::<Result<Vec<_>>>()?;
        let views = parts.iter().zip(&stored).map(|(part, (dtype, bytes))| MatrixView {
            dtype: *dtype,
            rows: part.rows,
            cols,
            layout,
            bytes,
        });
        let (loader, begin) = (self.loader, Instant::now());
        let matrix = loader.device.matrix(&views.collect::<Vec<_>>())?;
        let Packing { bytes, time } = loader.packing.get();
        loader.packing.set(Packing {
            bytes: bytes + loader.device.matrix_bytes(&matrix),
            time: time + begin.elapsed(),
        });
        // the device has a copy: the file's pages need not stay in memory beside it
        parts.iter().for_each(|part| loader.tensors.release(&self.full_name(part.name, ".weight")));
        Ok(matrix)
    }

    /// Type and bytes of one matrix.
    fn stored(&self, part: Rows, cols: usize, layout: Layout) -> Result<(DType, Cow<'a, [u8]>)> {
        let shape = match layout {
            Layout::RowMajor => [part.rows, cols],
            Layout::ColumnMajor => [cols, part.rows],
        };
        let tensor = self.tensor(part.name, ".weight", &shape)?;
        let dtype = tensor.dtype;
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
            let (file, tensor) = (tensor.file.to_path_buf(), tensor.name.to_owned());
            match (dtype.is_quantized(), layout) {
                (true, Layout::RowMajor) => {}
                (true, Layout::ColumnMajor) => {
                    return Err(Error::Columns { file, tensor, dtype: dtype.to_string() });
                }
                (false, _) => return Err(Error::Dtype { file, tensor, dtype: dtype.to_string() }),
            }
        }
        let (dtype, bytes) = match self.loader.weights {
            Weights::Stored => {
                self.loader.device.adopt(tensor.shared().file())?;
                (dtype, Cow::Borrowed(tensor.data))
            }
            Weights::F32 => (DType::F32, Cow::Owned(bytemuck::cast_slice(&tensor.to_f32()?).to_vec())),
        };
        Ok((dtype, part.order.restore(part.rows, bytes)))
    }

    /// What the angles of rotated pairs are divided by: positive numbers.
    pub(crate) fn divisors(&self, name: Name, len: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, ".weight", &[len])?;
        let divisors = tensor.to_f32()?;
        match divisors.iter().position(|by| !(by.is_finite() && *by > 0.0)) {
            None => Ok(divisors),
            Some(i) => Err(Error::Value {
                file: tensor.file.to_path_buf(),
                tensor: tensor.name.to_owned(),
                index: i,
                value: divisors[i],
                need: "a positive number",
            }),
        }
    }

    /// A linear layer: `name.weight` of each of `parts`, one under the other, and their biases where `bias` says so.
    pub(crate) fn linear(&self, parts: &[Rows], cols: usize, bias: bool) -> Result<Linear<D>> {
        self.linear_of(parts, cols, Layout::RowMajor, bias)
    }

    /// GPT-2's `Conv1D`: `name.weight` and `name.bias` `[outputs]`; Hugging Face stores `[inputs, outputs]`.
    pub(crate) fn conv1d(&self, name: Name, outputs: usize, inputs: usize) -> Result<Linear<D>> {
        let layout = match self.loader.format {
            Format::HuggingFace => Layout::ColumnMajor,
            Format::Gguf => Layout::RowMajor,
        };
        self.linear_of(&[Rows::new(name, outputs)], inputs, layout, true)
    }

    fn linear_of(&self, parts: &[Rows], cols: usize, layout: Layout, bias: bool) -> Result<Linear<D>> {
        let weight = self.stacked(parts, cols, layout)?;
        if !bias {
            return Ok(Linear { weight, bias: None });
        }
        let mut values = Vec::new();
        for part in parts {
            let bias = self.values(part.name, ".bias", part.rows)?;
            values.extend_from_slice(&part.order.restore(part.rows, Cow::Owned(bias)));
        }
        Ok(Linear { weight, bias: Some((self.upload(&values)?, values.len())) })
    }

    /// A LayerNorm: `name.weight` and `name.bias`.
    pub(crate) fn layer_norm(&self, name: Name, c: usize, eps: f32) -> Result<Norm<D>> {
        Ok(Norm::Layer {
            gamma: self.upload(&self.values(name, ".weight", c)?)?,
            beta: self.upload(&self.values(name, ".bias", c)?)?,
            eps,
        })
    }

    /// An RMSNorm: `offset + name.weight`.
    pub(crate) fn rms_norm(&self, name: Name, c: usize, eps: f32, offset: f32) -> Result<Norm<D>> {
        Ok(Norm::Rms { gamma: self.gamma(name, c, offset)?, eps })
    }

    /// The scale of an RMSNorm: `offset + name.weight`.
    pub(crate) fn gamma(&self, name: Name, c: usize, offset: f32) -> Result<D::Buffer> {
        let mut gamma = self.values(name, ".weight", c)?;
        gamma.iter_mut().for_each(|x| *x += offset);
        self.upload(&gamma)
    }

    fn upload(&self, values: &[f32]) -> Result<D::Buffer> {
        Ok(self.loader.device.upload_f32(values)?)
    }
}
