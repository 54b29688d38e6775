// positions.h - where a thread stands: what the wrappers pass for position attributes.
#pragma once

namespace dialect {
METAL_FN uint linear_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
METAL_FN uint lane() { return linear_thread() % 32; }

METAL_FN Position threadgroup_position_in_grid() { return Position{blockIdx.x, blockIdx.y, blockIdx.z}; }
METAL_FN Position thread_position_in_threadgroup() { return Position{threadIdx.x, threadIdx.y, threadIdx.z}; }
METAL_FN Position threads_per_threadgroup() { return Position{blockDim.x, blockDim.y, blockDim.z}; }
METAL_FN Position threadgroups_per_grid() { return Position{gridDim.x, gridDim.y, gridDim.z}; }
METAL_FN Position thread_position_in_grid() {
    return Position{blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y,
                    blockIdx.z * blockDim.z + threadIdx.z};
}
METAL_FN Position threads_per_grid() {
    return Position{gridDim.x * blockDim.x, gridDim.y * blockDim.y, gridDim.z * blockDim.z};
}
METAL_FN Position thread_index_in_threadgroup() { return Position{linear_thread(), 0, 0}; }
METAL_FN Position thread_index_in_simdgroup() { return Position{lane(), 0, 0}; }
METAL_FN Position simdgroup_index_in_threadgroup() { return Position{linear_thread() / 32, 0, 0}; }
METAL_FN Position simdgroups_per_threadgroup() {
    return Position{(blockDim.x * blockDim.y * blockDim.z + 31) / 32, 0, 0};
}
METAL_FN Position threads_per_simdgroup() { return Position{32, 0, 0}; }

// How a launch may overlap with its neighbours in the queue (ahead.h): those after it may be started; the one before it
// has ended, and all that it wrote can be read.
METAL_FN void let_dependents_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
METAL_FN void await_dependency() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
} // namespace dialect
