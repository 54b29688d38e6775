// memory_checked.cpp - memory of the checker build. The kernels are compiled with the thread sanitizer's instrumentation,
// and this file stands in for its library: every load and store of a kernel arrives here with its address. Barriers are
// explicit, so "happens before" is an epoch number, and for the input that runs the answer is exact. Reported are
//   accesses outside every buffer;
//   data races: two threads, one of them writing, in the same barrier interval; between threadgroups, in one launch;
//   reads of threadgroup memory, and of buffers bound as write-only, before they are written.
#include <dlfcn.h>
#include <map>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <string.h>
#include <sys/mman.h>
#include <vector>
#include "runtime.h"

namespace {
const size_t ARENA = size_t(1) << 30;
const size_t MARGIN = 256; // between two buffers, and their alignment
const int MOST_REPORTS = 5;

enum Kind : uint8_t { OUTSIDE, DEVICE, DEVICE_UNWRITTEN, THREADGROUP, THREADGROUP_UNWRITTEN };
bool in_threadgroup_memory(Kind kind) { return kind >= THREADGROUP; }
bool unwritten(Kind kind) { return kind == DEVICE_UNWRITTEN || kind == THREADGROUP_UNWRITTEN; }

// Who accessed a byte last. Several readers of one interval are remembered as their simdgroup, or as anybody.
enum : uint16_t { SIMDGROUP_OF = 0x8000, ANYBODY = 0xffff };
struct Access {
    uint32_t epoch;           // 0: never
    uint32_t simdgroup_epoch;
    uint32_t code;            // offset of the instruction
    uint16_t thread;          // a thread, SIMDGROUP_OF | simdgroup, or ANYBODY
};
struct Cell { Access write, read; };

struct Block { size_t bytes; std::string name; Kind kind; };

char* arena;
Cell* cells;   // one a byte of the arena
Kind* kinds;   // likewise
size_t top;
std::map<size_t, Block> blocks; // by offset

// Barriers count up the epoch of the memory they order; a launch and a threadgroup begin with a new one.
struct Epochs { uint32_t threadgroup = 1, device = 1, launch = 1, group = 1, simdgroup[32] = {}; } epochs;
unsigned thread, group[3];
bool launching;
std::string report;
int report_count;
uintptr_t code_base; // code addresses are kept as 32-bit offsets from it

void* reserve(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) { fprintf(stderr, "memory checker: cannot reserve %zu bytes\n", bytes); abort(); }
    return p;
}

void* allocate(size_t bytes, const std::string& name, Kind kind) {
    if (!arena) {
        arena = (char*)reserve(ARENA);
        cells = (Cell*)reserve(ARENA * sizeof(Cell));
        kinds = (Kind*)reserve(ARENA);
    }
    const size_t offset = (top + MARGIN + MARGIN - 1) / MARGIN * MARGIN;
    if (bytes > ARENA || offset + bytes > ARENA - MARGIN) return nullptr;
    top = offset + bytes;
    blocks[offset] = Block{bytes, name, kind};
    memset(kinds + offset, kind, bytes);
    memset(arena + offset, kind == THREADGROUP_UNWRITTEN ? 0xff : 0, bytes);
    return arena + offset;
}

void release(void* memory) {
    const size_t offset = (char*)memory - arena;
    const auto found = blocks.find(offset);
    if (found == blocks.end()) return;
    memset(kinds + offset, OUTSIDE, found->second.bytes);
    blocks.erase(found);
    if (!blocks.empty()) return;
    madvise(cells, top * sizeof(Cell), MADV_DONTNEED); // reads as zeros afterwards
    top = 0;
}

// ---- reports

// "file:line", the inlined caller after its callee.
std::string source_line(uintptr_t code) {
    Dl_info module;
    if (!code || !dladdr((void*)code, &module)) return "?";
    const char* chosen = getenv("LLVM_SYMBOLIZER");
    char command[700];
    snprintf(command, sizeof command, "%s --obj=%s 0x%zx --functions=none --inlining 2>/dev/null",
             chosen ? chosen : "llvm-symbolizer-19", module.dli_fname, (size_t)(code - 1 - (uintptr_t)module.dli_fbase));
    std::string out;
    FILE* lines = popen(command, "r");
    char buffer[400];
    while (lines && out.size() < 120 && fgets(buffer, sizeof buffer, lines)) {
        std::string line(buffer);
        line.erase(line.find_last_not_of(" \n") + 1);
        if (line.rfind('/') != line.npos) line.erase(0, line.rfind('/') + 1);
        const bool kernel_file = line.find(".metal:") != line.npos || line.find(".h:") != line.npos;
        const bool dialect = line.compare(0, 7, "types.h") == 0 || line.compare(0, 9, "functions") == 0 || line.compare(0, 9, "simdgroup") == 0;
        if (kernel_file && !dialect) out += (out.empty() ? "" : " < ") + line;
    }
    if (lines) pclose(lines);
    return out.empty() ? "?" : out;
}

