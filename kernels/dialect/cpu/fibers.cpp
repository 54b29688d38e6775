// fibers.cpp - runs compiled kernels. Every GPU thread is a fiber on the OS thread that launches; threadgroups run one after
// another. A fiber runs until it blocks in a barrier or a simdgroup operation, so that every run is the same. Each OS thread
// has a runtime of its own: launches run beside one another.
#include <map>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <vector>
#include "context.h"
#include "runtime.h"

namespace {
enum State { READY, IN_BARRIER, IN_EXCHANGE, IN_SIMDGROUP_BARRIER, FINISHED };
const char* const STATE_NAMES[] = {"running at line", "in threadgroup_barrier at line", "in a simdgroup operation at line",
                                   "in simdgroup_barrier at line", "finished after line"};

const size_t STACK = 256 << 10;

struct Fiber {
    EmulatorThread where;
    Context context;
    State state;
    int line;
    int memory_flags;
    std::vector<EmulatorCopy> copies; // not yet made
    std::vector<size_t> groups;       // where each of their groups ends
    size_t made;                      // of `copies`

    void start(char* stack, void (*entry)()) {
        context.prepare(stack, STACK, entry);
        state = READY;
        line = 0;
        copies.clear();
        groups.clear();
        made = 0;
    }
    const EmulatorCopy* copy_due(unsigned pending) {
        const size_t closed = groups.size(), due = closed > pending ? groups[closed - pending - 1] : 0;
        return made < due ? &copies[made++] : nullptr;
    }
};

// The values that the lanes of a simdgroup exchange. Two buffers, used in turn: a lane that goes on to its next
// operation cannot overwrite what a slower lane has yet to read.
struct Exchange {
    alignas(16) char values[2][32 * 16];
    unsigned active[2];
    int turn;
};

struct Stacks {
    char* memory = nullptr;
    size_t count = 0;

    ~Stacks() { release(); }
    void release() {
        if (memory) munmap(memory, count * STACK);
    }
    bool reserve(size_t wanted) {
        if (wanted <= count) return true;
        release();
        void* mapped = mmap(nullptr, wanted * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        memory = mapped == MAP_FAILED ? nullptr : (char*)mapped;
        count = memory ? wanted : 0;
        return memory != nullptr;
    }
};

std::map<std::string, EmulatorEntry>& kernels() {
    static std::map<std::string, EmulatorEntry> registered;
    return registered;
}

// The launch that an OS thread is at.
struct Runtime {
    std::vector<Fiber> fibers;
    std::vector<Exchange> exchanges; // one a simdgroup
    Stacks stacks;
    Context host;
    Fiber* running;
    EmulatorArguments arguments;
    EmulatorEntry entry;
    std::string error;

