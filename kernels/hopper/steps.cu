// steps.cu - decoding steps of one sequence in one launch: the threadgroups stay, and pass each other the vectors between a
// step's products, where a graph of launches ends one kernel and begins the next.
//
//   steps   embedding, layers, head and the likeliest token of some steps in a row: embedding_forward (and
//           positional_embedding_add), decode_qkv, decode_attend, decode_output, decode_swiglu (or another of its kind) and
//           decode_down for each layer, decode_head, argmax_sample, advance_rows
//
// Weights are no part of what a step waits for: they come into rings in shared memory (ring.h), in the order of the step's
// products and on into the next step, whatever the vectors wait for; so do the scales of norms. Vectors come by mail (mail.h).
// A place in the mail is written again only when all its readers have seen what it held: who writes has had mail of this
// layer, or of the layer before, from everybody, and everybody reads before writing, since each threadgroup has rows of both
// products that add to the residual stream.
//
// Dispatch  threadgroups (program.groups) of THREADS, all resident at once (a cooperative launch); shared memory: as
//           program.h and ring.h lay it out.
// Assumes   lengths multiples of 8, all else as decode.metal; no other launch uses the program at the same time.
#include "hopper.h"
#include "order.h"
#include "program.h"
#include "mail.h"
#include "ring.h"

// A threadgroup's state, and what its THREADS threads do.
struct Group {
    const Program& program;
    Ring ring;                                          // of this warp
    uint steps;                                         // left, this one too
    ulong policy;                                       // of what is read once
    Errand errand;                                      // of this warp
    Turn turn;                                          // of this warp's ring
    uint owed;                                          // slots that were read and not asked for again
    uint refilled;                                      // the first of them
    uint norm_parity;
    uint round;                                         // of the mail
    float own;                                          // the residual stream's element that this thread adds to
    int chosen;                                         // the token that the step reads
    int position;
    int slot;                                           // of the cache
    uint head;                                          // that this threadgroup attends for
    uint part;                                          // of the keys
    int window;                                         // of layers for which the following are
    int begin;                                          // tokens of the part
    int end;
    uint rows[ROUNDS];                                  // of the cache: this lane's first tokens
    uint thread;                                        // threadIdx.x

    FN uint tid() const { return thread; }
    FN uint lane() const { return thread % 32; }
    FN uint warp() const { return thread / 32; }
    FN static void sync() { __syncthreads(); }
    FN float* vector() const { return sums_in_shared(program) + program.sums; }
    FN float* sums_of(const Product& p) const { return sums_in_shared(program) + p.sums_at; }

    // ---- What a product reads, into x, which is complete when all have come to the end.

    FN float embedded(uint c) const {
        const float x = widen(program.embedding + (ulong)chosen * program.n_embd + c);
        return program.positional ? x + widen(program.positional + (ulong)position * program.n_embd + c) : x;
    }
    FN float4 embedded4(uint c) const {
        const float4 x = widen4(program.embedding + (ulong)chosen * program.n_embd + c);
        return program.positional ? x + widen4(program.positional + (ulong)position * program.n_embd + c) : x;
    }

    // Scale and shift of a product's norm, once those of the norm before have been read by all.
    FN void ask_for_gamma(const Product& p) const {
        if (tid() != 0) return;
        const uint bytes = program.n_embd * 4;
        const Shared gamma = shared_address(gamma_in_shared(program)), barrier = shared_address(&notes(program).has_gamma);
        arrive_expecting(barrier, NORM == LAYER ? 2 * bytes : bytes);
        copy(gamma, p.gamma, bytes, barrier, policy);
        if (NORM == LAYER) copy(gamma + bytes, p.beta, bytes, barrier, policy);
    }

