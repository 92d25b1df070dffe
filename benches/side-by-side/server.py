"""A server as a process of its own: its start, its end, and what it takes, from /proc."""

import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S = 60
LOOK_S = 0.05


class Server:
    """Runs from its construction to `stop`, which every way out of a `with` leads through."""

    def __init__(self, command: list[str], port: int, log: Path, environment: dict[str, str]) -> None:
        self.port = port
        self.log = log
        # Its own session: a Ctrl-C of the terminal is this side's to handle.
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _wait_until_it_listens(self) -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < START_LIMIT_S:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(LOOK_S)
        raise RuntimeError(f"a server did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        """At once: what it holds is thrown away, and an orderly end would only write it out first."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass(frozen=True)
class Cost:
    cpu_s: float
    peak_resident_bytes: int  # mapped files included
    peak_anonymous_bytes: int  # of it what is no file's, as far as was seen


class Watch:
    """What a process takes between `__enter__` and `__exit__`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.cost: Cost | None = None
        self._anonymous = 0
        self._ended = threading.Event()

    def __enter__(self) -> "Watch":
        # From here on VmHWM is the peak of this load (proc(5), clear_refs).
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self._cpu_s = cpu_s(stat(self.pid))
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, failed: type | None, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if failed is None:
            peak = status_bytes(status(self.pid), "VmHWM")
            self.cost = Cost(cpu_s(stat(self.pid)) - self._cpu_s, peak, self._anonymous)

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                self._anonymous = max(self._anonymous, status_bytes(status(self.pid), "RssAnon"))
            except (OSError, ValueError):
                return  # It has ended; the client tool tells why.


def stat(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text()


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def cpu_s(text: str) -> float:
    """User and system time of all threads, from the text of `stat`."""
    # The name, in parentheses, may hold anything; what follows begins with field 3.
    fields = text[text.rindex(")") + 1 :].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status_bytes(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {name}")
