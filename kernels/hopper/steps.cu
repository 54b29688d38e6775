// steps.cu - decoding steps of one sequence in one launch: the threadgroups stay, and pass each other the vectors between a
// step's products, where a graph of launches ends one kernel and begins the next.
//
//   steps   embedding, layers, head and the likeliest token of some steps in a row: embedding_forward (and
//           positional_embedding_add), decode_qkv, decode_attend, decode_output, decode_swiglu (or another of its kind) and
//           decode_down for each layer, decode_head, argmax_sample, advance_rows
//
// Weights are no part of what a step waits for: they come into rings in shared memory (ring.h), in the order of the step's
// products and on into the next step, whatever the vectors wait for. Vectors come by mail (mail.h). A place in the mail is
// written again only when all its readers have seen what it held: who writes has had mail of this layer, or of the layer
// before, from everybody, and everybody reads before writing, since each threadgroup has rows of a layer's every product.
//
// Dispatch  threadgroups (program.groups) of THREADS and a warp more, all resident at once (a cooperative launch); shared
//           memory: as thermite_steps lays it out.
// Assumes   lengths multiples of 8, all else as decode.metal; no other launch uses the program at the same time.
#include "hopper.h"
#include "order.h"
#include "program.h"
#include "mail.h"
#include "ring.h"

// A threadgroup's state, and what its THREADS threads do.
struct Group {
    const Program& program;
    const Rings& rings;
    const Product* products;
    const Cache* caches;
    ulong* best;                                        // of each warp
    float* norms;                                       // of each warp: squares; or count, mean and squares about it
    float* sums;
    Turn turn;                                          // of this warp's ring
    uint base;                                          // units of the products before, modulo WARPS
    uint round;                                         // of the mail
    float own;                                          // the residual stream's element that this thread adds to
    int token;
    int position;
    int slot;                                           // of the cache

    FN uint tid() const { return threadIdx.x; }
    FN uint lane() const { return threadIdx.x % 32; }
    FN uint warp() const { return threadIdx.x / 32; }
    FN static void sync() { named_sync(1, THREADS); }

    // ---- What a product reads, into x, which is complete when all have come to the end.

    FN float embedded(uint c) const {
        const float x = widen(program.embedding + (ulong)token * program.n_embd + c);
        return program.positional ? x + widen(program.positional + (ulong)position * program.n_embd + c) : x;
    }
    FN float4 embedded4(uint c) const {
        const float4 x = widen4(program.embedding + (ulong)token * program.n_embd + c);
        return program.positional ? x + widen4(program.positional + (ulong)position * program.n_embd + c) : x;
    }

