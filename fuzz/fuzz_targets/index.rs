//! Any bytes as an index of shards: an error, or names that stay in the index's folder.
//! `cargo fuzz run index`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thermite_formats::ShardIndex;

fuzz_target!(|json: &[u8]| {
    let folder = Path::new("/models/fuzzed");
    let Ok(index) = ShardIndex::parse(&folder.join("index"), json) else {
        return;
    };
    for shard in index.shards() {
        assert_eq!(folder.join(shard).parent(), Some(folder));
    }
});
