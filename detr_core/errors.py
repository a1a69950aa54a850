"""Defines the base class of every error whose message is written for the person who started the command."""

from __future__ import annotations

from detr_core.redaction import without_credentials


class ExpectedError(Exception):
    """An error that a command reports as one line on stderr, without a traceback.

    Its message states what was expected, what was found, where (file and field), and what to do about it. Credentials of an
    address in the message are removed, because commands print it, logs keep it, and MLflow and Prefect store it.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(without_credentials(argument) if isinstance(argument, str) else argument for argument in arguments))
