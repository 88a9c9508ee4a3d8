import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_a_tuned_process_keeps_its_pages():
    """In a process of its own, as it cannot be undone; page faults are counted by the kernel.

    Blocks of 64 MB: those below 32 MB glibc learns to keep by itself.
    """
    code = (
        "import resource, sys, torch\n"
        "from landscape import tune_allocator\n"
        "torch.set_num_threads(1)\n"
        "if sys.argv[1] == 'tuned' and not tune_allocator():\n"
        "    sys.exit('no glibc')\n"
        "x = torch.ones(16_000_000)\n"
        "for _ in range(10): y = x + x\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): y = x + x\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )

    def faults(kind):
        return int(subprocess.run([sys.executable, "-c", code, kind], capture_output=True, check=True).stdout)

    assert faults("tuned") < 0.5 * faults("plain")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux only")
def test_gaps_between_blocks_are_given_back_unless_the_process_was_tuned():
    code = (
        "import torch\n"
        "from landscape import tune_allocator\n"
        "from landscape.data.allocator import give_back_freed_memory\n"
        "def megabytes(): return int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6\n"
        "def given_back():\n"
        "    blocks = [torch.ones(16_000) for _ in range(1000)]\n"
        "    del blocks[::2]\n"
        "    before = megabytes()\n"
        "    give_back_freed_memory(torch.empty(3_000_000))\n"
        "    return before - megabytes()\n"
        "print(given_back(), given_back() if tune_allocator() else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    plain, tuned = map(float, done.stdout.split())
    assert plain > 20
    assert tuned < 1
