"""What is free: the machine's, or what a container or a job leaves; and refusing what does not fit."""

import platform
import subprocess
import sys

import pytest

from advfeat.core import memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 64 GB whose files are written by the test."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_physical", lambda: 64_000_000_000)

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    return write


def test_without_any_file_it_is_all_memory(machine):
    assert memory.available() == 64_000_000_000


def test_what_linux_calls_available(machine):
    machine("proc/meminfo", "MemTotal: 60000000 kB\nMemFree: 1 kB\nMemAvailable:   2000000 kB\n")
    assert memory.available() == 2_048_000_000


@pytest.mark.parametrize("path", ["/", "/job/step", "/of/the/host"])  # the last: a container does not see its own
def test_a_control_group_of_version_2(machine, path):
    machine("proc/meminfo", "MemAvailable: 20000000 kB\n")
    machine("proc/self/cgroup", f"0::{path}\n")
    machine("cgroup/memory.max", "5000000000\n")
    machine("cgroup/memory.current", "3000000000\n")
    machine("cgroup/memory.stat", "anon 1\ninactive_file 500000000\n")
    machine("cgroup/job/memory.max", "max\n")
    machine("cgroup/job/memory.current", "1\n")
    machine("cgroup/job/step/memory.max", "1000000000\n")
    machine("cgroup/job/step/memory.current", "300000000\n")
    machine("cgroup/job/step/memory.stat", "")
    assert memory.available() == (700_000_000 if "step" in path else 2_500_000_000)


def test_a_control_group_of_version_1(machine):
    machine("proc/meminfo", "MemAvailable: 20000000 kB\n")
    machine("proc/self/cgroup", "12:cpu,cpuacct:/docker/1\n5:memory:/docker/1\n")
    for place, limit in (("cgroup/memory", 2**63 - 4096), ("cgroup/memory/docker/1", 2_000_000_000)):
        machine(f"{place}/memory.limit_in_bytes", str(limit))
        machine(f"{place}/memory.usage_in_bytes", "1500000000")
        machine(f"{place}/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n")
    assert memory.available() == 500_000_100


def test_a_group_beyond_its_limit_has_nothing_left(machine):
    machine("proc/self/cgroup", "0::/\n")
    machine("cgroup/memory.max", "1000")
    machine("cgroup/memory.current", "2000")
    machine("cgroup/memory.stat", "")
    assert memory.available() == 0


def test_here_something_is_free():
    assert 1_000_000 < memory.available() <= memory._physical()


def test_what_does_not_fit_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2_500_000_000)
    memory.require(2_500_000_000, "this", "do that")
    with pytest.raises(MemoryError, match=r"^seeds = 10: training needs about 4 GB and 2.5 GB are free: give fewer$"):
        memory.require(4e9, "seeds = 10: training", "give fewer")
    with pytest.raises(MemoryError, match=r"about 12,000 GB and 2.5 GB are free"):
        memory.require(12 * 10**12, "this", "do that")


#: Whether an array of 16 MB lies on the heap, which a process keeps, and not in pages of its own, which go with it.
ON_THE_HEAP = """
import numpy as np
from advfeat.core.memory import keep_what_is_freed
keep_what_is_freed()
address = np.ones(2**21).ctypes.data
heaps = [line.split()[0].split("-") for line in open("/proc/self/maps") if line.rstrip().endswith("[heap]")]
print(any(int(low, 16) <= address < int(high, 16) for low, high in heaps))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is glibc's to keep")
def test_large_arrays_lie_on_the_heap_where_freed_memory_is_kept():
    found = subprocess.run([sys.executable, "-c", ON_THE_HEAP], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"
