"""What the shell completes: names of formats, backends, renderers and legends."""

from __future__ import annotations

from collections.abc import Iterator


def format_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the formats of `earthgen export` that begin so, with what they are."""
    return _offers("exporter", incomplete)


def geometry_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the geometry backends that begin so, with what they are."""
    return _offers("geometry", incomplete)


def texture_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the texture backends that begin so, with what they are."""
    return _offers("texture", incomplete)


def renderer_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the renderers that begin so, with what they are."""
    return _offers("renderer", incomplete)


def sparse_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the backends of sparse operations that begin so, with what they are."""
    return _offers("sparse", incomplete)


def legend_names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the legends that begin so, with their titles."""
    from earthgen.plugins import load

    for crosswalk in load().crosswalks():
        if crosswalk.name.startswith(incomplete):
            yield crosswalk.name, crosswalk.title


def _offers(kind: str, incomplete: str) -> Iterator[tuple[str, str]]:
    from earthgen.plugins import load

    for name, offer in sorted(load().offers(kind).items()):
        if name.startswith(incomplete):
            yield name, offer.summary