    // The residual stream, normed; without mail the embedding. RMS norm's factor is left to `scale`.
    FN void gather_normed(const Product& p, const float* mail, uint sent, float* x) {
        const uint n = p.cols, quads = n / 4;
        float4 gamma[QUADS], beta[QUADS], v[QUADS];
        #pragma unroll
        for (uint i = 0; i < QUADS; ++i) {
            const uint q = tid() + i * THREADS;
            v[i] = gamma[i] = beta[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (q >= quads) continue;
            gamma[i] = __ldg((const float4*)p.gamma + q);
            if (NORM == LAYER) beta[i] = __ldg((const float4*)p.beta + q);
            if (!mail) v[i] = embedded4(4 * q);
        }
        if (mail) receive_quads(v, mail, quads, tid(), sent);
        if (NORM == RMS) {
            float squares = 0.0f;
            #pragma unroll
            for (uint i = 0; i < QUADS; ++i) {
                if (tid() + i * THREADS < quads) put(x, n, tid() + i * THREADS, v[i] * gamma[i]);
                squares += sum4(v[i] * v[i]);
            }
            squares = warp_sum(squares);
            if (lane() == 0) norms[warp()] = squares;
            sync();
            return;
        }
        // each warp's mean and the squares about it, then all warps together
        float count = 0.0f, sum = 0.0f, squares = 0.0f;
        #pragma unroll
        for (uint i = 0; i < QUADS; ++i) {
            count += tid() + i * THREADS < quads ? 4.0f : 0.0f;
            sum += sum4(v[i]);
        }
        count = warp_sum(count);
        const float mean = warp_sum(sum) * (count > 0.0f ? reciprocal(count) : 0.0f);
        #pragma unroll
        for (uint i = 0; i < QUADS; ++i) {
            const float4 off = v[i] + -mean;
            squares += tid() + i * THREADS < quads ? sum4(off * off) : 0.0f;
        }
        squares = warp_sum(squares);
        if (lane() == 0) norms[warp()] = count, norms[WARPS + warp()] = mean, norms[2 * WARPS + warp()] = squares;
        sync();
        const float each = reciprocal((float)n);
        float middle = 0.0f, about = 0.0f;
        #pragma unroll
        for (uint w = 0; w < WARPS; ++w) middle = fmaf(norms[w], norms[WARPS + w], middle);
        middle *= each;
        #pragma unroll
        for (uint w = 0; w < WARPS; ++w) {
            const float off = norms[WARPS + w] - middle;
            about += fmaf(norms[w] * off, off, norms[2 * WARPS + w]);
        }
        const float by = rsqrtf(fmaf(about, each, p.eps));
        #pragma unroll
        for (uint i = 0; i < QUADS; ++i) {
            if (tid() + i * THREADS < quads) put(x, n, tid() + i * THREADS, (v[i] + -middle) * by * gamma[i] + beta[i]);
        }
        sync();
    }
    FN float scale(const Product& p) const {
        if (NORM == LAYER) return 1.0f;
        float squares = 0.0f;
        #pragma unroll
        for (uint w = 0; w < WARPS; ++w) squares += norms[w];
        return rsqrtf(fmaf(squares, reciprocal((float)p.cols), p.eps));
    }

    // The parts of attention together.
    FN void gather_attended(const Cache& cache, float* x) {
        const uint n = program.n_head * HS, count = Parts(program, cache, position + 1).count;
        for (uint q = tid(); q < n / 4; q += THREADS) {
            const uint h = 4 * q / HS;
            const float* values = program.part_mail() + (ulong)h * program.parts * HS + 4 * q % HS;
            const float* stats = program.stats_mail() + h * program.parts * 2;
            float top = -INFINITY, weights = 0.0f;
            float4 y = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            #pragma unroll 1
            for (uint p0 = 0; p0 < count; p0 += AT_ONCE) {
                float2 s[AT_ONCE];
                float4 one[AT_ONCE];
                receive_parts(s, one, stats + p0 * 2, values + p0 * HS, count - p0, round);
                float most = top;
                #pragma unroll
                for (uint i = 0; i < AT_ONCE; ++i) most = fmaxf(most, s[i].x);
                const float base = finite(most), shrink = exp2_fast(top - base);
                weights *= shrink;
                y = y * shrink;
                #pragma unroll
                for (uint i = 0; i < AT_ONCE; ++i) {
                    const float by = exp2_fast(s[i].x - base);
                    weights = fmaf(s[i].y, by, weights);
                    y = y + one[i] * by;
                }
                top = most;
            }
            put(x, n, q, y * (weights == 0.0f ? 0.0f : reciprocal(weights)));
        }
        sync();
    }

    FN void gather_inner(const Product& p, float* x) {
        float4 v[2];
        #pragma unroll 1
        for (uint first = tid(); first < p.cols / 4; first += 2 * THREADS) {
            receive_quads(v, program.inner_mail(), p.cols / 4, first, round);
            put(x, p.cols, first, v[0]);
            if (first + THREADS < p.cols / 4) put(x, p.cols, first + THREADS, v[1]);
        }
        sync();
    }

    // ---- The product: the sums of all units.

    // The dot product of x [n], from element k on, with the `count` elements of the ring's next slot.
    FN float dot(const float* x, uint n, uint k, uint count) {
        const float4* low = (const float4*)x + k / 8;
        const float4* high = low + n / 8;
        const Shared at = rings.slot(warp(), turn.slot);
        wait(rings.is_filled(warp(), turn.slot), turn.parity);
        float sum = 0.0f;
        #pragma unroll 4
        for (uint i = lane(); i < count / 8; i += 32) {
            const float4 a = low[i], b = high[i];
            sum += dot8(widen8<Weight>(load_shared(at + i * 16)), {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}});
        }
        sum = warp_sum(sum);                            // once all lanes have read the slot
        if (lane() == 0) arrive(rings.is_emptied(warp(), turn.slot));
        turn.next(rings.count);
        return sum;
    }
    FN void multiply(const Product& p, const float* x) {
        const uint units = p.units();
        uint unit = (warp() + WARPS - base) % WARPS, place = unit % p.pieces;
        #pragma unroll 1
        for (; unit < units; unit += WARPS) {
            const uint k = place * p.piece;
            const float sum = dot(x, p.cols, k, min(p.piece, p.cols - k));
            if (lane() == 0) sums[unit] = sum;
            place += p.left;
            if (place >= p.pieces) place -= p.pieces;
        }
        base = (base + units) % WARPS;
        sync();
    }
    // Of row i of this threadgroup's.
    FN float sum_of(const Product& p, uint i) const {
        float sum = 0.0f;
        #pragma unroll 1
        for (uint k = 0; k < p.pieces; ++k) sum += sums[i * p.pieces + k];
        return sum;
    }

