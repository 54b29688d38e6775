// copies.h - copies into threadgroup memory that may go on while a thread does something else. Plain Metal copies at once; CUDA
// has a header of the same name and functions, over cp.async, and so has the emulator, where the bytes come when they are
// waited for.
#pragma once
#include <metal_stdlib>
using namespace metal;

// Sixteen bytes from device to threadgroup memory, zeros where !in (src is then not read, but must be an address).
// The bytes are there after tg_copy_wait and a threadgroup_barrier: tg_copy_commit closes a group of a thread's copies,
// tg_copy_wait<P> waits until at most the last P of its groups are unfinished.
template <typename T>
inline void tg_copy16(threadgroup T* dst, device const T* src, bool in) {
    *(threadgroup uint4*)dst = in ? *(device const uint4*)src : uint4(0u);
}
inline void tg_copy_commit() {}
template <int PENDING>
inline void tg_copy_wait() {}
