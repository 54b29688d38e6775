//! scratch
#[path = "../tests/common/mod.rs"]
mod common;
use std::time::Instant;
use thermite_device::Outputs;
fn main() {
    for threads in [1, 2] {
        let mut r = common::Runner::new(
            common::cpu(threads, thermite_device::cpu::Isa::detect()),
            thermite_model::Options::default(),
            1,
        );
        let p: Vec<u32> = (0..480u32).map(|i| (i * 31 + 5) % 4096).collect();
        let mut pre = vec![];
        for _ in 0..15 {
            let t = Instant::now();
            r.prompt(&p);
            pre.push(480.0 / t.elapsed().as_secs_f64());
        }
        pre.sort_by(f64::total_cmp);
        let mut dec = vec![];
        for _ in 0..15 {
            r.prompt(&p[..8]);
            let t = Instant::now();
            for i in 0..128 {
                r.run(&[(0, &[9], 8 + i, Outputs::Last)]);
            }
            dec.push(128.0 / t.elapsed().as_secs_f64());
        }
        dec.sort_by(f64::total_cmp);
        println!(
            "threads {threads}: prefill {:.0} (max {:.0}) decode {:.0} (max {:.0})",
            pre[7], pre[14], dec[7], dec[14]
        );
    }
}
