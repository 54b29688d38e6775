// ahead.h for CUDA: programmatic dependent launch, from compute capability 9.0 on. A launch without it has nothing to await.
#pragma once

METAL_FN void await_dependency() { dialect::await_dependency(); }
