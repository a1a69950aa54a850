"""Enforces that no entry of a dataset is lost: every supplied entry is either used, or left out and counted."""

from __future__ import annotations

from dataclasses import dataclass


class UnaccountedError(RuntimeError):
    """Entries were lost or counted twice, which is a bug of the project, not a fault of the dataset."""


@dataclass(frozen=True)
class Account:
    """Counts the entries of one list: how many were supplied, how many are used and how many are left out.

    where: the name of the list in an error, such as 'train: instances: annotations'.
    Raises UnaccountedError if `supplied` differs from `used` + `left_out`.
    """

    where: str
    supplied: int
    used: int
    left_out: int

    def __post_init__(self) -> None:
        if self.supplied != self.used + self.left_out:
            raise UnaccountedError(
                f"{self.where}: {self.supplied} supplied, but {self.used} used and {self.left_out} left out; "
                "this is a bug of the project: please report it with these numbers"
            )
