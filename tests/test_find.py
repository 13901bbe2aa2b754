"""Finders find what was planted, agree with the same thing done by hand, and say what they used."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import assay.find.contrast
from assay import Direction, Model, Pair, Pairs, Prompt, Site, ablate, add, find
from assay.errors import (
    AssayError,
    BadData,
    BadDose,
    BadSite,
    BadVector,
    EmptyData,
    LeakedData,
    NoSuchPosition,
    NoSuchSite,
    OneClass,
)
from assay.find import filters, mean_difference, pca, probe
from assay.find.filters import drift
from assay.find.found import Fit, Found
from assay.find.search import effects, spelled, table
from assay.model.core import NEUTRAL
from assay.provenance import Provenance
from assay.registry import finder, fit_of, lookup
from tests.tiny import HEADS, LAYERS
from tests.tiny import tiny as fresh

Tiny = Callable[[str], PreTrainedModel]
NOUNS = ["Paris", "Rome", "Berlin", "Tower", "Eiffel", "city", "capital", "love", "hate", "you", "I", "because"]
RESID, LAST = "L:.resid @ last", [f"L{layer}.resid @ last" for layer in range(LAYERS)]


def statements(asking: bool = True, tail: str = "") -> Pairs:
    """24 pairs of several lengths in 12 clusters: "… true" against "… false"."""
    items = []
    for noun in NOUNS:
        for middle in ("the", "not the Tower of"):
            stem = f"The {noun} is {middle} city and"
            question, answers = (Prompt(f"{noun} {middle} is"), (" yes", " no")) if asking else (None, None)
            items.append(
                Pair(Prompt(f"{stem} true{tail}"), Prompt(f"{stem} false{tail}"), question, answers, cluster=noun)
            )
    return Pairs(tuple(items))


SPLIT = statements().split(fit=0.5, tune=0.25)
TAILED = statements(tail=" I").split(fit=0.5, tune=0.25)
UNASKED = statements(asking=False).split(fit=0.5, tune=0.25)


@pytest.fixture(scope="module")
def load(tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Model]:
    return lambda family: Model.load(tiny(family), tokenizer=tokenizer, selftest=False)


@pytest.fixture(scope="module")
def model(load: Callable[[str], Model]) -> Model:
    return load("llama")


@pytest.fixture(scope="module")
def planted(tokenizer: PreTrainedTokenizerFast) -> tuple[Model, Tensor]:
    """A model that is known: blocks add nothing, " true" and " false" differ by 4u, " yes" reads +u, " no" −u."""
    hf = fresh("llama")
    u = torch.nn.functional.normalize(torch.randn(32, generator=torch.Generator().manual_seed(1)), dim=0)
    token = {word: tokenizer.convert_tokens_to_ids("Ġ" + word) for word in ("true", "false", "yes", "no")}
    with torch.no_grad():
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        words, scores = hf.get_input_embeddings().weight, hf.get_output_embeddings().weight
        words += (1 - words @ u)[:, None] * u  # every token says a little "yes"
        words[token["true"]] = words[token["false"]] + 2 * u
        words[token["false"]] -= 2 * u
        hf.model.norm.weight.fill_(1.0)
        scores[token["yes"]], scores[token["no"]] = u, -u
    return Model.load(hf, tokenizer=tokenizer, selftest=False), u


@torch.no_grad()
def by_hand(model: Model, pairs: Pairs, module: str, side: int, cut: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Both sides' values at the last token, prompt by prompt, from a plain hook on a plain forward pass."""
    seen: list[Tensor] = []

    def hook(_: Any, inputs: Any, output: Any) -> None:
        value = inputs[0] if side == 0 else output
        seen.append((value[0] if isinstance(value, tuple) else value)[..., -1, cut].reshape(1, -1))

    handle = model.hf.get_submodule(module).register_forward_hook(hook)
    try:
        for pair in pairs:
            for prompt in (pair.positive, pair.negative):
                model.hf(input_ids=torch.tensor([model.row(prompt).tokens]))
    finally:
        handle.remove()
    both = torch.cat(seen).double()
    return both[::2], both[1::2]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def refuses(kind: type[AssayError], call: Callable[[], object], *lines: str) -> None:
    """The call raises this error, with these lines in its text."""
    with pytest.raises(kind) as caught:
        call()
    text = f"{kind.__name__}: {caught.value}".splitlines()
    assert [line for line in lines if line not in text] == [], str(caught.value)


# ── mean difference ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_mean_difference_is_the_mean_difference(family: str, load: Callable[[str], Model]) -> None:
    model = load(family)
    found = find.mean_difference(model, SPLIT.fit, at=RESID)
    assert list(map(str, found)) == LAST
    for layer in range(LAYERS):
        positive, negative = by_hand(model, SPLIT.fit, f"{model.engine.anatomy.blocks}.{layer}", 1)
        torch.testing.assert_close(found.at(layer).vector, (positive - negative).mean(0).float(), atol=2e-4, rtol=1e-4)


