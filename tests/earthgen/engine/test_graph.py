"""The task graph is arithmetic: its neighbours are each other's inverse, and a traversal gives
every task once, in order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgen.engine.graph import TILE, Graph, Task, Traversal, make_chain
from earthgen.errors import PluginError
from earthgen.stages.block import Field
from earthgen.stages.stage import AS_READ, Read, Stage
from earthgen.voxels.voxels import GEOMETRY_FIELDS, texture_fields
from geo_io.frame import Frame

DENSE = {"value": Field("float32")}


def nothing(*_: object) -> None:
    """No stage of these tests is computed."""


def stage(name: str, window: int, *reads: Read, **more) -> Stage:
    fields = (
        GEOMETRY_FIELDS if name == "solid" else texture_fields(0) if name == "colour" else DENSE
    )
    return Stage(name, window, fields, nothing, reads, **more)


def backends(*before: Stage, window: int = 96, stride: int = 64, reads: tuple[Read, ...] = ()):
    solid = stage("solid", window, *reads, stride=stride)
    return make_chain([*before, solid], [stage("colour", stride, Read("geometry"))])


def frame(x: tuple[int, int], y: tuple[int, int]) -> Frame:
    return Frame("EPSG:32632", 1.0, x, y)


def all_tasks(graph: Graph) -> list[Task]:
    found = []
    for name, (xs, ys) in graph.range.items():
        parity = None if name == TILE else graph.chain[name].parity
        found += [
            Task(name, x, y)
            for y in range(*ys)
            for x in range(*xs)
            if parity is None or (x % 2, y % 2) == parity
        ]
    return found


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Chains of up to three stages before the voxels, of any lattice, over any small world."""
    stages: list[Stage] = []
    for n in range(draw(st.integers(0, 3))):
        scale = draw(st.sampled_from([1, 1, 2, 8]))
        stride = draw(st.sampled_from([8, 24, 32, 64]))
        reads = [
            Read(
                s.name,
                metres=draw(st.sampled_from([0.0, 3.5, 40.0])),
                cells=draw(st.sampled_from([0, 2])),
            )
            for s in stages
            if draw(st.booleans())
        ]
        merge = nothing if draw(st.booleans()) else None
        parity = draw(st.sampled_from([None, (0, 1)])) if merge else None
        stages.append(
            stage(
                f"s{n}",
                stride + 2 * draw(st.integers(0, 5)),
                *reads,
                stride=stride,
                scale=scale,
                merge=merge,
                parity=parity,
            )
        )
    read = {r.source for s in stages for r in s.reads}
    reads = tuple(
        Read(s.name, metres=draw(st.sampled_from([0.0, 20.0])))
        for s in stages
        if s.name not in read or draw(st.booleans())
    )
    window, stride = draw(st.sampled_from([(96, 64), (64, 64), (72, 56), (160, 128)]))
    chain = backends(*stages, window=window, stride=stride, reads=reads)
    x, y = draw(st.integers(-300, 300)), draw(st.integers(-300, 300))
    size = draw(st.sampled_from([64, 56, 128, 200]))
    return Graph(
        chain, frame((x, x + draw(st.integers(1, 260))), (y, y + draw(st.integers(1, 260)))), size
    )


@given(graphs())
def test_needs_and_users_are_each_others_inverse(graph: Graph) -> None:
    tasks = all_tasks(graph)
    edges = {(task, need) for task in tasks for need in graph.needs(task)}
    assert {need for _, need in edges} <= set(tasks), "a task needs what is not in the graph"
    assert edges == {(user, task) for task in tasks for user in graph.users(task)}


def wanted_tasks(graph: Graph) -> set[Task]:
    """Tiles, and what they need, and what that needs."""
    wanted = {task for task in all_tasks(graph) if task.stage == TILE}
    front = list(wanted)
    while front:
        for need in graph.needs(front.pop()):
            if need not in wanted:
                wanted.add(need)
                front.append(need)
    return wanted


@given(graphs())
def test_the_graph_holds_what_tiles_want_and_little_else(graph: Graph) -> None:
    wanted = wanted_tasks(graph)
    assert wanted <= set(all_tasks(graph))
    assert len(wanted) >= 0.5 * len(all_tasks(graph)), (
        "ranges are rectangles: only corners may be too much"
    )


@given(graphs(), st.randoms(use_true_random=False))
def test_a_walk_gives_each_task_once_after_what_it_needs(graph: Graph, random) -> None:
    there = {task for task in all_tasks(graph) if random.random() < 0.3}  # from an earlier run
    traversal = Traversal(graph, there.__contains__)
    done: set[Task] = set()
    for task in traversal:
        assert task not in done and task not in there
        assert all(need in done or need in there for need in graph.needs(task))
        assert not [gone for gone in traversal.unneeded if gone in graph.needs(task)], (
            "an output went before its reader"
        )
        done.add(task)
        traversal.complete(task)
    assert {task for task in all_tasks(graph) if task.stage == TILE} <= done | there
    assert forgotten(traversal)


@given(graphs())
def test_a_walk_of_a_new_world_gives_all_that_tiles_need_and_drops_it(graph: Graph) -> None:
    traversal = Traversal(graph, lambda task: False)
    done = []
    for task in traversal:
        done.append(task)
        traversal.complete(task)
    assert len(done) == len(set(done)) and set(done) == wanted_tasks(graph)
    kept = set(traversal._readers_left) & traversal._given
    assert sorted([*traversal.unneeded, *kept]) == sorted(
        task for task in done if task.stage != TILE
    )
    assert forgotten(traversal)


