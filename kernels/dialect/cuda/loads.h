// loads.h for CUDA: what loads.h says in Metal.
#pragma once

// An empty instruction takes the value's words.
template <class T> METAL_FN void loaded(T& value) {
    static_assert(sizeof(T) % 4 == 0, "loaded: whole words");
    uint* words = (uint*)&value;
    _Pragma("unroll") for (uint i = 0; i < sizeof(T) / 4; ++i) asm volatile("" : "+r"(words[i])::"memory");
}

METAL_FN uint4 load_once(const uint4* p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(__cvta_generic_to_global(p)));
    return v;
}
