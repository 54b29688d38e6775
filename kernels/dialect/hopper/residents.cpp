// residents.cpp - runs a kernel whose threadgroups wait for one another. Every thread is a fiber on the OS thread that launches;
// which runs next, and when a copy arrives, a seed decides. Each OS thread has a runtime of its own.
#include <stdint.h>
#include <string.h>
#include <string>
#include <sys/mman.h>
#include <vector>
#include "context.h"
#include "residents.h"

namespace {
struct Fiber {
    Resident where;
    Context context;
    bool finished;
};
struct Count {
    unsigned arrived = 0;
    unsigned long long generation = 0;
};
struct Warp {
    Count exchange;
    unsigned values[2][32];
};
struct Group {
    Count barrier;
    std::vector<Warp> warps;
    std::vector<unsigned char> memory;
    unsigned char* shared; // aligned
};
struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
    unsigned long long* barrier;
};

const size_t STACK = 64 << 10;
const unsigned char POISON = 0xff; // a NaN, whatever is read of it

// The kernel that an OS thread runs.
struct Runtime {
    std::vector<Fiber> fibers;
    std::vector<Group> groups;
    std::vector<Copy> copies;
    Context host;
    Fiber* running;
    void (*entry)(const void*);
    const void* arguments;
    uint64_t state;
    bool progress; // whether a fiber has come further than to look again
    std::string error;

    unsigned random_below(unsigned n) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return (unsigned)(state >> 33) % n;
    }
    Group& group() { return groups[running->where.group.x]; }
    Warp& warp() { return group().warps[running->where.thread.x / 32]; }

    void gather(Count& count, unsigned threads) {
        const unsigned long long generation = count.generation;
        progress = true;
        if (++count.arrived == threads) {
            count.arrived = 0;
            ++count.generation;
        }
        while (count.generation == generation) resident_yield();
    }
    void end_phase(CountingBarrier& b) {
        progress = true;
        if (b.pending > 0 || b.bytes != 0) return;
        b.phase ^= 1;
        b.pending = b.arrivals;
    }
    void deliver(size_t i) {
        const Copy copy = copies[i];
        copies[i] = copies.back();
        copies.pop_back();
        memcpy(copy.to, copy.from, copy.bytes);
        CountingBarrier& b = *(CountingBarrier*)copy.barrier;
        b.bytes -= (int)copy.bytes;
        end_phase(b);
    }
    // The fibers of a warp, again and again while one of them gets on.
    bool run_warp(Fiber* lanes, unsigned count) {
        bool any = false;
        do {
            progress = false;
            for (unsigned i = 0; i < count; ++i) {
                if (lanes[i].finished) continue;
                running = &lanes[i];
                resident = &running->where;
                host.switch_to(running->context);
                progress = progress || running->finished;
            }
            any = any || progress;
        } while (progress);
        return any;
    }
    const char* run(unsigned n_groups, unsigned threads, size_t shared_bytes, unsigned long long seed);
};
__thread Runtime* runtime; // of this OS thread, once it has run a kernel

void fiber_main() {
    Runtime& now = *runtime;
    Context::arrive(now.host);
    now.entry(now.arguments);
    now.running->finished = true;
    now.running->context.switch_to(now.host, true);
}

const char* Runtime::run(unsigned n_groups, unsigned threads, size_t shared_bytes, unsigned long long seed) {
    state = seed * 2 + 1;
    const size_t count = (size_t)n_groups * threads;
    void* stacks = mmap(nullptr, count * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) return "no memory for the threads' stacks";
    fibers.assign(count, Fiber());
    groups.assign(n_groups, Group());
    copies.clear();
    for (Group& g : groups) {
        g.warps.assign((threads + 31) / 32, Warp());
        g.memory.assign(shared_bytes + 128, POISON);
        g.shared = (unsigned char*)(((uintptr_t)g.memory.data() + 127) / 128 * 128);
    }
    for (size_t i = 0; i < count; ++i) {
        fibers[i].where = {{(unsigned)(i % threads)}, {(unsigned)(i / threads)}, {threads}, {n_groups}};
        fibers[i].context.prepare((char*)stacks + i * STACK, STACK, fiber_main);
    }
    std::vector<size_t> warps;
    for (size_t i = 0; i < count; i += i % threads + 32 < threads ? 32 : threads - i % threads) warps.push_back(i);
    bool any = true;
    while (any) {
        any = false;
        for (size_t i = warps.size(); i > 1; --i) std::swap(warps[i - 1], warps[random_below((unsigned)i)]);
        for (size_t first : warps) {
            const unsigned left = threads - first % threads;
            any = run_warp(&fibers[first], left < 32 ? left : 32) || any;
            while (!copies.empty() && random_below(3) == 0) deliver(random_below((unsigned)copies.size())), any = true;
        }
        if (!any && !copies.empty()) deliver(random_below((unsigned)copies.size())), any = true;
    }
    size_t waiting = 0;
    const Fiber* first = nullptr;
    for (const Fiber& f : fibers) {
        if (!f.finished && waiting++ == 0) first = &f;
    }
    munmap(stacks, count * STACK);
    if (waiting == 0) return nullptr;
    error = std::to_string(waiting) + " threads wait for ever, the first is thread " + std::to_string(first->where.thread.x) +
            " of threadgroup " + std::to_string(first->where.group.x);
    return error.c_str();
}
} // namespace

__thread const Resident* resident;
unsigned char* resident_shared() { return runtime->group().shared; }
void resident_yield() {
    Runtime& now = *runtime;
    now.running->context.switch_to(now.host);
    resident = &now.running->where;
}
void resident_barrier() { runtime->gather(runtime->group().barrier, runtime->running->where.threads.x); }
void resident_exchange(unsigned value, unsigned out[32]) {
    Runtime& now = *runtime;
    Warp& w = now.warp();
    unsigned* values = w.values[w.exchange.generation % 2];
    values[now.running->where.thread.x % 32] = value;
    now.gather(w.exchange, 32);
    memcpy(out, values, 32 * sizeof *out);
}
void resident_copy(void* to, const void* from, unsigned bytes, unsigned long long* barrier) {
    runtime->copies.push_back({to, from, bytes, barrier});
}
void resident_arrive(unsigned long long* barrier, unsigned arrivals, int bytes) {
    CountingBarrier& b = *(CountingBarrier*)barrier;
    b.bytes += bytes;
    b.pending -= (short)arrivals;
    runtime->end_phase(b);
}

const char* residents_run(void (*kernel)(const void*), const void* given, unsigned groups, unsigned threads, size_t shared_bytes,
                          unsigned long long seed) {
    static thread_local Runtime own;
    runtime = &own;
    own.entry = kernel, own.arguments = given;
    return own.run(groups, threads, shared_bytes, seed);
}