    // The residual stream, normed; without mail the embedding. RMS norm's factor is left to `scale`.
    FN void gather_normed(uint product, const float* mail, float* x) {
        const Product& p = products_in_shared()[product];
        const uint n = p.cols, quads = n / 4;
        const float4* gamma4 = (const float4*)gamma_in_shared(program);
        const float4* beta4 = gamma4 + quads;
        float4 v[QUADS];
        #pragma unroll
        for (uint i = 0; i < QUADS; ++i) {
            v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (!mail && tid() + i * THREADS < quads) v[i] = embedded4(4 * (tid() + i * THREADS));
        }
        wait(shared_address(&notes(program).has_gamma), norm_parity);
        norm_parity ^= 1;
        if (mail) receive_quads(v, mail, quads, tid(), round);
        if (NORM == RMS) {
            float squares = 0.0f;
            #pragma unroll
            for (uint i = 0; i < QUADS; ++i) {
                const uint q = tid() + i * THREADS;
                if (q < quads) put(x, n, q, v[i] * gamma4[q]);
                squares += sum4(v[i] * v[i]);
            }
            squares = warp_sum(squares);
            if (lane() == 0) notes(program).norms[0][warp()] = squares;
        } else {
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
            if (lane() == 0) notes(program).norms[0][warp()] = count, notes(program).norms[1][warp()] = mean, notes(program).norms[2][warp()] = squares;
            sync();
            float middle = 0.0f, about = 0.0f;
            #pragma unroll
            for (uint w = 0; w < WARPS; ++w) middle = fmaf(notes(program).norms[0][w], notes(program).norms[1][w], middle);
            middle *= p.each;
            #pragma unroll
            for (uint w = 0; w < WARPS; ++w) {
                const float off = notes(program).norms[1][w] - middle;
                about += fmaf(notes(program).norms[0][w] * off, off, notes(program).norms[2][w]);
            }
            const float by = rsqrtf(fmaf(about, p.each, p.eps));
            #pragma unroll
            for (uint i = 0; i < QUADS; ++i) {
                const uint q = tid() + i * THREADS;
                if (q < quads) put(x, n, q, (v[i] + -middle) * by * gamma4[q] + beta4[q]);
            }
        }
        sync();
        const bool last = product + 1 == program.n_products();
        if (!last || steps > 1) ask_for_gamma(products_in_shared()[last ? 0 : product + 2]);
    }
    FN float scale(const Product& p) const {
        if (NORM == LAYER) return 1.0f;
        float4 squares = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        #pragma unroll
        for (uint w = 0; w < WARPS; w += 4) squares = squares + *(const float4*)(notes(program).norms[0] + w);
        return rsqrtf(fmaf(sum4(squares), p.each, p.eps));
    }

