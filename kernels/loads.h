// loads.h - what a compiler may be told of loads from device memory. Plain Metal says nothing of the kind; CUDA has a header
// of this name and functions that does.
#pragma once
#include <metal_stdlib>
using namespace metal;

// After several loads: all are to be under way before any value is used. A compiler may else move each load down to its use,
// so that a thread waits for one after the other.
template <typename T>
inline void loaded(thread T&) {}

// Sixteen bytes that nobody writes during the launch and nobody reads twice: caches need not keep them.
inline uint4 load_once(device const uint4* p) { return *p; }
