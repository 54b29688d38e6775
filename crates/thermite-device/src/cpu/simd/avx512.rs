//! AVX-512 with VNNI: what quantised products use. Vectors of eight floats are those of AVX2.

use super::Avx2;

/// The proof that the processor has AVX2 and AVX-512 F, BW, VL and VNNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avx512(Avx2);

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        Avx2::detect().filter(|_| has).map(Self)
    }

    pub(crate) const fn avx2(self) -> Avx2 {
        self.0
    }
}
