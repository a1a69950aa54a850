"""The base class of every error whose message is written for the person who started the command."""

from __future__ import annotations


class ExpectedError(Exception):
    """An error that a command reports as one line on stderr, without a traceback.

    Its message states what was expected, what was found, where (file and field), and what to do about it.
    """
