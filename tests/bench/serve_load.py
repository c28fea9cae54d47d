"""`adstool serve` under load: capacity, then twice as much for a while, by hand:

    python tests/bench/serve_load.py WORKSPACE [--seconds 60]

First Ranker.rank in this process, then a closed loop of 1, 4 and 16 callers over HTTP, then arrivals at
random moments at twice the rate of the best of those; every other one wants its answer within --short-ms.
What must hold: no answer of status 200 later than its deadline, by the caller's own clock; as many 503s as
the metric counts; memory that does not grow. The load goes to 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adstool.config import load_settings
from adstool.funnel.rank import Ranker
from adstool.warehouse import open_warehouse
from adstool.workspace import Workspace

WARM = 200  # requests before anything is timed
CALLERS = (1, 4, 16)


@dataclass
class Answers:
    """What came back."""

    status: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of those with status 200
    late_ms: list[float] = field(default_factory=list)  # how much after their deadline, of those
    refused_seconds: list[float] = field(default_factory=list)  # of those with status 503
    began: float = field(default_factory=time.perf_counter)

    def add(self, status: int, seconds: float, deadline_ms: float) -> None:
        """One answer after `seconds`."""
        self.status[status] += 1
        if status in (200, 503):
            (self.seconds if status == 200 else self.refused_seconds).append(seconds)
        if status == 200 and seconds * 1e3 > deadline_ms:
            self.late_ms.append(seconds * 1e3 - deadline_ms)

    def figures(self) -> dict[str, object]:
        """Rates and latencies."""
        wall = time.perf_counter() - self.began
        refused = np.percentile(self.refused_seconds or [0], (50, 99)) * 1e3
        return {
            "seconds": round(wall, 1),
            "status": dict(sorted(self.status.items())),
            "answers_per_second": round(self.status[200] / wall, 1),
            **latency(self.seconds),
            "503_p50_ms": round(refused[0], 2),
            "503_p99_ms": round(refused[1], 2),
            "late": len(self.late_ms),
            "worst_late_ms": round(max(self.late_ms, default=0.0), 2),
        }


def latency(seconds: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    p50, p99, most = np.percentile(seconds or [0], (50, 99, 100)) * 1e3
    return {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "max_ms": round(most, 2)}


class Client:
    """Connections to one server, kept open and used again."""

    def __init__(self, port: int, users: list[str], deadline_ms: float) -> None:
        self.port, self.users, self.deadline_ms = port, users, deadline_ms
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.opened = 0

    async def rank(self, answers: Answers, deadline_ms: float | None = None) -> None:
        """One slate of a user at random, timed from before the first byte is sent."""
        body = json.dumps({"user_id": random.choice(self.users)})
        head = "POST /rank HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        if deadline_ms is not None:
            head += f"X-Deadline-Ms: {deadline_ms}\r\n"
        message = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        while self._free and self._free[-1][0].at_eof():
            self._free.pop()[1].close()  # the server closes what was idle for long
        connection = self._free.pop() if self._free else await self._open()
        started = time.perf_counter()
        status, _ = await exchange(connection, message)
        answers.add(
            status, time.perf_counter() - started, min(deadline_ms or self.deadline_ms, self.deadline_ms)
        )
        self._free.append(connection)

    async def metric(self, name: str) -> float:
        """The sum of a metric whose line begins so."""
        connection = await self._open()
        _, text = await exchange(connection, b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n")
        connection[1].close()
        lines = [line for line in text.decode().splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.opened += 1
        return await asyncio.open_connection("127.0.0.1", self.port)


async def exchange(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], message: bytes
) -> tuple[int, bytes]:
    """Status and body of the answer to one message."""
    reader, writer = connection
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None, head
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(length[1]))


async def closed_loop(client: Client, callers: int, seconds: float) -> Answers:
    """So many callers, each asking again as soon as it is answered."""
    answers = Answers()
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < until:
            await client.rank(answers)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return answers


async def open_loop(
    client: Client, rate: float, seconds: float, short_ms: float, pid: int
) -> tuple[Answers, list[float]]:
    """Poisson arrivals that wait for nobody; the server's memory in MB, every second."""
    answers, memory, tasks = Answers(), [rss_mb(pid)], set()
    arrival, number = time.perf_counter(), 0
    until, sample = arrival + seconds, arrival + 1
    while arrival < until:
        arrival += random.expovariate(rate)
        await asyncio.sleep(max(0.0, arrival - time.perf_counter()))
        task = asyncio.create_task(client.rank(answers, short_ms if number % 2 else None))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        if time.perf_counter() >= sample:
            memory.append(rss_mb(pid))
            sample += 1
    await asyncio.gather(*tasks)
    return answers, memory


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def direct(ws: Workspace, users: list[str], count: int) -> dict[str, float]:
    """Ranker.rank in this process, as fast as it goes."""
    ranker = Ranker(ws, load_settings(ws.config))
    seconds = []
    for number in range(WARM + count):
        started = time.perf_counter()
        ranker.rank({"user_id": users[number % len(users)]})
        seconds.append(time.perf_counter() - started)
        if ranker.log.pending > 500_000:
            ranker.log.take()
    timed = seconds[WARM:]
    return {"answers_per_second": round(count / sum(timed), 1), **latency(timed)}


async def measure(port: int, pid: int, users: list[str], options: argparse.Namespace) -> dict[str, object]:
    """All loops against a server that is ready."""
    client = Client(port, users, load_settings(options.workspace / "adstool.toml").serve.deadline_ms)
    for _ in range(WARM):
        await client.rank(Answers())
    figures: dict[str, object] = {}
    capacity = 0.0
    for callers in CALLERS:
        found = await closed_loop(client, callers, options.closed_seconds)
        figures[f"callers_{callers}"] = said = found.figures()
        capacity = max(capacity, float(str(said["answers_per_second"])))
    before = await client.metric('adstool_requests_total{route="/rank",status="503"}')
    answers, memory = await open_loop(client, 2 * capacity, options.seconds, options.short_ms, pid)
    counted = await client.metric('adstool_requests_total{route="/rank",status="503"}') - before
    third = len(memory) // 3
    return {
        **figures,
        "capacity": capacity,
        "overload": {
            "offered_per_second": round(2 * capacity, 1),
            **answers.figures(),
            "refused_503_by_metric": int(counted),
            "rss_mb_by_third": [round(float(np.mean(part)), 1) for part in np.array_split(memory[1:], 3)]
            if third
            else [],
            "rss_mb": [round(min(memory), 1), round(max(memory), 1)],
            "connections": client.opened,
        },
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--closed-seconds", type=float, default=8.0)
    parser.add_argument("--short-ms", type=float, default=150.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    ws = Workspace(options.workspace.resolve())
    with open_warehouse(ws, load_settings(ws.config), read_only=True) as con:
        users = [user for (user,) in con.execute("select user_id from users order by 1").fetchall()]
    report: dict[str, object] = {"direct": direct(ws, users, 1000)}
    command = [sys.executable, "-m", "adstool", "--json", "--workspace", str(ws.root), "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r":(\d+);", process.stderr.readline())
    assert found, process.stderr.read()
    try:
        report |= asyncio.run(measure(int(found[1]), process.pid, users, options))
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    report |= {"exit": process.returncode, "stderr": err.strip(), "said": json.loads(out or "null")}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
