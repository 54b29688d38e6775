// runtime.h - what compiled kernels, the fiber runtime and the host share. Plain C, so that the host can load it.
#pragma once
#include <stddef.h>

// Where the running fiber stands; threads are numbered x first.
struct EmulatorThread {
    enum { GROUP = 0, THREAD = 3, GROUP_SIZE = 6, GRID = 9 };
    unsigned position[12]; // threadgroup, thread, threads a threadgroup, threadgroups: x y z each
    unsigned linear;
};

struct EmulatorArguments {
    void* buffers[31]; // buffers and constants, by index
    void* shared[31]; // threadgroup memory, by index
};
typedef void (*EmulatorEntry)(const EmulatorArguments&);

// Sixteen bytes on their way; zeros where `from` is null.
struct EmulatorCopy {
    void* to;
    const void* from;
};

// How a kernel may use a buffer: a buffer that is only written counts as uninitialised until then.
enum EmulatorAccess { EMULATOR_READ = 0, EMULATOR_WRITE = 1, EMULATOR_READ_WRITE = 2 };

extern "C" {
// ---- for compiled kernels
extern __thread const EmulatorThread* emulator_thread;
void emulator_register(const char* name, EmulatorEntry entry);
void emulator_threadgroup_barrier(int memory_flags, int line);
void emulator_simdgroup_barrier(int memory_flags, int line);
// Waits until all lanes have given a value of `size` bytes (at most 16); they lie one behind the other, and stay until the
// lane's next operation but one. A bit of `active` for every lane that takes part.
const char* emulator_exchange(const void* value, size_t size, int line, unsigned* active);
// A copy in the thread's open group; the group is closed.
void emulator_copy(void* to, const void* from);
void emulator_copy_commit();
// The thread's next copy that is to be made before at most the last `pending` groups are unfinished; null when there is none.
const EmulatorCopy* emulator_copy_due(unsigned pending);

// ---- for the host
struct EmulatorLaunch {
    const char* kernel;
    unsigned grid[3];          // threadgroups
    unsigned threadgroup[3];   // threads a threadgroup
    unsigned first[3], end[3]; // the threadgroups that run: all of the grid, or a part of it
    void* const* buffers;      // by index; null where nothing is bound
    const int* access;         // EmulatorAccess of each
    unsigned buffer_count;
    const size_t* threadgroup_bytes; // by index
    unsigned threadgroup_count;
};
// Null, or what went wrong; the text is valid until the OS thread's next launch. Launches on several threads run beside one
// another where the memory backend lets them: all but the checked one.
const char* emulator_launch(const EmulatorLaunch* launch);
int emulator_has(const char* kernel);
void* emulator_allocate(size_t bytes, const char* name); // zeros; null when there is no memory
void emulator_free(void* memory);
}

// ---- a memory backend: memory_guarded.cpp, memory_exact.cpp or memory_checked.cpp
namespace memory {
void* allocate_threadgroup(size_t bytes, unsigned index);
void free_threadgroup(void* memory);
void begin_launch(const EmulatorLaunch& launch);
void begin_group(const unsigned position[3]);
void begin_thread(unsigned linear);
void threadgroup_barrier(int memory_flags);
void simdgroup_barrier(unsigned simdgroup, int memory_flags);
const char* end_launch(); // null, or what the checks found
} // namespace memory
