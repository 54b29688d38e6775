// memory_guarded.cpp - memory of the fast build: guard words round every buffer, looked at after every launch.
#include <mutex>
#include <stdint.h>
#include <stdio.h>
#include <string>
#include <string.h>
#include <sys/mman.h>
#include <unordered_map>
#include <vector>
#include "runtime.h"

namespace {
const size_t GUARD = 4096; // bytes before and after
const uint64_t GUARD_WORD = 0xfeedfacedeadbeefull;

struct Block {
    char* mapping;
    size_t bytes;
    std::string name;

    size_t mapped_bytes() const { return 2 * GUARD + bytes + 8; }
    // Offset from the buffer's start of the first damaged guard word, if there is one.
    bool damaged(long& offset) const {
        for (size_t i = 0; i < GUARD; i += 8) {
            if (memcmp(mapping + i, &GUARD_WORD, 8) != 0) { offset = (long)i - (long)GUARD; return true; }
            if (memcmp(mapping + GUARD + bytes + i, &GUARD_WORD, 8) != 0) { offset = (long)(bytes + i); return true; }
        }
        return false;
    }
};
std::unordered_map<void*, Block> blocks;
std::mutex blocks_lock;
typedef std::lock_guard<std::mutex> Locked;

struct Span { void* memory; size_t bytes; };
thread_local std::vector<Span> threadgroup_memory;
thread_local std::string damage;

// Pages are reserved, not filled: a buffer of many gigabytes costs only what is touched.
void* allocate(size_t bytes, const std::string& name) {
    Block block{nullptr, bytes, name};
    if (bytes > SIZE_MAX / 2) return nullptr;
    void* mapping = mmap(nullptr, block.mapped_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    block.mapping = (char*)mapping;
    for (size_t i = 0; i < GUARD; i += 8) {
        memcpy(block.mapping + i, &GUARD_WORD, 8);
        memcpy(block.mapping + GUARD + bytes + i, &GUARD_WORD, 8);
    }
    Locked locked(blocks_lock);
    blocks[block.mapping + GUARD] = block;
    return block.mapping + GUARD;
}

void release(void* memory) {
    Locked locked(blocks_lock);
    const auto found = blocks.find(memory);
    if (found == blocks.end()) return;
    munmap(found->second.mapping, found->second.mapped_bytes());
    blocks.erase(found);
}
} // namespace

extern "C" void* emulator_allocate(size_t bytes, const char* name) { return allocate(bytes, name); }
extern "C" void emulator_free(void* memory) { release(memory); }

namespace memory {
void* allocate_threadgroup(size_t bytes, unsigned index) {
    void* memory = allocate(bytes, "threadgroup(" + std::to_string(index) + ")");
    if (memory) threadgroup_memory.push_back({memory, bytes});
    return memory;
}
void free_threadgroup(void* memory) {
    threadgroup_memory.clear();
    release(memory);
}
void begin_launch(const EmulatorLaunch&) { damage.clear(); }
// What a threadgroup has not written reads as NaN.
void begin_group(const unsigned*) {
    for (const Span& span : threadgroup_memory) memset(span.memory, 0xff, span.bytes);
}
void begin_thread(unsigned) {}
void threadgroup_barrier(int) {}
void simdgroup_barrier(unsigned, int) {}

const char* end_launch() {
    Locked locked(blocks_lock);
    for (const auto& entry : blocks) {
        long offset;
        if (!entry.second.damaged(offset)) continue;
        char text[256];
        snprintf(text, sizeof text, "wrote outside %s (%zu bytes) at byte %ld", entry.second.name.c_str(), entry.second.bytes, offset);
        damage = text;
        return damage.c_str();
    }
    return nullptr;
}
} // namespace memory
