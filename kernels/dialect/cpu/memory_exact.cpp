// memory_exact.cpp - memory of the sanitizer build: blocks of the exact size, so that the sanitizer sees every overrun.
#include <stdlib.h>
#include <string.h>
#include "runtime.h"

static void* allocate(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 16, bytes ? bytes : 1) != 0) return nullptr;
    memset(memory, 0, bytes);
    return memory;
}

extern "C" void* emulator_allocate(size_t bytes, const char*) { return allocate(bytes); }
extern "C" void emulator_free(void* memory) { free(memory); }

namespace memory {
void* allocate_threadgroup(size_t bytes, unsigned) { return allocate(bytes); }
void free_threadgroup(void* memory) { free(memory); }
void begin_launch(const EmulatorLaunch&) {}
void begin_group(const unsigned*) {}
void begin_thread(unsigned) {}
void threadgroup_barrier(int) {}
void simdgroup_barrier(unsigned, int) {}
const char* end_launch() { return nullptr; }
} // namespace memory
