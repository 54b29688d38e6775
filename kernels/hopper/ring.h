// ring.h - weights on their way into shared memory: each warp has a ring of slots, with a barrier a slot that its bytes have
// come. When a warp has read a slot it asks for what it will read there next, some products from now.
#pragma once
#include "program.h"

// A warp's.
struct Ring {
    Shared slots;
    Shared filled;

    FN Ring(const Program& program, uint warp) {
        const uint each = program.ring_slots;
        slots = shared_address(dynamic_shared()) + program.ring_at + warp * each * program.slot_bytes;
        filled = shared_address(dynamic_shared()) + program.ring_at + WARPS * each * program.slot_bytes + warp * each * 8;
    }
};

// What a warp asks for next: its pieces of rows of products of steps.
struct Errand {
    const Weight* from;                                 // the next piece,
    uint bytes;                                         // as long,
    uint stride;                                        // elements to the one behind it,
    uint left;                                          // and how many more there are so; behind them:
    uint line;
    uint product;
    uint steps;                                         // left, this one too

    FN Errand(uint warp, uint steps) : left(0), line(products_in_shared()->line(warp)), product(0), steps(steps) {}
    // The warp's next lines that lie equally far apart; none are left behind the last step.
    FN void find(const Program& program, uint warp) {
        if (steps == 0) return;
        while (line >= products_in_shared()[product].lines()) {
            if (++product == program.n_products()) product = 0, --steps;
            if (steps == 0) return;
            line = products_in_shared()[product].line(warp);
        }
        const Product& p = products_in_shared()[product];
        const uint twice = p.rows - 1, group = p.first() + (line >> twice), k = p.place(warp) * p.piece;
        // the rows that rotate together lie half a head apart
        const bool rotates = product % 4 == QKV && product + 1 < program.n_products();
        const uint row = rotates ? group / HALF * HS + group % HALF : group;
        from = p.weight[line & twice] + (ulong)row * p.cols + k;
        bytes = min(p.piece, p.cols - k) * 2;
        stride = (p.abreast() >> twice) * p.cols;
        left = rotates || p.abreast() <= twice ? 1 : (p.lines() - line + p.abreast() - 1) >> p.abreast_bits();
        line += left * p.abreast();
    }
};

// Of the warps: the likeliest token; squares, or how many elements, their mean and the squares about it.
struct Notes {
    ulong best[WARPS];
    float norms[3][WARPS];
    ulong has_gamma;                                    // barrier: the scales of the next norm have come
    ulong unused;
};
FN Notes& notes(const Program& program) { return *(Notes*)(caches_in_shared(program) + program.n_layer); }
// [n_embd] of the next norm, and behind it what it adds.
FN float* gamma_in_shared(const Program& program) { return (float*)(&notes(program) + 1); }
// Of rows' pieces; behind them a product's vector.
FN float* sums_in_shared(const Program& program) { return gamma_in_shared(program) + (NORM == LAYER ? 2 : 1) * program.n_embd; }
