"""A memory cgroup of a given size in which the server runs, kept full: its page cache is recycled, not fresh.

Fresh memory is slow on many virtual machines, where the host hands it out on first touch. That would punish whoever uses
the page cache most, and only until the machine has been up for long enough. In a full cgroup every page that is
written or read takes the place of an older one, as on a machine that has been running for days.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from system import Failed

ROOT = Path("/sys/fs/cgroup")
NAME = f"sagwan-side-by-side-{os.getpid()}"
# Less than this share of it used after filling means that it does not do what it is for.
FULL = 0.9


class Unlimited:
    """As the machine is."""

    title = "no limit"
    note = "server in no cgroup of its own: page cache as the machine hands it out, fresh or not"
    enter: list[str] = []

    def fill(self) -> None:
        pass

    def close(self) -> None:
        pass


class Limited:
    """A cgroup with at most `size` bytes, version 2 where the memory controller is there, else 1."""

    def __init__(self, size: int, directory: Path) -> None:
        self.size = size
        self.filler = directory / "filler"
        if (ROOT / "cgroup.controllers").exists() and "memory" in (ROOT / "cgroup.controllers").read_text().split():
            self.version, parent, limit, self.used = 2, ROOT, "memory.max", "memory.current"
        elif (ROOT / "memory" / "memory.limit_in_bytes").exists():
            self.version, parent, limit, self.used = 1, ROOT / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            raise Failed("no memory cgroup, version 1 or 2, is mounted below /sys/fs/cgroup")
        self.group = parent / NAME
        self.title = f"{size / 2**30:g} GiB"
        self.note = f"server in a memory cgroup (v{self.version}, {limit} = {size}), filled with page cache before each start"
        # Set while the root hands out the controller for this group alone.
        self.control: Path | None = None
        try:
            control = parent / "cgroup.subtree_control"
            if self.version == 2 and "memory" not in control.read_text().split():
                control.write_text("+memory")
                self.control = control
            self.group.mkdir()
        except OSError as error:
            self._take_back_control()
            raise Failed(f"cannot make a memory cgroup, which takes root: {error}") from None
        try:
            (self.group / limit).write_text(str(size))
        except OSError as error:
            self.close()
            raise Failed(f"cannot limit {self.group}: {error}") from None
        # The shell moves itself in, then becomes the server: the pid stays that of what was started.
        procs = shlex.quote(str(self.group / "cgroup.procs"))
        self.enter = ["sh", "-c", f'echo $$ > {procs} && exec "$@"', "sh"]

    def fill(self) -> None:
        """Reads a file as large as the cgroup from within it: pages that are still there stay, the others come back."""
        if not self.filler.exists():
            count = self.size // 2**20
            self._within("dd", "if=/dev/zero", f"of={self.filler}", "bs=1M", f"count={count}", "conv=fsync", "status=none")
        self._within("dd", f"if={self.filler}", "of=/dev/null", "bs=1M", "status=none")
        used = int((self.group / self.used).read_text())
        if used < FULL * self.size:
            # Pages that another cgroup has read count there. Out of the cache with them, and in again from here.
            descriptor = os.open(self.filler, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            self._within("dd", f"if={self.filler}", "of=/dev/null", "bs=1M", "status=none")
            used = int((self.group / self.used).read_text())
        if used < FULL * self.size:
            raise Failed(f"the cgroup is not full: {used} of {self.size} bytes")

    def _within(self, *command: str) -> None:
        subprocess.run([*self.enter, *command], check=True)

    def close(self) -> None:
        self.filler.unlink(missing_ok=True)
        try:
            self.group.rmdir()
        except OSError as error:
            print(f"cannot remove {self.group}: {error}", file=sys.stderr)
        self._take_back_control()

    def _take_back_control(self) -> None:
        if self.control is None:
            return
        try:
            self.control.write_text("-memory")
            self.control = None
        except OSError as error:
            print(f"+memory stays in {self.control}: {error}", file=sys.stderr)
