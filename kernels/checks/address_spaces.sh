#!/bin/bash
# Lint, and clang's check of every file with real address spaces. Needs clang 19 (or $CLANGXX).
set -eu
cd "$(dirname "$0")/../.."
clang=${CLANGXX:-clang++-19}
folder=target/address-spaces
rm -rf $folder
cargo run --quiet -p thermite-kernels --example source -- address-spaces $folder
cd $folder
arguments="-x c++ -std=c++14 -fsyntax-only -Werror=c++17-extensions -Wno-unknown-pragmas -I."
failed=0
for file in *.metal.cpp; do
    "$clang" $arguments "$file" || failed=1
done

# The check itself: each of these lines must be rejected.
reject() {
    printf '#include "metal.h"\nusing namespace metal;\nvoid takes(threadgroup float* p);\nvoid k(device float* x, constant int& n, threadgroup float* s) { %s }\n' "$1" > must_fail.cpp
    if "$clang" $arguments must_fail.cpp 2> /dev/null; then
        echo "not rejected: $1"
        failed=1
    fi
}
reject 'takes(x);'
reject 'n = 3;'
reject 'threadgroup float* q = x;'
reject 'float* u = x;'
reject 'float4 v = float4(1.0f, 2.0f, 3.0f);'
reject 'half4 h = half4(1.0h); float4 w = h;'
reject 'x[0] = max(1, 2u);'
reject 'device const float* c = x; c[0] = 1.0f;'
reject 'x[0] = as_type<half>(1.0f);'
reject 'threadgroup_barrier();'
reject 'if constexpr (sizeof(int) == 4) x[0] = 0.0f;'
[ $failed = 0 ] && echo "address spaces: $(ls *.metal.cpp | wc -l) files clean"
exit $failed
