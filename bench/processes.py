"""Memory and processor time of processes and of all that they started, read from /proc."""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Children = dict[int, list[int]]


def children() -> Children:
    """The children of every process that runs."""
    found: Children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found[int(after_name(int(path.name))[1])].append(int(path.name))
    return found


def family(processes: Iterable[int], known: Children) -> set[int]:
    """These processes, what they started, what that started, and so on."""
    found: set[int] = set()
    waiting = list(processes)
    while waiting:
        process = waiting.pop()
        found.add(process)
        waiting += known.get(process, [])
    return found


def after_name(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before them may hold blanks."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def private_megabytes(processes: Iterable[int]) -> float:
    """Memory of these processes' own (RssAnon): what is only mapped from files is not counted."""
    total = 0
    for process in processes:
        with suppress(OSError, StopIteration):
            status = Path(f"/proc/{process}/status").read_text()
            total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    return total / 1000


def processor_seconds(processes: Iterable[int]) -> float:
    """Processor time of these processes so far, their ended children included."""
    total = 0
    for process in processes:
        with suppress(OSError):
            total += sum(map(int, after_name(process)[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


class Memory(threading.Thread):
    """Watches, while it is entered, the most that groups of processes hold, each and all "together"."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        super().__init__(daemon=True)
        self.groups = groups
        self.most = dict.fromkeys([*groups, "together"], 0.0)
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            known = children()
            now = {name: private_megabytes(family(group, known)) for name, group in self.groups.items()}
            for name, megabytes in {**now, "together": sum(now.values())}.items():
                self.most[name] = max(self.most[name], round(megabytes))

    def __enter__(self) -> "Memory":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.join()
