#!/bin/bash
# NVRTC compiles every file: nvrtc.sh [ARCHITECTURE [FOLDER for the modules]]. Takes NVRTC from PyPI into target/; needs no GPU.
set -eu
cd "$(dirname "$0")/../.."
folder=target/nvrtc
if ! ls $folder/lib/python*/site-packages/nvidia/cu13/lib/libnvrtc.so.13 > /dev/null 2>&1; then
    python3 -m venv $folder
    $folder/bin/pip install --quiet --disable-pip-version-check 'nvidia-cuda-nvrtc==13.0.*'
fi
libraries=$(dirname $folder/lib/python*/site-packages/nvidia/cu13/lib/libnvrtc.so.13)
cargo build --quiet -p thermite-kernels --example nvrtc
LD_LIBRARY_PATH=$libraries target/debug/examples/nvrtc "$libraries/libnvrtc.so.13" "${1:-sm_90}" ${2:+"$2"}
