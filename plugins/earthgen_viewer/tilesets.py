"""Tilesets on disk: what a tileset consists of, and the part of it that fits into a number of
bytes."""

from __future__ import annotations

import copy
import heapq
import itertools
import json
import posixpath
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from earthgen.errors import StoreError

Node = dict[str, Any]

ROOT = "tileset.json"
"""Name of the file that describes a tileset."""


def read_tileset(folder: Path) -> Node:
    """Read a tileset with all tilesets that it refers to as one tree; addresses of contents are
    relative to `folder`.

    Raises
    ------
    StoreError
        If a part is missing, is no JSON, or is an implicit tiling.
    """
    whole = _read(folder, ROOT)
    whole["root"] = _resolved(folder, whole["root"], "")
    return whole


def contents(node: Node) -> Iterator[str]:
    """Yield the addresses of a tile's own contents."""
    for content in node.get("contents", [node["content"]] if "content" in node else []):
        yield content["uri"]


def prune(root: Node, size_of: Callable[[str], int], budget: int) -> tuple[Node, bool]:
    """Keep the tiles of a tree that fit into `budget`: the largest errors first, and of equal ones
    those nearest to the middle.

    A tile's children are kept together or not at all, so that a viewer can replace it by them. The
    root is kept in any case.

    Parameters
    ----------
    root : dict
        Of `read_tileset`.
    size_of : callable
        Gives the bytes that the content with an address takes.
    budget : int
        Bytes.

    Returns
    -------
    root : dict
        A copy.
    whole : bool
        Whether all of it is there.
    """
    kept = copy.deepcopy(root)
    spent = sum(map(size_of, contents(kept)))
    order = itertools.count()  # the rest in the order of the tileset
    place = _matrix(kept)
    middle = _centre(kept, place)
    queue = [(-float(kept["geometricError"]), 0.0, next(order), kept, place)]
    whole = True
    full = False
    while queue:
        _, _, _, node, place = heapq.heappop(queue)
        children = node.get("children") or []
        if not children:
            continue
        cost = 0 if full else sum(size_of(uri) for child in children for uri in contents(child))
        if full or spent + cost > budget:
            # Nothing finer is tried, so that one border separates fine from coarse.
            full = full or bool(list(contents(node)))
            if full:
                del node["children"]
                whole = False
                continue
        spent += cost
        for child in children:
            own = place @ _matrix(child)
            away = float(np.linalg.norm(_centre(child, own) - middle))
            heapq.heappush(queue, (-float(child["geometricError"]), away, next(order), child, own))
    return kept, whole


def _matrix(node: Node) -> NDArray:
    """The transform of a tile to its parent's coordinates, (4, 4)."""
    return np.array(node.get("transform", np.eye(4).ravel()), float).reshape(4, 4).T


def _centre(node: Node, place: NDArray) -> NDArray:
    """The middle of a tile in the coordinates of the tileset, (3,); their origin if it is given in
    another way than as a box or a sphere."""
    volume = node.get("boundingVolume", {})
    local = [*(volume.get("box") or volume.get("sphere") or [0, 0, 0])[:3], 1]
    return np.asarray(place @ np.array(local, float))[:3]


def walk(root: Node) -> Iterator[Node]:
    """Yield the tiles of a tree, parents first."""
    yield root
    for child in root.get("children") or []:
        yield from walk(child)


def _resolved(folder: Path, node: Node, base: str) -> Node:
    """The tile with addresses relative to the folder, and external tilesets in its place."""
    if "implicitTiling" in node:
        raise StoreError(
            f"{folder / ROOT} is an implicit tileset, which a page cannot embed",
            "write the page as a folder: `one_file` = no",
        )
    node = dict(node)
    children = [_resolved(folder, child, base) for child in node.pop("children", None) or []]
    kept = []
    for content in node.pop("contents", None) or [node.pop("content", None)]:
        if content is None:
            continue
        uri = posixpath.normpath(posixpath.join(base, unquote(content["uri"])))
        if uri.endswith(".json"):
            children.append(_resolved(folder, _read(folder, uri)["root"], posixpath.dirname(uri)))
        else:
            kept.append({**content, "uri": uri})
    if len(kept) == 1:
        node["content"] = kept[0]
    elif kept:
        node["contents"] = kept
    if children:
        node["children"] = children
    return node


def _read(folder: Path, name: str) -> Node:
    try:
        tileset: Node = json.loads((folder / name).read_text("utf-8"))
        tileset["root"]["geometricError"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{folder / name} is not a tileset: {error}", "export the tiles again"
        ) from error
    return tileset
