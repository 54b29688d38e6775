//! From named tensors to weights on a device, every shape checked against the config.

use thermite_device::{Device, Layout, Linear, MatrixView, Norm};
use thermite_formats::{DType, TensorView, Tensors};

use crate::{Error, Result};

/// Takes tensors by name and puts them on a device.
pub(crate) struct Loader<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) tensors: &'a Tensors,
    /// What stands before every name: `transformer.` or nothing.
    pub(crate) prefix: &'static str,
}

impl<D: Device> Loader<'_, D> {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        let tensor = self.tensors.get(&format!("{}{name}", self.prefix))?;
        if tensor.shape != shape {
            return Err(Error::Shape {
                file: tensor.file.to_path_buf(),
                tensor: tensor.name.to_owned(),
                have: tensor.shape.to_vec(),
                need: shape.to_vec(),
            });
        }
        Ok(tensor)
    }

    /// A vector, as floats.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<D::Buffer> {
        let values = self.tensor(name, &[len])?.to_f32()?;
        Ok(self.device.upload_f32(&values)?)
    }

    /// A matrix of `rows` outputs and `cols` inputs.
    pub(crate) fn matrix(&self, name: &str, rows: usize, cols: usize, layout: Layout) -> Result<D::Matrix> {
        let shape = match layout {
            Layout::RowMajor => [rows, cols],
            Layout::ColumnMajor => [cols, rows],
        };
        let tensor = self.tensor(name, &shape)?;
        let dtype = tensor.dtype;
        if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) && !dtype.is_quantized() {
            return Err(Error::Dtype {
                file: tensor.file.to_path_buf(),
                tensor: tensor.name.to_owned(),
                dtype: dtype.to_string(),
            });
        }
        let view = MatrixView { dtype, rows, cols, layout, bytes: tensor.data };
        Ok(self.device.matrix(&[view])?)
    }

    /// GPT-2's `Conv1D`: `name.weight` `[inputs, outputs]` and `name.bias` `[outputs]`.
    pub(crate) fn conv1d(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear<D>> {
        let weight = self.matrix(&format!("{name}.weight"), outputs, inputs, Layout::ColumnMajor)?;
        let bias = self.vector(&format!("{name}.bias"), outputs)?;
        Ok(Linear { weight, bias: Some((bias, outputs)) })
    }

    /// A LayerNorm: `name.weight` and `name.bias`.
    pub(crate) fn layer_norm(&self, name: &str, c: usize, eps: f32) -> Result<Norm<D>> {
        Ok(Norm::Layer {
            gamma: self.vector(&format!("{name}.weight"), c)?,
            beta: self.vector(&format!("{name}.bias"), c)?,
            eps,
        })
    }
}