std::string place(size_t offset) {
    auto after = blocks.upper_bound(offset);
    if (after == blocks.begin()) return "nothing";
    --after;
    return after->second.name + " (" + std::to_string(after->second.bytes) + " bytes) at byte " + std::to_string(offset - after->first);
}

std::string who(uint16_t other) {
    if (other == ANYBODY) return "several threads";
    if (other & SIMDGROUP_OF) return "simdgroup " + std::to_string(other & ~SIMDGROUP_OF);
    return "thread " + std::to_string(other);
}

void add(const char* what, size_t offset, size_t bytes, bool writes, uintptr_t code, const Access* other) {
    if (++report_count > MOST_REPORTS) return;
    char text[700];
    snprintf(text, sizeof text, "%s%s: %zu-byte %s of %s by thread %u of threadgroup %u,%u,%u in %s", report.empty() ? "" : "\n  ",
             what, bytes, writes ? "write" : "read", place(offset).c_str(), thread, group[0], group[1], group[2],
             source_line(code).c_str());
    report += text;
    if (other) report += "; other: " + who(other->thread) + " in " + source_line(code_base + other->code);
}

// ---- the check of one access

// Why an earlier access is not ordered before the running thread's; null when it is.
const char* clash(const Access& earlier, bool in_threadgroup) {
    if (earlier.epoch == 0) return nullptr;
    if (in_threadgroup) {
        if (earlier.epoch != epochs.threadgroup) return nullptr;
    } else {
        if (earlier.epoch < epochs.launch) return nullptr;
        if (earlier.epoch < epochs.group) return "race between threadgroups";
        if (earlier.epoch != epochs.device) return nullptr;
    }
    if (earlier.thread == thread) return nullptr;
    const unsigned own = thread / 32;
    const bool same_simdgroup = earlier.thread != ANYBODY &&
        (earlier.thread & SIMDGROUP_OF ? (earlier.thread & ~SIMDGROUP_OF) == own : earlier.thread / 32u == own);
    if (same_simdgroup && earlier.simdgroup_epoch != epochs.simdgroup[own]) return nullptr;
    return "data race";
}

uint16_t with_reader(const Access& earlier, uint32_t epoch) {
    const unsigned own = thread / 32;
    if (earlier.epoch != epoch || earlier.thread == thread) return (uint16_t)thread;
    const bool same_simdgroup = earlier.thread != ANYBODY &&
        (earlier.thread & SIMDGROUP_OF ? (earlier.thread & ~SIMDGROUP_OF) == own : earlier.thread / 32u == own);
    // A simdgroup barrier in between: the earlier readers of this simdgroup are ordered already.
    if (same_simdgroup && earlier.simdgroup_epoch != epochs.simdgroup[own]) return (uint16_t)thread;
    return same_simdgroup ? (uint16_t)(SIMDGROUP_OF | own) : (uint16_t)ANYBODY;
}

void access(const void* address, size_t bytes, bool writes, bool atomic, uintptr_t code) {
    const size_t offset = (const char*)address - arena;
    if (offset >= ARENA || !launching) return; // the stack, constants, arguments
    if (!code_base) code_base = code & ~uintptr_t(0x3fffffff);
    const uint32_t code_offset = (uint32_t)(code - code_base);
    bool reported = false;
    for (size_t i = offset; i < offset + bytes; ++i) {
        const Kind kind = kinds[i];
        if (kind == OUTSIDE) {
            if (!reported) add("out of bounds", i, bytes, writes, code, nullptr);
            return;
        }
        Cell& cell = cells[i];
        const bool in_threadgroup = in_threadgroup_memory(kind);
        const uint32_t epoch = in_threadgroup ? epochs.threadgroup : epochs.device;
        const Access* other = &cell.write;
        const char* what = atomic ? nullptr : clash(cell.write, in_threadgroup);
        if (!what && writes && !atomic) {
            other = &cell.read;
            what = clash(cell.read, in_threadgroup);
        }
        if (!what && !writes && unwritten(kind)) {
            what = in_threadgroup ? "uninitialised threadgroup memory" : "read of a write-only buffer";
            other = nullptr;
        }
        if (what && !reported) { add(what, i, bytes, writes, code, other); reported = true; }
        if (writes) {
            if (!atomic) cell.write = Access{epoch, epochs.simdgroup[thread / 32], code_offset, (uint16_t)thread};
            kinds[i] = in_threadgroup ? THREADGROUP : DEVICE;
        } else if (!atomic) {
            cell.read = Access{epoch, epochs.simdgroup[thread / 32], code_offset, with_reader(cell.read, epoch)};
        }
    }
}
} // namespace