    // ---- What becomes of the sums: a thread has a group of rows.

    // What can be read before the sums are there.
    struct Beside {
        float low;
        float high;
        float2 angle;
    };
    FN Beside beside(const Product& p, uint kind) const {
        Beside b = {0.0f, 0.0f, make_float2(1.0f, 0.0f)};
        const uint row = p.first() + tid();
        if (tid() >= p.groups() || kind == HEAD) return b;
        if (kind != QKV) {
            if (p.bias) b.low = __ldg(p.bias + row);
            return b;
        }
        const uint head = row / HALF, i = row % HALF;
        if (p.bias) b.low = __ldg(p.bias + head * HS + i), b.high = __ldg(p.bias + head * HS + i + HALF);
        if (program.freqs && head < program.n_head + program.n_kv_head) {
            b.angle = __ldg((const float2*)(program.freqs + (ulong)position * HS) + i);
        }
        return b;
    }

    // Rotated; keys and values into the cache.
    FN void pass_heads(const Product& p, const Cache& cache, const Beside& b) {
        if (tid() >= p.groups()) return;
        const uint pair = p.first() + tid(), head = pair / HALF, i = pair % HALF;
        const float by = scale(p), low = fmaf(sum_of(p, 2 * tid()), by, b.low), high = fmaf(sum_of(p, 2 * tid() + 1), by, b.high);
        const float first = low * b.angle.x - high * b.angle.y, second = low * b.angle.y + high * b.angle.x;
        float* to = program.qkv_mail() + head * HS + i;
        if (head < program.n_head) {
            send(to, first, round);
            send(to + HALF, second, round);
            return;
        }
        const uint two = pack(first, second, Cached());
        const float2 kept = widen2(two, Cached());
        send(to, kept.x, round);
        send(to + HALF, kept.y, round);
        if (slot < 0) return;
        const bool is_key = head < program.n_head + program.n_kv_head;
        const uint kv_head = head - program.n_head - (is_key ? 0 : program.n_kv_head);
        ushort* row = (ushort*)(is_key ? cache.k : cache.v) + cache_row(slot / BLOCK_SIZE, kv_head, slot % BLOCK_SIZE) + i;
        row[0] = (ushort)two;
        row[HALF] = (ushort)(two >> 16);
    }
    FN void pass_residual(const Product& p, const Beside& b, float* mail) {
        if (tid() >= p.groups()) return;
        own += sum_of(p, tid()) + b.low;
        send(mail + p.first() + tid(), own, round);
    }
    FN void pass_inner(const Product& p, const Beside& b) {
        if (tid() >= p.groups()) return;
        const float by = scale(p);
        float y;
        if (ACTIVATION == GELU) {
            y = gelu(fmaf(sum_of(p, tid()), by, b.low));
        } else {
            const float gate = sum_of(p, 2 * tid()) * by, up = sum_of(p, 2 * tid() + 1) * by;
            y = (ACTIVATION == SWIGLU ? silu(gate) : gelu(gate)) * up;
        }
        send(program.inner_mail() + p.first() + tid(), y, round);
    }

