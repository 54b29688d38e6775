// flash_attention.cu - flash_attention_simd of flash_attention.metal on Hopper: products by whole warpgroups, tiles
// fetched by the copy engine. Shah et al., "FlashAttention-3", arXiv 2407.08608, describes the schedule.
//
//   out[q] = sum over k <= q of p[q, k] V[k],   p = softmax over k of dot(Q[q], K[k]) / sqrt(hs)
//
// Shapes    Q, K, V, out [heads, T, hs], half or bfloat; hs 64 or 128; any T.
// Dispatch  one threadgroup a multiprocessor, or fewer where there are fewer tiles; 128 (GROUPS + 1) threads. Each takes
//           tiles of 64 GROUPS queries of one head, turn by turn, the longest first.
// Copies    Q, K, V as tensors (hs, T, heads); boxes (64, 64, 1) of Q, (64, 128, 1) of K and V; swizzle of 128 bytes.
//
// One warpgroup's first thread fetches, the others multiply, 64 queries each. While a warpgroup takes the exponentials of
// its scores, the next one has the tensor cores (`turn_begin`, `turn_end`), and its own product with V is under way.
#include "hopper.h"

constexpr int KEYS = 128;               // a tile
constexpr int STAGES = 2;               // tiles of K and of V at a time
constexpr int PANEL = 64;               // columns of a tile that lie together

template <class E, int D, int GROUPS> struct Tiles {
    E q[GROUPS][D / PANEL][64][PANEL];
    E k[STAGES][D / PANEL][KEYS][PANEL];
    E v[STAGES][D / PANEL][KEYS][PANEL];
    ulong q_full, q_free;
    ulong k_full[STAGES], k_free[STAGES], v_full[STAGES], v_free[STAGES];
};

// The tiles of a threadgroup. Every other round runs backwards, which evens out what the threadgroups have to do.
struct Schedule {
    int blocks, heads, round;
    int block, head;
    FN bool next() {
        const int place = round % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
        const int index = round++ * gridDim.x + place;
        block = blocks - 1 - index / heads;
        head = index % heads;
        return index < blocks * heads;
    }
};

// Which of the stages, and the parity of its phase.
struct Stage {
    int at;
    uint parity;
    FN void next() {
        at = at + 1 == STAGES ? 0 : at + 1;
        parity ^= at == 0;
    }
};

FN int key_tiles(int last_query, int T) { return (min(last_query + 1, T) + KEYS - 1) / KEYS; }

template <class E, int D, int GROUPS>
FN void fetch(const TensorMap* q_map, const TensorMap* k_map, const TensorMap* v_map, Tiles<E, D, GROUPS>& tiles,
              Schedule work, int T) {
    constexpr uint TILE = KEYS * D * sizeof(E);
    Stage stage = { 0, 1 };             // free from the start
    uint q_parity = 1;
    while (work.next()) {
        const int q0 = work.block * 64 * GROUPS;
        const uint q_full = shared_address(&tiles.q_full);
        wait(shared_address(&tiles.q_free), q_parity);
        q_parity ^= 1;
        arrive_expecting(q_full, 64 * GROUPS * D * sizeof(E));
        for (int g = 0; g < GROUPS; ++g)
            for (int p = 0; p < D / PANEL; ++p)
                copy_box(shared_address(tiles.q[g][p]), q_map, p * PANEL, q0 + g * 64, work.head, q_full);
        for (int j = key_tiles(q0 + 64 * GROUPS - 1, T) - 1; j >= 0; --j) {
            const uint k_full = shared_address(&tiles.k_full[stage.at]), v_full = shared_address(&tiles.v_full[stage.at]);
            wait(shared_address(&tiles.k_free[stage.at]), stage.parity);
            arrive_expecting(k_full, TILE);
            for (int p = 0; p < D / PANEL; ++p)
                copy_box(shared_address(tiles.k[stage.at][p]), k_map, p * PANEL, j * KEYS, work.head, k_full);
            wait(shared_address(&tiles.v_free[stage.at]), stage.parity);
            arrive_expecting(v_full, TILE);
            for (int p = 0; p < D / PANEL; ++p)
                copy_box(shared_address(tiles.v[stage.at][p]), v_map, p * PANEL, j * KEYS, work.head, v_full);
            stage.next();
        }
    }
}