    // The parts of attention together, and the newest token, which no part has.
    FN void gather_attended(const Cache& cache, float* x) {
        const uint n = program.n_head * HS, count = Parts(program, cache, position).count;
        #pragma unroll 1
        for (uint first = tid() - lane(); first < n / 4; first += THREADS) {
            const uint q = min(first + lane(), n / 4 - 1), h = 4 * q / HS, c = 4 * q % HS;
            const float* values = program.part_mail() + (ulong)h * program.parts * HS + c;
            const float* stats = program.stats_mail() + h * program.parts * 2;
            const float* key = program.qkv_mail() + (program.n_head + h / SHARING) * HS + c;
            float4 qkv[3];
            receive_each(qkv, {program.qkv_mail() + 4 * q, key, key + program.n_kv_head * HS}, round);
            float top = sum4(qkv[0] * qkv[1]), weights = 1.0f;
            float4 y = qkv[2];
            #pragma unroll
            for (uint m = 1; m < HS / 4; m *= 2) top += __shfl_xor_sync(~0u, top, m);
            top = scored(top, cache);
            #pragma unroll 1
            for (uint p = 0; p < count; p += AT_ONCE, stats += AT_ONCE * 2, values += AT_ONCE * HS) {
                float2 s[AT_ONCE];
                float4 one[AT_ONCE];
                receive_stats(s, opaque(stats), count - p, round);
                receive_values(one, opaque(values), count - p, round);
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
            if (first + lane() == q) put(x, n, q, y * (weights == 0.0f ? 0.0f : reciprocal(weights)));
        }
        sync();
    }
    // A query times a key as a softmax by powers of two takes it.
    FN static float scored(float dot, const Cache& cache) {
        dot *= cache.scale;
        if (CAPPED) dot = cache.cap * tanh_fast(dot * reciprocal(cache.cap));
        return dot * LOG2E;
    }

    FN void gather_inner(const Product& p, float* x) {
        float4 v[INNER_SENT ? 1 : INNER_QUADS];
        receive_quads(v, program.inner_mail(), p.cols / 4, tid(), round);
        #pragma unroll
        for (uint i = 0; i < INNER_QUADS; ++i) {
            if (tid() + i * THREADS < p.cols / 4) put(x, p.cols, tid() + i * THREADS, v[i]);
        }
        sync();
    }

    // ---- The product: the sums of all rows' pieces.

    // The ring's next slot, `eights` times eight elements.
    FN void take(uint4 (&w)[EIGHTS], uint eights) {
        const Shared slot = ring.slots + turn.slot * program.slot_bytes + lane() * 16;
        wait(ring.filled + turn.slot * 8, turn.parity);
        #pragma unroll
        for (uint j = 0; j < EIGHTS; ++j) w[j] = lane() + 32 * j < eights ? load_shared(slot + j * 512) : make_uint4(0, 0, 0, 0);
        turn.next(program.ring_slots);
    }
    // Asks for what comes next into the slots that all lanes have read.
    FN void refill() {
        for (; owed > 0; --owed) {
            if (errand.left == 0) errand.find(program, warp());
            if (errand.left > 0) {
                if (lane() == 0) {
                    const Shared filled = ring.filled + refilled * 8;
                    arrive_expecting(filled, errand.bytes);
                    copy(ring.slots + refilled * program.slot_bytes, errand.from, errand.bytes, filled, policy);
                }
                errand.from += errand.stride;
                --errand.left;
            }
            if (++refilled == program.ring_slots) refilled = 0;
        }
    }
    FN static float dot(const uint4 (&w)[EIGHTS], const Eight (&x)[EIGHTS]) {
        float even = 0.0f, odd = 0.0f;
        #pragma unroll
        for (uint j = 0; j < EIGHTS; ++j) {
            const Eight a = widen8<Weight>(w[j]);
            #pragma unroll
            for (uint i = 0; i < 8; i += 2) even = fmaf(a.at[i], x[j].at[i], even), odd = fmaf(a.at[i + 1], x[j].at[i + 1], odd);
        }
        return even + odd;
    }
    // What a warp has of a product's work.
    struct Lot {
        uint line;                                      // its first
        uint lines;                                     // of all
        uint abreast;
        uint place;
        uint k;
        uint eights;
        FN Lot(const Product& p, uint warp) : line(p.line(warp)), lines(p.lines()), abreast(p.abreast()), place(p.place(warp)) {
            k = place * p.piece;
            eights = min(p.piece, p.cols - k) / 8;
        }
    };
    // With a vector in shared memory, or with what the activation gives, straight from the mail.
    FN void multiply(const Product& p, const Lot& lot, const float* x) {
        if (lot.line < lot.lines) {
            Eight mine[EIGHTS];
            if (INNER_SENT && !x) receive_eights(mine, program.inner_mail() + lot.k, lot.eights, lane(), round);
            else read_eights(mine, x + lot.k / 2, p.cols / 2, lot.eights);
            multiply_lines(p, lot, mine);
        }
        sync();
    }
    // As `put` has put them.
    FN void read_eights(Eight (&v)[EIGHTS], const float* low, uint apart, uint count) const {
        #pragma unroll
        for (uint j = 0; j < EIGHTS; ++j) {
            v[j] = {};
            if (lane() + 32 * j >= count) continue;
            const float4 a = ((const float4*)low)[lane() + 32 * j], b = ((const float4*)(low + apart))[lane() + 32 * j];
            v[j] = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
        }
    }
    FN void multiply_lines(const Product& p, const Lot& lot, const Eight (&mine)[EIGHTS]) {
        #pragma unroll 1
        for (uint line = lot.line; line < lot.lines; line += 2 * lot.abreast) {
            const bool both = line + lot.abreast < lot.lines, upper = lane() >= 16;
            uint4 one[EIGHTS], two[EIGHTS];
            float a, b = 0.0f;
            take(one, lot.eights);
            if (both) take(two, lot.eights);
            refill();                                   // what the rows before have left
            a = dot(one, mine);
            if (both) b = dot(two, mine);
            // the upper lanes go on with the second row
            float sum = (upper ? b : a) + __shfl_xor_sync(~0u, upper ? a : b, 16);
            #pragma unroll
            for (uint m = 8; m > 0; m /= 2) sum += __shfl_xor_sync(~0u, sum, m);
            if (lane() % 16 == 0 && (both || !upper)) sums_of(p)[((line + (upper ? lot.abreast : 0)) << p.piece_bits) + lot.place] = sum;
            owed = both ? 2 : 1;
        }
    }
    // Of row i of this threadgroup's.
    FN float sum_of(const Product& p, uint i) const {
        const float* sums = sums_of(p) + (i << p.piece_bits);
        if (p.piece_bits == 0) return sums[0];
        if (p.piece_bits == 1) return sums[0] + sums[1];
        float sum = 0.0f;
        #pragma unroll
        for (uint k = 0; k < WARPS; k += 4) sum += k < p.pieces() ? sum4(*(const float4*)(sums + k)) : 0.0f;
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
    FN void pass_heads(const Product& p, const Cache& cache, const Beside& b, float by) {
        if (tid() >= p.groups()) return;
        const uint pair = p.first() + tid(), head = pair / HALF, i = pair % HALF;
        const float low = fmaf(sum_of(p, 2 * tid()), by, b.low), high = fmaf(sum_of(p, 2 * tid() + 1), by, b.high);
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
        ushort* row = (ushort*)(is_key ? cache.k : cache.v) + (ulong)cache_row(slot / BLOCK_SIZE, kv_head, slot % BLOCK_SIZE) * HS + i;
        row[0] = (ushort)two;
        row[HALF] = (ushort)(two >> 16);
    }
    FN void pass_residual(const Product& p, const Beside& b, float* mail) {
        if (tid() >= p.groups()) return;
        own += sum_of(p, tid()) + b.low;
        send(mail + p.first() + tid(), own, round);
    }
    FN void pass_inner(const Product& p, const Beside& b, float by) {
        if (tid() >= p.groups()) return;
        float y;
        if (ACTIVATION == GELU) {
            y = gelu(fmaf(sum_of(p, tid()), by, b.low));
        } else {
            const float gate = sum_of(p, 2 * tid()) * by, up = sum_of(p, 2 * tid() + 1) * by;
            y = (ACTIVATION == SWIGLU ? silu(gate) : gelu(gate)) * up;
        }
        send(program.inner_mail() + p.first() + tid(), y, round);
    }

    // ---- Attention over the cache, without the newest token. A threadgroup has a part of the tokens, for a head; a token lies
    // over LANES lanes, ABREAST tokens in a warp, ROUNDS of them at once.

    FN uint cache_row(uint block, uint kv_head, uint offset) const { return (block * program.n_kv_head + kv_head) * BLOCK_SIZE + offset; }
    FN uint token_row(int j) const { return cache_row(__ldg(program.block_table + j / BLOCK_SIZE), head / SHARING, j % BLOCK_SIZE); }
    FN int token(int from, uint i) const { return from + (int)(i * STRIDE + warp() * ABREAST + lane() / LANES); }
    FN uint channel() const { return lane() % LANES * 8; }
    FN float* values_out() const { return program.part_mail() + ((ulong)head * program.parts + part) * HS; }
    FN float* stats_out() const { return program.stats_mail() + (head * program.parts + part) * 2; }

    // The rows that this lane reads first, for layers of this window; and brings them nearer.
    FN void find_rows(const Cache& cache) {
        const Parts parts(program, cache, position);
        window = cache.window;
        begin = parts.first + (int)(part << parts.bits);
        end = part < parts.count ? min(begin + (1 << parts.bits), position) : begin;
        #pragma unroll
        for (uint i = 0; i < ROUNDS; ++i) rows[i] = token(begin, i) < end ? token_row(token(begin, i)) : 0;
    }
    FN void prefetch_rows(const Cache& cache) {
        if (part >= program.parts) return;
        if (window != cache.window) find_rows(cache);
        #pragma unroll
        for (uint i = 0; i < ROUNDS; ++i) {
            if (token(begin, i) >= end || channel() % 64 != 0) continue;
            const ulong at = (ulong)rows[i] * HS + channel();
            prefetch((const ushort*)cache.k + at);
            prefetch((const ushort*)cache.v + at);
        }
    }

    // A part that is not there: nobody reads it, but a later one in its place must find another round's mail.
    FN void pass_nothing() {
        if (tid() < HS) send(values_out() + tid(), 0.0f, round);
        if (tid() < 2) send(stats_out() + tid(), 0.0f, round);
    }

    // A softmax over the tokens of a lane's group, as it goes, of the lane's eight channels.
    struct Running {
        float top = -INFINITY;
        float weights = 0.0f;
        Eight total = {};
    };
    FN void attend_tokens(Running& all, const uint4 (&k)[ROUNDS], const uint4 (&v)[ROUNDS], const bool (&in)[ROUNDS], const Eight& query, const Cache& cache) {
        float score[ROUNDS], most = all.top;
        #pragma unroll
        for (uint i = 0; i < ROUNDS; ++i) score[i] = dot8(widen8<Cached>(k[i]), query);
        #pragma unroll
        for (uint m = 1; m < LANES; m *= 2) {
            #pragma unroll
            for (uint i = 0; i < ROUNDS; ++i) score[i] += __shfl_xor_sync(~0u, score[i], m);
        }
        #pragma unroll
        for (uint i = 0; i < ROUNDS; ++i) {
            score[i] = in[i] ? scored(score[i], cache) : -INFINITY;
            most = fmaxf(most, score[i]);
        }
        const float base = finite(most), shrink = exp2_fast(all.top - base);
        all.top = most;
        all.weights *= shrink;
        #pragma unroll
        for (uint c = 0; c < 8; ++c) all.total.at[c] *= shrink;
        #pragma unroll
        for (uint i = 0; i < ROUNDS; ++i) {
            const float by = exp2_fast(score[i] - base);
            const Eight value = widen8<Cached>(v[i]);
            all.weights += by;
            #pragma unroll
            for (uint c = 0; c < 8; ++c) all.total.at[c] = fmaf(value.at[c], by, all.total.at[c]);
        }
    }
    // The groups of a warp together. Each keeps KEPT channels, in the first of `total`; returns which they are from.
    static constexpr uint KEPT = 8 / ABREAST;
    FN uint merge(Running& one) const {
        float top = one.top;
        #pragma unroll
        for (uint m = LANES; m < 32; m *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, m));
        const float by = exp2_fast(one.top - finite(top));
        one.top = top;
        one.weights *= by;
        #pragma unroll
        for (uint c = 0; c < 8; ++c) one.total.at[c] *= by;
        uint first = channel(), left = 8;
        #pragma unroll
        for (uint m = LANES; m < 32; m *= 2) {
            left /= 2;
            const bool upper = lane() & m;
            one.weights += __shfl_xor_sync(~0u, one.weights, m);
            #pragma unroll
            for (uint c = 0; c < left; ++c) {
                const float low = one.total.at[c], high = one.total.at[c + left];
                one.total.at[c] = (upper ? high : low) + __shfl_xor_sync(~0u, upper ? low : high, m);
            }
            if (upper) first += left;
        }
        return first;
    }
    FN void attend(const Cache& cache) {
        if (part >= program.parts) return refill();
        if (begin == end) {
            pass_nothing();
            return refill();
        }
        Running all;
        Eight query[1];
        #pragma unroll 1
        for (int from = begin; from < end; from += ROUNDS * STRIDE) {
            uint4 k[ROUNDS], v[ROUNDS];
            bool in[ROUNDS];
            #pragma unroll
            for (uint i = 0; i < ROUNDS; ++i) {
                k[i] = v[i] = make_uint4(0, 0, 0, 0);
                in[i] = token(from, i) < end;
                if (!in[i]) continue;
                const ulong at = (ulong)(from == begin ? rows[i] : token_row(token(from, i))) * HS + channel();
                k[i] = __ldcg((const uint4*)((const ushort*)cache.k + at));
                v[i] = __ldcg((const uint4*)((const ushort*)cache.v + at));
            }
            if (from == begin) {
                refill();
                receive_eights(query, program.qkv_mail() + head * HS, LANES, lane() % LANES, round);
            }
            attend_tokens(all, k, v, in, query[0], cache);
        }
        // the warps together
        float* values = vector();                       // [WARPS, HS]
        float* stats = values + WARPS * HS;             // [WARPS, 2]
        const uint c = merge(all);
        #pragma unroll
        for (uint i = 0; i < KEPT; ++i) values[warp() * HS + c + i] = all.total.at[i];
        if (lane() == 0) stats[2 * warp()] = all.top, stats[2 * warp() + 1] = all.weights;
        sync();
        if (tid() < HS) {
            float top = -INFINITY, weights = 0.0f, y = 0.0f;
            #pragma unroll
            for (uint w = 0; w < WARPS; ++w) top = fmaxf(top, stats[2 * w]);
            top = as_read(top);                         // what its readers take for it
            #pragma unroll
            for (uint w = 0; w < WARPS; ++w) {
                const float by = exp2_fast(stats[2 * w] - finite(top));
                weights = fmaf(stats[2 * w + 1], by, weights);
                y = fmaf(values[w * HS + tid()], by, y);
            }
            send(values_out() + tid(), y, round);
            if (tid() == 0) send(stats_out(), top, round), send(stats_out() + 1, weights, round);
        }
        sync();                                         // before the next vector
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
            fence();
            vote(program.ballots + blockIdx.x, best, ballot);
        }
        best = tid() < program.groups ? count_vote(program.ballots + tid(), ballot) : 0;
        fence();
        chosen = (int)~(uint)highest(best);
    }
    // Of all threads, the same in each.
    FN ulong highest(ulong mine) {
        const uint top = __reduce_max_sync(~0u, (uint)(mine >> 32));
        const uint low = __reduce_max_sync(~0u, (uint)(mine >> 32) == top ? (uint)mine : 0u);
        if (lane() == 0) notes(program).best[warp()] = (ulong)top << 32 | low;
        sync();
        ulong all = 0;
        #pragma unroll
        for (uint w = 0; w < WARPS; ++w) all = max(all, notes(program).best[w]);
        sync();
        return all;
    }
    // As advance_rows: one thread writes what the host and later launches read.
    FN void advance() {
        ++position;
        const uint block = position / BLOCK_SIZE;
        slot = block < program.max_blocks ? __ldg(program.block_table + block) * (int)BLOCK_SIZE + position % (int)BLOCK_SIZE : -1;
        if (blockIdx.x != 0 || tid() != 0) return;
        *program.chosen = *program.tokens = chosen;
        *program.positions = position;
        *program.lengths = position + 1;
        *program.slots = slot;
        program.history[position % program.kept] = chosen;
    }