    void block(State state, int line, int memory_flags) {
        Fiber& fiber = *running;
        fiber.state = state;
        fiber.line = line;
        fiber.memory_flags = memory_flags;
        fiber.context.switch_to(host, state == FINISHED);
    }
    void resume(Fiber& fiber) {
        running = &fiber;
        emulator_thread = &fiber.where;
        memory::begin_thread(fiber.where.linear);
        host.switch_to(fiber.context);
    }
    bool fail(const char* what, const Fiber& a, const Fiber& b);
    bool run_simdgroup(unsigned simdgroup, size_t& finished);
    bool run_threadgroup();
    void place_fibers(const EmulatorLaunch& launch, const unsigned group[3]);
    bool run_grid(const EmulatorLaunch& launch);
    const char* launch(const EmulatorLaunch& launch);
};
__thread Runtime* runtime; // of this OS thread, once it has launched

void fiber_main() {
    Runtime& now = *runtime;
    Context::arrive(now.host);
    now.entry(now.arguments);
    now.block(FINISHED, now.running->line, 0);
    abort(); // a finished fiber is never resumed
}

bool Runtime::fail(const char* what, const Fiber& a, const Fiber& b) {
    const unsigned* group = a.where.position;
    char text[512];
    snprintf(text, sizeof text, "%s: thread %u is %s %d, thread %u is %s %d (threadgroup %u,%u,%u)", what, a.where.linear,
             STATE_NAMES[a.state], a.line, b.where.linear, STATE_NAMES[b.state], b.line, group[0], group[1], group[2]);
    error = text;
    return false;
}

// One simdgroup, from one lane to the next, until all of its lanes wait for the rest of the threadgroup.
bool Runtime::run_simdgroup(unsigned simdgroup, size_t& finished) {
    Fiber* const first = &fibers[simdgroup * 32];
    Fiber* const end = &fibers[0] + (simdgroup * 32 + 32 < fibers.size() ? simdgroup * 32 + 32 : fibers.size());
    for (;;) {
        for (Fiber* lane = first; lane < end; ++lane) {
            if (lane->state != READY) continue;
            resume(*lane);
            finished += lane->state == FINISHED;
        }
        const Fiber* waiting = nullptr;
        unsigned active = 0;
        for (Fiber* lane = first; lane < end; ++lane) {
            if (lane->state != IN_EXCHANGE && lane->state != IN_SIMDGROUP_BARRIER) continue;
            if (!waiting) waiting = lane;
            active |= 1u << (lane - first);
        }
        if (!waiting) return true;
        for (Fiber* lane = first; lane < end; ++lane) {
            if (lane->state != waiting->state || lane->line != waiting->line) {
                return fail("lanes of a simdgroup diverge around a simdgroup operation", *waiting, *lane);
            }
        }
        if (waiting->state == IN_EXCHANGE) {
            Exchange& exchange = exchanges[simdgroup];
            exchange.active[exchange.turn] = active;
            exchange.turn ^= 1;
        } else {
            memory::simdgroup_barrier(simdgroup, waiting->memory_flags);
        }
        for (Fiber* lane = first; lane < end; ++lane) lane->state = READY;
    }
}

bool Runtime::run_threadgroup() {
    for (size_t i = 0; i < fibers.size(); ++i) {
        fibers[i].start(stacks.memory + i * STACK, fiber_main);
    }
    for (Exchange& exchange : exchanges) exchange.turn = 0;
    size_t finished = 0;
    for (;;) {
        for (unsigned s = 0; s < exchanges.size(); ++s) {
            if (!run_simdgroup(s, finished)) return false;
        }
        if (finished == fibers.size()) return true;
        // Nobody can run: all must be in one and the same barrier.
        const Fiber* waiting = nullptr;
        for (const Fiber& fiber : fibers) {
            if (fiber.state == IN_BARRIER) { waiting = &fiber; break; }
        }
        for (const Fiber& fiber : fibers) {
            if (fiber.state == FINISHED) return fail("not every thread reaches the barrier", *waiting, fiber);
            if (fiber.line != waiting->line) return fail("threads wait in different barriers", *waiting, fiber);
        }
        memory::threadgroup_barrier(waiting->memory_flags);
        for (Fiber& fiber : fibers) fiber.state = READY;
    }
}

void Runtime::place_fibers(const EmulatorLaunch& launch, const unsigned group[3]) {
    const unsigned* size = launch.threadgroup;
    for (unsigned i = 0; i < fibers.size(); ++i) {
        const unsigned position[12] = {group[0], group[1], group[2], i % size[0], i / size[0] % size[1], i / size[0] / size[1],
                                       size[0], size[1], size[2], launch.grid[0], launch.grid[1], launch.grid[2]};
        memcpy(fibers[i].where.position, position, sizeof position);
        fibers[i].where.linear = i;
    }
}

bool Runtime::run_grid(const EmulatorLaunch& launch) {
    unsigned group[3];
    for (group[2] = launch.first[2]; group[2] < launch.end[2]; ++group[2]) {
        for (group[1] = launch.first[1]; group[1] < launch.end[1]; ++group[1]) {
            for (group[0] = launch.first[0]; group[0] < launch.end[0]; ++group[0]) {
                place_fibers(launch, group);
                memory::begin_group(group);
                if (!run_threadgroup()) return false;
            }
        }
    }
    return true;
}

const char* Runtime::launch(const EmulatorLaunch& launch) {
    error.clear();
    const auto found = kernels().find(launch.kernel);
    if (found == kernels().end()) return (error = "the library has no such kernel").c_str();
    entry = found->second;
    const size_t threads = (size_t)launch.threadgroup[0] * launch.threadgroup[1] * launch.threadgroup[2];
    if (threads == 0 || threads > 1024) return (error = "a threadgroup must have 1 to 1024 threads").c_str();
    if (!stacks.reserve(threads)) return (error = "no memory for the fibers' stacks").c_str();
    fibers.resize(threads);
    exchanges.resize((threads + 31) / 32);
    memset(&arguments, 0, sizeof arguments);
    for (unsigned i = 0; i < launch.buffer_count; ++i) arguments.buffers[i] = launch.buffers[i];
    for (unsigned i = 0; i < launch.threadgroup_count; ++i) {
        arguments.shared[i] = memory::allocate_threadgroup(launch.threadgroup_bytes[i], i);
        if (!arguments.shared[i]) error = "no memory for the threadgroup buffers";
    }
    if (error.empty()) {
        memory::begin_launch(launch);
        const bool finished = run_grid(launch);
        const char* found_by_checks = memory::end_launch();
        if (finished && found_by_checks) error = found_by_checks;
    }
    for (unsigned i = 0; i < launch.threadgroup_count; ++i) memory::free_threadgroup(arguments.shared[i]);
    return error.empty() ? nullptr : error.c_str();
}
} // namespace

extern "C" {
__thread const EmulatorThread* emulator_thread;

void emulator_register(const char* name, EmulatorEntry kernel) { kernels()[name] = kernel; }
int emulator_has(const char* kernel) { return kernels().count(kernel) != 0; }

void emulator_threadgroup_barrier(int memory_flags, int line) { runtime->block(IN_BARRIER, line, memory_flags); }
void emulator_simdgroup_barrier(int memory_flags, int line) { runtime->block(IN_SIMDGROUP_BARRIER, line, memory_flags); }

const char* emulator_exchange(const void* value, size_t size, int line, unsigned* active) {
    Runtime& now = *runtime;
    const unsigned linear = now.running->where.linear;
    Exchange& exchange = now.exchanges[linear / 32];
    const int turn = exchange.turn;
    memcpy(exchange.values[turn] + linear % 32 * size, value, size);
    now.block(IN_EXCHANGE, line, 0);
    *active = exchange.active[turn];
    return exchange.values[turn];
}

void emulator_copy(void* to, const void* from) { runtime->running->copies.push_back({to, from}); }
void emulator_copy_commit() {
    Fiber& fiber = *runtime->running;
    fiber.groups.push_back(fiber.copies.size());
}
const EmulatorCopy* emulator_copy_due(unsigned pending) { return runtime->running->copy_due(pending); }

const char* emulator_launch(const EmulatorLaunch* launch) {
    static thread_local Runtime own;
    runtime = &own;
    return own.launch(*launch);
}
}
