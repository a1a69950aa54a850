"""Holds the rank processes of one training or evaluation: starts them, reads their output, and ends them together."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from flows.profile.paths import ROOT
from flows.runtime.machines import Machines

# After one process has failed, the others, which may wait for it in a collective call, must end within this time.
SECONDS_TO_FOLLOW = 5.0
# The output of a process is read for at most this time after its end, because its dataloader workers may hold the same pipe.
SECONDS_TO_DRAIN = 10.0
POLL = 0.2


@dataclass(eq=False)
class Rank:
    """One rank process.

    lines: the last lines of its log, without events. error: its first 'error' event. was_signalled: whether this project has sent
    it a signal to end it. connected: whether it has met the other processes.
    """

    number: int
    process: subprocess.Popen[str]
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    error: dict[str, Any] | None = None
    was_signalled: bool = False
    connected: bool = False

    def killed_by(self) -> signal.Signals | None:
        """Returns the signal that killed the process, if this project did not send it; None if it works or ended otherwise."""
        code = self.process.poll()
        return signal.Signals(-code) if code is not None and code < 0 and not self.was_signalled else None

    def failed(self) -> bool:
        """Returns whether the process has ended with an exit code other than 0."""
        return self.process.poll() not in (None, 0)

    def end(self, number: signal.Signals) -> None:
        """Sends the process this signal, to end it, if it still works."""
        if self.process.poll() is None:
            self.was_signalled = True
            self.process.send_signal(number)


class Ranks:
    """All rank processes that work together, from their start to their end."""

    def __init__(self, commands: Sequence[list[str]], environments: Sequence[dict[str, str]]) -> None:
        self.ranks: list[Rank] = []
        self._lines: queue.Queue[tuple[Rank, str | None]] = queue.Queue()
        self._failed: list[Rank] = []  # in the order in which their failures were noticed
        self._kill_at = float("inf")
        self._reading = 0  # how many processes have not closed their output
        try:
            for number, (command, environment) in enumerate(zip(commands, environments, strict=True)):
                self._start(number, command, environment)
        except BaseException:
            self.kill()
            raise

    def _start(self, number: int, command: list[str], environment: dict[str, str]) -> None:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # ctrl-c in the terminal then reaches only the stage, which ends these processes in order
        )
        rank = Rank(number, process)
        self.ranks.append(rank)
        self._reading += 1
        assert process.stdout is not None
        threading.Thread(target=self._read, args=(rank, process.stdout), daemon=True).start()

    def _read(self, rank: Rank, output: IO[str]) -> None:
        with output, suppress(ValueError):
            for line in output:
                self._lines.put((rank, line))
        self._lines.put((rank, None))

    def lines(self) -> Iterator[tuple[Rank, str]]:
        """Yields every line that the processes print until all have ended. It ends all of them once one has failed."""
        drained_at = float("inf")
        while self._reading > 0 and time.monotonic() < drained_at:
            with suppress(queue.Empty):
                rank, line = self._lines.get(timeout=POLL)
                if line is None:
                    self._reading -= 1
                else:
                    yield rank, line
            if self._working_count() == 0 and drained_at == float("inf"):
                drained_at = time.monotonic() + SECONDS_TO_DRAIN
        while self._working_count() > 0:  # a process that has closed its output may still work
            time.sleep(POLL)

    def _working_count(self) -> int:
        """Returns how many processes still work. It ends processes after a failure, and kills them when their time is over."""
        for rank in self.ranks:
            if rank.failed() and rank not in self._failed:
                self._failed.append(rank)
        if self._failed:
            self.stop(SECONDS_TO_FOLLOW)
        if time.monotonic() >= self._kill_at:
            for rank in self.ranks:
                rank.end(signal.SIGKILL)
        return sum(rank.process.poll() is None for rank in self.ranks)

    def stop(self, patience: float) -> None:
        """Asks all processes to end. `lines` kills the processes that still work `patience` seconds after the first call."""
        if self._kill_at == float("inf"):
            self._kill_at = time.monotonic() + patience
            for rank in self.ranks:
                rank.end(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the processes that still work, and waits until they have ended."""
        for rank in self.ranks:
            rank.end(signal.SIGKILL)
            rank.process.wait()

    def cause(self) -> Rank | None:
        """Returns the process whose failure made the others fail; None if no process has failed.

        A process that was killed by a signal comes first, because the others report only that they lost the connection to it.
        SIGABRT does not count as such a signal, because libraries abort a process that has lost a connection. Else the cause is
        the process that reported the earliest error.
        """
        killed = [rank for rank in self._failed if rank.killed_by() not in (None, signal.SIGABRT)]
        reported = [rank for rank in self.ranks if rank.error is not None]
        reported.sort(key=lambda rank: (rank.error or {}).get("time", float("inf")))
        return next(iter(killed + reported + self._failed), None)


def event(line: str) -> dict[str, Any] | None:
    """Returns the event that a rank process reports in this line; None for a line of its log."""
    if not line.startswith("@{"):
        return None
    try:
        content = json.loads(line[1:])
    except ValueError:
        return None
    return content if isinstance(content, dict) and "kind" in content else None


def failure(rank: Rank, size: int, log: str) -> str:
    """Returns one line on how a rank process, one of `size`, failed; it names the log unless the error was expected."""
    error = rank.error
    if error is not None and error.get("expected", True):
        return str(error["text"])
    subject = f"process {rank.number + 1} of {size} (rank {rank.number})" if size > 1 else "its process"
    number, code = rank.killed_by(), rank.process.poll()
    if number is signal.SIGKILL:
        ending = f"{subject} was killed by signal {int(number)} (SIGKILL), perhaps because the memory ran out"
    elif number is not None:
        ending = f"{subject} was killed by signal {int(number)} ({number.name})"
    elif rank.was_signalled:
        ending = f"{subject} was ended"
    else:
        ending = f"{subject} ended with exit code {code}"
    by_signal = number is not None or rank.was_signalled
    reason = str(error["text"]) if error is not None else "" if by_signal else _last_error(rank.lines)
    return f"{ending}{f': {reason}' if reason else ''}; its log is {log}"


def _last_error(lines: Sequence[str]) -> str:
    """Returns the last Python error in these lines, which ended the process; the last line if there is no error."""
    plain = [re.sub(r"^\[rank\d+\]: ", "", line) for line in lines if line]  # torch puts the rank before each line of a traceback
    errors = [line for line in plain if re.match(r"[\w.]+(Error|Exception): ", line)]
    return next(reversed(plain + errors), "it printed nothing")


def environment_of(rank: int, size: int, store: str, machines: Machines | None = None) -> dict[str, str]:
    """Returns torchrun's environment variables for process `rank` of the `size` processes of this machine.

    store: the file by which the processes of one machine meet. With several machines they meet at the address of the first one.
    """
    local = {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
    if machines is not None:
        number, all_processes = machines.number * size + rank, machines.count * size
        address = {"MASTER_ADDR": machines.address, "MASTER_PORT": str(machines.port)}
        return local | address | {"RANK": str(number), "WORLD_SIZE": str(all_processes)}
    from_rank = local | {"RANK": str(rank), "WORLD_SIZE": str(size)}
    interface = "lo0" if sys.platform == "darwin" else "lo"
    loopback = {name: os.environ.get(name, interface) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
    meeting = {"DETR_STORE_FILE": store} if size > 1 else {}  # read in detr_core.distributed
    return from_rank | loopback | meeting
