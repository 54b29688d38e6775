// context.h - switching between fibers: hand-written for x86-64 and aarch64, ucontext elsewhere. Under the address
// sanitizer every switch is announced to it.
#pragma once
#include <stdint.h>
#include <string.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/common_interface_defs.h>
#define ANNOUNCE_FIBERS 1
#endif

#if defined(__x86_64__) || defined(__aarch64__)
#define OWN_SWITCH 1
// Saves the callee-saved registers on the running stack, its pointer in *save, and goes on at `to`.
extern "C" void emulator_switch(void** save, void* to);
#if defined(__APPLE__)
#define SWITCH_LABEL ".globl _emulator_switch\n_emulator_switch:\n"
#else
#define SWITCH_LABEL ".globl emulator_switch\n.type emulator_switch,@function\nemulator_switch:\n"
#endif
#else
#include <ucontext.h>
#endif

struct Context {
#if defined(OWN_SWITCH)
    void* stack_pointer = nullptr;
#else
    ucontext_t saved;
#endif
#if defined(ANNOUNCE_FIBERS)
    void* fake_stack = nullptr;
    const void* bottom = nullptr;
    size_t size = 0;
#endif

    // Makes the context start in `entry`, which must not return.
    void prepare(char* stack, size_t bytes, void (*entry)()) {
#if defined(ANNOUNCE_FIBERS)
        bottom = stack;
        size = bytes;
        fake_stack = nullptr;
#endif
#if defined(__x86_64__)
        enum { SAVED = 6 }; // rbp rbx r12 r13 r14 r15, popped before the return address
        uint64_t* top = (uint64_t*)(stack + bytes) - 2 - SAVED;
        memset(top, 0, (2 + SAVED) * sizeof *top);
        top[SAVED] = (uint64_t)entry;
        stack_pointer = top;
#elif defined(__aarch64__)
        enum { SAVED = 20, LINK = 11 }; // x19..x30, d8..d15; x30 is where `ret` goes
        uint64_t* top = (uint64_t*)(stack + bytes) - SAVED;
        memset(top, 0, SAVED * sizeof *top);
        top[LINK] = (uint64_t)entry;
        stack_pointer = top;
#else
        getcontext(&saved);
        saved.uc_stack.ss_sp = stack;
        saved.uc_stack.ss_size = bytes;
        saved.uc_link = nullptr;
        makecontext(&saved, entry, 0);
#endif
    }

    // Leaves this context for `to`; returns when somebody comes back. `ends`: nobody will.
    void switch_to(Context& to, bool ends = false) {
#if defined(ANNOUNCE_FIBERS)
        __sanitizer_start_switch_fiber(ends ? nullptr : &fake_stack, to.bottom, to.size);
#else
        (void)ends;
#endif
#if defined(OWN_SWITCH)
        emulator_switch(&stack_pointer, to.stack_pointer);
#else
        swapcontext(&saved, &to.saved);
#endif
#if defined(ANNOUNCE_FIBERS)
        __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
    }

    // First thing on a new stack; `from` is the context that was left.
    static void arrive(Context& from) {
#if defined(ANNOUNCE_FIBERS)
        __sanitizer_finish_switch_fiber(nullptr, &from.bottom, &from.size);
#else
        (void)from;
#endif
    }
};

#if defined(__x86_64__)
__asm__(".text\n" SWITCH_LABEL
        "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n"
        "mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n"
        "ret\n");
#elif defined(__aarch64__)
__asm__(".text\n" SWITCH_LABEL
        "sub sp, sp, #160\n"
        "stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n"
        "stp x25, x26, [sp, #48]\n stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
        "mov x9, sp\n str x9, [x0]\n"
        "mov sp, x1\n"
        "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n"
        "ldp x25, x26, [sp, #48]\n ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\n"
        "ret\n");
#endif
