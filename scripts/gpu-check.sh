#!/usr/bin/env bash
# Checks xmbench on a machine with an NVIDIA GPU, in one command of at most ten minutes, without cargo and without a network:
# the golden files on the GPU, the same trials there and on the processor set side by side, and the speed of both.
# docs/GPU.md says what is compared with what and why the tolerances are what they are.
#
#   scripts/gpu-check.sh BINARY GOLDEN [OUT]
#     BINARY   the program that scripts/cuda-build.sh makes, as it is or gzipped (xmbench.gz)
#     GOLDEN   a folder of golden files (*.safetensors)
#     OUT      where logs, recordings and the table go; gpu-check when absent
#
#   DEVICE=cuda:0                            the device; DEVICE=cpu tries the script itself where there is no GPU
#   XMBENCH_CUDA_LIB=/usr/local/cuda/lib64   where CUDA's libraries lie (libcudart, libcublas, libcurand)
#   LIMIT=600                                seconds that it may take at most
#
# Prints one Markdown table on stdout, progress on stderr. Exit codes: 0 everything agrees, 1 something differs, failed or took
# too long, 2 wrong usage or the program does not start.
set -uo pipefail

usage() {
  sed -n '6,13s/^# \{0,1\}//p' "$0" >&2
  exit 2
}
die() {
  echo "gpu-check: $*" >&2
  exit 2
}
[ $# -ge 2 ] && [ $# -le 3 ] || usage
binary=$1 golden=$2 out=${3:-gpu-check}
device=${DEVICE:-cuda:0}
limit=${LIMIT:-600}
[ -f "$binary" ] || die "no program $binary; build it elsewhere with scripts/cuda-build.sh and bring it here"
[ -n "$(find -L "$golden" -name '*.safetensors' -print -quit 2>/dev/null)" ] || die "no golden file (*.safetensors) in $golden"
mkdir -p "$out" || die "cannot make the folder $out"

# The program, unpacked where it needs to be.
if gzip -t "$binary" 2>/dev/null; then
  gzip -dc "$binary" >"$out/xmbench" && chmod +x "$out/xmbench" || die "cannot unpack $binary into $out"
  program=$out/xmbench
else
  program=$binary
fi
case $program in */*) ;; *) program=./$program ;; esac

# What it is linked to: the toolkit's libraries and, from the driver, libcuda.so.1.
libraries=${XMBENCH_CUDA_LIB:-/usr/local/cuda/lib64}
[ -d "$libraries" ] && export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
if command -v ldd >/dev/null; then
  missing=$(ldd "$program" 2>/dev/null | awk '/not found/ { print $1 }' | tr '\n' ' ')
  case " $missing" in
    *" libcuda.so.1 "*) die "libcuda.so.1 is missing: it comes with the NVIDIA driver, so this machine has none or hides it from
  this shell (containers need the driver mounted). If it lies somewhere unusual, add that folder to LD_LIBRARY_PATH." ;;
    " ") ;;
    *) die "the program needs ${missing}which $libraries does not have; name the folder as XMBENCH_CUDA_LIB
  (a CUDA 13 toolkit's lib64, or the nvidia/cu13/lib folder of a PyTorch)" ;;
  esac
fi
version=$("$program" --version 2>"$out/start.log") || die "the program does not start: $(head -n 3 "$out/start.log")"

begun=$SECONDS
failed=0

# step NAME PERCENT COMMAND...: runs the command for at most so much of the limit, within what is left of it; stdout to
# OUT/NAME.out, stderr to OUT/NAME.log. Sets `code` and `reason`, which is empty unless the step ran out of time or did not run.
step() {
  local name=$1 most=$((limit * $2 / 100)) left start=$SECONDS
  shift 2
  # What is stopped has 10 s to put down what it holds.
  left=$((limit - 15 - (SECONDS - begun)))
  [ "$left" -lt "$most" ] && most=$left
  reason='' code=124
  : >"$out/$name.out"
  if [ "$most" -lt 5 ]; then
    reason="not run: $limit s are over"
  else
    echo "gpu-check: $name" >&2
    timeout -k 10 "$most" "$@" >"$out/$name.out" 2>"$out/$name.log"
    code=$?
    case $code in 124 | 137) reason="stopped after $((SECONDS - start)) s" ;; esac
  fi
  [ "$code" -eq 0 ] || failed=1
}

# row CELL...: a row of the table.
row() {
  local cell
  for cell in "$@"; do printf '| %s ' "$cell"; done
  printf '|\n'
}

# problem CHECK NAME: the row of a step that gave nothing.
problem() {
  local said
  said=$(tail -n 1 "$out/$2.log" 2>/dev/null | cut -c1-160 | tr '|' '/')
  row "$1" "$2" "" "" "" "FAILED: ${reason:-exit code $code}${said:+ ($said)}; see $out/$2.log"
}

table=$out/table.md
{
  row check case "$device" cpu allowed verdict
  echo '|---|---|---|---|---|---|'
} >"$table"

# (a) The authors' values.
step verify 20 "$program" verify --golden "$golden" --device "$device"
if [ -s "$out/verify.out" ]; then
  # A line a file, an empty line, a line an operation; columns are two spaces or more apart.
  awk -F '  +' -v device="$device" '
    NR == 1 { placed = ($3 == "device"); next }
    $0 == "" { summary = 1; next }
    !summary { if (placed && $3 != "-") at[$1] = $3; next }
    $1 == "operation" || $1 == "total" { next }
    $2 == "." && $3 == "." { unsupported += $4; operations++; next }
    {
      where = ($1 in at) ? at[$1] : device
      said = ($2 == "." ? 0 : $2) " pass" ($3 == "." ? "" : ", " $3 " FAIL")
      printf "| golden | %s | %s on %s | | each file'"'"'s own | %s |\n", $1, said, where, ($3 == "." ? "agrees" : "DIFFERS")
    }
    END { if (operations) printf "| golden | operations that nothing answers: %d | %d files | | | not compared |\n", operations, unsupported }
  ' "$out/verify.out" >>"$table"
else
  problem golden verify >>"$table"
fi

# (b) The same trials there and here, by the same program: planted data, on which a few seconds of training bring recall far
# above chance, and the smoke profile, whose rows have hardly begun to learn but are of every kind.
cat >"$out/planted.toml" <<'TOML'
title = "Planted fragments"
seeds = [1]
columns = ["i2t R@1", "t2i R@1", "rsum"]
protocol = { task = { kind = "pairs" } }
common = { embedding = 64, word = 32, batch = 32, epochs = 24, decay_every = 0, max_violation = false, learning_rate = 0.001 }

[[datasets]]
name = "planted-fragments"
test = 300

[[methods]]
method = "vse"
label = "VSE0, BiGRU"
text_encoder = "bigru"

[[methods]]
method = "info_nce"

[[methods]]
method = "scan"
TOML
both() {
  local name=$1 percent=$2 where
  shift 2
  for where in device cpu; do
    step "$name-$where" "$percent" "$program" run "$@" --no-report --fresh --out "$out/$name-$where" \
      --device "$([ $where = cpu ] && echo cpu || echo "$device")"
    [ "$code" -eq 0 ] || problem metrics "$name-$where" >>"$table"
  done
  step "$name-compare" 5 "$program" compare --devices "$out/$name-device" "$out/$name-cpu"
  if [ ! -s "$out/$name-compare.out" ]; then
    problem metrics "$name-compare" >>"$table"
    return
  fi
  awk -F ' *[|] *' 'NR > 2 {
    worst = ($4 == "" ? "" : ", furthest apart: " $4)
    printf "| metrics | %s, %s numbers%s | %s | %s | %s | %s |\n", $2, $3, worst, $5, $6, $7, $8
  }' "$out/$name-compare.out" >>"$table"
}
both planted 10 "$out/planted.toml"
both smoke 30 --all --profile smoke

# (c) Speed, there and here.
step speed-device 17 "$program" bench-device --device "$device"
[ "$code" -eq 0 ] || problem speed speed-device >>"$table"
step speed-cpu 17 "$program" bench-device --device cpu --seconds 2
[ "$code" -eq 0 ] || problem speed speed-cpu >>"$table"
awk -F ' *[|] *' '
  FNR <= 2 { next }
  { cell = $4 " ms (" $5 "), " $6 "/s" }
  FILENAME == ARGV[1] { order[++n] = $2; there[$2] = cell ($3 == "cpu" ? " on cpu" : ""); next }
  { here[$2] = cell }
  END { for (i = 1; i <= n; i++) printf "| speed | %s | %s | %s | | |\n", order[i], there[order[i]], here[order[i]] }
' "$out/speed-device.out" "$out/speed-cpu.out" >>"$table"

gpu=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
cpu=$(awk -F ': *' '/^model name/ { print $2; exit }' /proc/cpuinfo 2>/dev/null)
row all "$version; ${gpu:-no GPU}; ${cpu:-?}, $(getconf _NPROCESSORS_ONLN) threads" "" "" "$limit s" \
  "$([ "$failed" -eq 0 ] && echo agrees || echo DIFFERS), $((SECONDS - begun)) s" >>"$table"
cat "$table"
exit "$failed"
