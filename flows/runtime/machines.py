"""Finds out whether several machines carry out a training together, and which of them this machine is.

The same command is started once on each machine. What starts it, or the profile, says how many machines there are:

| started by | number of machines | this machine | the first machine's address |
|---|---|---|---|
| a person, torchrun | NNODES | NODE_RANK | MASTER_ADDR, MASTER_PORT |
| Kubernetes (Kubeflow) | PET_NNODES | PET_NODE_RANK | PET_MASTER_ADDR, PET_MASTER_PORT |
| SkyPilot | SKYPILOT_NUM_NODES | SKYPILOT_NODE_RANK | the first line of SKYPILOT_NODE_IPS |
| Slurm, by srun with one task for each machine | SLURM_STEP_NUM_NODES | SLURM_NODEID | the first host of SLURM_STEP_NODELIST |
| the profile | resources.machines.count | NODE_RANK | resources.machines.address, resources.machines.port |
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from detr_core.config import ConfigError
from flows.profile.sections import MachinesConfig, ResourcesConfig

PORT = 29_500  # torchrun's default


@dataclass(frozen=True)
class Machines:
    """The machines that carry out one training together.

    count: their number. number: that of this machine, from 0 on. address, port: where the first machine's first process listens,
    on every network interface of that machine.
    """

    count: int
    number: int
    address: str
    port: int

    @property
    def first(self) -> bool:
        """Whether this machine runs the stage, writes its results and records it; the others only compute."""
        return self.number == 0


def machines(resources: ResourcesConfig, environment: Mapping[str, str] = os.environ) -> Machines | None:
    """Returns the machines that the environment or else the profile names; None if this machine works alone.

    Raises ConfigError, which names the variable, if a value is missing or makes no sense.
    """
    found = _named_by_variables(environment) or _slurm(environment) or _profile(resources.machines, environment)
    if found is None or found.count == 1:
        return None
    if not 0 <= found.number < found.count:
        raise ConfigError(f"the number of this machine: expected 0 to {found.count - 1}, found {found.number}; set NODE_RANK")
    return found


def _named_by_variables(environment: Mapping[str, str]) -> Machines | None:
    for count, number, address, port in (
        ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
        ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"),
        ("SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK", "SKYPILOT_NODE_IPS", "MASTER_PORT"),
    ):
        if environment.get(count, "1") != "1":
            first_address = _required(environment, address, count).split()[0]
            return Machines(
                _number(environment, count), _number(environment, number, count), first_address, _port(environment, port)
            )
    return None


def _slurm(environment: Mapping[str, str]) -> Machines | None:
    if environment.get("SLURM_STEP_NUM_NODES", "1") == "1":
        return None
    count = _number(environment, "SLURM_STEP_NUM_NODES")
    if environment.get("SLURM_STEP_NUM_TASKS", str(count)) != str(count):
        raise ConfigError(
            f"SLURM_STEP_NUM_TASKS: expected one task for each of the {count} machines, found "
            f"{environment['SLURM_STEP_NUM_TASKS']}; start the command with srun --ntasks-per-node=1"
        )
    first_host = first_of_hosts(_required(environment, "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES"))
    return Machines(count, _number(environment, "SLURM_NODEID"), first_host, _port(environment, "MASTER_PORT"))


def first_of_hosts(hosts: str) -> str:
    """Returns the first host of Slurm's notation: 'gpu03' of 'gpu[03-05,9],login'."""
    name = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\])?([^,]*)", hosts)
    assert name is not None, "the expression matches every text"
    return f"{name[1]}{name[2] or ''}{name[3]}"


def _profile(config: MachinesConfig | None, environment: Mapping[str, str]) -> Machines | None:
    if config is None or config.count == 1:
        return None
    return Machines(config.count, _number(environment, "NODE_RANK", "resources.machines"), config.address, config.port)


def _required(environment: Mapping[str, str], name: str, because: str) -> str:
    if not environment.get(name, "").strip():
        raise ConfigError(f"{name}: expected a value, because {because} names several machines; found none")
    return environment[name]


def _number(environment: Mapping[str, str], name: str, because: str = "") -> int:
    value = _required(environment, name, because or name)
    if not value.isdecimal():
        raise ConfigError(f"{name}: expected a number, found {value!r}")
    return int(value)


def _port(environment: Mapping[str, str], name: str) -> int:
    return _number(environment, name) if name in environment else PORT
