//! Index arithmetic past 2^31: on the geometry, and by kernels that run at the far end of sparsely mapped buffers.

use thermite_kernels::catalogue;
use thermite_kernels::contract::{
    BindingError, Bound, Dims, GeometryError, Limits, Scalar, attention_tiles, check_binding, contract_of,
    launch,
};
use thermite_kernels::emulator::{Argument, Buffer, Build, Emulator};

#[test]
fn geometry_counts_in_64_bits() {
    // A grid whose last rows lie past 2^31 and 2^32 elements.
    let dims = Dims::new(&[("N", 3_000_000), ("C", 2048), ("vocab", 10)]);
    let rows = launch("embedding_forward", &dims, &Limits::APPLE).unwrap();
    assert_eq!((rows.grid, rows.threadgroup), ([3_000_000, 2, 1], [1, 1024, 1]));
    let out = &contract_of("embedding_forward").unwrap().buffers[2];
    assert_eq!(out.length(&dims), Ok(6_144_000_000));

    let scores = Dims::new(&[("heads", 96), ("T", 8192), ("hs", 128)]);
    let att = &contract_of("attention_scores").unwrap().buffers[2];
    assert_eq!(att.length(&scores), Ok(96 * 8192 * 8192)); // 6.4e9
}

#[test]
fn what_passes_64_bits_or_the_device_is_refused() {
    let huge = Dims::new(&[("N", 1 << 40), ("C", 1 << 40), ("vocab", 1)]);
    let out = &contract_of("embedding_forward").unwrap().buffers[2];
    assert!(matches!(out.length(&huge), Err(GeometryError::Overflow { .. })));
    let refused =
        |dims: &[(&'static str, u64)], kernel, limits| launch(kernel, &Dims::new(dims), limits).unwrap_err();
    let too_many = refused(&[("N", 1 << 32), ("C", 64), ("vocab", 1)], "embedding_forward", &Limits::APPLE);
    assert!(
        matches!(too_many, GeometryError::Grid { dimension: 0, wanted: 4_294_967_296, .. }),
        "{too_many}"
    );
    // Thread positions are 32-bit: 2^32 elements in one dimension do not fit, 2^32 - 1,024 do.
    let elements = refused(&[("N", 1 << 32)], "gelu_forward", &Limits::APPLE);
    assert!(matches!(elements, GeometryError::Grid { .. }), "{elements}");
    assert!(launch("gelu_forward", &Dims::new(&[("N", (1 << 32) - 1024)]), &Limits::APPLE).is_ok());
    // CUDA takes 65,535 threadgroups in y.
    let y = refused(&[("heads", 1), ("T", 65_536), ("hs", 64)], "attention_scores", &Limits::CUDA);
    assert!(matches!(y, GeometryError::Grid { dimension: 1, limit: 65_535, .. }), "{y}");
    // An integer constant is an int.
    let kernel = &catalogue::find("gelu_forward").unwrap().unwrap().kernel;
    let dims = Dims::new(&[("N", 1 << 31)]);
    let buffer = Bound::Buffer { scalar: Scalar::F32, length: 1 << 31 };
    let error = check_binding(kernel, &dims, &[buffer, buffer, Bound::Int(i32::MIN)]).unwrap_err();
    assert!(matches!(error, BindingError::Constant { wanted: 2_147_483_648, .. }), "{error}");
}

#[test]
fn attention_tiles_fit_every_head_size() {
    for hs in [1, 32, 64, 80, 128, 256, 512, 1000] {
        for limits in [Limits::APPLE, Limits::CUDA] {
            let (br, bc) = attention_tiles(hs, &limits).unwrap();
            let dims = [("heads", 2), ("T", 100), ("hs", hs), ("Br", br), ("Bc", bc)];
            let laid_out = launch("flash_attention_forward", &Dims::new(&dims), &limits).unwrap();
            assert!(laid_out.threadgroup_memory.iter().sum::<u32>() <= limits.threadgroup_memory);
            assert_eq!(u64::from(laid_out.grid[1]), 100u64.div_ceil(br));
        }
    }
    assert!(attention_tiles(100_000, &Limits::APPLE).is_err());
}

// ---- sparse buffers: reserved, and touched at their far end only

const LIMITS: Limits = Limits::APPLE;
/// Rows of this many floats: the last of ROWS begins past 2^32 elements, and 16 GiB.
const C: u64 = 4096;
const ROWS: u64 = (1 << 20) + 2;

struct Far {
    emulator: Emulator,
    dims: Dims,
}

impl Far {
    fn new(dims: &[(&'static str, u64)]) -> Self {
        Self { emulator: Emulator::new(Build::Fast).expect("the kernels compile"), dims: Dims::new(dims) }
    }

    fn floats(&self, length: u64) -> Buffer {
        self.emulator.buffer("sparse", Scalar::F32, length).expect("address space")
    }

    /// Only the threadgroups from `first` on, in x, y and z.
    fn run_from(&self, kernel: &str, first: [u32; 3], arguments: &[Argument<'_>]) {
        let part = first.map(|f| f..u32::MAX);
        self.emulator.launch_part(kernel, &self.dims, &LIMITS, &part, arguments).expect(kernel);
    }
}

fn at(index: u64) -> usize {
    usize::try_from(index).expect("a 64-bit machine")
}

#[test]
fn a_token_past_2_to_the_31() {
    let far = Far::new(&[("N", 1), ("C", C), ("vocab", ROWS)]);
    let weight = far.floats(ROWS * C);
    let last = (ROWS - 1) * C;
    let row: Vec<f32> = (0..C).map(|c| c as f32).collect();
    weight.upload(at(last), &row).unwrap();
    let tokens = far.emulator.buffer("tokens", Scalar::I32, 1).unwrap();
    tokens.upload(0, &[ROWS as i32 - 1]).unwrap();
    let out = far.floats(C);
    for kernel in ["embedding_forward", "embedding_forward_v4"] {
        out.upload(0, &vec![-1.0f32; at(C)]).unwrap();
        let arguments = [&weight, &tokens, &out].map(Argument::Buffer);
        far.run_from(kernel, [0; 3], &[arguments.as_slice(), &[Argument::Int(C as i32)]].concat());
        assert_eq!(out.download::<f32>(0, at(C)).unwrap(), row, "{kernel}");
    }
}

#[test]
fn the_last_row_of_a_norm_past_2_to_the_31() {
    let far = Far::new(&[("N", ROWS), ("C", C)]);
    let (x, out, gamma) = (far.floats(ROWS * C), far.floats(ROWS * C), far.floats(C));
    let last = at((ROWS - 1) * C);
    x.upload(last, &vec![3.0f32; at(C)]).unwrap();
    gamma.upload(0, &vec![2.0f32; at(C)]).unwrap();
    let constants = [Argument::Int(C as i32), Argument::Float(0.0)];
    for kernel in ["rmsnorm_forward", "rmsnorm_forward_v4"] {
        out.upload(last, &vec![-1.0f32; at(C)]).unwrap();
        let buffers = [&x, &gamma, &out].map(Argument::Buffer);
        far.run_from(kernel, [ROWS as u32 - 1, 0, 0], &[buffers.as_slice(), &constants].concat());
        assert_eq!(out.download::<f32>(last, at(C)).unwrap(), vec![2.0; at(C)], "{kernel}");
    }
}

#[test]
fn scores_of_a_far_head() {
    // att [heads, T, T]: the last head begins past 2^31 elements.
    let (heads, t, hs) = (33u64, 8192u64, 4u64);
    let far = Far::new(&[("heads", heads), ("T", t), ("hs", hs)]);
    let (q, k, att) = (far.floats(heads * t * hs), far.floats(heads * t * hs), far.floats(heads * t * t));
    let last = at((heads * t - 1) * hs);
    q.upload(last, &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    k.upload(last, &[1.0f32; 4]).unwrap();
    for (kernel, threads) in [("attention_scores", 64), ("attention_scores_v4", 64)] {
        let groups = (t / threads) as u32;
        let buffers = [&q, &k, &att].map(Argument::Buffer);
        let constants = [Argument::Int(t as i32), Argument::Int(hs as i32)];
        far.run_from(
            kernel,
            [heads as u32 - 1, t as u32 - 1, groups - 1],
            &[buffers.as_slice(), &constants].concat(),
        );
        let end = at(heads * t * t);
        assert_eq!(att.download::<f32>(end - 2, 2).unwrap(), [0.0, 5.0], "{kernel}");
        att.upload(end - 1, &[-1.0f32]).unwrap();
    }
}

#[test]
fn the_last_row_of_logits_past_2_to_the_31() {
    let (rows, v) = (45_000u64, 50_257u64); // 2.26e9
    let far = Far::new(&[("rows", rows), ("V", v), ("k", 2)]);
    let logits = far.floats(rows * v);
    let last = at((rows - 1) * v);
    logits.upload(last + 7, &[5.0f32, 9.0, 1.0]).unwrap();
    let out = far.emulator.buffer("out", Scalar::I32, rows).unwrap();
    let from = [rows as u32 - 1, 0, 0];
    far.run_from(
        "argmax_sample",
        from,
        &[Argument::Buffer(&logits), Argument::Buffer(&out), Argument::Int(v as i32)],
    );
    assert_eq!(out.download::<i32>(at(rows) - 1, 1).unwrap(), [8]);
    far.run_from("topk_mask", from, &[Argument::Buffer(&logits), Argument::Int(v as i32), Argument::Int(2)]);
    let kept = logits.download::<f32>(last + 6, 5).unwrap();
    let masked = f32::NEG_INFINITY;
    assert_eq!(kept, [masked, 5.0, 9.0, masked, masked]);
}

#[test]
fn a_slot_past_2_to_the_31() {
    // Caches [n_blocks, n_kv_head, block_size, hs] of 2^32 elements each.
    let (n_blocks, n_kv_head, block_size, hs) = ((1u64 << 17) + 1, 8u64, 32u64, 128u64);
    let w = 2 * n_kv_head * hs;
    let far = Far::new(&[
        ("N", 1),
        ("W", w),
        ("k_column", 0),
        ("v_column", n_kv_head * hs),
        ("n_kv_head", n_kv_head),
        ("hs", hs),
        ("block_size", block_size),
        ("n_blocks", n_blocks),
        ("T", 1),
        ("nh", n_kv_head),
    ]);
    let elements = n_blocks * n_kv_head * block_size * hs;
    let (k_cache, v_cache, qkv) = (far.floats(elements), far.floats(elements), far.floats(w));
    let row: Vec<f32> = (0..w).map(|i| i as f32 + 1.0).collect();
    qkv.upload(0, &row).unwrap();
    let ints = |value: i32| {
        let buffer = far.emulator.buffer("ints", Scalar::I32, 1).unwrap();
        buffer.upload(0, &[value]).unwrap();
        buffer
    };
    let int = |value: u64| Argument::Int(value as i32);
    let (slots, blocks) = (ints(((n_blocks - 1) * block_size) as i32), ints(n_blocks as i32 - 1));
    let buffers = [&qkv, &slots, &k_cache, &v_cache].map(Argument::Buffer);
    let constants = [w, 0, n_kv_head * hs, n_kv_head, hs, block_size].map(int);
    far.run_from("cache_write", [0; 3], &[buffers.as_slice(), &constants].concat());
    let last_head = (((n_blocks - 1) * n_kv_head + n_kv_head - 1) * block_size) * hs;
    let wanted = &row[at((n_kv_head - 1) * hs)..][..at(hs)];
    assert_eq!(k_cache.download::<f32>(at(last_head), at(hs)).unwrap(), wanted);

    let (k, v) = (far.floats(n_kv_head * hs), far.floats(n_kv_head * hs));
    let buffers = [&k_cache, &v_cache, &blocks, &k, &v].map(Argument::Buffer);
    let constants = [1, hs, n_kv_head, n_kv_head, block_size].map(int);
    far.run_from("cache_gather", [0; 3], &[buffers.as_slice(), &constants].concat());
    assert_eq!(k.download::<f32>(0, at(n_kv_head * hs)).unwrap(), &row[..at(n_kv_head * hs)]);
    assert_eq!(v.download::<f32>(0, at(n_kv_head * hs)).unwrap(), &row[at(n_kv_head * hs)..]);
}