    // ---- Attention over the cache, its newest token by mail.

    FN ulong cache_row(uint block, uint kv_head, uint offset) const {
        return (((ulong)block * program.n_kv_head + kv_head) * BLOCK_SIZE + offset) * HS;
    }

    FN void attend(const Cache& cache) {
        const Parts parts(program, cache, position + 1);
        #pragma unroll 1
        for (uint item = blockIdx.x; item < program.n_kv_head * program.parts; item += program.groups) {
            const uint kv_head = item % program.n_kv_head, part = item / program.n_kv_head;
            if (part < parts.count) attend_part(cache, parts, kv_head, part);
            else pass_nothing(kv_head, part);
        }
    }
    FN float* values_to(uint head, uint part) const { return program.part_mail() + ((ulong)head * program.parts + part) * HS; }
    FN float* stats_to(uint head, uint part) const { return program.stats_mail() + (head * program.parts + part) * 2; }

    // A part that is not there: nobody reads it, but a later one in its place must find another round's mail.
    FN void pass_nothing(uint kv_head, uint part) {
        for (uint i = tid(); i < SHARING * HS; i += THREADS) send(values_to(kv_head * SHARING + i / HS, part) + i % HS, 0.0f, round);
        if (tid() >= SHARING) return;
        float* stats = stats_to(kv_head * SHARING + tid(), part);
        send(stats, 0.0f, round);
        send(stats + 1, 0.0f, round);
    }

    // A softmax over keys as it goes, of a lane's eight channels.
    struct Running {
        float top = -INFINITY;
        float weights = 0.0f;
        Eight total = {};
    };
    // A part of the keys of a KV head, for its query heads, EACH warps a head; a token lies over LANES lanes, ABREAST tokens
    // in a warp, ROUNDS times.
    static constexpr uint LANES = HS / 8, ABREAST = 32 / LANES, EACH = WARPS / SHARING, ROUNDS = 4;
    static constexpr uint STRIDE = EACH * ABREAST;      // tokens that the warps of a head have at once

