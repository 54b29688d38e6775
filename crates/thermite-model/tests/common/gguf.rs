//! A GGUF file of float32 tensors, written by hand.

/// A metadata value.
#[derive(Debug, Clone)]
pub(crate) enum Pair {
    U32(u32),
    F32(f32),
    Text(&'static str),
}

/// The bytes of a file with these pairs and tensors: name, shape (slowest dimension first), values.
pub(crate) fn gguf(pairs: &[(String, Pair)], tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        text(&mut file, key);
        match value {
            Pair::U32(x) => file.extend([4, *x].map(u32::to_le_bytes).concat()),
            Pair::F32(x) => file.extend([6, x.to_bits()].map(u32::to_le_bytes).concat()),
            Pair::Text(x) => {
                file.extend(8u32.to_le_bytes());
                text(&mut file, x);
            }
        }
    }
    let mut offset = 0;
    for (name, shape, values) in tensors {
        text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        file.extend(shape.iter().rev().flat_map(|&dim| (dim as u64).to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        offset += (4 * values.len()).next_multiple_of(32);
    }
    for (_, _, values) in tensors {
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    }
    file.resize(file.len().next_multiple_of(32), 0);
    file
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}
