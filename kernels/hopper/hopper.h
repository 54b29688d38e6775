// hopper.h - Hopper's own instructions under plain names: barriers in shared memory that count arrivals and bytes, the
// tile copy engine, products by a warpgroup (128 threads), clusters. For sm_90a, through NVRTC, without CUDA's headers.
// PTX ISA, sections 9.7.13 (mbarrier), 9.7.9.27 (cp.async.bulk.tensor), 9.7.15 (wgmma).
#pragma once
#define FN __device__ __forceinline__
#define INFINITY __int_as_float(0x7f800000)

typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong;

// Sixteen bits of storage.
struct half { ushort bits; };
struct bfloat { ushort bits; };

// An address in shared memory.
typedef uint Shared;
FN Shared shared_address(const void* p) { return (uint)__cvta_generic_to_shared(p); }
// The shared memory that the launch asks for.
FN unsigned char* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char dynamic_memory[];
    return dynamic_memory;
}

// ---- Neighbours in the queue: a launch may begin before the one before it has ended, and must wait for what that writes.

FN void await_dependency() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
FN void let_dependents_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

// ---- Barriers, by their address in shared memory. A phase ends when all arrivals and all announced bytes are in.

FN void barrier_init(uint barrier, uint arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
FN void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
FN void arrive(uint barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and announces the bytes of copies to come.
FN void arrive_expecting(uint barrier, uint bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Until the phase of this parity has ended.
FN void wait(uint barrier, uint parity) {
    asm volatile("{\n.reg .pred ended;\n"
                 "again:\nmbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n@ended bra over;\nbra again;\nover:\n}"
                 ::"r"(barrier), "r"(parity) : "memory");
}

// Numbered barriers between warpgroups.
FN void named_sync(uint name, uint threads) { asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory"); }
FN void named_arrive(uint name, uint threads) { asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory"); }

// ---- Registers handed from one warpgroup to another; a multiple of 8.

template <int COUNT> FN void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT> FN void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }

// ---- The tile copy engine.

// CUtensorMap: a tensor in device memory and the box of it that one copy takes, encoded by the host.
struct alignas(64) TensorMap { ulong opaque[16]; };

FN void prefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// The box at (x, y, z), zeros outside the tensor.
FN void copy_box(uint to, const TensorMap* map, int x, int y, int z, uint barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z) : "memory");
}

// `bytes` bytes as they lie, both ends and their number multiples of 16.
FN void copy(uint to, const void* from, uint bytes, uint barrier, ulong policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier), "l"(policy) : "memory");
}
// What is read once: the L2 cache lets go of it before all else.
FN ulong evict_first() {
    ulong policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
// Into the L2 cache.
FN void prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
FN uint4 load_shared(Shared address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
    return v;
}

// ---- Products by a warpgroup. Tiles lie in panels of 64 elements (128 bytes) a row, swizzled over 128 bytes, at
// multiples of 1,024 bytes.

// A panel, or the part of it that begins at `address`. leading: bytes from panel to panel, where a product spans several.
FN ulong describe(uint address, uint leading) {
    return (address & 0x3ffff) >> 4 | (ulong)(leading >> 4) << 16 | (ulong)(1024 >> 4) << 32 | 1ull << 62;
}

FN void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FN void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most the last PENDING groups of products are under way; from then on the sums may be read.
template <int PENDING, int N> FN void products_wait(float (&sums)[N]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
    #pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

#define LIST_8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define LIST_32(d, i) LIST_8(d, i), LIST_8(d, i + 8), LIST_8(d, i + 16), LIST_8(d, i + 24)
#define LIST_64(d) LIST_32(d, 0), LIST_32(d, 32)
#define NAMES_32 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
                 "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64 NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
                 "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// Lane l of warp w holds of 64 rows: d[i] at row 16 w + l / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (l % 4) + i % 2. The
// left factor in registers lies as d does, two columns a register.
#define PRODUCTS(T, TYPE)                                                                                                \
    /* d[64, 128] = or += A[64, 16] B[128, 16]^T, both in shared memory, rows along the sum. */                         \
    FN void multiply(float (&d)[64], ulong a, ulong b, bool add, T) {                                                    \
        asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"                                                    \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " {" NAMES_64 "}, %64, %65, add, 1, 1, 0, 0;\n}" \
                     : LIST_64(d) : "l"(a), "l"(b), "r"((int)add));                                                     \
    }                                                                                                                    \
    /* d[64, 128] += A[64, 16] B[16, 128], A in registers, B's rows across the sum. */                                  \
    FN void multiply_rows(float (&d)[64], const uint* a, ulong b, T) {                                                   \
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE                                        \
                     " {" NAMES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"                                           \
                     : LIST_64(d) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                 \
    }                                                                                                                    \
    FN void multiply_rows(float (&d)[32], const uint* a, ulong b, T) {                                                   \
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE                                         \
                     " {" NAMES_32 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"                                           \
                     : LIST_32(d, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                              \
    }                                                                                                                    \
    FN uint pack(float low, float high, T) {                                                                             \
        uint both;                                                                                                       \
        asm("cvt.rn." TYPE "x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));                                     \
        return both;                                                                                                     \
    }
PRODUCTS(half, "f16") PRODUCTS(bfloat, "bf16")

FN float warp_sum(float x) {
    #pragma unroll
    for (uint m = 16; m > 0; m /= 2) x += __shfl_xor_sync(~0u, x, m);
    return x;
}

FN float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

FN float2 widen2(uint two, bfloat) { return make_float2(__uint_as_float(two << 16), __uint_as_float(two & 0xffff0000u)); }
FN float2 widen2(uint two, half) {
    float2 x;
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}"
        : "=f"(x.x), "=f"(x.y) : "r"(two));
    return x;
}

// ---- Memory that other threadgroups of the launch write and read meanwhile: each value whole, in no order.

FN void load_relaxed(float4& v, const float* p) {
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory");
}
FN void load_relaxed(float2& v, const float* p) {
    asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p) : "memory");
}
FN void load_relaxed(ulong& a, ulong& b, const void* p) {
    asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(p) : "memory");
}
FN void store_relaxed(float* p, float x) { asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(x) : "memory"); }
FN void store_relaxed(void* p, ulong a, ulong b) {
    asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(p), "l"(a), "l"(b) : "memory");
}
// What was written before, others see before what is written after; what is read after, as it is after what was read before.
FN void fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
// The same value, of which the compiler knows nothing: it then computes what follows from it where that is used, instead of
// keeping it in registers.
FN const float* opaque(const float* p) {
    asm volatile("" : "+l"(p));
    return p;
}
FN uint opaque(uint x) {
    asm volatile("" : "+r"(x));
    return x;
}
// Called between two looks at such memory.
FN void look_again(uint looks) {
    if (looks > 1u << 24) __trap();                     // what does not come by now never comes
}

// ---- Clusters: threadgroups that run at the same time and reach each other's shared memory.

FN uint cluster_rank() {
    uint rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
FN void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
FN void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
FN void cluster_sync() {
    cluster_arrive();
    cluster_wait();
}

// The same variable in the threadgroup of that rank.
template <class T> FN uint in_group(T* variable, uint rank) {
    uint address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(variable)), "r"(rank));
    return address;
}
FN void cluster_store(uint address, uint value) {
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}
FN void cluster_store(uint address, ulong value) {
    asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(address), "l"(value) : "memory");
}
// What was there before.
FN uint cluster_add(uint address, uint value) {
    uint before;
    asm volatile("atom.shared::cluster.add.u32 %0, [%1], %2;" : "=r"(before) : "r"(address), "r"(value) : "memory");
    return before;
}