// s[64, KEYS] = Q K^T.
template <class E, int D> FN void scores(float (&s)[KEYS / 2], const E* q, const E* k) {
    const ulong a = describe(shared_address(q), 0), b = describe(shared_address(k), 0);
    products_begin();
    #pragma unroll
    for (int c = 0; c < D / 16; ++c) {  // 16 columns are 32 bytes of a panel's row
        const ulong step = c % 4 * 2, panel = c / 4;
        multiply(s, a + step + panel * (64 * PANEL * 2 / 16), b + step + panel * (KEYS * PANEL * 2 / 16), c > 0, E());
    }
    products_commit();
}

// o[64, D] += P V.
template <class E, int D> FN void mix(float (&o)[D / 2], const uint (&p)[KEYS / 4], const E* v) {
    const ulong b = describe(shared_address(v), KEYS * PANEL * sizeof(E));
    products_begin();
    #pragma unroll
    for (int c = 0; c < KEYS / 16; ++c) multiply_rows(o, p + c * 4, b + c * (16 * PANEL * 2 / 16), E());
    products_commit();
}

// The running softmax of a thread's two rows, of which four lanes share each.
struct Softmax {
    float largest[2], sum[2], shrink[2];

    // s becomes e^(scale s - the row's maximum), scale2 = scale / ln 2; what was summed before counts `shrink` times.
    FN void pass(float (&s)[KEYS / 2], float scale2) {
        #pragma unroll
        for (int r = 0; r < 2; ++r) {
            float top = largest[r];
            #pragma unroll
            for (int i = 2 * r; i < KEYS / 2; i += 4) top = fmaxf(top, fmaxf(s[i], s[i + 1]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            const float base = top == -INFINITY ? 0.0f : top * scale2;
            shrink[r] = exp2_fast(fmaf(largest[r], scale2, -base));
            largest[r] = top;
            float added = 0.0f;
            #pragma unroll
            for (int i = 2 * r; i < KEYS / 2; i += 4) {
                s[i] = exp2_fast(fmaf(s[i], scale2, -base));
                s[i + 1] = exp2_fast(fmaf(s[i + 1], scale2, -base));
                added += s[i] + s[i + 1];
            }
            sum[r] = fmaf(sum[r], shrink[r], added);
        }
    }
    template <int N> FN void rescale(float (&o)[N]) {
        #pragma unroll
        for (int i = 0; i < N; ++i) o[i] *= shrink[i / 2 % 2];
    }
    FN float inverse(int r) {
        float all = sum[r];
        all += __shfl_xor_sync(~0u, all, 1);
        all += __shfl_xor_sync(~0u, all, 2);
        return all == 0.0f ? 0.0f : 1.0f / all;
    }
};

// Keys first_key .. of a thread's two rows, `row` and the eighth after it.
FN void mask(float (&s)[KEYS / 2], int row, int first_key) {
    #pragma unroll
    for (int i = 0; i < KEYS / 2; ++i) {
        const int key = first_key + 8 * (i / 4) + i % 2;
        if (key > row + 8 * (i / 2 % 2)) s[i] = -INFINITY;
    }
}

template <class E> FN void narrow(uint (&p)[KEYS / 4], const float (&s)[KEYS / 2]) {
    #pragma unroll
    for (int i = 0; i < KEYS / 4; ++i) p[i] = pack(s[2 * i], s[2 * i + 1], E());
}

// The warpgroups have the tensor cores in turn: names 1 .. GROUPS.
template <int GROUPS> FN void turn_begin(int group) { named_sync(1 + group, 256); }
template <int GROUPS> FN void turn_end(int group) { named_arrive(1 + (group + 1) % GROUPS, 256); }

template <class E, int D, int GROUPS>
FN void attend(E* out, Tiles<E, D, GROUPS>& tiles, Schedule work, int T) {
    const int group = threadIdx.x / 128 - 1, lane = threadIdx.x % 32;
    const bool first = lane == 0;       // arrives for its warp
    const float scale2 = rsqrtf((float)D) * 1.44269504088896f;
    Stage stage = { 0, 0 };
    uint q_parity = 0;
    if (group == 0) named_arrive(1, 256);
    while (work.next()) {
        const int q0 = work.block * 64 * GROUPS + group * 64;
        const int row = q0 + threadIdx.x / 32 % 4 * 16 + lane / 4;
        float s[KEYS / 2], o[D / 2];
        uint p[KEYS / 4];
        Softmax softmax = { { -INFINITY, -INFINITY }, { 0.0f, 0.0f }, { 0.0f, 0.0f } };
        #pragma unroll
        for (int i = 0; i < D / 2; ++i) o[i] = 0.0f;
        int j = key_tiles(work.block * 64 * GROUPS + 64 * GROUPS - 1, T) - 1;

        wait(shared_address(&tiles.q_full), q_parity);
        q_parity ^= 1;
        wait(shared_address(&tiles.k_full[stage.at]), stage.parity);
        scores<E, D>(s, tiles.q[group][0][0], tiles.k[stage.at][0][0]);
        products_wait<0>(s);
        if (first) arrive(shared_address(&tiles.k_free[stage.at]));
        mask(s, row - lane % 4 * 2, j * KEYS);
        softmax.pass(s, scale2);
        narrow<E>(p, s);

        while (--j >= 0) {
            Stage before = stage;
            stage.next();
            wait(shared_address(&tiles.k_full[stage.at]), stage.parity);
            turn_begin<GROUPS>(group);
            scores<E, D>(s, tiles.q[group][0][0], tiles.k[stage.at][0][0]);
            softmax.rescale(o);
            wait(shared_address(&tiles.v_full[before.at]), before.parity);
            mix<E, D>(o, p, tiles.v[before.at][0][0]);
            turn_end<GROUPS>(group);
            products_wait<1>(s);
            if (first) arrive(shared_address(&tiles.k_free[stage.at]));
            if (j * KEYS + KEYS - 1 > q0) mask(s, row - lane % 4 * 2, j * KEYS);
            softmax.pass(s, scale2);
            products_wait<0>(o);
            if (first) arrive(shared_address(&tiles.v_free[before.at]));
            narrow<E>(p, s);
        }
        if (first) arrive(shared_address(&tiles.q_free));
        softmax.rescale(o);
        wait(shared_address(&tiles.v_full[stage.at]), stage.parity);
        mix<E, D>(o, p, tiles.v[stage.at][0][0]);
        products_wait<0>(o);
        if (first) arrive(shared_address(&tiles.v_free[stage.at]));
        stage.next();

        #pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float scale = softmax.inverse(r);
            if (row + 8 * r >= T) continue;
            E* to = out + ((ulong)work.head * T + row + 8 * r) * D + lane % 4 * 2;
            #pragma unroll
            for (int c = 0; c < D / 8; ++c)
                *(uint*)(to + c * 8) = pack(o[4 * c + 2 * r] * scale, o[4 * c + 2 * r + 1] * scale, E());
        }
    }
}

template <class E, int D, int GROUPS>
FN void flash(const TensorMap* q_map, const TensorMap* k_map, const TensorMap* v_map, E* out, int T, int heads) {
    extern __shared__ unsigned char memory[];
    Tiles<E, D, GROUPS>& tiles = *(Tiles<E, D, GROUPS>*)(((ulong)memory + 1023) / 1024 * 1024);
    if (threadIdx.x == 0) {
        barrier_init(shared_address(&tiles.q_full), 1);
        barrier_init(shared_address(&tiles.q_free), GROUPS * 4);
        for (int i = 0; i < STAGES; ++i) {
            barrier_init(shared_address(&tiles.k_full[i]), 1);
            barrier_init(shared_address(&tiles.v_full[i]), 1);
            barrier_init(shared_address(&tiles.k_free[i]), GROUPS * 4);
            barrier_init(shared_address(&tiles.v_free[i]), GROUPS * 4);
        }
        barrier_init_done();
    }
    __syncthreads();
    await_dependency();
    const Schedule work = { (T + 64 * GROUPS - 1) / (64 * GROUPS), heads, 0, 0, 0 };
    if (threadIdx.x < 128) {
        give_registers<GROUPS == 2 ? 40 : 32>();
        if (threadIdx.x == 0) fetch<E, D, GROUPS>(q_map, k_map, v_map, tiles, work, T);
    } else {
        take_registers<GROUPS == 2 ? 232 : 160>();
        attend<E, D, GROUPS>(out, tiles, work, T);
    }
}

#define FLASH(name, E, D, GROUPS)                                                                                       \
    extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)                                                 \
        thermite_flash_attention_simd_##name(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k,  \
                                             const __grid_constant__ TensorMap v, E* out, int T, int heads) {           \
        flash<E, D, GROUPS>(&q, &k, &v, out, T, heads);                                                                 \
    }
FLASH(f16_hs64, half, 64, 3) FLASH(f16_hs128, half, 128, 2)
FLASH(bf16_hs64, bfloat, 64, 3) FLASH(bf16_hs128, bfloat, 128, 2)
