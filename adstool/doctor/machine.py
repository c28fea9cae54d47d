"""Checks of the machine: Python, libraries, processor, memory, limits and the environment."""

from __future__ import annotations

import importlib.metadata
import locale
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from adstool.doctor.finding import Check, fault, fit, odd

LEAST_PYTHON = (3, 11)
LEAST_MEMORY_GB = 3.0
LEAST_FILES = 256  # open at once: LanceDB opens one a fragment of a table, a server one a connection
EXTRAS = ("serve", "llm", "ray")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
EARLIEST = 1_735_689_600  # 2025-01-01: a clock before it was never set
CGROUP = Path("/sys/fs/cgroup")
CPUINFO = Path("/proc/cpuinfo")


def machine_checks() -> Iterator[Check]:
    """All of them."""
    yield python()
    yield from libraries()
    for extra in EXTRAS:
        yield from one_extra(extra)
    yield from processor()
    yield cores()
    yield threads()
    yield memory()
    yield open_files()
    yield temporary_folder()
    yield encoding()
    yield clock()


def python() -> Check:
    """Whether this Python is new enough."""
    if sys.version_info < LEAST_PYTHON:
        return fault("python", platform.python_version(), "Install Python 3.11 or newer.")
    return fit("python", platform.python_version())


def libraries() -> Iterator[Check]:
    """Every library that adstool needs, and whether its version is one of those it works with."""
    from packaging.requirements import Requirement

    for wanted in map(Requirement, importlib.metadata.requires("adstool") or []):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        mend = f"pip install '{wanted.name}{wanted.specifier}'"
        there = _version(wanted.name)
        if there is None:
            yield fault(wanted.name, "not installed", mend)
        elif not wanted.specifier.contains(there, prereleases=True):
            yield fault(wanted.name, f"{there}, and adstool works with {wanted.specifier}", mend)
        else:
            yield fit(wanted.name, there)


def one_extra(extra: str) -> Iterator[Check]:
    """An optional engine: absent is no fault, half of it or too old is one."""
    from packaging.requirements import Requirement

    mend = f"pip install 'adstool[{extra}]'"
    found, wrong = [], []
    for wanted in map(Requirement, importlib.metadata.requires("adstool") or []):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            continue
        if not wanted.marker.evaluate({"extra": extra}):
            continue
        there = _version(wanted.name)
        if there is None:
            wrong.append(f"{wanted.name} is missing")
            continue
        found.append(f"{wanted.name} {there}")
        if not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f"{wanted.name} {there} is not {wanted.specifier}")
    if not found:
        yield fit(extra, f"not installed; {mend} brings it")
    elif wrong:
        yield fault(extra, "; ".join(wrong), mend)
    else:
        yield fit(extra, ", ".join(found))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> Iterator[Check]:
    """What computes: a GPU that torch can use, and instructions that the libraries need."""
    if platform.machine().lower() in ("x86_64", "amd64") and CPUINFO.is_file():
        if "avx2" in CPUINFO.read_text(encoding="utf-8", errors="replace").split():
            yield fit("instructions", "AVX2")
        else:
            yield fault(
                "instructions",
                "no AVX2, which torch and LanceDB are built for",
                "Use a processor of 2015 or later.",
            )
    try:
        from adstool.device import cpu_has_bf16, pick_device

        device = pick_device()
        bf16 = "bf16 in hardware" if cpu_has_bf16() else "no bf16"
    except (ImportError, OSError) as error:
        yield fault("processor", f"torch cannot be loaded: {error}", "pip install --force-reinstall torch")
        return
    found = f"{device.name}: {device.reason}; {bf16}"
    if device.name == "cpu" and shutil.which("nvidia-smi"):
        mend = "pip install --force-reinstall torch (a build with CUDA), or mend the driver: nvidia-smi"
        yield odd("processor", f"{found}; there is an NVIDIA GPU that torch cannot use", mend)
    else:
        yield fit("processor", found)


def cores() -> Check:
    """How many cores there are, and whether a container may use them all."""
    known = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else known
    limit = _cpu_limit()
    if limit is not None and limit < usable - 0.5:
        mend = f"Set warehouse.threads = {max(1, round(limit))} and OMP_NUM_THREADS={max(1, round(limit))}."
        return odd("cores", f"{usable} cores, of which a container may use {limit:.1f}", mend)
    if usable < 2:
        return odd("cores", "1 core: stages take about twice as long", "Use a machine with 2 cores or more.")
    return fit("cores", f"{usable} of {known}")


def _cpu_limit() -> float | None:
    """Cores that the cgroup grants, None where it sets no limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def threads() -> Check:
    """Whether a variable makes the libraries use no or more threads than there are cores."""
    known = os.cpu_count() or 1
    said = {name: os.environ[name].strip() for name in THREADS if os.environ.get(name)}
    wrong = {name: text for name, text in said.items() if not text.isdigit() or not 1 <= int(text) <= known}
    if wrong:
        names = ", ".join(f"{name}={text}" for name, text in wrong.items())
        return odd("threads", f"{names}, and there are {known} cores", f"unset {' '.join(wrong)}")
    return fit("threads", ", ".join(f"{name}={text}" for name, text in said.items()) or "as many as cores")


def memory() -> Check:
    """How much memory there is, of the machine or of the container."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, AttributeError, OSError):
        return fit("memory", "size unknown on this system")
    limit = _memory_limit()
    of = "of the machine"
    if limit is not None and limit < size:
        size, of = limit, "that a container may use"
    found = f"{size:.1f} GB {of}"
    if size < LEAST_MEMORY_GB:
        return fault(
            "memory", found, 'Use 3 GB or more; less serves a small log: warehouse.memory_limit = "500MB".'
        )
    return fit("memory", found)


def _memory_limit() -> float | None:
    """Gigabytes that the cgroup grants, None where it sets no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (CGROUP / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) / 2**30 if text.isdigit() else None
    return None


def open_files() -> Check:
    """How many files a process may hold open."""
    try:
        import resource
    except ImportError:
        return fit("open files", "no limit on this system")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        return fault("open files", f"{soft} at once", "ulimit -n 4096")
    return fit("open files", "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at once")


def temporary_folder() -> Check:
    """Whether files can be made where libraries put theirs."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"adstool")
            file.flush()
        return fit("temporary folder", tempfile.gettempdir())
    except OSError as error:
        # Without any folder that can be written Python raises here, too, and names those it tried.
        wanted = os.environ.get("TMPDIR") or "/tmp"
        return fault(
            "temporary folder", f"{wanted} cannot be written: {error}", "export TMPDIR=FOLDER with room"
        )


def encoding() -> Check:
    """Whether names of files and texts can have any letter."""
    names, texts = sys.getfilesystemencoding(), locale.getpreferredencoding(False)
    if {one.lower().replace("-", "") for one in (names, texts)} != {"utf8"}:
        return odd("encoding", f"{names} for names of files, {texts} for texts", "export PYTHONUTF8=1")
    return fit("encoding", "UTF-8")


def clock() -> Check:
    """Whether the machine knows the time; runs, pacing and what is stale go by it."""
    now = time.time()
    found = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < EARLIEST:
        return fault("clock", found, "Set the clock: timedatectl set-ntp true")
    return fit("clock", found)
