# SPDX-License-Identifier: MIT
"""The worker's PTX kernels compute what they should, checked without a GPU.

The real worker runs a job on the stand-in library, which tells what was launched with
which grid and parameters; ptx.py then executes exactly these launches from the PTX
sources. So kernels, launch shapes and parameter lists are checked together.
"""

import shutil
import subprocess

import pytest

import ptx
import wire
from paths import ROOT
from test_worker import environment, start

KERNELS = ROOT / "src" / "worker" / "kernels"


@pytest.fixture(scope="module")
def kernels():
    found = {}
    for path in KERNELS.glob("*.ptx"):
        found.update(ptx.load(path.read_text()))
    return found


def launches_of(opcode, params, *options):
    """What the worker launches for a job: [(name, grid, block, parameters)]."""
    with start("cuda", *options, env=environment(trace=1)) as worker:
        worker.device()
        assert worker.code(opcode, params) == wire.OK
        assert worker.close() == 0
        lines = worker.process.stderr.read().decode().splitlines()
    traced = [line.split()[2:] for line in lines if line.startswith("standin: launch ")]
    calls = [(name, *[[int(n) for n in numbers[i:j]] for i, j in ((0, 3), (3, 6), (6, None))])
             for name, *numbers in traced]
    # The first launch is the one that every worker makes to start.
    assert calls[0][0] == "vgpu_nop"
    return calls[1:]


def run(kernels, calls, memory):
    for name, grid, block, params in calls:
        ptx.launch(kernels[name], grid, block, params, memory)


def test_nop(kernels):
    """The worker answers it itself; the kernel is for its first launch, and for benchmarks."""
    assert launches_of(wire.OP_NOP, []) == []
    memory = ptx.Memory()
    run(kernels, [("vgpu_nop", [1, 1, 1], [1, 1, 1], [])], memory)
    assert memory.words == {}


@pytest.mark.parametrize(
    "a, b, total", [(100, 200, 300), (0x7FFFFFFF, 1, 0x80000000), (-1, -1, 0xFFFFFFFE)]
)
def test_add(kernels, a, b, total):
    calls = launches_of(wire.OP_CUDA_KERNEL, [a, b])
    memory = ptx.Memory()
    run(kernels, calls, memory)
    assert memory.words == {calls[0][3][0]: total}


@pytest.mark.parametrize("n, seed", [(1, 5), (9, 0xFFFFFFFF), (64, 1), (65, 42)])
def test_sgemm(kernels, n, seed):
    calls = launches_of(wire.OP_SGEMM, [n, seed])
    memory = ptx.Memory()
    run(kernels, calls, memory)
    (_, _, _, (a, b, total, *_)), (_, _, _, (c, *_)), _, (_, _, _, (out, *_)) = calls
    results = [memory.words[out + 4 * i] for i in range(6)]
    assert [ptx.bits(word) for word in results] == wire.sgemm_results(n, seed)
    # Nothing but the padded matrices, the sum and the results has been touched.
    side = -(-n // 64) * 64
    expected = {base + 4 * i for base in (a, b, c) for i in range(side * side)}
    expected |= {total, total + 4} | {out + 4 * i for i in range(6)}
    assert set(memory.words) == expected


def test_spin_does_work_and_stores_nothing(kernels):
    memory = ptx.Memory()
    ptx.launch(kernels["vgpu_spin"], [1, 1, 1], [2, 1, 1], [8192, 2], memory)
    ptx.launch(kernels["vgpu_spin"], [1, 1, 1], [2, 1, 1], [8192, 0], memory)
    assert memory.words == {}


def test_spin_fills_the_gpu():
    calls = launches_of(wire.OP_SPIN, [1000], "--allow-test-ops")
    name, grid, block, params = calls[-1]
    # Four multiprocessors of 2048 threads.
    assert (name, grid, block) == ("vgpu_spin", [32, 1, 1], [256, 1, 1])
    assert params[1] > 0


def test_fault_is_an_illegal_access(kernels):
    with pytest.raises(ptx.PtxError, match="illegal address 0x10"):
        ptx.launch(kernels["vgpu_fault"], [1, 1, 1], [1, 1, 1], [16], ptx.Memory())


def test_hang_ends_only_when_its_flag_is_set(kernels):
    class Flag(ptx.Memory):
        reads = 0

        def read_word(self, address, alignment=4):
            self.reads += 1
            return int(self.reads == 1000)

    flag = Flag()
    ptx.launch(kernels["vgpu_hang"], [1, 1, 1], [1, 1, 1], [8192], flag)
    assert flag.reads == 1000


@pytest.mark.skipif(not shutil.which("ptxas"), reason="no ptxas here")
@pytest.mark.parametrize("path", sorted(KERNELS.glob("*.ptx")), ids=lambda path: path.stem)
@pytest.mark.parametrize("arch", ["sm_75", "sm_90"])
def test_nvidia_accepts_it(path, arch):
    command = ["ptxas", "-v", f"-arch={arch}", str(path), "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spills = [line for line in done.stderr.splitlines() if "spill" in line]
    assert spills and all("0 bytes spill stores" in line for line in spills)
