// copies.h on fibers: the bytes come when they are waited for; until then they are NaNs.
#pragma once
#include "runtime.h"

template <typename T> inline void tg_copy16(T* to, const T* from, bool in) {
    *(uint4*)to = uint4(~0u);
    emulator_copy(to, in ? from : nullptr);
}
inline void tg_copy_commit() { emulator_copy_commit(); }
template <int PENDING> inline void tg_copy_wait() {
    while (const EmulatorCopy* copy = emulator_copy_due(PENDING)) {
        *(uint4*)copy->to = copy->from ? *(const uint4*)copy->from : uint4(0u);
    }
}
