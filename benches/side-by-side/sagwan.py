"""Sagwan itself: `sagwan serve` with every setting at its default, and `sagwan bench`."""

import json
import subprocess
from pathlib import Path

from server import Server
from system import Failed, Load, Outcome, System, environment, free_port


class Sagwan(System):
    name = "sagwan"
    # Its tool writes what it reads before, in the same run.
    measures_cpu_of = ("consume",)
    modes = {
        "client": "its Rust client, record by record; idempotent",
        "batches": "batches encoded beforehand, on the bare stub; not idempotent",
    }
    consumer_modes = {
        "client": "its Rust client, record by record",
        "batches": "encoded batches as they come, records not taken apart",
    }

    def __init__(self, program: Path) -> None:
        super().__init__()
        self.program = program

    def fetch(self) -> None:
        if not self.program.exists():
            raise Failed(f"{self.program} is not there: cargo build --release, or --sagwan PATH")

    def version(self) -> str:
        said = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True)
        return said.stdout.split()[-1]

    def configuration(self, durability: str) -> str:
        return (
            "sagwan serve --data-dir DATA --grpc-addr 127.0.0.1:PORT --log warn\n"
            f"# no configuration file; the topic has durability = {durability}\n"
        )

    def start(self, directory: Path, durability: str, enter: list[str]) -> Server:
        port = free_port()
        command = [self.program, "serve", "--data-dir", directory / "data", "--grpc-addr", f"127.0.0.1:{port}"]
        return Server([*enter, *map(str, command), "--log", "warn"], port, directory / "log", environment())

    def _bench(self, server: Server, workload: str, mode: str, load: Load, records: int, *more: object) -> str:
        return self.client(
            f"{workload} {load.record_bytes} B, {load.durability}, {mode}",
            [self.program, "bench", workload, "--server", f"http://{server.address}", "--server-pid", server.pid]
            + ["--mode", mode, "--record-size", f"{load.record_bytes}B", "--batch-bytes", f"{load.batch_bytes}B"]
            + ["--durability", load.durability, "--total", records, "--warm-up", "0s", "--output", "json", *more],
        )

    def produce(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome:
        linger = ["--linger", f"{load.linger_ms}ms"] if mode == "client" else []
        more = ["--in-flight", load.in_flight, *linger]
        return outcome(self._bench(server, "produce", mode, load, records, *more), "produced")

    def consume(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome:
        # `sagwan bench` writes the backlog itself, and measures only the reading.
        more = ["--backlog", f"{records * load.record_bytes}B", "--fetch-bytes", f"{load.fetch_bytes}B"]
        return outcome(self._bench(server, "earliest", mode, load, records, *more), "caught_up")


def outcome(output: str, flow: str) -> Outcome:
    """From the JSON of `sagwan bench`. Records are its count; bytes are of values, whatever it counts in its mode."""
    round_ = json.loads(output)["rounds"][0]
    done, cost = round_[flow], round_["server"]
    if done is None:
        raise Failed(f"sagwan bench reported nothing {flow}")
    # The costs are of so much as was done while they were sampled, several times a second: scaled to all records.
    cpu_s = cost["cpu_s"] * done["bytes"] / cost["bytes"] if cost and cost["bytes"] else None
    return Outcome(done["records_per_s"], done["records"], cpu_s)