extern "C" void* emulator_allocate(size_t bytes, const char* name) { return allocate(bytes, name, DEVICE); }
extern "C" void emulator_free(void* memory) { release(memory); }

namespace memory {
void* allocate_threadgroup(size_t bytes, unsigned index) {
    return allocate(bytes, "threadgroup(" + std::to_string(index) + ")", THREADGROUP_UNWRITTEN);
}
void free_threadgroup(void* memory) { release(memory); }

void begin_launch(const EmulatorLaunch& launch) {
    epochs.launch = ++epochs.device;
    report.clear();
    report_count = 0;
    launching = true;
    // A buffer bound twice may be read if either binding says so: write-only ones first.
    for (const bool write_only : {true, false}) {
        for (unsigned i = 0; i < launch.buffer_count; ++i) {
            const auto found = blocks.find((char*)launch.buffers[i] - arena);
            if (found == blocks.end() || (launch.access[i] == EMULATOR_WRITE) != write_only) continue;
            memset(kinds + found->first, write_only ? DEVICE_UNWRITTEN : DEVICE, found->second.bytes);
        }
    }
}

void begin_group(const unsigned position[3]) {
    memcpy(group, position, sizeof group);
    epochs.group = ++epochs.device;
    ++epochs.threadgroup;
    for (uint32_t& epoch : epochs.simdgroup) ++epoch;
    for (const auto& block : blocks) {
        if (block.second.kind == THREADGROUP_UNWRITTEN) memset(kinds + block.first, THREADGROUP_UNWRITTEN, block.second.bytes);
    }
}
void begin_thread(unsigned linear) { thread = linear; }
void threadgroup_barrier(int memory_flags) {
    if (memory_flags & 2) ++epochs.threadgroup;
    if (memory_flags & 1) ++epochs.device;
}
void simdgroup_barrier(unsigned simdgroup, int memory_flags) {
    if (memory_flags & 3) ++epochs.simdgroup[simdgroup];
}
const char* end_launch() {
    launching = false;
    return report.empty() ? nullptr : report.c_str();
}
} // namespace memory

// ---- what the instrumentation calls
#define CODE (uintptr_t)__builtin_return_address(0)
extern "C" {
#define READ_WRITE(N)                                                                                        \
    void __tsan_read##N(void* p) { access(p, N, false, false, CODE); }                                       \
    void __tsan_write##N(void* p) { access(p, N, true, false, CODE); }                                       \
    void __tsan_unaligned_read##N(void* p) { access(p, N, false, false, CODE); }                             \
    void __tsan_unaligned_write##N(void* p) { access(p, N, true, false, CODE); }                             \
    void __tsan_read_write##N(void* p) {                                                                     \
        access(p, N, false, false, CODE);                                                                    \
        access(p, N, true, false, CODE);                                                                     \
    }                                                                                                        \
    void __tsan_unaligned_read_write##N(void* p) {                                                           \
        access(p, N, false, false, CODE);                                                                    \
        access(p, N, true, false, CODE);                                                                     \
    }
READ_WRITE(1) READ_WRITE(2) READ_WRITE(4) READ_WRITE(8) READ_WRITE(16)

// Atomics: never a race among themselves, and fibers make the plain operation atomic.
#define ATOMIC(BITS, T)                                                                                      \
    T __tsan_atomic##BITS##_load(const T* p, int) { access(p, sizeof(T), false, true, CODE); return *p; }    \
    void __tsan_atomic##BITS##_store(T* p, T v, int) { access(p, sizeof(T), true, true, CODE); *p = v; }     \
    T __tsan_atomic##BITS##_fetch_add(T* p, T v, int) {                                                      \
        access(p, sizeof(T), false, true, CODE);                                                             \
        const T old = *p;                                                                                    \
        *p = old + v;                                                                                        \
        return old;                                                                                          \
    }                                                                                                        \
    T __tsan_atomic##BITS##_fetch_or(T* p, T v, int) {                                                       \
        access(p, sizeof(T), false, true, CODE);                                                             \
        const T old = *p;                                                                                    \
        *p = old | v;                                                                                        \
        return old;                                                                                          \
    }
ATOMIC(32, uint32_t) ATOMIC(64, uint64_t)

void __tsan_read_range(void* p, size_t n) { access(p, n, false, false, CODE); }
void __tsan_write_range(void* p, size_t n) { access(p, n, true, false, CODE); }
void* __tsan_memcpy(void* to, const void* from, size_t n) {
    access(from, n, false, false, CODE);
    access(to, n, true, false, CODE);
    return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
    access(from, n, false, false, CODE);
    access(to, n, true, false, CODE);
    return memmove(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
    access(to, n, true, false, CODE);
    return memset(to, value, n);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