    template <uint N> FN void attend_tokens(Running& all, const uint4 (&k)[N], const uint4 (&v)[N], const bool (&in)[N], const Eight& query, const Cache& cache) {
        float score[N], most = all.top;
        #pragma unroll
        for (uint r = 0; r < N; ++r) {
            float dot = dot8(widen8<Cached>(k[r]), query);
            #pragma unroll
            for (uint m = 1; m < LANES; m *= 2) dot += __shfl_xor_sync(~0u, dot, m);
            dot *= cache.scale;
            if (cache.cap != 0.0f) dot = cache.cap * tanh_fast(dot * reciprocal(cache.cap));
            score[r] = in[r] ? dot * LOG2E : -INFINITY;
            most = fmaxf(most, score[r]);
        }
        #pragma unroll
        for (uint m = LANES; m < 32; m *= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, m));
        const float base = finite(most), shrink = exp2_fast(all.top - base);
        all.top = most;
        all.weights *= shrink;
        #pragma unroll
        for (int i = 0; i < 8; ++i) all.total.at[i] *= shrink;
        #pragma unroll
        for (uint r = 0; r < N; ++r) {
            const float p = exp2_fast(score[r] - base);
            const Eight value = widen8<Cached>(v[r]);
            all.weights += p;
            #pragma unroll
            for (int i = 0; i < 8; ++i) all.total.at[i] = fmaf(value.at[i], p, all.total.at[i]);
        }
    }
    FN void attend_part(const Cache& cache, const Parts& parts, uint kv_head, uint part) {
        const uint mine = warp() / EACH, c = lane() % LANES * 8;
        const int begin = parts.first + (int)part * parts.tokens, end = min(begin + parts.tokens, position);   // of the cache
        const int offset = (int)(warp() % EACH * ABREAST + lane() / LANES);
        Running all;
        if (mine < SHARING) {
            Eight query = {};
            bool asked = false;
            #pragma unroll 1
            for (int j0 = begin + offset; !asked || j0 - offset < end; j0 += ROUNDS * STRIDE) {
                uint4 k[ROUNDS], v[ROUNDS];
                bool in[ROUNDS];
                #pragma unroll
                for (uint r = 0; r < ROUNDS; ++r) {
                    const int j = j0 + (int)(r * STRIDE);
                    k[r] = v[r] = make_uint4(0, 0, 0, 0);
                    in[r] = j < end;
                    if (!in[r]) continue;
                    const ulong at = cache_row(__ldg(program.block_table + j / BLOCK_SIZE), kv_head, j % BLOCK_SIZE) + c;
                    k[r] = __ldcg((const uint4*)((const ushort*)cache.k + at));
                    v[r] = __ldcg((const uint4*)((const ushort*)cache.v + at));
                }
                if (!asked) query = receive8(program.qkv_mail() + (kv_head * SHARING + mine) * HS + c, round);
                asked = true;
                attend_tokens(all, k, v, in, query, cache);
            }
            if (part + 1 == parts.count && warp() % EACH == 0) {
                const float* k_mail = program.qkv_mail() + (program.n_head + kv_head) * HS + c;
                const uint4 k[1] = {pack8(receive8(k_mail, round))};
                const uint4 v[1] = {pack8(receive8(k_mail + program.n_kv_head * HS, round))};
                const bool in[1] = {lane() < LANES};
                attend_tokens(all, k, v, in, query, cache);
            }
            #pragma unroll
            for (uint m = LANES; m < 32; m *= 2) {
                all.weights += __shfl_xor_sync(~0u, all.weights, m);
                #pragma unroll
                for (int i = 0; i < 8; ++i) all.total.at[i] += __shfl_xor_sync(~0u, all.total.at[i], m);
            }
        }
        // the warps of a head together
        float* values = vector();                       // [WARPS, HS], [WARPS, 2]
        float* stats = values + WARPS * HS;
        if (lane() < LANES) {
            const Eight& t = all.total;
            *(float4*)(values + warp() * HS + c) = make_float4(t.at[0], t.at[1], t.at[2], t.at[3]);
            *(float4*)(values + warp() * HS + c + 4) = make_float4(t.at[4], t.at[5], t.at[6], t.at[7]);
        }
        if (lane() == 0) stats[2 * warp()] = all.top, stats[2 * warp() + 1] = all.weights;
        sync();
        #pragma unroll 1
        for (uint i = tid(); i < SHARING * HS; i += THREADS) {
            const uint h = i / HS, head = kv_head * SHARING + h;
            float top = -INFINITY, weights = 0.0f, y = 0.0f;
            #pragma unroll
            for (uint w = 0; w < EACH; ++w) top = fmaxf(top, stats[2 * (h * EACH + w)]);
            top = as_read(top);                         // what its readers take for it
            #pragma unroll
            for (uint w = 0; w < EACH; ++w) {
                const float by = exp2_fast(stats[2 * (h * EACH + w)] - finite(top));
                weights = fmaf(stats[2 * (h * EACH + w) + 1], by, weights);
                y = fmaf(values[(h * EACH + w) * HS + i % HS], by, y);
            }
            send(values_to(head, part) + i % HS, y, round);
            if (i % HS == 0) send(stats_to(head, part), top, round), send(stats_to(head, part) + 1, weights, round);
        }
        sync();                                         // before the next part, or the next vector
    }

    // ---- Behind the layers: logits, the likeliest token of all, the next step.

    FN void choose(const Product& p, uint ballot) {
        const float by = scale(p);
        ulong best = 0;
        #pragma unroll 1
        for (uint i = tid(); i < p.groups(); i += THREADS) {
            const uint row = p.first() + i;
            const float y = fmaf(sum_of(p, i), by, p.bias ? p.bias[row] : 0.0f);
            program.logits[row] = y;
            best = max(best, place(order_key(y), row));
        }
        best = highest(best);
        // with the vote everybody sees the keys and values that this threadgroup has written
        if (tid() == 0) {
            __threadfence();
            vote(program.ballots + blockIdx.x, best, ballot);
        }
        best = tid() < program.groups ? count_vote(program.ballots + tid(), ballot) : 0;
        __threadfence();
        token = (int)~(uint)highest(best);
    }
    // Of all threads, the same in each.
    FN ulong highest(ulong mine) {
        const uint top = __reduce_max_sync(~0u, (uint)(mine >> 32));
        const uint low = __reduce_max_sync(~0u, (uint)(mine >> 32) == top ? (uint)mine : 0u);
        if (lane() == 0) best[warp()] = (ulong)top << 32 | low;
        sync();
        ulong all = 0;
        #pragma unroll
        for (uint w = 0; w < WARPS; ++w) all = max(all, best[w]);
        sync();
        return all;
    }
    // As advance_rows: one thread writes what the host and later launches read.
    FN void advance() {
        ++position;
        const uint block = position / BLOCK_SIZE;
        slot = block < program.max_blocks ? __ldg(program.block_table + block) * (int)BLOCK_SIZE + position % (int)BLOCK_SIZE : -1;
        if (blockIdx.x != 0 || tid() != 0) return;
        *program.chosen = *program.tokens = token;
        *program.positions = position;
        *program.lengths = position + 1;
        *program.slots = slot;
        program.history[position % program.kept] = token;
    }

    // ---- A step is a row of products: each reads what others passed on, and passes on its own.

    FN float* vector() const { return sums + program.sums; }

    FN void step(uint ballot) {
        if (tid() < products[OUTPUT].groups()) own = embedded(products[OUTPUT].first() + tid());
        #pragma unroll 1
        for (uint i = 0; i <= 4 * program.n_layer; ++i) {
            const Product& p = products[i];
            const Cache& cache = caches[i / 4];
            const uint kind = i == 4 * program.n_layer ? HEAD : i % 4;
            float* x = kind == HEAD ? sums + program.head_sums : vector();
            const Beside b = beside(p, kind);
            if (kind == OUTPUT) gather_attended(cache, x);
            else if (kind == DOWN) gather_inner(p, x);
            else gather_normed(p, kind == UP ? program.between_mail() : i > 0 ? program.behind_mail() : nullptr, round, x);
            multiply(p, x);
            if (kind == QKV) {
                ++round;                                // what came until now is of the layer before
                pass_heads(p, cache, b);
                attend(cache);
            }
            if (kind == OUTPUT) pass_residual(p, b, program.between_mail());
            if (kind == UP) pass_inner(p, b);
            if (kind == DOWN) pass_residual(p, b, program.behind_mail());
        }
        choose(products[4 * program.n_layer], ballot);
        advance();
    }
};

