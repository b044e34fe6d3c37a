import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise import recipe as recipes
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.package import Package
from edgewise.recipe import Recipe, Step
from edgewise.registry import REGISTRY
from edgewise.types import Compressed


def halve(model: Graph, *, by: int = 2, device: object = None) -> Compressed:
    return Compressed((*model, f"halve {by} {device}"), ("a",), {})


def grow(model: list, *, calibration: object = None) -> Compressed:
    return Compressed((*model, f"grow {calibration}"), ("b",), {})


def shrunk(model: Package, *, by: int = 2) -> Compressed:
    return Compressed((*model, f"shrunk {by}"), ("c",), {})


@pytest.fixture(autouse=True)
def passes(monkeypatch):
    monkeypatch.setitem(
        REGISTRY, "pass", {**REGISTRY["pass"], "halve": f"{__name__}:halve", "grow": f"{__name__}:grow", "shrunk": f"{__name__}:shrunk"}
    )
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("types").SimpleNamespace(halve=halve, grow=grow, shrunk=shrunk))


def test_text_and_back():
    text = "quantize(bits=8, skip=('a', 'b')) > halve(by=3)"
    recipe = recipes.parse(text)
    assert recipe.steps == (Step("quantize", {"bits": 8, "skip": ("a", "b")}), Step("halve", {"by": 3}))
    assert str(recipe) == text
    assert recipes.parse("") == Recipe()


@given(st.lists(st.integers() | st.text() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=4))
def test_every_literal_survives(values):
    step = Step("quantize", {"skip": tuple(values)})
    assert recipes._step(__import__("ast").parse(str(step), mode="eval").body, "") == step


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quantize(bits=8", "can't be read"),
        ("quantize", "is no step"),
        ("quantize(8)", "without a name"),
        ("quantize(bits=open('x'))", "no literal"),
        ("quantize(**{})", "'**'"),
        ("quantize(depth=3)", "no argument 'depth'; it has bits"),
        ("quantize() < halve()", "join its steps with '>'"),
        ("nothing(bits=8)", "unknown pass 'nothing'"),
        ("halve() > grow()", "put it first"),
        ("shrunk() > grow()", "grow changes the module and stands after a step on the package; put it first"),
        ("shrunk() > halve()", "halve changes the graph and stands after a step on the package; put it before that"),
        ("(" * 5000, "can't be read"),
    ],
)
def test_what_is_refused(text, says):
    with pytest.raises(InvalidInput, match=says.replace("(", r"\(").replace("*", r"\*")):
        recipes.parse(text)


def test_what_apply_supplies_is_no_option():
    assert set(recipes.options(halve)) == {"by"}
    with pytest.raises(InvalidInput, match="no argument 'device'"):
        recipes.parse("halve(device=1)")


def test_apply_exports_once_and_supplies_by_name():
    asked = []

    def calibration():
        asked.append(1)
        return "samples"

    done = recipes.apply(
        recipes.parse("grow() > halve(by=5)"), ("m",), export=lambda m: (*m, "export"), device="pi", calibration=calibration
    )
    assert done.model == ("m", "grow samples", "export", "halve 5 pi")
    assert [result.touched for result in done.results] == [("b",), ("a",)]
    assert asked == [1]
    assert recipes.apply(Recipe(), ("m",), export=lambda m: (*m, "export")).model == ("m", "export")


def test_a_package_is_made_once_where_a_step_wants_one():
    ways = {"export": lambda m: (*m, "export"), "pack": lambda m: (*m, "pack")}
    done = recipes.apply(recipes.parse("grow() > shrunk() > shrunk(by=3)"), ("m",), calibration=1, **ways)
    assert done.model == ("m", "grow 1", "export", "pack", "shrunk 2", "shrunk 3")
    assert recipes.apply(recipes.parse("shrunk()"), ("m",), **ways).model == ("m", "export", "pack", "shrunk 2")
    for text, first in (("grow() > halve() > shrunk() > shrunk()", 2), ("shrunk()", 0), ("grow()", 1), ("", 0)):
        making, packing = recipes.divided(recipes.parse(text))
        assert (*making.steps, *packing.steps) == recipes.parse(text).steps and len(making.steps) == first


def test_an_error_names_its_step(monkeypatch):
    def broken(model: Graph, *, by: int = 2) -> Compressed:
        raise InvalidInput("no")

    monkeypatch.setattr(__import__("sys").modules[__name__], "halve", broken)
    with pytest.raises(InvalidInput, match=r"step halve\(by=2\): no"):
        recipes.apply(recipes.parse("halve(by=2)"), ())
