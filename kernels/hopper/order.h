// order.h - an order of floats that sorts as argmax and top-k want it.
#pragma once
#include "hopper.h"

// Unsigned integers in the order of the floats: NaN is 0, then -inf, ..., -0 = 0, ..., inf.
FN uint order_key(float x) {
    const uint bits = __float_as_uint(x == 0.0f ? 0.0f : x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0u;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// An order without equals: by key, then by index, the lowest first.
FN ulong place(uint key, uint index) { return (ulong)key << 32 | ~index; }
