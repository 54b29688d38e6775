// residents.h - threadgroups that are all there at once, every thread a fiber: what hopper.h and the runtime share.
#pragma once
#include <stddef.h>

struct Place { unsigned x; };
struct Resident {
    Place thread, group, threads, groups; // threadIdx, blockIdx, blockDim, gridDim
};

extern "C" {
// ---- for the kernel
extern __thread const Resident* resident;
unsigned char* resident_shared();
// Others run; returns when somebody may have changed what this fiber waits for.
void resident_yield();
// All threads of the threadgroup.
void resident_barrier();
// The lane's value in, those of all lanes out.
void resident_exchange(unsigned value, unsigned out[32]);
// A copy that comes some time later, and then tells its barrier.
void resident_copy(void* to, const void* from, unsigned bytes, unsigned long long* barrier);
void resident_arrive(unsigned long long* barrier, unsigned arrivals, int bytes);

// ---- for the host
// Runs `groups` threadgroups of `threads` threads, in an order that `seed` decides. Null, or what went wrong; the text is
// valid until the OS thread's next run. Each OS thread may run one.
const char* residents_run(void (*entry)(const void*), const void* arguments, unsigned groups, unsigned threads, size_t shared_bytes,
                          unsigned long long seed);
}

// A barrier that counts arrivals and bytes, in 64 bits.
union CountingBarrier {
    unsigned long long word;
    struct {
        short arrivals;         // of a phase
        short pending;
        unsigned phase : 1;
        int bytes : 31;
    };
};
