"""What doctor finds: every problem is made, and the finding and the mend are seen."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from adstool.config import Action, Settings, load_settings
from adstool.doctor import data, examine, files, machine, models, services
from adstool.doctor.finding import Check, guarded
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace, write_json, write_text

Patch = pytest.MonkeyPatch


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    write_text(tmp_path / "w" / "adstool.toml", "")
    return Workspace(tmp_path / "w")


def of(name: str, checks: Iterable[Check]) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


def is_fault(check: Check, found: str, mend: str) -> None:
    assert not check.ok, check
    assert found in check.found, check
    assert mend in check.mend, check


def is_odd(check: Check, found: str, mend: str) -> None:
    assert check.ok, check
    assert found in check.found, check
    assert mend, check
    assert mend in check.mend, check


def is_fit(check: Check) -> None:
    assert check.ok, check
    assert not check.mend, check


# The machine


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


# The folder


class Facts:
    f_files, f_favail = 100_000, 12
    free = 2**20


def test_little_room_in_bytes_and_in_files(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Facts)
    monkeypatch.setattr(os, "statvfs", lambda _: Facts, raising=False)
    found = list(files.space_checks(tmp_path))
    is_fault(of("disk", found), "0.0 GB free", "Free 2 GB")
    is_fault(of("files on disk", found), "12 more files", "du --inodes")


@pytest.mark.parametrize(
    ("kind", "found", "mend"),
    [
        ("nfs4", "locks may not hold", "ADSTOOL_WORKSPACE"),
        ("9p", "locks", "this machine"),
        ("tmpfs", "restarts", "disk"),
    ],
)
def test_a_disk_that_is_not_of_this_machine_or_vanishes(
    monkeypatch: Patch, ws: Workspace, tmp_path: Path, kind: str, found: str, mend: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nserver:/x {ws.root} {kind} rw 0 0\nproc {ws.root}/elsewhere proc rw 0 0\n"
    )
    monkeypatch.setattr(files, "MOUNTS", mounts)
    is_odd(files.file_system(ws), found, mend)
    mounts.write_text("/dev/a / ext4 rw 0 0\n")
    is_fit(files.file_system(ws))


def test_a_workspace_that_may_not_be_written(monkeypatch: Patch, ws: Workspace) -> None:
    ws.models.mkdir()
    shut = {ws.models}
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) not in shut)  # root may write everywhere
    is_fault(files.writable(ws), f"{ws.models} may not be written", "chmod -R u+w")


def test_a_lock_that_another_process_holds(ws: Workspace) -> None:
    code = "import sys; from pathlib import Path; from adstool.workspace import Workspace\n"
    code += "with Workspace(Path(sys.argv[1])).lock(): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, ws.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        check = of("files", guarded("files", lambda: [files.lock(ws)]))
        is_fault(check, f"process {holder.pid}", "Wait for it to end")
        holder.communicate("")
    is_fit(files.lock(ws))


def test_what_killed_runs_left(ws: Workspace) -> None:
    is_fit(files.leftovers(ws))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, ours = ws.root / f".adstool.toml.{gone.pid}.tmp", ws.root / f".current.{os.getpid()}.tmp"
    left.touch()
    ours.touch()
    is_odd(files.leftovers(ws), f"1 of killed runs: {left.name}", f"rm -r {left}")
    partial = ws.models / "engagement" / ".partial"
    partial.mkdir(parents=True)
    assert "1 of" in files.leftovers(ws).found  # a run of today may still go on
    os.utime(partial, (time.time() - 10 * files.OLD_SECONDS,) * 2)
    is_odd(files.leftovers(ws), "2 of killed runs", "adstool train engagement goes on with it")


@pytest.mark.parametrize(
    ("text", "environment", "found", "mend"),
    [
        ("[funnel]\nretreive = 3\n", {}, "unknown setting 'funnel.retreive'", "funnel.retrieve"),
        ("", {"ADSTOOL_FUNEL_SLATE": "3"}, "ADSTOOL_FUNEL_SLATE", "funnel"),
        ("", {"ADSTOOL_FUNNEL_SLAT": "3"}, "ADSTOOL_FUNNEL_SLAT", "funnel.slate"),
        ("[funnel", {}, "not valid TOML", "Mend"),
    ],
)
def test_settings_and_variables_misspelt(
    monkeypatch: Patch, ws: Workspace, text: str, environment: dict[str, str], found: str, mend: str
) -> None:
    write_text(ws.config, text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("adstool.doctor.machine_checks", lambda: iter(()))
    checks = examine(ws.root)
    is_fault(of("settings", checks), found, mend)
    assert [check.name for check in checks if not check.ok] == ["settings"]


# Services


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


# Models and vectors


def test_runs_that_are_gone_unfinished_or_not_calibrated(ws: Workspace) -> None:
    folder = ws.models / "engagement"
    (folder / ".partial").mkdir(parents=True)
    is_odd(models.one_model(ws, folder), "unfinished", "adstool train engagement")
    (folder / ".partial").rename(folder / "r1")
    is_fault(models.one_model(ws, folder), "no run in use", "adstool train engagement")
    write_text(folder / "current", "r1\n")
    is_odd(models.one_model(ws, folder), "as trained", "adstool calibrate engagement")
    write_json(folder / "r1" / "calibration.json", {})
    is_odd(models.one_model(ws, folder), "full precision", "adstool quantize engagement")
    write_json(folder / "r1" / "quantization.json", {})
    is_fit(models.one_model(ws, folder))
    write_text(folder / "current", "r9\n")
    is_fault(models.one_model(ws, folder), "is gone: r9", "adstool train engagement")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("kind", ["safetensors", "onnx", "json", "npy", "parquet", "npz"])
def test_a_damaged_file_of_a_run(shop: Workspace, tmp_path: Path, kind: str) -> None:
    source = next(path for path in sorted(shop.models.rglob(f"*.{kind}")) if path.stat().st_size > 8)
    run = tmp_path / "r1"
    run.mkdir()
    copy = run / source.name
    copy.write_bytes(source.read_bytes())
    assert list(models.damaged(run)) == []
    cut(copy)
    assert [str(copy) in found for found in models.damaged(run)] == [True]


def test_an_index_of_other_models(shop_copy: Workspace) -> None:
    is_fit(of("index", models.index(shop_copy)))
    old = shop_copy.models / "lightweight" / "r1"
    new = old.with_name("r2")
    old.rename(new)
    is_fault(of("index", models.index(shop_copy)), "lightweight r1, which is gone", "adstool index")
    old.mkdir()
    shop_copy.set_current("lightweight", "r2")
    is_odd(of("index", models.index(shop_copy)), "older than lightweight r2", "adstool index")


def test_vectors_damaged_or_of_another_model(shop_copy: Workspace, tmp_path: Path) -> None:
    is_fit(of("vectors", models.vectors(shop_copy, Settings())))
    other = settings_of('[content]\nmodel = "ViT-B-32"\npretrained = "x"\n', tmp_path)
    is_odd(of("vectors", models.vectors(shop_copy, other)), "content.model is ViT-B-32", "adstool embed")
    table = shop_copy.vectors / "ads__by-category.lance"
    for path in (table / "data").iterdir():
        path.unlink()
    is_fault(of("vectors", models.vectors(shop_copy, Settings())), "is damaged", f"rm -r {table}")


# Data


def filled(ws: Workspace, *statements: str) -> None:
    with open_warehouse(ws, Settings()) as con:
        for statement in statements:
            con.execute(statement)


def data_of(ws: Workspace, settings: Settings | None = None) -> dict[str, Check]:
    checks = guarded("warehouse", lambda: data.data_checks(ws, settings or Settings()))
    return {check.name: check for check in checks}


EVENT = "insert into events (event_id, ts, user_id, item_type, item_id, action) "


def test_a_warehouse_of_another_schema(ws: Workspace) -> None:
    filled(ws, "insert into schema_version values (99, now()::timestamp)")
    is_fault(data_of(ws)["warehouse"], "newer adstool (schema 99", "Install the newer")
    with duckdb.connect(str(ws.warehouse)) as con:
        con.execute("update schema_version set version = 1")
    before = ws.warehouse.read_bytes()
    is_odd(data_of(ws)["warehouse"], "schema 1, of an older adstool", "adstool status")
    assert ws.warehouse.read_bytes() == before


def test_a_damaged_warehouse(ws: Workspace) -> None:
    ws.warehouse.write_bytes(b"no database" * 1000)
    is_fault(data_of(ws)["warehouse"], "cannot be opened", "ingest the files again")


def test_a_warehouse_that_another_process_holds(ws: Workspace) -> None:
    filled(ws)
    code = (
        "import sys, duckdb; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, ws.warehouse], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        is_fault(data_of(ws)["warehouse"], f"in use by process {holder.pid}", "stop it")
        holder.communicate("")


def test_rejects_and_unknown_items_above_a_share(ws: Workspace) -> None:
    filled(
        ws,
        EVENT + "select 'e' || i, now()::timestamp, 'u', 'ad', 'a', 'click' from range(10) r(i)",
        "insert into rejects (table_name, file, line, reason, row) "
        "select 'events', 'f', i, 'r', '{}' from range(5) r(i)",
    )
    found = data_of(ws)
    is_fault(found["rejects"], "5 rows refused, 33% of all", "adstool rejects")
    is_fault(found["items"], "10 of 10 events", "catalogues")
    filled(ws, "insert into ads (ad_id, campaign_id) values ('a', 'c')", "delete from rejects")
    is_fit(data_of(ws)["rejects"])
    is_fit(data_of(ws)["items"])


def test_events_of_the_future(ws: Workspace) -> None:
    at = (datetime.now(UTC) + timedelta(days=400)).strftime("%Y-%m-%d")
    filled(ws, EVENT + f"values ('e', timestamp '{at}', 'u', 'ad', 'a', 'click')")
    is_fault(data_of(ws)["times"], f"1 events are of the future, up to {at}", "clock")


def test_pictures_missing_or_outside(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "real.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    for picture, problem in (
        (tmp_path / "gone.png", "is missing"),
        (tmp_path / "link.png", "leads elsewhere"),
    ):
        filled(ws, f"insert into ads (ad_id, campaign_id, image) values ('a', 'c', '{picture}')")
        is_fault(data_of(ws)["pictures"], problem, "--images DIR")
        filled(ws, "delete from ads")
    filled(ws, f"insert into ads (ad_id, campaign_id, image) values ('a', 'c', '{tmp_path / 'real.png'}')")
    is_fit(data_of(ws)["pictures"])


def test_actions_never_or_seldom_seen(ws: Workspace) -> None:
    filled(ws, EVENT + "select 'e' || i, now()::timestamp, 'u', 'ad', 'a', 'click' from range(9) r(i)")
    is_odd(data_of(ws)["actions"], "no event has the action long_click, save, hide", "[[actions]]")
    seldom = Settings(actions=(Action("click"),))
    is_odd(data_of(ws, seldom)["actions"], "click (9)", "longer log")


def test_conversions_that_no_click_came_before(ws: Workspace) -> None:
    filled(
        ws,
        "insert into campaigns (campaign_id, advertiser_id) values ('c', 'v')",
        "insert into ads (ad_id, campaign_id) values ('a', 'c')",
        EVENT + "values ('e', timestamp '2026-01-01', 'u1', 'ad', 'a', 'click')",
        "insert into conversions (conversion_id, ts, user_id, advertiser_id, kind) "
        "values ('x', timestamp '2026-01-02', 'User-1', 'v', 'purchase')",
    )
    is_odd(data_of(ws)["conversions"], "0 of 1", "user_id and advertiser_id")
    filled(ws, "update conversions set user_id = 'u1'")
    is_fit(data_of(ws)["conversions"])
    filled(ws, "update conversions set ts = timestamp '2026-03-01'")
    is_odd(data_of(ws)["conversions"], "0 of 1", "user_id")


def test_a_whole_workspace_is_fit_and_nothing_is_written(shop_copy: Workspace, monkeypatch: Patch) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in shop_copy.root.rglob("*") if path.name != ".lock"}

    before = state()
    checks = examine(shop_copy.root)
    assert [check for check in checks if not check.ok] == []
    assert {"warehouse", "vectors", "index", "model engagement", "pictures"} <= {
        check.name for check in checks
    }
    assert state() == before
    assert {key for check in checks for key in check.to_json()} == {"name", "ok", "found", "mend"}
    json.dumps([check.to_json() for check in checks])


def test_a_workspace_named_but_absent_is_a_fault(tmp_path: Path) -> None:
    is_fault(of("workspace", examine(tmp_path / "nowhere")), "not a workspace", "adstool init")
