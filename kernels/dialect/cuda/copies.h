// copies.h for CUDA: what copies.h says in Metal, by cp.async.
#pragma once
using namespace metal;

template <class T> METAL_FN void tg_copy16(T* to, const T* from, bool in) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((uint)__cvta_generic_to_shared(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(in ? 16 : 0)
                 : "memory");
}
METAL_FN void tg_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> METAL_FN void tg_copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
