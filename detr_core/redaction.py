"""Removes credentials from a text that others can read, such as a message, a log, a record or a page."""

from __future__ import annotations

import re

_SHOWN_INSTEAD = "***"
_END = r"\s\"'<>"  # what ends an address in a text
# `user:password@` or `token@` before a host. ssh needs the user's name, which is no secret: only a password is removed there.
_USER = re.compile(rf"(?P<scheme>\b(?!(?:git\+)?ssh:)[a-z][a-z0-9+.-]*://)[^/?#{_END}]*@", re.IGNORECASE)
_SSH_PASSWORD = re.compile(rf"(?P<start>\bssh://[^:@/?#{_END}]*):[^/?#{_END}]*(?=@)", re.IGNORECASE)
# User information whose password holds an unescaped `/`, `?` or `#`, as SQLAlchemy allows. Digits after the colon are a port.
_USER_ODD = re.compile(rf"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^:/@\[{_END}]*:(?!\d+\b)[^@{_END}]*@", re.IGNORECASE)
_SECRET_NAMES = "token|passw|pwd|secret|signature|credential|api[-_]?key|access[-_]?key|auth"
_PARAMETER = re.compile(
    rf"(?P<name>[?&;](?:[\w.%-]*(?:{_SECRET_NAMES})[\w.%-]*|sig|key|pass)=)[^&;#{_END}]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """Returns the text with the credentials of every address in it removed; any other text stays unchanged.

    For example, `https://user:password@host/path?token=x&page=2` becomes `https://host/path?token=***&page=2`. Credentials are
    the user information before a host (the user's name too, because it may be a token), and the value of each query parameter
    whose name contains a word for a token, password, key or signature, as in the signed addresses of object stores.
    """
    text = without_user_information(text)
    return _PARAMETER.sub(rf"\g<name>{_SHOWN_INSTEAD}", text) if "=" in text else text


def without_user_information(text: str) -> str:
    """Returns the text without the user information, `user:password@` or `token@`, before the host of each address in it."""
    if "://" not in text:
        return text
    text = _SSH_PASSWORD.sub(r"\g<start>", text)
    text = _USER_ODD.sub(r"\g<scheme>", text)  # before _USER, which would take a password that begins with // for a host
    return _USER.sub(r"\g<scheme>", text)


def holds_credentials(address: str) -> bool:
    """Returns whether an address holds what `without_credentials` removes."""
    return without_credentials(address) != address