    // Asks for the first scales, and for as much of its weights as each warp has room for.
    FN void start() {
        ask_for_gamma(*products_in_shared());
        owed = program.ring_slots;
        refill();
    }

    // ---- A step is a row of products: each reads what others passed on, and passes on its own.

    FN void step(uint ballot) {
        const Product& output = products_in_shared()[OUTPUT];
        if (tid() < output.groups()) own = embedded(output.first() + tid());
        window = -1;
        #pragma unroll 1
        for (uint i = 0; i <= 4 * program.n_layer; ++i) {
            thread = opaque(threadIdx.x);
            const Product& p = products_in_shared()[i];
            const Cache& cache = caches_in_shared(program)[i / 4];
            const uint kind = i == 4 * program.n_layer ? HEAD : i % 4;
            float* x = kind == HEAD ? sums_in_shared(program) + program.head_sums : vector();
            const Beside b = beside(p, kind);
            const Lot lot(p, warp());
            if (kind == QKV) prefetch_rows(cache);
            if (kind == OUTPUT) gather_attended(cache, x);
            else if (kind == DOWN && !INNER_SENT) gather_inner(p, x);
            else if (kind != DOWN) gather_normed(i, kind == UP ? program.between_mail() : i > 0 ? program.behind_mail() : nullptr, x);
            const float by = kind == OUTPUT || kind == DOWN ? 1.0f : scale(p);
            multiply(p, lot, kind == DOWN && INNER_SENT ? nullptr : x);
            if (kind == QKV) {
                ++round;                                // what came until now is of the layer before
                pass_heads(p, cache, b, by);
            }
            if (kind == OUTPUT) pass_residual(p, b, program.between_mail());
            if (kind == UP) pass_inner(p, b, by);
            if (kind == DOWN) pass_residual(p, b, program.behind_mail());
            if (kind == QKV) attend(cache);
            else refill();
        }
        choose(products_in_shared()[4 * program.n_layer], ballot);
        advance();
    }
};

