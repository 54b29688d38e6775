// ahead.h - a kernel may read what no kernel still running writes (weights) ahead of the end of the kernel launched before
// it. Where launches overlap (CUDA has a header of its own by this name), it starts early and must then await that end:
// every thread calls await_dependency() once, before it reads or writes anything else in device memory and before it
// leaves. A contract marks the buffers that are read ahead. Elsewhere launches follow each other, and nothing is to be done.
#pragma once

inline void await_dependency() {}
