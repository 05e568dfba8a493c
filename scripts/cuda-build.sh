#!/usr/bin/env bash
# Builds xmbench with CUDA on a machine without a GPU and without a system CUDA: compiler and headers come as Python wheels, the driver's
# libraries are replaced at link time by stubs whose symbol names are taken from cudarc's own bindings. On the GPU machine the real
# libraries are found at start, so the stubs must not be on its library path.
#
#   scripts/cuda-build.sh              build target/cuda/release/xmbench
#   XMBENCH_CUDA_ARCH=80 scripts/...   for another compute capability than 90
set -euo pipefail
cd "$(dirname "$0")/.."
home=$PWD/.cuda
cuda=$home/py/nvidia/cu13

if [ ! -x "$cuda/bin/nvcc" ]; then
  mkdir -p "$home/whl"
  python3 -m pip download -q --no-deps -d "$home/whl" nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
  python3 -m pip install -q --no-deps --no-index --target "$home/py" "$home"/whl/*.whl
  ln -sfn lib "$cuda/lib64"
  ln -sf libcudart.so.13 "$cuda/lib/libcudart.so"
fi

cargo fetch --locked
manifest=$(cargo metadata --format-version 1 --locked --features xmbench/cuda --filter-platform x86_64-unknown-linux-gnu |
  python3 -c 'import json,sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc"))')
bindings=$(dirname "$manifest")/src
mkdir -p "$cuda/lib/stubs" "$cuda/lib/runstubs"

# stub NAME SONAME SYMBOL_PREFIX RETURN_CODE
stub() {
  [ -e "$cuda/lib/stubs/$1.so" ] && return
  grep -rohE "\b(fn )?($3)[A-Za-z0-9_]+" "$bindings"/*/sys/mod.rs | sed 's/^fn //' | sort -u |
    awk -v code="$4" '{print "int " $1 "(void){return " code ";}"}' >"$home/stub.c"
  gcc -w -fno-builtin -shared -fPIC -Wl,-soname,"$2" -o "$cuda/lib/stubs/$1.so" "$home/stub.c"
  ln -sf "../stubs/$1.so" "$cuda/lib/runstubs/$2"
}
stub libcuda libcuda.so.1 'cu[A-Z]' 100
stub libcublas libcublas.so.13 'cublas[A-Z]' 1
stub libcublasLt libcublasLt.so.13 'cublasLt[A-Z]' 1
stub libcurand libcurand.so.10 'curand[A-Z]' 1
stub libnvrtc libnvrtc.so.13 'nvrtc[A-Z]' 1

export CUDA_HOME=$cuda PATH=$cuda/bin:$PATH CUDA_COMPUTE_CAP=${XMBENCH_CUDA_ARCH:-90} LIBRARY_PATH=$cuda/lib:$cuda/lib/stubs
cargo build --release --locked --package xmbench --features cuda --target-dir target/cuda
echo "built target/cuda/release/xmbench"
echo "try the path without a driver: LD_LIBRARY_PATH=$cuda/lib:$cuda/lib/runstubs target/cuda/release/xmbench run --device cuda --dry-run --all"