template <class T> FN void copy_all(T* to, const T* from, uint count) {
    for (uint i = threadIdx.x; i < count * (sizeof(T) / 4); i += blockDim.x) ((uint*)to)[i] = ((const uint*)from)[i];
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
thermite_steps(const __grid_constant__ Program program, uint steps) {
    const uint slots = WARPS * program.ring_slots;
    copy_all(products_in_shared(), program.products, program.n_products());
    copy_all(caches_in_shared(program), program.caches, program.n_layer);
    if (threadIdx.x < slots) barrier_init(Ring(program, 0).filled + threadIdx.x * 8, 1);
    if (threadIdx.x == 0) barrier_init(shared_address(&notes(program).has_gamma), 1);
    barrier_init_done();
    __syncthreads();
    Group group = {program, Ring(program, threadIdx.x / 32), steps, evict_first(), Errand(threadIdx.x / 32, steps)};
    group.thread = threadIdx.x;
    group.head = blockIdx.x % program.n_head;
    group.part = blockIdx.x / program.n_head;
    group.start();
    group.chosen = *program.tokens;
    group.position = *program.positions;
    group.slot = *program.slots;
    group.round = program.rounds[0];
    uint ballot = program.rounds[1];
    #pragma unroll 1
    for (; group.steps > 0; --group.steps) group.step(++ballot);
    if (blockIdx.x == 0 && threadIdx.x == 0) program.rounds[0] = group.round, program.rounds[1] = ballot;
}
