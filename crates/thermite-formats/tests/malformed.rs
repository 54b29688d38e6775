//! Files that are wrong in every way: each is refused at once, by name and number, and nothing is allocated for what
//! the file only claims to hold.

#![allow(clippy::unwrap_used)] // a test may
#![allow(unsafe_code, reason = "an allocator that counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use common::gguf::{ARRAY, BOOL, Builder, F32, I32, STRING, U8, U32, U64, array, small, string};
use common::handmade;
use thermite_formats::{Gguf, Header, ShardIndex};

thread_local! {
    /// Bytes that this thread holds, and the most that it ever held.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

fn count(change: impl FnOnce(usize) -> usize) {
    // a thread that ends may free after its count is gone
    let _ = HELD.try_with(|held| {
        let now = change(held.get().0);
        held.set((now, now.max(held.get().1)));
    });
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(|held| held + layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(|held| held.saturating_sub(layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Beyond the file's own size: texts of errors, a few tables.
const ALLOWANCE: usize = 16 << 10;
/// On a machine that is busy with other tests, too.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The error of reading `file`, which must come at once and without allocating more than the file's size.
fn refused<T, E: ToString>(name: &str, len: usize, read: impl FnOnce() -> Result<T, E>) -> String {
    let before = HELD.get().0;
    HELD.set((before, before));
    let began = Instant::now();
    let error = read().err().unwrap_or_else(|| panic!("{name} was accepted")).to_string();
    let (took, held) = (began.elapsed(), HELD.get().1 - before);
    assert!(took < AT_ONCE, "{name}: {took:?}");
    assert!(held <= len + ALLOWANCE, "{name}: {held} bytes held for a file of {len}");
    error
}

fn refused_gguf(name: &str, file: Vec<u8>) -> String {
    let len = file.len();
    refused(name, len, move || Gguf::in_memory("a.gguf", file))
}

/// `small()` with its first bytes, count fields or the like overwritten.
fn overwritten(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = small().build();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Arrays within arrays, so many deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut value = array(U8, 0, &[]);
    for _ in 1..depth {
        value = array(ARRAY, 1, &value);
    }
    value
}

fn one_tensor(dims: &[u64], ggml_type: u32, offset: u64) -> Builder {
    Builder::default().tensor("w", dims, ggml_type, offset).data(64)
}

/// Wrong GGUF files, each with what is wrong about it.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let pair = |value_type, value: Vec<u8>| Builder::default().pair("k", value_type, value).build();
    let aligned =
        |value: u32| one_tensor(&[1], 0, 0).pair("general.alignment", U32, value.to_le_bytes()).build();
    let huge = u64::MAX;
    vec![
        // the header
        ("empty", vec![]),
        ("two bytes", b"GG".to_vec()),
        ("another format", b"PK\x03\x04 and what follows it in a ZIP file".to_vec()),
        ("magic in lower case", overwritten(0, b"gguf")),
        ("magic alone", b"GGUF".to_vec()),
        ("version 0", overwritten(4, &0_u32.to_le_bytes())),
        ("version 1", overwritten(4, &1_u32.to_le_bytes())),
        ("version 4", overwritten(4, &4_u32.to_le_bytes())),
        ("big-endian", overwritten(4, &3_u32.to_be_bytes())),
        ("2^64 - 1 tensors", overwritten(8, &huge.to_le_bytes())),
        ("2^40 tensors", overwritten(8, &(1_u64 << 40).to_le_bytes())),
        ("2^64 - 1 pairs", overwritten(16, &huge.to_le_bytes())),
        ("one pair too many", Builder { pair_count: Some(8), ..small() }.build()),
        ("one pair too few", Builder { pair_count: Some(6), ..small() }.build()),
        ("one tensor too many", Builder { tensor_count: Some(4), ..small() }.build()),
        // keys and values
        ("a key of 2^63 bytes", {
            let file = Builder { pair_count: Some(1), ..Builder::default() }.build();
            [&file[..], &(1_u64 << 63).to_le_bytes(), &[0; 64]].concat()
        }),
        ("a key of 65,536 bytes", Builder::default().pair([b'k'; 1 << 16], BOOL, [1]).build()),
        ("a key that is not UTF-8", Builder::default().pair(b"k\xff", BOOL, [1]).build()),
        ("a key twice", small().pair("big", BOOL, [1]).build()),
        ("value type 13", pair(13, vec![0; 16])),
        ("value type 2^32 - 1", pair(u32::MAX, vec![0; 16])),
        ("a bool of 2", pair(BOOL, vec![2])),
        ("a u32 cut short", pair(U32, vec![0; 3])),
        ("a u64 cut short", pair(U64, vec![0; 7])),
        ("a string of 2^64 - 1 bytes", pair(STRING, [&huge.to_le_bytes()[..], b"abc"].concat())),
        ("a string one byte too long", pair(STRING, [&4_u64.to_le_bytes()[..], b"abc"].concat())),
        ("a string that is not UTF-8", pair(STRING, string(b"ab\xc3"))),
        ("an array without a length", pair(ARRAY, U32.to_le_bytes().to_vec())),
        ("an array of type 99", pair(ARRAY, array(99, 1, &[0; 8]))),
        ("an array of 2^64 - 1 u32", pair(ARRAY, array(U32, huge, &[0; 64]))),
        ("an array of 2^62 u32", pair(ARRAY, array(U32, 1 << 62, &[0; 64]))),
        ("an array of 2^61 strings", pair(ARRAY, array(STRING, 1 << 61, &[0; 64]))),
        ("an array one element short", pair(ARRAY, array(U32, 3, &[0; 8]))),
        ("an array of strings, the second too long", {
            let strings = [string("ok"), [&99_u64.to_le_bytes()[..], b"no"].concat()].concat();
            pair(ARRAY, array(STRING, 2, &strings))
        }),
        ("an array with a bool of 7", pair(ARRAY, array(BOOL, 3, &[0, 1, 7]))),
        ("arrays 5 deep", pair(ARRAY, nested(5))),
        ("arrays 5,000 deep", pair(ARRAY, nested(5_000))),
        ("an array of 2^60 arrays", pair(ARRAY, array(ARRAY, 1 << 60, &nested(1)))),
        // alignment
        ("alignment 0", aligned(0)),
        ("alignment 33", aligned(33)),
        ("alignment 2^31", aligned(1 << 31)),
        (
            "alignment as a string",
            one_tensor(&[1], 0, 0).pair("general.alignment", STRING, string("32")).build(),
        ),
        (
            "alignment -32",
            one_tensor(&[1], 0, 0).pair("general.alignment", I32, (-32_i32).to_le_bytes()).build(),
        ),
        (
            "alignment NaN",
            one_tensor(&[1], 0, 0).pair("general.alignment", F32, f32::NAN.to_le_bytes()).build(),
        ),
        // tensors
        ("a tensor's name of 2^63 bytes", {
            let mut file = Builder { tensor_count: Some(1), ..Builder::default() }.build();
            file.extend((1_u64 << 63).to_le_bytes());
            file.extend([0; 64]);
            file
        }),
        (
            "a tensor's name that is not UTF-8",
            Builder::default().tensor(b"w\x80", &[1], 0, 0).data(4).build(),
        ),
        ("a tensor twice", one_tensor(&[1], 0, 0).tensor("w", &[1], 0, 32).build()),
        ("five dimensions", one_tensor(&[1; 5], 0, 0).build()),
        ("2^32 - 1 dimensions", {
            let mut file = one_tensor(&[1], 0, 0).build();
            let at = 24 + 8 + 1;
            file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            file
        }),
        ("dimensions whose product overflows", one_tensor(&[1 << 32, 1 << 32], 0, 0).build()),
        ("a size that overflows", one_tensor(&[1 << 62, 1], 0, 0).build()),
        ("four dimensions of 2^64 - 1", one_tensor(&[huge; 4], 0, 0).build()),
        ("more elements than the file has", one_tensor(&[17], 0, 0).build()),
        ("a row that is not whole blocks", one_tensor(&[16, 2], 8, 0).build()),
        ("a row of 128 in blocks of 256", one_tensor(&[128, 2], 12, 0).build()),
        ("element type IQ2_XXS", one_tensor(&[256], 16, 0).build()),
        ("element type 4, which was removed", one_tensor(&[32], 4, 0).build()),
        ("element type 77", one_tensor(&[1], 77, 0).build()),
        ("an offset of 4", one_tensor(&[1], 0, 4).build()),
        ("an offset past the end", one_tensor(&[1], 0, 64).build()),
        ("an offset of 2^64 - 32", one_tensor(&[1], 0, huge - 31).build()),
        ("overlapping tensors", one_tensor(&[16], 0, 0).tensor("v", &[4], 0, 32).build()),
        ("tensors in one place", one_tensor(&[4], 0, 32).tensor("v", &[4], 0, 32).build()),
        ("no data", Builder::default().tensor("w", &[1], 0, 0).build()),
    ]
}

#[test]
fn gguf_files() {
    let files = malformed();
    assert!(files.len() >= 40);
    let report = files.into_iter().map(|(name, file)| format!("{name}\n    {}\n", refused_gguf(name, file)));
    insta::assert_snapshot!(report.collect::<String>());
}

#[test]
fn a_gguf_file_truncated_anywhere() {
    let file = small().build();
    for len in 0..file.len() - 8 {
        // the last tensor ends eight bytes before the file
        let error = refused_gguf("truncated", file[..len].to_vec());
        assert!(error.starts_with("a.gguf: "), "{len}: {error}");
    }
    assert!(Gguf::in_memory("a.gguf", file).is_ok());
}

/// Every byte of the description, set to the values that break most.
#[test]
fn a_gguf_file_with_any_byte_changed() {
    let file = small().build();
    let description = file.len() - small().data.len();
    for at in 0..description {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = file.clone();
            changed[at] = byte;
            let len = changed.len();
            // right or wrong: it is read at once, and costs no more than it is long
            let _ = refused("changed", len, move || {
                Err::<(), String>(
                    Gguf::in_memory("a.gguf", changed).map_or_else(|e| e.to_string(), |_| String::new()),
                )
            });
        }
    }
}

/// The most that many small pairs and tensors can cost: a fixed multiple of their bytes.
#[test]
fn large_descriptions_cost_in_proportion() {
    let mut many = Builder::default();
    for i in 0..20_000 {
        many = many.pair(format!("{i:x}"), BOOL, [1]).tensor(format!("{i:x}"), &[], 0, 32 * i);
    }
    let file = many.data(32 * 20_000).build();
    let described = file.len() - 32 * 20_000;
    let before = HELD.get().0;
    HELD.set((before, before));
    let gguf = Gguf::in_memory("a.gguf", file).unwrap();
    let held = HELD.get().1 - before;
    assert_eq!((gguf.metadata.len(), gguf.tensors.len()), (20_000, 20_000));
    assert!(held < 10 * described, "{held} bytes for a description of {described}");
}

#[test]
fn safetensors_files() {
    let header = |json: &str, data| handmade(json, data);
    let with_len = |len: u64| [&len.to_le_bytes()[..], b"{}"].concat();
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("seven bytes", vec![0; 7]),
        ("a header of 2^64 - 1 bytes", with_len(u64::MAX)),
        ("a header of 10^8 bytes", with_len(100_000_000)),
        ("a header one byte too long", with_len(3)),
        ("not JSON", header("nothing", 0)),
        ("an array", header("[]", 0)),
        ("nested 50,000 deep", header(&format!("{{\"a\":{}", "[".repeat(50_000)), 0)),
        ("a GGUF file", small().build()),
        ("type Q4_K", header(&entry("Q4_K", "[256]", "[0,144]"), 144)),
        ("NaN for an offset", header(&entry("F32", "[1]", "[0,NaN]"), 4)),
        ("a shape of 1e400", header(&entry("F32", "[1e400]", "[0,4]"), 4)),
        ("a shape of -1", header(&entry("F32", "[-1]", "[0,4]"), 4)),
        ("a product that overflows", header(&entry("F32", "[4294967296,4294967296]", "[0,0]"), 0)),
        ("offsets past the end", header(&entry("U8", "[100]", "[0,100]"), 99)),
        (
            "offsets at 2^64 - 1",
            header(&entry("U8", "[1]", "[18446744073709551614,18446744073709551615]"), 1),
        ),
        ("offsets the wrong way round", header(&entry("U8", "[1]", "[1,0]"), 1)),
        ("a span that does not fit the shape", header(&entry("F16", "[3]", "[0,4]"), 4)),
        ("half a byte", header(&entry("F4", "[1]", "[0,1]"), 1)),
        ("bytes after the last tensor", header(&entry("U8", "[1]", "[0,1]"), 2)),
    ];
    let report = files.into_iter().map(|(name, file)| {
        let error = refused(name, file.len(), || Header::parse(Path::new("a.safetensors"), &file));
        format!("{name}\n    {error}\n")
    });
    insta::assert_snapshot!(report.collect::<String>());
}

#[test]
fn shard_indexes() {
    let map = |shard: &str| format!(r#"{{"weight_map":{{"a":{shard}}}}}"#);
    let files = [
        ("empty", String::new()),
        ("no map", "{}".to_owned()),
        ("a number for a shard", map("3")),
        ("the folder above", map(r#""..""#)),
        ("a way out", map(r#""../x.safetensors""#)),
        ("an absolute path", map(r#""/etc/passwd""#)),
        ("a NUL", map(r#""x\u0000""#)),
        ("nested 50,000 deep", map(&"[".repeat(50_000))),
    ];
    let report = files.into_iter().map(|(name, json)| {
        let error = refused(name, json.len(), || ShardIndex::parse(Path::new("index.json"), json.as_bytes()));
        format!("{name}\n    {error}\n")
    });
    insta::assert_snapshot!(report.collect::<String>());
}
