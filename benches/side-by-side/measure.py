"""The course of a run: who is started when, with what, and what is kept of it."""

import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterator

from memory import Limited, Unlimited
from server import Server, Watch
from system import Load, Outcome, System

# An amount is looked for in steps from the warm-up's on, until one takes a second.
STEP = 8
LONG_ENOUGH_S = 1.0
# No load has fewer records.
LEAST_AMOUNT = 1_000


@dataclass(frozen=True)
class Plan:
    record_sizes: list[int]
    durabilities: list[str]
    bytes: int  # of values, that every contender is given
    longest_s: float  # who would need longer for it gets as much as takes so long
    rounds: int
    batch_bytes: int
    in_flight: int
    linger_ms: int
    fetch_bytes: int


@dataclass(frozen=True)
class Figure:
    """One load, done once."""

    memory: str
    round: int
    load: str  # "produce" or "consume"
    durability: str
    record_bytes: int
    system: str
    mode: str
    records: int
    records_per_s: float
    bytes_per_s: float  # of values
    server_cpu_s_per_gb: float | None  # of 10^9 bytes of values; None where it was too short to tell
    server_peak_resident_bytes: int
    server_peak_anonymous_bytes: int

    def to_json(self) -> dict:
        return asdict(self)


class Measurement:
    def __init__(self, plan: Plan, systems: list[System], directory: Path) -> None:
        self.plan = plan
        self.systems = systems
        self.directory = directory
        self.figures: list[Figure] = []
        # (system, mode, durability, record size) -> records
        self._amounts: dict[tuple[str, str, str, int], int] = {}

    def run(self, memories: list[Limited | Unlimited]) -> None:
        begun = time.monotonic()
        visits = list(self._visits(memories))
        for number, (memory, round_, durability, system) in enumerate(visits, 1):
            told = f"{number} of {len(visits)}, {time.monotonic() - begun:.0f} s"
            print(f"[{told}] {memory.title}, round {round_ + 1}, {durability}: {system.name}", file=sys.stderr)
            self._visit(memory, round_, durability, system)

    def _visits(self, memories: list) -> Iterator[tuple]:
        for memory in memories:
            for round_ in range(self.plan.rounds):
                # Nobody always goes first.
                first = round_ % len(self.systems)
                for durability in self.plan.durabilities:
                    for system in self.systems[first:] + self.systems[:first]:
                        yield memory, round_, durability, system

    def _visit(self, memory: Limited | Unlimited, round_: int, durability: str, system: System) -> None:
        directory = self.directory / system.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        memory.fill()
        try:
            with system.start(directory, durability, memory.enter) as server:
                self._warm_up(server, system, durability)
                # Without a limit, the first size will do: it is there to show what the limit changes.
                sizes = self.plan.record_sizes if isinstance(memory, Limited) else self.plan.record_sizes[:1]
                for record_bytes in sizes:
                    for figure in self._loads(server, system, self._load(durability, record_bytes)):
                        self.figures.append(Figure(memory.title, round_, **figure))
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _load(self, durability: str, record_bytes: int) -> Load:
        plan = self.plan
        return Load(durability, record_bytes, plan.batch_bytes, plan.in_flight, plan.linger_ms, plan.fetch_bytes)

    def _warm_up(self, server: Server, system: System, durability: str) -> None:
        load = self._load(durability, self.plan.record_sizes[0])
        records = system.warm_up[durability]
        system.produce(server, next(iter(system.modes)), load, records, "warm-up")
        if durability == "os":
            system.consume(server, next(iter(system.consumer_modes)), load, records, "warm-up")

    def _loads(self, server: Server, system: System, load: Load) -> Iterator[dict]:
        topics = {mode: f"{mode}-{load.record_bytes}" for mode in system.modes}
        for mode, topic in topics.items():
            records = self._amount(server, system, mode, load)
            yield self._measure(server, system, mode, load, "produce", records, topic)
        if load.durability != "os":
            return  # Reading is the same in both classes.
        first, topic = next(iter(topics.items()))
        records = self._amount(server, system, first, load)
        for mode in system.consumer_modes:
            yield self._measure(server, system, mode, load, "consume", records, topic)

    def _measure(
        self, server: Server, system: System, mode: str, load: Load, what: str, records: int, topic: str
    ) -> dict:
        # Nobody pays for writing out what came before.
        os.sync()
        work = system.produce if what == "produce" else system.consume
        with Watch(server.pid) as watch:
            outcome: Outcome = work(server, mode, load, records, topic)
        assert watch.cost is not None, "set where nothing was raised"
        cpu_s = outcome.cpu_s if what in system.measures_cpu_of else watch.cost.cpu_s
        return {
            "load": what,
            "durability": load.durability,
            "record_bytes": load.record_bytes,
            "system": system.name,
            "mode": mode,
            "records": outcome.records,
            "records_per_s": outcome.records_per_s,
            "bytes_per_s": outcome.records_per_s * load.record_bytes,
            "server_cpu_s_per_gb": None if cpu_s is None else cpu_s / (outcome.records * load.record_bytes / 1e9),
            "server_peak_resident_bytes": watch.cost.peak_resident_bytes,
            "server_peak_anonymous_bytes": watch.cost.peak_anonymous_bytes,
        }

    def _amount(self, server: Server, system: System, mode: str, load: Load) -> int:
        """How many records: the same for all, or for who is too slow for that, as many as fit in the time."""
        key = (system.name, mode, load.durability, load.record_bytes)
        if key not in self._amounts:
            asked = self.plan.bytes // load.record_bytes
            tried, step = min(asked, system.warm_up[load.durability]), 0
            while True:
                rate = system.produce(server, mode, load, tried, f"try-{mode}-{load.record_bytes}-{step}").records_per_s
                if tried >= asked or tried / rate >= LONG_ENOUGH_S:
                    break
                tried, step = min(asked, tried * STEP), step + 1
            self._amounts[key] = max(LEAST_AMOUNT, min(asked, int(rate * self.plan.longest_s)))
        return self._amounts[key]
