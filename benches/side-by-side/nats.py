"""NATS JetStream: one server and `nats bench`, both built from their Go modules."""

import re
from pathlib import Path

from server import Server
from system import Failed, Load, Outcome, System, environment, fetch_with, free_port

SERVER = ("github.com/nats-io/nats-server/v2", "v2.15.2", "")
CLIENT = ("github.com/nats-io/natscli", "v0.3.0", "/nats")

CONFIGURATION = """listen: "127.0.0.1:{port}"
jetstream {{
  store_dir: "{data}"
{sync}}}
"""
FSYNC = "  sync_interval: always\n"
# Room that a stream asks for beside the values, for each message; more than it takes, so that none is discarded.
ROOM_BYTES = 200

RATE = re.compile(r"stats: ([\d,]+) msgs/sec")


class Nats(System):
    name = "nats"
    modes = {
        "async": "nats bench js pub async: as many messages under way as Kafka and Sagwan have in their batches",
        "batch": "nats bench js pub batch: atomic batches, one after another",
    }
    consumer_modes = {"ordered": "nats bench js ordered: its client's ordered consumer, message by message, no acks"}

    def __init__(self, cache: Path) -> None:
        super().__init__()
        self.cache = cache / "nats"
        self.server = self.cache / f"nats-server-{SERVER[1]}"
        self.cli = self.cache / f"nats-{CLIENT[1]}"

    def fetch(self) -> None:
        for (module, version, package), program in ((SERVER, self.server), (CLIENT, self.cli)):
            if program.exists():
                continue
            directory = self.cache / f"build-{program.name}"
            directory.mkdir(parents=True, exist_ok=True)
            # A module of its own, and not `go install module@version`: that also asks for the list of all versions.
            (directory / "go.mod").write_text(f"module sidebyside\n\ngo 1.25\n\nrequire {module} {version}\n")
            fetch_with(["go", "build", "-mod=mod", "-o", str(program), module + package], directory)

    def version(self) -> str:
        return f"{SERVER[1]}, nats CLI {CLIENT[1]}"

    def configuration(self, durability: str) -> str:
        return self._configuration("PORT", "DATA", durability)

    @staticmethod
    def _configuration(port: object, data: object, durability: str) -> str:
        return CONFIGURATION.format(port=port, data=data, sync=FSYNC if durability == "fsync" else "")

    def start(self, directory: Path, durability: str, enter: list[str]) -> Server:
        port, file = free_port(), directory / "nats.conf"
        file.write_text(self._configuration(port, directory / "data", durability))
        return Server([*enter, str(self.server), "-c", str(file)], port, directory / "log", environment())

    def _bench(self, server: Server, title: str, *words: object) -> Outcome:
        command = [self.cli, "--no-context", "--server", f"nats://{server.address}", "bench", "js", *words, "--no-progress"]
        output = self.client(title, command)
        return Outcome(rate(output), int(words[words.index("--msgs") + 1]))

    def produce(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome:
        under_way = load.batch_records * load.in_flight
        # 1,000 messages is the most that the server takes in an atomic batch.
        batch = under_way if mode == "async" else min(1_000, load.batch_records)
        return self._bench(
            server,
            f"produce {load.record_bytes} B, {load.durability}, {mode}",
            *("pub", mode, topic, "--create", "--stream", topic, "--storage", "file", "--replicas", 1),
            *("--maxbytes", records * (load.record_bytes + ROOM_BYTES), "--size", load.record_bytes, "--msgs", records, "--batch", batch),
        )

    def consume(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome:
        ahead = load.fetch_bytes // load.record_bytes
        title = f"consume {load.record_bytes} B"
        size = ("--size", load.record_bytes)
        return self._bench(server, title, mode, "--stream", topic, *size, "--msgs", records, "--batch", ahead)


def rate(output: str) -> float:
    """Messages a second: the last line of statistics is that of all clients together."""
    lines = RATE.findall(output)
    if not lines:
        raise Failed(f"nats bench printed no rate:\n{output[-2000:]}")
    return float(lines[-1].replace(",", ""))
