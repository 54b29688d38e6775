// program.h - what steps.cu runs, as the host lays it out (thermite-device, cuda/steps.rs), and the numbers in it.
//
// Defined before the source: WEIGHTS and CACHE half or bfloat; HEAD_SIZE 32, 64 or 128; SHARING, query heads a KV head;
// BLOCK_SIZE, tokens a block of the cache; NORM RMS or LAYER; ACTIVATION SWIGLU, GEGLU or GELU; CAPPED, whether scores are;
// QUADS, of a vector that is normed, a thread, and INNER_QUADS, of what the activation gives, or none where rows have as many
// pieces as there are warps; EIGHTS, of a piece of a row, a lane.
#pragma once
#include "numbers.h"

constexpr uint WARP_BITS = 4;
constexpr uint WARPS = 1 << WARP_BITS;
constexpr uint THREADS = 32 * WARPS;
constexpr uint AT_ONCE = 4;                             // parts of attention that are asked for at once

enum Norm { RMS, LAYER };
enum Activation { SWIGLU, GEGLU, GELU };
enum Kind { QKV, OUTPUT, UP, DOWN, HEAD };              // of products
typedef WEIGHTS Weight;
typedef CACHE Cached;
constexpr uint HS = HEAD_SIZE;
constexpr uint HALF = HS / 2;

// Attention: lanes of a token, tokens of a warp, of all warps, and how often at once.
constexpr uint LANES = HS / 8;
constexpr uint ABREAST = 32 / LANES;
constexpr uint STRIDE = WARPS * ABREAST;
constexpr uint ROUNDS = 128 / STRIDE;

// Whether each warp has a piece of its own of what the activation gives, and so needs nothing of the others'.
constexpr bool INNER_SENT = INNER_QUADS == 0;

// Rows of weights times a vector. A group of rows is one row, or the two that belong together: what rotates, a gate and what
// it lets through. Threadgroup i has `share` groups, the first `rest` of them one more. A row lies in `pieces` of `piece`
// elements, 1 << piece_bits of them, at most WARPS; a warp has the same piece of every row that it has, and keeps that of the
// vector in registers.
struct Product {
    const Weight* weight[2];                            // of a group's first rows, of its second
    const float* bias;
    const float* gamma;                                 // of the norm before it
    const float* beta;
    uint cols;
    uint rows;                                          // of a group: 1 or 2
    uint share;
    uint rest;
    uint piece;
    uint piece_bits;
    float each;                                         // 1 / cols
    float eps;
    uint sums_at;                                       // floats before its sums
    uint unused;

    FN uint pieces() const { return 1 << piece_bits; }
    FN uint place(uint warp) const { return warp & (pieces() - 1); }        // of a warp's piece
    FN uint line(uint warp) const { return warp >> piece_bits; }            // that a warp has first
    FN uint abreast_bits() const { return WARP_BITS - piece_bits; }
    FN uint abreast() const { return 1 << abreast_bits(); }                 // from one to the next
    FN uint first() const { return blockIdx.x * share + min(blockIdx.x, rest); }
    FN uint groups() const { return share + (blockIdx.x < rest ? 1 : 0); }
    FN uint lines() const { return groups() * rows; }   // rows of this threadgroup
};

// A layer's keys and values, [n_blocks, n_kv_head, BLOCK_SIZE, HS], and what is done to its scores.
struct Cache {
    Cached* k;
    Cached* v;
    float scale;
    float cap;
    int window;
    uint unused;
};

struct Program {
    const Product* products;                            // of each layer those of Kind, and the head
    const Cache* caches;
    const Weight* embedding;
    const Weight* positional;                           // or none
    const float* freqs;                                 // [n_positions, HS], or none
    int* tokens;
    int* positions;
    int* slots;
    int* lengths;
    const int* block_table;
    float* logits;
    int* chosen;
    int* history;
    float* mail;
    uint4* ballots;                                     // [groups]: what each found likeliest
    uint* rounds;                                       // of mail, of ballots so far

    uint groups;                                        // threadgroups
    uint n_layer;
    uint n_embd;
    uint n_head;
    uint n_kv_head;
    uint max_blocks;
    uint kept;
    uint parts;                                         // of a head's keys, at most
    uint part_bits;                                     // a part has 1 << part_bits tokens, or twice as many, or ...
    uint ring_slots;
    uint slot_bytes;
    uint sums;                                          // floats that sums take, but for the head's
    uint head_sums;
    uint ring_at;                                       // bytes of shared memory before the rings

    FN uint n_products() const { return 4 * n_layer + 1; }

    // The mail: queries, keys and values; parts of attention, their tops and weights; the residual stream between a layer's
    // blocks and behind them; what the activation gives.
    FN float* qkv_mail() const { return mail; }
    FN float* part_mail() const { return mail + (n_head + 2 * n_kv_head) * HS; }
    FN float* stats_mail() const { return part_mail() + n_head * parts * HS; }
    FN float* between_mail() const { return stats_mail() + (n_head * parts * 2 + 3) / 4 * 4; }
    FN float* behind_mail() const { return between_mail() + n_embd; }
    FN float* inner_mail() const { return behind_mail() + n_embd; }
};

// How the keys before the newest, of those that it sees, lie in parts of 1 << bits.
struct Parts {
    int first;
    uint bits;
    uint count;
    FN Parts(const Program& program, const Cache& cache, int position) {
        first = cache.window == 0 ? 0 : max(0, position + 1 - cache.window);
        bits = program.part_bits;
        while ((count = (uint)(position - first + (1 << bits) - 1) >> bits) > program.parts) ++bits;
    }
};

// ---- Shared memory: products, caches, what the warps note, scales of a norm, sums, a product's vector, the rings.

FN Product* products_in_shared() { return (Product*)dynamic_shared(); }
FN Cache* caches_in_shared(const Program& program) { return (Cache*)(products_in_shared() + program.n_products()); }
