"""Credentials in addresses, taken out before an address is stored or shown."""

from __future__ import annotations

import re

SECRET = "***"

_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/@\s'\"]+@")
"""The user and password of a URL: scheme://user:password@host."""

_ALONE = re.compile(r"(?P<before>[\s\"'(])[^\s/@:\"'()]+:[^\s/@\"'()]+@(?=\w)")
"""The same without the scheme, as libraries repeat it in their errors about a URL."""

_NAMES = (
    r"[\w.-]*(?:token|secret|signature|passw(?:or)?d|passphrase|pwd|api[_-]?key|access[_-]?key"
    r"|accesskeyid|subscription[_-]?key|credential|authorization)[\w.-]*|sig|key|auth|sas|jwt"
)
_VALUE = re.compile(rf"(?P<name>(?<![\w.-])(?:{_NAMES})\s*=\s*)[^&\s'\",;<>]+", re.IGNORECASE)
"""A secret among the parameters of a URL or of a connection to a database."""

_BEARER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s+)[A-Za-z0-9+/=._~-]{8,}")


def redacted(text: str) -> str:
    """Return a text with the credentials of the addresses in it replaced by `SECRET`.

    Texts without an address, or a connection to a database, are returned unchanged.
    """
    if "://" not in text and "/vsi" not in text and not re.search(r"\b[A-Z]{2,}:", text):
        return text
    text = _USER.sub(rf"\g<scheme>{SECRET}@", text)
    text = _ALONE.sub(rf"\g<before>{SECRET}@", text)
    text = _BEARER.sub(rf"\g<name>{SECRET}", text)
    return _VALUE.sub(rf"\g<name>{SECRET}", text)


def is_redacted(text: str) -> bool:
    """Return whether credentials were taken out of a text."""
    return f"{SECRET}@" in text or f"={SECRET}" in text
