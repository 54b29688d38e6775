//! AMX: the tile registers of a processor, and the system's permission to use them.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use super::Avx512;

/// The proof that the processor has AMX for bytes and bfloat16 besides AVX-512, and that the system lets this
/// process use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amx(Avx512);

impl Amx {
    pub(crate) fn detect() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        let avx512 = Avx512::detect()?;
        ALLOWED.get_or_init(|| is_there() && is_saved() && is_permitted()).then_some(Self(avx512))
    }

    pub(crate) const fn avx512(self) -> Avx512 {
        self.0
    }
}

/// Whether the processor has tiles, and products of bytes and of bfloat16 on them.
fn is_there() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    const ALL: u32 = BF16 | TILE | INT8;
    std::arch::x86_64::__cpuid_count(7, 0).edx & ALL == ALL
}

/// Whether the system saves tiles when it changes threads.
fn is_saved() -> bool {
    const TILES: u64 = 3 << 17;
    // SAFETY: where there is AVX-512 there is XGETBV, and a system that uses it.
    let saved = unsafe { std::arch::x86_64::_xgetbv(0) };
    saved & TILES == TILES
}

/// Asks for tiles for all threads of this process: Linux keeps the 8 KiB a thread for those who ask.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let answer: i64;
    // SAFETY: the call takes two numbers and touches no memory of ours; it gives 0, or an error that is negative.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}