def forgotten(traversal: Traversal) -> bool:
    """Whether the traversal holds nothing any more, except windows at the border with a reader that
    no tile needs."""
    wanted = wanted_tasks(traversal.graph)
    return all(
        any(user not in wanted for user in traversal.graph.users(task))
        for task in traversal._readers_left
    )


def test_stages_that_read_their_own_window_are_one_task_with_their_reader() -> None:
    chain = backends(stage("land", 64, Read("semantics", 100.0)), reads=(Read("land", 20.0),))
    world = frame((0, 256), (0, 128))
    assert Graph(chain, world, 64).groups == {TILE: ("solid", "colour"), "land": ("land",)}
    assert Graph(chain, world, 128).groups == {
        TILE: (),
        "colour": ("colour",),
        "solid": ("solid",),
        "land": ("land",),
    }
    assert Graph(chain, world, 64).counts() == {"land": 6 * 4, TILE: 4 * 2}
    # A reader within the margin needs no neighbour, so a wide land stage is fused too.
    wide = backends(stage("land", 64 + 2 * 40, stride=64), reads=(Read("land", 20.0),))
    assert Graph(wide, world, 64).groups == {TILE: ("land", "solid", "colour")}
    # Without a margin, levels of detail need the neighbours' voxels.
    bare = backends(window=64)
    assert Graph(bare, world, 64).groups == {TILE: ("colour",), "solid": ("solid",)}
    assert len(Graph(bare, world, 64).needs(Task(TILE, 1, 1))) == 9


def test_a_crop_has_the_tasks_of_the_whole() -> None:
    chain = backends(stage("land", 48, Read("semantics", 100.0)), reads=(Read("land", 20.0),))
    whole, part = (
        Graph(chain, frame((-500, 500), (-500, 500)), 64),
        Graph(chain, frame((-70, 90), (3, 60)), 64),
    )
    for task in all_tasks(part):
        if task.stage != TILE:  # tiles at the border of a crop are cropped
            assert part.needs(task) == whole.needs(task)


def test_a_large_graph_is_not_held() -> None:
    chain = backends(stage("land", 64), reads=(Read("land", 20.0),))
    graph = Graph(chain, frame((0, 64 * 10_000), (0, 64 * 10_000)), 64)
    assert sum(graph.counts().values()) == 10_000**2 + 10_002**2
    traversal = Traversal(graph, lambda task: False)
    for task in itertools.islice(traversal, 3000):
        traversal.complete(task)
        assert len(traversal._readers_left) < 3 * 18 * 10


def test_a_window_as_read_is_that_of_the_readers() -> None:
    first = stage("first", AS_READ, Read("dem", metres=5.0))
    second = stage("second", AS_READ, Read("first", cells=2))
    reads = (Read("first", metres=20.0), Read("second", metres=7.0))
    for size, margins in ((1.0, (36, 23)), (0.5, (56, 30)), (8.0, (19, 17))):
        last = stage("solid", 96, *reads, stride=64)
        chain = make_chain([first, second, last], [stage("colour", 64, Read("geometry"))], size)
        assert (chain["first"].margin, chain["second"].margin) == margins
        assert chain["first"].step == chain["second"].step == 64
        graph = Graph(chain, Frame("EPSG:32632", size, (-100, 300), (0, 50)), 64)
        assert graph.groups == {"tile": ("first", "second", "solid", "colour")}
        graph = Graph(chain, Frame("EPSG:32632", size, (-100, 300), (0, 50)), 128)
        assert graph.groups["solid"] == ("first", "second", "solid")


@pytest.mark.parametrize(
    ("geometry", "texture", "problem"),
    [
        (
            [stage("a", 64), stage("a", 64, Read("a")), stage("solid", 96, stride=64)],
            [stage("colour", 64)],
            "two stages",
        ),
        (
            [stage("a", 64, Read("solid")), stage("solid", 96, stride=64)],
            [stage("colour", 64)],
            "comes later",
        ),
        ([stage("solid", 60)], [stage("colour", 60)], "multiple of 8"),
        ([stage("solid", 64, scale=8)], [stage("colour", 64)], "scale must be 1"),
        ([stage("solid", 64)], [stage("colour", 128)], "stride 128"),
        ([stage("a", 64), stage("solid", 96, stride=64)], [stage("colour", 64)], "nothing reads"),
        (
            [stage("tile", 64), stage("solid", 64)],
            [stage("colour", 64)],
            "two stages are called 'tile'",
        ),
        ([stage("solid", AS_READ)], [stage("colour", 64)], "windows of its own"),
        (
            [
                stage("a", AS_READ),
                stage("b", 32, Read("a")),
                stage("solid", 64, Read("a"), Read("b")),
            ],
            [stage("colour", 64)],
            "readers differ",
        ),
    ],
)
def test_a_chain_that_cannot_be_is_refused(geometry, texture, problem: str) -> None:
    with pytest.raises(PluginError, match=problem):
        make_chain(geometry, texture)


def test_a_stage_that_cannot_be_is_refused() -> None:
    for window, stride in ((64, 128), (65, 64), (-1, None), (AS_READ, 64)):
        with pytest.raises(PluginError):
            stage("s", window, stride=stride)