template <class T> FN void copy_all(T* to, const T* from, uint count) {
    for (uint i = threadIdx.x; i < count * (sizeof(T) / 4); i += blockDim.x) ((uint*)to)[i] = ((const uint*)from)[i];
}

extern "C" __global__ void __launch_bounds__(THREADS + 32, 1)
thermite_steps(const __grid_constant__ Program program, uint steps) {
    unsigned char* memory = dynamic_shared();
    const uint slots = WARPS * program.ring_slots, n_products = 4 * program.n_layer + 1;
    ulong* filled = (ulong*)(memory + slots * program.slot_bytes);
    ulong* emptied = filled + slots;
    ulong* best = emptied + slots;
    Product* products = (Product*)(best + WARPS);
    Cache* caches = (Cache*)(products + n_products);
    float* norms = (float*)(caches + program.n_layer);
    copy_all(products, program.products, n_products);
    copy_all(caches, program.caches, program.n_layer);
    const Rings rings = {shared_address(memory), shared_address(filled), shared_address(emptied), program.ring_slots, program.slot_bytes};
    if (threadIdx.x < slots) {
        barrier_init(rings.filled + threadIdx.x * 8, 1);
        barrier_init(rings.emptied + threadIdx.x * 8, 1);
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x >= THREADS) {
        fill(program, products, rings, steps);
        return;
    }
    Group group = {program, rings, products, caches, best, norms, norms + NORMS};
    group.token = *program.tokens;
    group.position = *program.positions;
    group.slot = *program.slots;
    group.round = program.rounds[0];
    uint ballot = program.rounds[1];
    #pragma unroll 1
    for (uint i = 0; i < steps; ++i) group.step(++ballot);
    if (blockIdx.x == 0 && threadIdx.x == 0) program.rounds[0] = group.round, program.rounds[1] = ballot;
}
