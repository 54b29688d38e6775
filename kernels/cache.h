// cache.h - the paged KV cache, and which of its tokens a query sees.
#pragma once
#include <metal_stdlib>
#include "activation.h"
using namespace metal;

// Where a token's row of K or V begins in a cache [n_blocks, n_kv_head, block_size, hs].
inline ulong cache_row(int block, int head, int offset, int n_kv_head, int block_size, int hs) {
    return ((ulong(block) * n_kv_head + head) * block_size + offset) * hs;
}

// A causal mask and the form of a score. window: how many tokens a query sees, its own among them; cap: of the scores,
// cap tanh(s / cap). 0 turns either off.
struct Mask {
    float scale;
    int   window;
    float cap;
    bool sees(int position, int key) const { return key <= position && (window == 0 || key > position - window); }
    int first_seen(int position) const { return window == 0 ? 0 : max(0, position - window + 1); }
    float score(float dot) const { return cap == 0.0f ? dot * scale : softcap(dot * scale, cap); }
};