def test_one_pass_over_distinct_prompts_for_all_sites(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def counted(core: Any, rows: Sequence[Any], sites: Sequence[Any]) -> Any:
        calls.append((len(rows), len(sites)))
        return original(core, rows, sites)

    original = assay.find.contrast.capture
    monkeypatch.setattr(assay.find.contrast, "capture", counted)
    shared = Pairs.of(["I love", "I love you"], ["I hate", "I hate"])
    find.mean_difference(model, shared, at=["L:.resid @ last", "L:.head[:].z @ -2", "L1.mlp.act"])
    assert calls == [(3, LAYERS + LAYERS * HEADS + 1)]


@pytest.mark.parametrize("method", [find.mean_difference, find.pca], ids=lambda method: method.method)
def test_a_planted_direction_is_found_at_its_length(method: Any, planted: tuple[Model, Tensor]) -> None:
    model, u = planted
    for direction in method(model, SPLIT.fit, at=["embed", "L:.resid"]).directions:
        torch.testing.assert_close(direction.vector, 4 * u, atol=1e-4, rtol=0)


def test_the_letter_is_the_last_token(model: Model) -> None:
    pairs = Pairs.answers_ab([("Is it true?", "(A)", "(B)"), ("Is Rome a city?", "(B)", "(A)")])
    check_letters(model, pairs)
    whole = Pairs(tuple(replace(p, positive=closed(p.positive), negative=closed(p.negative)) for p in pairs))
    at_last, before_last = (
        find.mean_difference(model, pairs, at=RESID),
        find.mean_difference(model, whole, at="L:.resid @ -2"),
    )
    for mine, theirs in zip(at_last.directions, before_last.directions, strict=True):
        torch.testing.assert_close(mine.vector, theirs.vector, atol=1e-4, rtol=0)


def closed(prompt: Prompt) -> Prompt:
    return Prompt.chat(prompt.text, prefix=prompt.prefix + ")")


def check_letters(model: Model, pairs: Pairs) -> None:
    for pair in pairs:
        assert pair.question is not None
        assert pair.answers is not None
        for prompt, letter in zip((pair.positive, pair.negative), pair.answers, strict=True):
            tokens, asked = model.row(prompt).tokens, model.row(pair.question).tokens
            assert (tokens[:-1], model.decode(tokens[-1:])) == (asked, letter)
            assert model.row(closed(prompt)).tokens[:-1] == tokens


def test_equal_norms(model: Model) -> None:
    a, b = find.mean_difference(model, SPLIT.fit, at=RESID), find.mean_difference(model, SPLIT.tune, at=RESID)
    for layer in range(LAYERS):
        one, two = find.equal_norms([a, b])[0].at(layer), find.equal_norms([a, b])[1].at(layer)
        assert one.norm == pytest.approx((a.at(layer).norm + b.at(layer).norm) / 2) == two.norm
        assert one.cosine(a.at(layer)) == pytest.approx(1)
        assert one.provenance.used == SPLIT.fit.digests | SPLIT.tune.digests
        assert one.provenance.steps == ("scaled to the mean norm of 2 behaviours",)
    refuses(BadSite, lambda: find.equal_norms([a, find.mean_difference(model, SPLIT.fit, at="embed")]))
    refuses(EmptyData, lambda: find.equal_norms([]), "EmptyData: there are no behaviours to compare")


# ── pca ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sides(shift: float, nuisance: float, seed: int, n: int = 120, d: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that share a large common part and differ by a constant shift, noise, and one nuisance of its own."""
    g = torch.Generator().manual_seed(seed)
    c, o = torch.linalg.qr(torch.randn(d, 2, generator=g, dtype=torch.float64))[0].T
    common = 10 * torch.randn(n, d, generator=g, dtype=torch.float64)
    delta = shift * c + 0.3 * torch.randn(n, d, generator=g, dtype=torch.float64)
    delta += nuisance * torch.randn(n, 1, generator=g, dtype=torch.float64) * o
    return common + delta / 2, common - delta / 2, c


@given(seed=st.integers(0, 10_000), shift=st.floats(1, 5), nuisance=st.floats(0, 0.5))
def test_pca_finds_a_constant_shift(seed: int, shift: float, nuisance: float) -> None:
    """With nuisance of up to half the shift; its sign and length are those of the labels."""
    positive, negative, c = sides(shift, nuisance * shift, seed)
    found = pca.fit(positive, negative)
    assert cosine(found.vector, c) > 0.9
    assert cosine(pca.fit(negative, positive).vector, -found.vector) == pytest.approx(1)
    assert float(found.vector @ (positive - negative).mean(0)) == pytest.approx(float(found.vector @ found.vector))


def test_the_other_pca_takes_the_shift_away() -> None:
    positive, negative, c = sides(3, 1, 0)
    centred = torch.from_numpy(PCA(1).fit((positive - negative).numpy()).components_[0])
    assert abs(cosine(centred, c)) < 0.2
    assert cosine(pca.fit(positive, negative).vector, c) > 0.95


def test_pca_loses_to_the_mean_where_nuisance_varies_more_than_the_shift() -> None:
    positive, negative, c = sides(1, 3, 0)
    assert abs(cosine(pca.fit(positive, negative).vector, c)) < 0.3
    assert cosine(mean_difference.fit(positive, negative).vector, c) > 0.85


def test_explained_is_the_share_along_the_component(model: Model) -> None:
    found = find.pca(model, SPLIT.fit, at="L1.resid")
    positive, negative = by_hand(model, SPLIT.fit, "model.layers.1", 1)
    delta, u = positive - negative, found.at(1).unit.double()
    share = float((delta @ u).pow(2).sum() / delta.pow(2).sum())
    assert found.fits[Site.parse("L1.resid @ last")].notes["explained"] == pytest.approx(share, abs=1e-5)
    assert found.at(1).provenance.steps == (f"explained {share:.6g}",)


# ── probe ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_probe_is_logistic_regression_on_standardised_activations(model: Model) -> None:
    found = find.probe(model, SPLIT.fit, at="L1.resid", C=0.1)
    h = torch.cat(by_hand(model, SPLIT.fit, "model.layers.1", 1))
    n = len(SPLIT.fit)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(h, np.repeat([1, 0], n))
    fit = found.fits[Site.parse("L1.resid @ last")]
    odds = fit.notes["slope"] * (h @ fit.vector) + fit.notes["bias"]
    np.testing.assert_allclose(odds, reference.decision_function(h), atol=2e-3)
    assert float((h[:n] - h[n:]).mean(0) @ found.at(1).unit.double()) == pytest.approx(found.at(1).norm, rel=1e-4)


def test_probe_discounts_a_direction_in_which_the_sides_overlap() -> None:
    """The sides differ along c + o, and vary along o: the mean difference keeps o, the probe drops it."""
    g = torch.Generator().manual_seed(0)
    c, o = torch.linalg.qr(torch.randn(6, 2, generator=g, dtype=torch.float64))[0].T
    noise = torch.randn(1000, 6, generator=g, dtype=torch.float64)
    noise += 8 * torch.randn(1000, 1, generator=g, dtype=torch.float64) * o
    positive, negative = noise[:500] + c + o, noise[500:] - c - o
    assert cosine(probe.fit(positive, negative).vector, c) > 0.95
    assert cosine(mean_difference.fit(positive, negative).vector, c) < 0.9


def test_a_penalty_is_positive(model: Model) -> None:
    for C in (0.0, -1.0, float("nan")):
        refuses(
            BadData,
            lambda C=C: find.probe(model, SPLIT.fit, at="embed", C=C),
            f"BadData: C={C!r} is no strength of a penalty",
        )


# ── heads ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_heads_are_ranked_and_measured_as_by_hand(family: str, load: Callable[[str], Model]) -> None:
    model = load(family)
    found = find.heads(model, SPLIT.fit, top=7, validation=0.3, seed=3)
    parts = SPLIT.fit.split(fit=0.7, tune=0.15, seed=3)
    train, held = parts.fit, Pairs((*parts.tune, *parts.test))
    assert not set(train.clusters) & set(held.clusters)
    judged = {}
    for layer in range(LAYERS):
        for head in range(HEADS):
            d = model.shape.d_head
            module = f"{model.engine.anatomy.blocks}.{layer}.{model.engine.anatomy.o_proj}"
            at = (model, module, 0, slice(head * d, (head + 1) * d))
            judged[f"L{layer}.head[{head}].z @ last"] = one_head(*(by_hand(at[0], p, *at[1:]) for p in (train, held)))
    ranked = sorted(judged, key=lambda site: (-judged[site][0], judged[site][1]))
    assert list(map(str, found)) == ranked[:7]
    assert {str(site): accuracy for site, accuracy in found.accuracy.items()} == {s: j[0] for s, j in judged.items()}
    for direction in found.directions:
        _, loss, theta, sigma = judged[str(direction.site)]
        torch.testing.assert_close(direction.vector, theta.float(), atol=1e-3, rtol=0)
        assert direction.scale == pytest.approx(sigma, rel=1e-3)
        assert found.fits[direction.site].notes["loss"] == pytest.approx(loss, abs=2e-3)


def one_head(train: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> tuple[float, float, Tensor, float]:
    """Validation accuracy and loss, unit mass-mean direction, and σ over all activations."""
    labels = [np.repeat([1, 0], len(part[0])) for part in (train, held)]
    fitted = LogisticRegression(max_iter=1000).fit(torch.cat(train), labels[0])
    accuracy = float(fitted.score(torch.cat(held), labels[1]))
    loss = float(log_loss(labels[1], fitted.predict_proba(torch.cat(held))))
    everything = [torch.cat([train[side], held[side]]) for side in (0, 1)]
    theta = torch.nn.functional.normalize(everything[0].mean(0) - everything[1].mean(0), dim=0)
    return accuracy, loss, theta, float(np.std((torch.cat(everything) @ theta).numpy()))


def test_a_dose_of_a_head_is_alpha_sigma_at_every_answer_token(model: Model) -> None:
    found = find.heads(model, SPLIT.fit, top=3, validation=0.3)
    under = found.intervention(alpha=-7)
    scores = model.score("Is Rome a city?", [" yes it is true"], under=under)
    (receipts,) = scores.receipts.values()
    fed = int(scores.tokens[0, 0])  # the last prompt token and every answer token but the last, which is only read
    assert fed > 3
    assert [receipt.touched for receipt in receipts] == [fed] * 3
    by_site = {receipt.site: receipt for receipt in receipts}
    for direction in found.directions:
        assert direction.scale is not None
        receipt = by_site[str(direction.site.at("last:"))]
        assert receipt.length == pytest.approx(7 * direction.scale, rel=1e-4)
        assert receipt.before is not None
        assert receipt.after == pytest.approx(receipt.before - 7 * direction.scale, rel=1e-3)
    assert [one.dose for one in found.intervention()] == [15.0] * 3


def test_ties_and_the_other_ranking(model: Model) -> None:
    by_loss = find.heads(model, SPLIT.fit, top=LAYERS * HEADS, validation=0.3, by="validation loss")
    losses = [by_loss.fits[site].notes["loss"] for site in by_loss]
    assert losses == sorted(losses)
    assert set(by_loss) == set(find.heads(model, SPLIT.fit, top=LAYERS * HEADS, validation=0.3))


def test_heads_are_tuned_by_effect(model: Model) -> None:
    found = find.heads(model, SPLIT.fit, top=4, validation=0.3)
    best = found.best(SPLIT.tune, alphas=(2, -2, 6), tops=(1, 4))
    asked = [pair.question for pair in SPLIT.tune]
    effect = {}
    for top in (1, 4):
        for alpha in (2, 6):
            up, down = (
                model.score(asked, (" yes", " no"), under=found.intervention(s * alpha)[:top]).difference
                for s in (1, -1)
            )
            effect[top, alpha] = float((up - down).mean() / 2)
    top, alpha = max(effect, key=lambda cell: effect[cell])
    assert (len(best), best.alpha) == (top, alpha)
    assert list(best) == list(found)[:top]
    assert best.provenance.used == SPLIT.fit.digests | SPLIT.tune.digests
    assert best.provenance.steps[0].startswith(f"best of 4 cells: effect {effect[top, alpha]:.3g}"[:-1])
    refuses(LeakedData, lambda: found.best(SPLIT.fit))
    refuses(BadData, lambda: found.best(UNASKED.tune), "BadData: heads are tuned on questions")


def test_heads_refuse(model: Model) -> None:
    refuses(
        NoSuchSite,
        lambda: find.heads(model, SPLIT.fit),
        "NoSuchSite: there are no 48 heads to choose",
        "  hint: top=12",
    )
    refuses(NoSuchSite, lambda: find.heads(model, SPLIT.fit, top=0))
    refuses(NoSuchSite, lambda: find.heads(model, SPLIT.fit, top=2, validation=0.3).best(SPLIT.tune, tops=(3,)))
    refuses(
        BadData,
        lambda: find.heads(model, SPLIT.fit, top=2, by="accuracy"),
        "BadData: heads are not ranked by 'accuracy'",
    )
    refuses(BadData, lambda: find.heads(model, SPLIT.fit, top=2, C=0), "BadData: C=0 is no strength of a penalty")
    for share in (0, 1, -0.5, 1.5):
        refuses(BadData, lambda share=share: find.heads(model, SPLIT.fit, top=2, validation=share))
    refuses(
        BadSite,
        lambda: find.heads(model, SPLIT.fit, at="L1.resid", top=1),
        "BadSite: find.heads reads the values of heads, not L1.resid @ last",
    )
    refuses(
        EmptyData,
        lambda: find.heads(model, SPLIT.fit[:4], top=1),
        "EmptyData: 4 pairs are too few to hold out 0.2 of them",
        "  found     Pairs(4 pairs, 2 clusters)",
    )


# ── pair ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def test_pair_is_the_positional_difference(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """Their resid_pre[l] is hidden_states[l], and L{l−1}.resid; the shorter prompt is filled up with blanks."""
    model = Model.load(fresh(family), tokenizer=tokenizer, selftest=False)  # hidden_states leave hooks behind
    love = find.pair(model, " Love", " Hate you and", at="L1.resid")
    blank = model.tokenizer.convert_tokens_to_ids("Ġ")
    rows = [list(model.row(text).tokens) for text in (" Love", " Hate you and")]
    rows[0] += [blank] * (len(rows[1]) - len(rows[0]))
    states = [model.hf(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[2][0] for row in rows]
    torch.testing.assert_close(love.vector, states[0] - states[1], atol=2e-4, rtol=1e-4)
    assert love.vector.shape == (len(rows[1]), 32)
    assert not love.vector[0].any()  # BOS: exactly
    assert (str(love.site), love.name) == (f"L1.resid @ 0:{len(rows[1])}", " Love −  Hate you and")


def test_pair_acts_once_on_the_front_of_the_prompt(model: Model) -> None:
    love = find.pair(model, " Love", " Hate", at="embed")
    made = model.generate("I hate you because", under=add(love, times=5), tokens=6)
    assert [(receipt.touched, receipt.expected) for receipt in made.receipts] == [(2, 2)]
    read = model.run("I hate you because", under=add(love, times=5), read=["embed"])["row"]["embed"]
    natural = model.run("I hate you because", read=["embed"])["row"]["embed"]
    torch.testing.assert_close(read[:2] - natural[:2], 5 * love.vector, atol=1e-4, rtol=1e-4)
    assert torch.equal(read[2:], natural[2:])


def test_pair_padding(model: Model) -> None:
    by = {pad: find.pair(model, " Love", " Hate you", at="L0.resid", pad=pad) for pad in ("space", "eos", 7)}
    assert len({direction.digest for direction in by.values()}) == 3
    assert by["eos"] == find.pair(model, " Love", " Hate you", at="L0.resid", pad=model.tokenizer.eos_token_id)
    same = [find.pair(model, " Love", " Hate", at="L0.resid", pad=pad) for pad in ("space", "eos")]
    assert same[0] == same[1]
    for pad in (len(model.tokenizer), -1, "bos"):
        refuses(
            BadData,
            lambda pad=pad: find.pair(model, " Love", " Hate you", at="embed", pad=pad),
            f"BadData: pad={pad!r} is no single token of this tokenizer",
        )


def test_pair_refuses(model: Model) -> None:
    for at in ("L1.resid @ last", "L:.resid", "L0.head[0].pattern"):
        refuses(
            BadSite,
            lambda at=at: find.pair(model, "Love", "Hate", at=at),
            f"BadSite: {at} is not where an activation addition is read",
        )
    refuses(
        NoSuchSite, lambda: find.pair(model, "Love", "Hate", at="L3.resid"), "NoSuchSite: this model has no L3.resid"
    )
    for negative in ("Love", "Love "):  # the same, or the same once the shorter is filled up
        refuses(
            OneClass,
            lambda negative=negative: find.pair(model, "Love", negative, at="embed"),
            f"OneClass: 'Love' and {negative!r} are the same tokens",
        )


# ── the choice among sites ───────────────────────────────────────────────────────────────────────────────────────────


def among(model: Model, vectors: dict[str, Tensor]) -> Found:
    made = Provenance(method="find.mean_difference", used=SPLIT.fit.digests)
    return Found(model, {Site.parse(site): Fit(vector) for site, vector in vectors.items()}, "planted", made)


def chance(seed: int) -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


def test_best_finds_the_planted_layer(planted: tuple[Model, Tensor]) -> None:
    model, u = planted
    vectors = {LAST[0]: chance(5), LAST[1]: u, LAST[2]: chance(6)}
    best = among(model, vectors).best(SPLIT.tune, doses=(0.5, -0.5, 0))
    torch.testing.assert_close(best.vector, u)
    assert str(best.site) == "L1.resid @ last:"
    assert best.provenance.used == SPLIT.fit.digests | SPLIT.tune.digests
    (step,) = best.provenance.steps
    assert step.startswith("best of 3 cells (L0:3.resid @ last × doses 0.5): effect ")
    assert step.endswith(f" at dose 0.5, on {len(SPLIT.tune)} tuning pairs {SPLIT.tune.digest[:12]}")
    assert best.provenance.arguments["at"] == "L1.resid @ last"


def test_every_cell_is_the_antisymmetric_effect(model: Model) -> None:
    found = find.mean_difference(model, SPLIT.fit, at=["L0.resid", "L2.mlp.out"])
    answers = (" yes it is", " no not it")  # of several tokens, all of which are to be under the direction
    search = found.search(SPLIT.tune, doses=(1, 3), score=answers)
    asked = [pair.question for pair in SPLIT.tune]
    for cell in search.cells:
        direction, at = found[cell.site], cell.site.at("last:")
        up, down = (model.score(asked, answers, under=add(direction, dose=s * cell.dose, at=at)) for s in (1, -1))
        assert cell.score == pytest.approx(float((up.difference - down.difference).mean() / 2), abs=1e-4)
    assert search.won == max(search.cells, key=lambda cell: cell.score)
    assert len(search.cells) == 4
    assert "L2.mlp.out @ last  3" in repr(search)


def test_effects_of_nothing_are_nothing(model: Model) -> None:
    asked = [pair.question for pair in SPLIT.tune]
    push = add(chance(0), times=1, at="L1.resid")
    assert effects(model, (asked, (" yes", " no")), [((), ()), (push, push)]) == [0.0, 0.0]


def test_best_takes_other_answers_and_positions(model: Model) -> None:
    found = find.mean_difference(model, SPLIT.fit, at=RESID)
    mirrored = found.search(SPLIT.tune, score=(" no", " yes"), doses=(1,))
    straight = found.search(SPLIT.tune, doses=(1,))
    assert [cell.score for cell in mirrored.cells] == pytest.approx([-cell.score for cell in straight.cells])
    assert str(found.best(SPLIT.tune, acting=None).site.positions) == "last"
    assert str(found.best(SPLIT.tune, acting="all").site.positions) == "all"


def test_without_questions_best_separates(model: Model) -> None:
    found = find.mean_difference(model, UNASKED.fit, at=RESID)
    search = found.search(UNASKED.tune)
    for layer, cell in enumerate(search.cells):
        plus, minus = (
            (side @ found.at(layer).unit.double()).numpy()
            for side in by_hand(model, UNASKED.tune, f"model.layers.{layer}", 1)
        )
        spread = np.sqrt((plus.var(ddof=1) + minus.var(ddof=1)) / 2)
        assert cell.score == pytest.approx((plus.mean() - minus.mean()) / spread, rel=1e-3)
        assert cell.notes["AUROC"] == roc_auc_score(np.repeat([1, 0], len(plus)), np.concatenate([plus, minus]))
    assert search.best.provenance.steps[0].startswith("best of 3 cells (L0:3.resid @ last): separation ")


def test_best_refuses(model: Model) -> None:
    found, bare = find.mean_difference(model, SPLIT.fit, at=RESID), find.mean_difference(model, UNASKED.fit, at=RESID)
    refuses(
        LeakedData,
        lambda: found.best(SPLIT.fit),
        "LeakedData: 36 test prompts were used to find or tune 'mean difference'",
    )
    refuses(BadDose, lambda: found.best(SPLIT.tune, doses=[0]), "BadDose: no strength to try in [0]")
    refuses(
        BadDose,
        lambda: bare.best(UNASKED.tune, doses=[1]),
        "BadDose: doses=[1] are given, and nothing here has a dose",
        "  found     pairs without questions are only read",
    )
    refuses(BadData, lambda: bare.best(UNASKED.tune, score=" yes"), "BadData: score= needs pairs that ask a question")
    refuses(EmptyData, lambda: bare.best(UNASKED.tune[:1]), "EmptyData: a separation needs more than one pair")
    mixed = Pairs((*SPLIT.tune[:3], replace(SPLIT.tune[3], answers=None), *UNASKED.test[:1]))
    refuses(
        BadData,
        lambda: found.best(mixed),
        "BadData: 2 of 5 tuning pairs cannot be scored",
        "  found     4 have a question, 3 a question with answers",
    )


# ── the refusal-direction filters ────────────────────────────────────────────────────────────────────────────────────


def test_filters_measure_what_they_say(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MOST_KL", 10.0)
    monkeypatch.setattr(filters, "LEAST_INDUCED", -100.0)
    found = find.mean_difference(model, UNASKED.fit, at=["embed", "L0.resid", "L1.resid"])
    search = found.search(UNASKED.tune, score=" yes", filters="refusal")
    plus, minus = ([getattr(pair, side) for pair in UNASKED.tune] for side in ("positive", "negative"))

    def odds(prompts: list[Prompt], under: Any) -> float:
        p = np.exp(model.score(prompts, " yes", under=under).total[:, 0, 0])
        return float(np.log(p / (1 - p)).mean())

    for cell in search.cells[:2]:
        direction = found[cell.site]
        away = ablate(direction, at="everywhere")
        assert cell.score == pytest.approx(odds(plus, away), abs=1e-3)
        assert cell.notes["induced"] == pytest.approx(
            odds(minus, add(direction, times=1, at=cell.site.at("all"))), abs=1e-3
        )
        pairs = [
            (model.run(p).logits[-1].log_softmax(-1), model.run(p, under=away).logits[-1].log_softmax(-1))
            for p in minus
        ]
        kl = np.mean([float((a.exp() * (a - b)).sum()) for a, b in pairs])
        assert cell.notes["KL"] == pytest.approx(kl, abs=1e-4)
    assert [cell.dropped for cell in search.cells] == [
        "",
        "",
        "block ≥ 0.8 L",
    ]  # L1.resid is what block 2 of 3 receives
    assert search.won == min(search.cells[:2], key=lambda cell: cell.score)
    assert search.best.provenance.steps[0].startswith("best of 3 cells (3 sites: embed @ last, L0.resid @ last, ")


def test_filters_keep_what_is_necessary_and_sufficient(planted: tuple[Model, Tensor]) -> None:
    """u alone moves the answer: without it both are equally likely, and with it the first is likelier."""
    model, u = planted
    found = among(model, {"embed @ last": chance(9), LAST[0]: 8 * u, LAST[2]: u})
    search = found.search(SPLIT.tune, filters="refusal")
    assert str(search.best.site) == "L0.resid"  # judged, and acting from now on, at every position
    cell = search.won
    assert cell.score == pytest.approx(0, abs=1e-4)
    assert cell.notes["induced"] > 1
    prompts = [pair.question for pair in SPLIT.tune]
    flipped = among(model, {"embed @ last": chance(9), LAST[0]: -8 * u, LAST[2]: u})
    assert flipped.search(SPLIT.tune, filters="refusal", score=(" yes", " no")).cells[1].dropped == "not induced"
    kl = drift(model, NEUTRAL, [ablate(u, at="everywhere")])
    assert kl.shape == (len(NEUTRAL), 1)
    assert (drift(model, prompts, [()]) == 0).all()
    assert cell.notes["KL"] == pytest.approx(float(kl.mean()), abs=1e-6)


def test_filters_that_leave_nothing_show_the_table(model: Model) -> None:
    found = find.mean_difference(model, UNASKED.fit, at=["L1.resid", "L2.resid"])
    refuses(
        EmptyData,
        lambda: found.best(UNASKED.tune, score=" yes", filters="refusal"),
        "EmptyData: the refusal filters leave none of 2 candidates",
        "  found     site             dropped",
        "            L1.resid @ last  block ≥ 0.8 L",
        "            L2.resid @ last  block ≥ 0.8 L",
    )


def test_filters_refuse(model: Model) -> None:
    found = find.mean_difference(model, UNASKED.fit, at=["L0.resid", "L0.mlp.act"])
    refuses(
        BadData,
        lambda: found.best(UNASKED.tune, filters="refusal"),
        "BadData: the refusal filters have no answers to score",
    )
    refuses(
        BadSite,
        lambda: found.best(UNASKED.tune, score=" yes", filters="refusal"),
        "BadSite: L0.mlp.act @ last is no place in the stream",
        "  found     width 40, not 32",
    )
    refuses(BadDose, lambda: found.best(UNASKED.tune, score=" yes", filters="refusal", doses=(1,)))
    refuses(BadData, lambda: found.best(UNASKED.tune, filters="kl"), "BadData: there are no filters 'kl'")


# ── what they say about themselves ───────────────────────────────────────────────────────────────────────────────────


def everything_found(model: Model) -> list[Direction]:
    return [
        find.mean_difference(model, SPLIT.fit, at=RESID).at(1),
        find.pca(model, TAILED.fit, at=model.sites("L1:.resid @ -2")).best(TAILED.tune),
        find.probe(model, SPLIT.fit, at=["L2.mlp.out", "embed @ last"], C=0.5).best(SPLIT.tune),
        find.heads(model, SPLIT.fit, top=2, validation=0.3, seed=4).directions[1],
    ]


def test_a_direction_says_how_it_was_found_and_that_finds_it_again(model: Model) -> None:
    for direction, pairs in zip(everything_found(model), (SPLIT.fit, TAILED.fit, SPLIT.fit, SPLIT.fit), strict=True):
        made = Provenance.model_validate(json.loads(direction.provenance.model_dump_json()))
        assert made == direction.provenance
        assert (made.model, made.data) == (model.fingerprint, pairs.digest)
        assert made.used >= pairs.digests
        assert {"assay", "torch", "transformers", "scikit-learn"} <= set(made.versions)
        again = lookup(made.method)(model, pairs, **made.arguments)
        (read,) = again
        assert torch.equal(again[read].vector, direction.vector)
        both = assay.find.contrast.contrast(model, pairs, model.sites(read))[read]
        torch.testing.assert_close(fit_of(made)(*both).float(), direction.vector, atol=1e-4, rtol=1e-4)
        flipped = fit_of(made)(both[1], both[0]).float()
        torch.testing.assert_close(flipped, -direction.vector, atol=1e-3, rtol=1e-3)
    assert everything_found(model)[3].provenance.seed == 4
    assert str(everything_found(model)[0].provenance) == "find.mean_difference(at=L1.resid @ last)"


def test_a_pair_says_how_it_was_found(model: Model) -> None:
    love = find.pair(model, "Love", Prompt("Hate"), at="L0.resid", pad=5)
    made = love.provenance
    assert str(made) == "find.pair(positive=Love, negative=Hate, at=L0.resid, pad=5)"
    assert made.used == {Prompt("Love").digest, Prompt("Hate").digest}
    assert made.model == model.fingerprint
    assert lookup(made.method)(model, **made.arguments) == love
    refuses(BadData, lambda: fit_of(made), "BadData: find.pair cannot be fitted to activations")


@finder(mean_difference.fit)
def doubled(model: Model, pairs: Pairs, *, at: str) -> Found:
    """A finder of one's own."""
    found = find.mean_difference(model, pairs, at=at)
    return replace(found, fits={site: replace(fit, vector=fit.vector * 2) for site, fit in found.fits.items()})


def test_a_finder_of_ones_own(model: Model) -> None:
    found = doubled(model, SPLIT.fit, at="L1.resid").at(1)
    assert found.provenance.method == f"{__name__}.doubled"
    assert found.norm == pytest.approx(2 * find.mean_difference(model, SPLIT.fit, at="L1.resid").at(1).norm)
    assert lookup(f"{__name__}.doubled") is doubled


@pytest.mark.parametrize("name", ["given", "find.pcaa", "find.Found", "os.system", "this.that", "", "find"])
def test_an_unknown_finder(name: str) -> None:
    refuses(BadData, lambda: lookup(name), f"BadData: no finder is called {name!r}")


def test_a_name_from_a_file_imports_nothing() -> None:
    import sys

    assert "antigravity" not in sys.modules
    refuses(BadData, lambda: lookup("antigravity.fly"))
    assert "antigravity" not in sys.modules


def test_found_reads_like_a_mapping(model: Model) -> None:
    found = find.mean_difference(model, TAILED.fit, at=["L1.resid @ -2", "L1.resid", "L2.resid"])
    assert len(found) == 3
    assert found["L2.resid"] == found["L2.resid @ last"] == found.at(2)
    assert "L2.resid" in found and Site.parse("L1.resid @ -2") in found and "L0.resid" not in found
    assert "L1.resid @ -2" in found and "L1.resid @ -3" not in found
    refuses(NoSuchSite, lambda: found["L0.resid"], "NoSuchSite: no directions were found at L0.resid")
    refuses(NoSuchSite, lambda: found.at(1), "NoSuchSite: 2 directions were found at layer 1")
    lines = repr(found).splitlines()
    assert lines[0].startswith("3 directions from find.mean_difference(at=['L1.resid @ -2', 'L1.resid', 'L2.resid']")
    assert lines[1].split() == ["site", "norm"]
    assert lines[4].startswith("L2.resid @ last  ")


def test_a_named_direction(model: Model) -> None:
    assert find.pca(model, SPLIT.fit, at="embed", name="truth")["embed"].name == "truth"


def test_tables_and_selections() -> None:
    assert table([{"a": 1.23456, "b": None, "c": ""}, {"a": 2, "b": None, "c": "x"}]) == "a      c\n1.235\n2      x"
    sites = [Site.parse(f"L{layer}.resid @ -2") for layer in (2, 3, 4)]
    assert spelled(sites) == "L2:5.resid @ -2"
    assert spelled(sites[:1]) == "L2.resid @ -2"
    assert spelled([sites[0], sites[2]]) == "2 sites: L2.resid @ -2, L4.resid @ -2"


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────

METHODS = pytest.mark.parametrize(
    "method", [find.mean_difference, find.pca, find.probe], ids=lambda method: method.method
)


@METHODS
def test_bad_places_are_refused(method: Any, model: Model) -> None:
    refuses(
        NoSuchSite,
        lambda: method(model, SPLIT.fit, at="L9.resid @ last"),
        "NoSuchSite: this model has no L9.resid @ last",
        "  found     3 layers, 0 to 2",
    )
    refuses(BadSite, lambda: method(model, SPLIT.fit, at=[]), "BadSite: the selection of sites is empty")
    refuses(BadSite, lambda: method(model, SPLIT.fit, at="L0.head[0].pattern"))
    refuses(NoSuchPosition, lambda: method(model, SPLIT.fit, at="L0.resid @ subject[-1]"))
    for at in ("L0.resid @ all", "L0.resid @ -3:", "L0.resid @ response"):
        refuses(BadData, lambda at=at: method(model, SPLIT.fit, at=at))


@METHODS
def test_bad_data_are_refused(method: Any, model: Model) -> None:
    refuses(
        OneClass,
        lambda: method(model, Pairs.of(["Rome is", "Paris is"], ["Rome is", "Paris is"]), at="embed"),
        "OneClass: @ last both sides of every pair have read the same tokens",
        "  found     2 pairs; the first begins 'Rome is'",
    )
    refuses(
        OneClass,
        lambda: method(model, SPLIT.fit, at=["L1.resid @ last", "L1.resid @ 3"]),
        "OneClass: @ 3 both sides of every pair have read the same tokens",
    )
    both_ways = Pairs.of(["Rome is", "Paris is"], ["Paris is", "Rome is"])
    refuses(
        BadVector,
        lambda: method(model, both_ways, at="L1.resid"),
        "BadVector: the two sides have the same mean at L1.resid @ last",
    )


@METHODS
def test_activations_that_are_not_finite_are_refused(method: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    hf = fresh("llama")
    with torch.no_grad():
        hf.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("Ġtrue")] = float("nan")
    broken = Model.load(hf, tokenizer=tokenizer, selftest=False)
    refuses(
        BadVector,
        lambda: method(broken, SPLIT.fit, at="L1.resid"),
        "BadVector: activations at L1.resid @ last are not finite",
        f"  found     {len(SPLIT.fit)} of {2 * len(SPLIT.fit)} prompts, the first {SPLIT.fit[0].positive.text!r}",
    )


def test_prompts_of_no_tokens_are_refused(tiny: Tiny, tokenizer: PreTrainedTokenizerFast) -> None:
    class Bare:
        """The tokenizer without a BOS."""

        chat_template, bos_token, is_fast = None, None, True

        def __call__(self, text: str, **how: Any) -> Any:
            return tokenizer(text, **how | {"add_special_tokens": False})

    model = Model.load(tiny("llama"), tokenizer=tokenizer, selftest=False)
    model.loaded = replace(model.loaded, tokenizer=Bare())
    refuses(
        EmptyData,
        lambda: find.mean_difference(model, Pairs.of(["Rome", ""], ["Paris", "Berlin"]), at="L0.resid"),
        "EmptyData: the prompt '2' tokenises to nothing",
    )
    refuses(EmptyData, lambda: find.mean_difference(model, Pairs(()), at="L0.resid"), "EmptyData: there are no pairs")


def test_nothing_runs_before_bad_input_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a forward pass ran")

    found = find.mean_difference(model, SPLIT.fit, at=RESID)
    monkeypatch.setattr(model.engine, "forward", never)
    for call in (
        lambda: find.mean_difference(model, SPLIT.fit, at="L9.resid"),
        lambda: find.pca(model, SPLIT.fit, at="L1.resid @ 0"),
        lambda: find.probe(model, SPLIT.fit, at="L1.resid", C=0),
        lambda: find.heads(model, SPLIT.fit),
        lambda: find.pair(model, "Love", "Love", at="L1.resid"),
        lambda: found.best(SPLIT.fit),
        lambda: found.best(SPLIT.tune, doses=(0,)),
        lambda: found.best(SPLIT.tune, acting="nowhere[0]"),
        lambda: found.best(SPLIT.tune, score=(" yes",), filters="refusal", doses=(1,)),
    ):
        with pytest.raises(AssayError):
            call()


# ── a real model ─────────────────────────────────────────────────────────────────────────────────────────────────────

_THINGS = (
    "music rain winter coffee football chess trains poetry tea mathematics crowds snow gardening cinema dancing "
    "swimming cats traffic queues algebra jazz camping onions museums"
)
THINGS = _THINGS.split()
OPINIONS = Pairs(
    tuple(
        Pair(
            Prompt(f"When it comes to {thing}, I love it"),
            Prompt(f"When it comes to {thing}, I hate it"),
            Prompt(f"My opinion of {thing} is that it is"),
            (" great", " terrible"),
            cluster=thing,
        )
        for thing in THINGS
    )
).split(fit=0.5, tune=0.2)


def on_test(model: Model, *pushes: Any) -> list[float]:
    asked = [pair.question for pair in OPINIONS.test if pair.question is not None]
    return effects(model, (asked, (" great", " terrible")), pushes)


def test_a_real_model_is_moved_by_what_the_pairs_contrast(smollm2: Model) -> None:
    """On things that neither found nor tuned it, and further than by any of 19 random directions of the same norm."""
    best = find.mean_difference(smollm2, OPINIONS.fit, at="L14:22.resid").best(OPINIONS.tune, doses=(0.5,))
    null = [torch.randn(576, generator=torch.Generator().manual_seed(seed)) for seed in range(19)]
    push = lambda vector: tuple(add(vector, dose=dose, at=best.site) for dose in (0.5, -0.5))
    found, *chances = on_test(smollm2, push(best), *map(push, null))
    assert found > max(map(abs, chances))


def test_heads_of_a_real_model(smollm2: Model) -> None:
    found = find.heads(smollm2, OPINIONS.fit)
    assert (len(found), len(found.accuracy)) == (48, 270)
    assert on_test(smollm2, (found.intervention(5), found.intervention(-5)))[0] > 1


def test_the_letter_protocol_on_a_real_model(smollm2: Model) -> None:
    questions = [
        (
            f"Do you like {thing}?\n\nChoices:\n (A) {'Yes' if n % 2 else 'No'}\n (B) {'No' if n % 2 else 'Yes'}",
            *letters,
        )
        for n, thing in enumerate(THINGS[:8])
        for letters in [("(A)", "(B)") if n % 2 else ("(B)", "(A)")]
    ]
    pairs = Pairs.answers_ab(questions)
    check_letters(smollm2, pairs)
    found = find.mean_difference(smollm2, pairs[:6], at="L14:17.resid")
    assert len(found.search(pairs[6:], doses=(1,)).cells) == 3
