"""What every system under comparison has to offer, and the words they share."""

import os
import socket
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from server import Server

# Longer than any load takes; a client that hangs ends the run with its own words.
CLIENT_LIMIT_S = 300
# Settings come from the command line and the files printed, never from the caller's environment.
FOREIGN_VARIABLES = ("SAGWAN_", "NATS_", "KAFKA_")


class Failed(Exception):
    """Something that ends the comparison, in words for the user."""


@dataclass(frozen=True)
class Load:
    """What all systems are given alike."""

    durability: str  # "fsync" or "os": what an acknowledgement waits for
    record_bytes: int
    batch_bytes: int
    in_flight: int  # batches of the producer that may wait for their acknowledgement
    linger_ms: int
    fetch_bytes: int

    @property
    def batch_records(self) -> int:
        """Records of a batch, for tools that count messages: as many values as fit."""
        return max(1, self.batch_bytes // self.record_bytes)


@dataclass(frozen=True)
class Outcome:
    """What a client tool reported. Bytes are of values only, whoever counts."""

    records_per_s: float
    records: int  # all that the server handled meanwhile, for its costs
    cpu_s: float | None = None  # the server's, where the tool measures that, and could


class System(ABC):
    """One of the contenders. `modes` are its ways to be used, each a line of the table."""

    name: str
    modes: dict[str, str]  # mode -> what it is, for people
    consumer_modes: dict[str, str]
    # Records before anything is measured, after each start: for connections, topics of the server's own, caches. Few where
    # each message may have its own sync.
    warm_up = {"fsync": 1_000, "os": 50_000}
    # Loads for which the server's CPU time is what its tool tells, as `Outcome.cpu_s`, and not that of the tool's whole run.
    measures_cpu_of: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.commands: dict[str, str] = {}

    @abstractmethod
    def fetch(self) -> None:
        """Puts everything needed below the cache, once."""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def start(self, directory: Path, durability: str, enter: list[str]) -> Server:
        """Starts it with its data in the new `directory`; `enter` goes before the command. Returns once it takes requests."""

    @abstractmethod
    def configuration(self, durability: str) -> str:
        """Everything that differs from its defaults, in full."""

    @abstractmethod
    def produce(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome: ...

    @abstractmethod
    def consume(self, server: Server, mode: str, load: Load, records: int, topic: str) -> Outcome:
        """Reads `records` records from the beginning of `topic`, which `produce` of the first mode has filled."""

    def client(self, title: str, command: list[str]) -> str:
        """Runs a client tool, remembers how it was called, and returns what it printed."""
        command = [str(word) for word in command]
        self.commands[title] = " ".join(command)  # The last one of a kind is a measured one.
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=CLIENT_LIMIT_S, env=environment()
        )
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetch_with(command: list[str], directory: Path) -> None:
    """Runs a registry's own client."""
    try:
        done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is needed to fetch what is compared, and is not here") from None
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-3000:]}")
