// ring.h - weights on their way into shared memory: a ring of slots a warp, with a barrier a slot that its bytes have come and
// one that they have been read. One more warp fills them all, a lane a ring.
#pragma once
#include "program.h"

struct Rings {
    Shared slots;                                       // the first warp's
    Shared filled;
    Shared emptied;
    uint count;                                         // of a ring
    uint slot_bytes;

    FN Shared slot(uint warp, uint i) const { return slots + (warp * count + i) * slot_bytes; }
    FN Shared is_filled(uint warp, uint i) const { return filled + (warp * count + i) * 8; }
    FN Shared is_emptied(uint warp, uint i) const { return emptied + (warp * count + i) * 8; }
};

// Which slot is next, and in which round of the ring.
struct Turn {
    uint slot = 0;
    uint parity = 0;
    FN void next(uint count) {
        if (++slot == count) slot = 0, parity ^= 1;
    }
};

// Fills the ring of the warp that has this lane's number, with all that it reads in `steps` steps.
FN void fill(const Program& program, const Product* products, const Rings& rings, uint steps) {
    const uint warp = threadIdx.x % 32, n_products = 4 * program.n_layer + 1;
    const ulong policy = evict_first();
    Turn turn;
    uint base = 0;                                      // units of the products before, modulo WARPS
    if (warp >= WARPS) return;
    #pragma unroll 1
    for (uint i = 0, step = 0; step < steps; i = i + 1 < n_products ? i + 1 : 0, step += i == 0 ? 1 : 0) {
        const Product& p = products[i];
        const bool rotates = i % 4 == QKV && i + 1 < n_products;
        const uint units = p.units(), first = p.first();
        uint unit = (warp + WARPS - base) % WARPS, row = unit / p.pieces, place = unit % p.pieces;
        #pragma unroll 1
        for (; unit < units; unit += WARPS) {
            const uint group = first + row / p.rows, k = place * p.piece;
            // the rows that rotate together lie half a head apart
            const uint line = rotates ? group / HALF * HS + group % HALF : group;
            const Weight* from = p.weight[row % p.rows] + (ulong)line * p.cols + k;
            const uint bytes = min(p.piece, p.cols - k) * 2;
            const Shared barrier = rings.is_filled(warp, turn.slot);
            wait(rings.is_emptied(warp, turn.slot), turn.parity ^ 1);
            arrive_expecting(barrier, bytes);
            copy(rings.slot(warp, turn.slot), from, bytes, barrier, policy);
            turn.next(rings.count);
            row += p.whole;
            place += p.left;
            if (place >= p.pieces) place -= p.pieces, ++row;
        }
        base = (base + units) % WARPS;
    }
}
