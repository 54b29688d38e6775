// pieces.h - attention over the cache in pieces, each with a softmax of its own, and their sums put together one after another:
// Dao et al., "Flash-Decoding for long-context inference", 2023. What is so put together does not depend on who adds: a thread
// that went through all pieces, or one that finds them in memory.
#pragma once
#include <metal_stdlib>
using namespace metal;

// Tokens a piece of a cache of `length` tokens holds: what a few rounds of a threadgroup take, or makes sixteen pieces.
constant constexpr int PIECE = 64;
constant constexpr int MOST_PIECES = 16;
inline int piece_of(int length) { return (length + PIECE * MOST_PIECES - 1) / (PIECE * MOST_PIECES) * PIECE; }

// What the sums so far, and those of the piece that is added, are multiplied by.
struct Shares {
    float before;
    float added;
    float sum(float all, float piece) const { return fma(piece, added, all * before); }
};

// A softmax over pieces: the largest score, times log2(e), and the sum of weights 2^(score - top).
struct Gathered {
    float top;
    float weights;
    // Adds a piece that has tokens.
    Shares add(float piece_top, float piece_weights) {
        const float larger = max(top, piece_top);
        Shares shares;
        shares.before = fast::exp2(top - larger);            // 0 before the first
        shares.added = fast::exp2(piece_top - larger);
        weights = shares.sum(weights, piece_weights);
        top = larger;
        return shares;
    }
    float divisor() const { return weights == 0.0f ? 0.0f : 1.0f / weights; }
};
inline Gathered nothing_gathered() {
    Gathered none;
    none.top = -INFINITY;
    none.weights = 0.0f;
    return none;
}
