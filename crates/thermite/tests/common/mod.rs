//! What the tests of the command share.
#![allow(dead_code, clippy::unwrap_used)] // a failed helper is a failed test

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::{Map, Value, json};

/// The command.
pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_thermite");

/// The folder of the built-in model.
pub(crate) fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/stories-3m")
}

/// `thermite` as on a terminal of 80 columns, without the user's settings.
pub(crate) fn thermite<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(BIN);
    for variable in ["THERMITE_MODEL", "THERMITE_DEVICE", "THERMITE_CPU_ISA", "THERMITE_CPU_ACTIVATIONS"] {
        command.env_remove(variable);
    }
    command.env("COLUMNS", "80").args(args);
    command
}

/// Runs what must succeed; gives standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{err}");
    (out, err)
}

/// Standard output of what must succeed.
pub(crate) fn stdout(args: &[&str]) -> String {
    run(&mut thermite(args)).0
}

/// Runs what must fail with status 1, nothing on standard output, and one line of error, which is given.
pub(crate) fn error(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(output.stdout, b"", "{err}");
    let message = err.strip_prefix("error: ").unwrap_or_else(|| panic!("{err}"));
    assert_eq!((message.matches('\n').count(), message.ends_with('\n')), (1, true), "{err}");
    message.trim_end().to_owned()
}

/// A copy of the built-in model in a temporary folder, to be spoiled.
pub(crate) struct ModelCopy {
    pub(crate) dir: tempfile::TempDir,
}

impl ModelCopy {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::copy(stories().join(file), dir.path().join(file)).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The error of generating with it, without the folder's name.
    pub(crate) fn error(&self) -> String {
        let mut command = thermite(["generate", "Hi", "-n", "1", "-m"]);
        let message = error(command.arg(self.dir.path()));
        message.replace(self.dir.path().to_str().unwrap(), "MODEL")
    }

    /// Changes a JSON file.
    pub(crate) fn edit_json(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path(file);
        let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut value);
        std::fs::write(path, value.to_string()).unwrap();
    }

    /// Changes the header of the weights; the data stay.
    pub(crate) fn edit_header(&self, edit: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.path("model.safetensors");
        let file = std::fs::read(&path).unwrap();
        let (len, rest) = file.split_first_chunk::<8>().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
        let mut header: Map<String, Value> = serde_json::from_slice(header).unwrap();
        edit(&mut header);
        std::fs::write(path, safetensors(&header, data)).unwrap();
    }
}

/// A safetensors file.
pub(crate) fn safetensors(header: &Map<String, Value>, data: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
}

/// A GPT-2 with the built-in model's tokenizer and random weights, large enough to take its time.
pub(crate) fn slow_model() -> ModelCopy {
    let model = ModelCopy::new();
    let (c, layers) = (512, 4);
    model.edit_json("config.json", |config| {
        for (key, value) in [("n_embd", c), ("n_layer", layers), ("n_head", 8)] {
            config[key] = json!(value);
        }
    });
    let mut shapes = vec![("wte.weight".to_owned(), vec![4096, c]), ("wpe.weight".to_owned(), vec![512, c])];
    let mut layer = |name: String, weight: Vec<usize>| {
        let outputs = weight[weight.len() - 1];
        shapes.push((format!("{name}.weight"), weight));
        shapes.push((format!("{name}.bias"), vec![outputs]));
    };
    for i in 0..layers {
        layer(format!("h.{i}.ln_1"), vec![c]);
        layer(format!("h.{i}.attn.c_attn"), vec![c, 3 * c]);
        layer(format!("h.{i}.attn.c_proj"), vec![c, c]);
        layer(format!("h.{i}.ln_2"), vec![c]);
        layer(format!("h.{i}.mlp.c_fc"), vec![c, 4 * c]);
        layer(format!("h.{i}.mlp.c_proj"), vec![4 * c, c]);
    }
    layer("ln_f".to_owned(), vec![c]);
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut state = 1_u64;
    for (name, shape) in shapes {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // an f16 of random sign and mantissa below 2^-4
            data.extend(((state >> 48) as u16 & 0x83ff | 0x2800).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F16", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    std::fs::write(model.path("model.safetensors"), safetensors(&header, &data)).unwrap();
    model
}
