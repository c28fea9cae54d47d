"""What doctor finds of the machine and of services: each problem is made, finding and mend are seen."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
import time
from pathlib import Path

import pytest
from findings import is_fault, is_fit, is_odd, of

from adstool.config import Settings, load_settings
from adstool.doctor import machine, services
from adstool.workspace import write_text

Patch = pytest.MonkeyPatch


def test_an_old_python(monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    is_fault(machine.python(), "", "3.11")


def installed(monkeypatch: Patch, there: dict[str, str | None]) -> None:
    """Libraries have these versions, None: they are not installed; others are as they are."""
    known = importlib.metadata.version

    def version(name: str) -> str:
        found = there[name] if name in there else known(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("version", "found"),
    [(None, "not installed"), ("0.1", "adstool works with"), ("99", "adstool works with")],
)
def test_a_library_missing_too_old_or_too_new(monkeypatch: Patch, version: str | None, found: str) -> None:
    installed(monkeypatch, {"duckdb": version})
    is_fault(of("duckdb", machine.libraries()), found, "pip install 'duckdb")
    is_fit(of("numpy", machine.libraries()))


@pytest.mark.parametrize(
    ("there", "ok", "says"),
    [
        ({"uvicorn": "0.54.0", "starlette": "1.10.0", "prometheus-client": "0.26.0"}, True, "uvicorn 0.54.0"),
        ({}, True, "not installed"),
        ({"uvicorn": "0.54.0"}, False, "starlette is missing; prometheus-client is missing"),
        (
            {"uvicorn": "0.1", "starlette": "1.10.0", "prometheus-client": "0.26.0"},
            False,
            "uvicorn 0.1 is not",
        ),
    ],
)
def test_an_extra_half_installed(monkeypatch: Patch, there: dict[str, str], ok: bool, says: str) -> None:
    installed(monkeypatch, {**dict.fromkeys(("uvicorn", "starlette", "prometheus-client")), **there})
    check = of("serve", machine.one_extra("serve"))
    assert (check.ok, says in check.found) == (ok, True), check
    assert ok or "adstool[serve]" in check.mend


def test_a_processor_without_avx2(monkeypatch: Patch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu sse sse4_2 avx\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    is_fault(of("instructions", machine.processor()), "no AVX2", "processor of 2015")


def test_a_gpu_that_torch_cannot_use(monkeypatch: Patch) -> None:
    from adstool.device import Device

    monkeypatch.setattr("adstool.device.pick_device", lambda: Device("cpu", "no GPU found"))
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    is_odd(of("processor", machine.processor()), "NVIDIA GPU", "CUDA")
    monkeypatch.setattr("shutil.which", lambda name: None)
    is_fit(of("processor", machine.processor()))


def test_torch_that_cannot_be_loaded(monkeypatch: Patch) -> None:
    def broken() -> None:
        raise OSError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr("adstool.device.pick_device", broken)
    is_fault(of("processor", machine.processor()), "libtorch.so", "--force-reinstall torch")


def test_a_container_with_less_than_the_machine(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    is_fit(machine.cores())
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    is_odd(machine.cores(), "8 cores, of which a container may use 1.5", "warehouse.threads = 2")
    is_fault(machine.memory(), "1.0 GB that a container may use", "3 GB")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    is_fit(machine.cores())
    assert "of the machine" in machine.memory().found
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    is_odd(machine.cores(), "1 core", "2 cores")


@pytest.mark.parametrize("text", ["0", "many", "999"])
def test_threads_that_no_machine_has(monkeypatch: Patch, text: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    is_odd(machine.threads(), f"OMP_NUM_THREADS={text}", "unset OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    is_fit(machine.threads())


def test_few_open_files(monkeypatch: Patch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    is_fault(machine.open_files(), "64 at once", "ulimit -n")


def test_a_temporary_folder_that_cannot_be_written(monkeypatch: Patch, tmp_path: Path) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    is_fault(machine.temporary_folder(), str(tmp_path / "gone"), "TMPDIR")


def test_an_encoding_that_has_not_all_letters(monkeypatch: Patch) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda _: "ANSI_X3.4-1968")
    is_odd(machine.encoding(), "ANSI_X3.4-1968", "PYTHONUTF8=1")


def test_a_clock_that_was_never_set(monkeypatch: Patch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    is_fault(machine.clock(), "1970", "set-ntp")


def settings_of(text: str, tmp_path: Path) -> Settings:
    write_text(tmp_path / "settings.toml", text)
    return load_settings(tmp_path / "settings.toml", environment={})


def test_a_language_model_without_its_key(monkeypatch: Patch, tmp_path: Path) -> None:
    there = settings_of(
        '[llm]\nmodel = "m"\nbase_url = "https://llm.example/v1"\napi_key_env = "THE_KEY"\n', tmp_path
    )
    monkeypatch.delenv("THE_KEY", raising=False)
    is_fault(of("language model", services.service_checks(there)), "llm.api_key_env", "Export it")
    monkeypatch.setenv("THE_KEY", "secret-1")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    check = services.language_model(there)
    is_fit(check)
    assert "through a proxy" in check.found
    assert "secret-1" not in check.found
    keyless = settings_of('[llm]\nmodel = "m"\nbase_url = "https://llm.example/v1"\n', tmp_path)
    is_odd(services.language_model(keyless), "without a key", "llm.api_key_env")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        there = settings_of(f"[serve]\nport = {number}\n", tmp_path)
        is_odd(services.port(there), f"127.0.0.1:{number} cannot be listened at", "--port 0")
    is_fit(services.port(there))


def test_a_server_for_anybody_or_without_its_token(monkeypatch: Patch, tmp_path: Path) -> None:
    is_odd(services.token(settings_of('[serve]\nhost = "0.0.0.0"\n', tmp_path)), "anybody", "serve.token_env")
    monkeypatch.delenv("THE_TOKEN", raising=False)
    named = settings_of('[serve]\ntoken_env = "THE_TOKEN"\n', tmp_path)
    is_odd(services.token(named), "not set", "export THE_TOKEN")
