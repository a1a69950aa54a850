"""Which machines work together is read from the variables of what starts them, or from the profile."""

from __future__ import annotations

import re

import pytest

from detr_core.config import ConfigError
from flows.profile.sections import MachinesConfig, ResourcesConfig
from flows.runtime.machines import Machines, first_of_hosts, machines

ALONE = ResourcesConfig(gpus=None, processes=1, workers=0, side_by_side=1)
IN_PROFILE = ResourcesConfig(
    gpus=None, processes=1, workers=0, side_by_side=1, machines=MachinesConfig(count=3, address="10.0.0.9", port=4000)
)
SLURM = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gpu[03-04]"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"NNODES": "1", "NODE_RANK": "0"}, None),
        ({"SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "0"}, None),  # a shell in an allocation, without srun
        ({"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"}, Machines(2, 1, "a", 7)),
        ({"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "a"}, Machines(2, 0, "a", 29_500)),
        ({"PET_NNODES": "4", "PET_NODE_RANK": "3", "PET_MASTER_ADDR": "b", "PET_MASTER_PORT": "8"}, Machines(4, 3, "b", 8)),
        (
            {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5\n"},
            Machines(2, 1, "10.0.0.4", 29_500),
        ),
        (SLURM, Machines(2, 1, "gpu03", 29_500)),
    ],
)
def test_the_environment_names_the_machines(environment: dict[str, str], expected: Machines | None) -> None:
    assert machines(ALONE, environment) == expected


def test_the_profile_names_the_machines_and_the_environment_comes_first() -> None:
    assert machines(IN_PROFILE, {"NODE_RANK": "2"}) == Machines(3, 2, "10.0.0.9", 4000)
    by_hand = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"}
    assert machines(IN_PROFILE, by_hand) == Machines(2, 1, "a", 7)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NNODES": "2", "NODE_RANK": "1"}, "MASTER_ADDR: expected a value, because NNODES names several machines; found none"),
        ({"NNODES": "2", "MASTER_ADDR": "a"}, "NODE_RANK: expected a value, because NNODES names several machines; found none"),
        ({"NNODES": "two", "NODE_RANK": "1", "MASTER_ADDR": "a"}, "NNODES: expected a number, found 'two'"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "expected 0 to 1, found 2; set NODE_RANK"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "16"}, "start the command with srun --ntasks-per-node=1"),
    ],
)
def test_contradicting_values_are_refused_with_the_variable(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        machines(ALONE, environment)


def test_a_profile_with_machines_needs_the_number_of_this_one() -> None:
    with pytest.raises(
        ConfigError, match=re.escape("NODE_RANK: expected a value, because resources.machines names several machines")
    ):
        machines(IN_PROFILE, {})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("gpu[03-05,9],login", "gpu03"), ("gpu7", "gpu7"), ("a,b", "a"), ("rack1-[2,4]-ib", "rack1-2-ib")],
)
def test_the_first_host_of_slurms_notation(hosts: str, first: str) -> None:
    assert first_of_hosts(hosts) == first
