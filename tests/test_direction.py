"""Directions: arithmetic, identity, provenance, and the way to a file and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from assay import Direction, Model, Site
from assay.direction import orthonormal
from assay.errors import BadSite, BadVector, CorruptFile, ModelMismatch, Unwritable
from assay.provenance import Provenance

floats = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)


def _vectors(*shape: int) -> st.SearchStrategy[torch.Tensor]:
    size = math.prod(shape)
    return st.lists(floats, min_size=size, max_size=size).map(lambda numbers: torch.tensor(numbers).reshape(shape))


def _direction(vector: torch.Tensor, at: str = "L1.resid @ last", name: str = "d", **made: object) -> Direction:
    return Direction(vector, Site.parse(at), Provenance(method="test", **made), name)  # type: ignore[arg-type]


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (8,)), generator=torch.Generator().manual_seed(seed))


nonzero = _vectors(6).filter(lambda vector: bool(vector.norm() > 0.1))


@given(_vectors(6), _vectors(6), st.floats(-100, 100))
def test_arithmetic_is_that_of_vectors(a: torch.Tensor, b: torch.Tensor, k: float) -> None:
    x, y = _direction(a), _direction(b)
    torch.testing.assert_close((x + y).vector, a + b, rtol=0, atol=0)
    torch.testing.assert_close((x - y).vector, a - b, rtol=0, atol=0)
    torch.testing.assert_close((k * x).vector, a * k, rtol=0, atol=0)
    assert (-x).vector.tolist() == (-a).tolist()
    assert (x + y) == (y + x)
    assert (x * 2 / 2) == x
    assert (x + y).site == x.site


@given(nonzero, nonzero, nonzero)
def test_what_is_taken_out_is_gone_and_nothing_else(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
    left = _direction(a).without(_direction(b), _direction(c))
    for other in (b, c):
        assert abs(float(left.vector @ (other / other.norm()))) <= 1e-5 * float(a.norm())
    removed = (a - left.vector).double()
    span = torch.stack([b, c]).double()
    inside = span.T @ torch.linalg.pinv(span.T, rtol=1e-5) @ removed
    assert float((removed - inside).norm()) <= 1e-3 * float(a.norm())


def test_taking_the_same_out_twice_takes_it_out_once() -> None:
    """A factorisation of dependent vectors completes them with arbitrary ones; those must not be taken out too."""
    a, b = _direction(_random(0)), _direction(_random(1))
    once = a.without(b)
    for again in (a.without(b, b), a.without(b, 2 * b), a.without(b, -b, b)):
        torch.testing.assert_close(again.vector, once.vector, atol=1e-6, rtol=0)
    assert a.without().vector.tolist() == a.vector.tolist()
    positional = _direction(_random(2, 3, 8)).without(b)
    assert float((positional.vector @ b.unit).abs().max()) < 1e-5


def test_an_orthonormal_basis_has_as_many_vectors_as_there_are_independent_ones() -> None:
    a, b = _random(0, 64), _random(1, 64)
    for vectors, rank in [((a,), 1), ((a, a), 1), ((a, -3 * a), 1), ((a, b), 2), ((a, b, a + b, a - b), 2)]:
        basis = orthonormal([vector / vector.norm() for vector in vectors])
        assert basis.shape == (rank, 64)
        torch.testing.assert_close(basis @ basis.T, torch.eye(rank), atol=1e-5, rtol=0)
        for vector in vectors:
            torch.testing.assert_close(basis.T @ (basis @ vector), vector, atol=1e-4, rtol=0)


@given(nonzero, nonzero)
def test_cosine(a: torch.Tensor, b: torch.Tensor) -> None:
    expected = float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))
    assert _direction(a).cosine(_direction(b)) == pytest.approx(expected, abs=1e-5)


def test_the_cosine_of_positional_vectors_is_that_of_all_their_numbers() -> None:
    a, b = _direction(torch.tensor([[1.0, 0], [1, 0]])), _direction(torch.tensor([[1.0, 0], [0, 1]]))
    assert a.cosine(b) == pytest.approx(0.5)
    assert a.cosine(a) == pytest.approx(1.0)
    assert a.cosine(-b) == pytest.approx(-0.5)


def test_norm_and_unit() -> None:
    assert _direction(torch.tensor([3.0, 4.0])).norm == 5.0
    assert _direction(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).norm == 5.0
    assert _direction(torch.tensor([3.0, 4.0])).unit.tolist() == pytest.approx([0.6, 0.8])
    with pytest.raises(BadVector, match="'d' is the zero vector"):
        _ = _direction(torch.zeros(4)).unit


# Frozen: identity is the content, and nobody else's tensor.


def test_a_direction_does_not_change_with_the_tensor_it_was_made_from() -> None:
    buffer = _random(0)
    made = _direction(buffer)
    before = made.digest
    buffer.zero_()
    assert made.digest == before
    assert made.norm > 0


def test_identity() -> None:
    a = _direction(_random(0))
    assert a == _direction(_random(0), name="other", seed=3)
    assert hash(a) == hash(_direction(_random(0)))
    assert a != _direction(_random(0), at="L2.resid @ last")
    assert a != _direction(_random(1))
    assert a != Direction(_random(0), Site.parse("L1.resid @ last"), scale=2.0)
    assert a.vector.dtype == torch.float32
    assert Direction(_random(0).bfloat16(), Site("embed")).vector.dtype == torch.float32


def test_another_layer() -> None:
    assert str(_direction(_random(0)).at(0).site) == "L0.resid @ last"
    with pytest.raises(BadSite):
        Direction(_random(0), Site("embed")).at(1)


def test_where_it_came_from_travels() -> None:
    a = _direction(_random(0), used=frozenset("x"), model="m")
    b = _direction(_random(1), name="b", used=frozenset("y"))
    both = (a + 2 * b).at(2)
    assert both.provenance.used == {"x", "y"}
    assert both.provenance.model == "m"
    assert str(both.provenance) == "test() → + b → at(L2)"
    assert (b + a).provenance.model == "m"  # a given vector plus a found one was found on that model
    assert b.without(a).provenance.used == {"x", "y"}
    with pytest.raises(ModelMismatch, match=r"'d' and 'd' were found on different models\n\n  found     m, n\n"):
        a + _direction(_random(1), model="n")


def test_another_models_direction_is_refused(
    tiny: Callable[[str], PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = Model.load(tiny("llama"), tokenizer=tokenizer, selftest=False)
    _direction(_random(0), model=model.fingerprint).check(model.fingerprint)
    _direction(_random(0)).check(model.fingerprint)  # one that is given by hand belongs to no model
    with pytest.raises(ModelMismatch, match=r"'d' was not found on this model\n\n  found on   abc\n  this model "):
        _direction(_random(0), model="abc").check(model.fingerprint)


# JSON and files.


@given(
    _vectors(2, 3) | _vectors(5), st.none() | st.floats(0.1, 9), st.frozensets(st.text("abé", max_size=3), max_size=3)
)
def test_json_keeps_every_bit(vector: torch.Tensor, scale: float | None, used: frozenset[str]) -> None:
    made = Direction(
        vector, Site.parse("L1.head[2].z @ a[-1]"), Provenance(method="test", used=used, seed=0), "d", scale
    )
    back = Direction.from_json(json.loads(json.dumps(made.to_json())))
    assert back == made
    assert back.vector.numpy().tobytes() == made.vector.numpy().tobytes()
    assert (back.provenance, back.name, back.scale) == (made.provenance, made.name, made.scale)


def test_files_keep_everything(tmp_path: Path) -> None:
    made = _direction(torch.tensor([-0.0, 1e-40, 3.0]), used=frozenset("ab"), arguments={"k": [1, "é", None]}).at(2)
    back = Direction.load(made.save(tmp_path / "d.safetensors"))
    assert back == made
    assert back.vector.numpy().tobytes() == made.vector.numpy().tobytes()
    assert back.provenance == made.provenance


def test_a_file_refuses_another_model(
    tiny: Callable[[str], PreTrainedModel], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = Model.load(tiny("llama"), tokenizer=tokenizer, selftest=False)
    other = Model.load(tiny("qwen2"), tokenizer=tokenizer, selftest=False)
    path = _direction(_random(0, 32), model=model.fingerprint).save(tmp_path / "d.safetensors")
    assert Direction.load(path, model).width == 32
    with pytest.raises(ModelMismatch):
        Direction.load(path, other)


def test_files_that_hold_no_direction(tmp_path: Path) -> None:
    good = _direction(_random(0)).save(tmp_path / "good.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-9])
    (tmp_path / "text.safetensors").write_text("no")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("cut", "text", "empty", "missing"):
        with pytest.raises(CorruptFile, match="does not read as a direction"):
            Direction.load(tmp_path / f"{name}.safetensors")
    save_file({"vector": torch.ones(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CorruptFile, match=r"holds no direction\n\n  found     format None"):
        Direction.load(tmp_path / "other.safetensors")
    for state in ("[]", "{", "{}", '{"site": "L1.resid", "provenance": {}, "name": "d", "scale": null}'):
        save_file(
            {"vector": torch.ones(3)},
            tmp_path / "odd.safetensors",
            metadata={"format": "assay-direction-1", "direction": state},
        )
        with pytest.raises(CorruptFile, match="does not read as a direction"):
            Direction.load(tmp_path / "odd.safetensors")
    save_file(
        {"other": torch.ones(3)},
        tmp_path / "odd.safetensors",
        metadata={"format": "assay-direction-1", "direction": "{}"},
    )
    with pytest.raises(CorruptFile, match="does not read as a direction"):
        Direction.load(tmp_path / "odd.safetensors")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(Unwritable, match="cannot be written"):
        _direction(_random(0)).save(tmp_path / "no" / "d.safetensors")


# Bad vectors.


@pytest.mark.parametrize(
    ("vector", "what"),
    [
        (
            torch.tensor([1.0, math.nan]),
            "the vector of 'd' is not finite\n\n  found     1 of 2 entries are NaN or infinite",
        ),
        (torch.tensor([math.inf, 1.0]), "the vector of 'd' is not finite"),
        (torch.tensor([1e300], dtype=torch.float64), "the vector of 'd' is not finite"),
        (torch.tensor(1.0), "the vector of 'd' has shape ()"),
        (torch.zeros(0), "the vector of 'd' has shape (0,)"),
        (torch.zeros(1, 2, 3), "the vector of 'd' has shape (1, 2, 3)"),
    ],
)
def test_what_is_no_vector(vector: torch.Tensor, what: str) -> None:
    with pytest.raises(BadVector) as caught:
        _direction(vector)
    assert str(caught.value).startswith(what)


def test_widths_that_differ() -> None:
    a, b = _direction(_random(0)), _direction(_random(0, 9), name="b")
    for combine in (lambda: a + b, lambda: a - b, lambda: a.cosine(b)):
        with pytest.raises(BadVector, match=r"'d' and 'b' have different shapes\n\n  found     \(8,\) and \(9,\)"):
            combine()
    with pytest.raises(BadVector, match="'b' cannot be taken out of 'd'"):
        a.without(b)
    with pytest.raises(BadVector, match="'b' cannot be taken out of 'd'"):
        a.without(_direction(_random(0, 2, 8), name="b"))
    with pytest.raises(BadVector, match="not finite"):
        a * math.inf


def test_how_it_prints() -> None:
    assert repr(_direction(torch.tensor([3.0, 4.0]))) == "Direction('d', 2, norm 5, at L1.resid @ last, from test())"
    assert repr(_direction(torch.ones(3, 4))).startswith("Direction('d', 3×4, norm 2, at ")
