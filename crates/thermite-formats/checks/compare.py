"""Holds Thermite's GGUF files and block formats against PyPI's `gguf` package; checks/gguf.sh runs it.

usage: compare.py random FILE                  a file with random blocks of every quantised type
       compare.py same QUANTISED F32           F32 holds, bit for bit, what the package reads from QUANTISED
       compare.py like WRITTEN OTHER           both have the same metadata and tensors, types and rounding aside
"""

import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# where the scales (halves) of a block lie
SCALES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}


def random(path):
    rng = np.random.default_rng(0)
    writer = GGUFWriter(path, "none")
    for dtype, scales in SCALES.items():
        _, size = GGML_QUANT_SIZES[dtype]
        blocks = rng.integers(0, 256, (64, 8, size), dtype=np.uint8)
        for at in scales:
            halves = rng.uniform(-2, 2, (64, 8, 1)).astype(np.float16)
            blocks[..., at:at + 2] = halves.view(np.uint8)
        writer.add_tensor(f"{dtype.name}.weight", blocks.reshape(64, -1), raw_dtype=dtype)
    for name, dtype in (("F32", np.float32), ("F16", np.float16)):
        writer.add_tensor(f"{name}.weight", rng.normal(size=(7, 64)).astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def values(tensor):
    data = tensor.data
    if tensor.tensor_type == T.BF16:
        data = data.view(np.uint8)
    return dequantize(data, tensor.tensor_type).reshape(-1)


def same(quantised, f32):
    left = {t.name: t for t in GGUFReader(quantised).tensors}
    right = {t.name: t for t in GGUFReader(f32).tensors}
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        a, b = values(tensor), values(right[name])
        assert right[name].tensor_type == T.F32, name
        assert list(tensor.shape) == list(right[name].shape), name
        assert np.array_equal(a.view(np.uint32), b.view(np.uint32)), f"{name} ({tensor.tensor_type.name})"
    kinds = sorted({t.tensor_type.name for t in left.values()})
    print(f"{quantised}: {len(left)} tensors, bit for bit ({', '.join(kinds)})")


def like(written, other):
    ours, theirs = GGUFReader(written), GGUFReader(other)
    skip = {"general.file_type", "GGUF.tensor_count", "GGUF.kv_count", "GGUF.version"}
    for key, field in theirs.fields.items():
        if key not in skip:
            assert ours.fields[key].contents() == field.contents(), key
    left = {t.name: list(t.shape) for t in ours.tensors}
    assert left == {t.name: list(t.shape) for t in theirs.tensors}
    print(f"{written}: metadata and shapes of {other}")


if __name__ == "__main__":
    {"random": random, "same": same, "like": like}[sys.argv[1]](*sys.argv[2:])
