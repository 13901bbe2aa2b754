"""The text on which induction is scrubbed is what it is said to be, and so are the models that read it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay.organisms.small import SmallTransformer
from evaluation.scrubbing.induction import data
from evaluation.scrubbing.induction.data import BOS, LENGTH, NONE, VOCAB, Text, candidates, features, text
from evaluation.scrubbing.induction.roles import TIMES, WORDS, patterns, repeated, roles, scores
from evaluation.scrubbing.induction.train import SEEDS, SIZES, fused, load, losses, train, weights


def words(*rows: list[int], source: list[int] | None = None) -> Text:
    drawn = np.array(rows)
    return Text(drawn, np.full_like(drawn, NONE) if source is None else np.array([source]))


def test_text_is_its_seeds() -> None:
    one, again, other, held = text(50, seed=3), text(50, seed=3), text(50, seed=4), text(50, seed=3, part="held out")
    assert (one.drawn == again.drawn).all() and (one.source == again.source).all()
    rows = [{tuple(row) for row in some.drawn.tolist()} for some in (one, other, held)]
    assert not rows[0] & rows[1] and not rows[0] & rows[2]


def test_rows_begin_once_and_copies_are_copies() -> None:
    some = text(400, seed=0)
    assert some.tokens.shape == some.labels.shape == (400, LENGTH)
    assert (some.drawn[:, 0] == BOS).all()
    assert some.drawn[:, 1:].min() > BOS and some.drawn.max() < VOCAB
    rows, pos = np.nonzero(some.source != NONE)
    source = some.source[rows, pos]
    assert ((source > 0) & (source < pos)).all()
    assert (some.drawn[rows, pos] == some.drawn[rows, source]).all()
    assert 0.15 < len(rows) / some.drawn.size < 0.35


def test_what_is_not_copied_follows_the_language() -> None:
    some, language = text(4000, seed=0), data.language()
    # The commonest pairs of words, and a chi-square of what follows each; what is rarely expected is left out.
    pairs, counts = np.unique(some.tokens[:, :-1] * VOCAB + some.tokens[:, 1:], return_counts=True)
    for pair in pairs[np.argsort(-counts)][:8]:
        before, word = (int(one) for one in divmod(pair, VOCAB))
        where = (some.tokens[:, :-1] == before) & (some.tokens[:, 1:] == word) & (some.source[:, 2:] == NONE)
        follows = language.follows(before, word)
        assert follows.sum() == pytest.approx(1) and follows[BOS] == 0
        seen = np.bincount(some.labels[:, 1:][where], minlength=VOCAB)
        expected = follows * seen.sum()
        often = expected >= 5
        off = ((seen - expected)[often] ** 2 / expected[often]).sum()
        assert often.sum() > 5
        assert off < often.sum() + 5 * np.sqrt(2 * often.sum())


def test_features_of_a_row() -> None:
    found = features(np.array([[0, 7, 8, 7]]))
    assert found["token"].tolist() == [[0, 7, 8, 7]]
    assert found["previous"].tolist() == [[NONE, 0, 7, 8]]
    assert found["previous two"].tolist() == [[NONE, NONE, 7, 7 * VOCAB + 8]]


def test_what_followed_earlier() -> None:
    some = words([0, 7, 8, 7, 9, 7, 8])
    met, same = data.followed(some.tokens, some.labels)
    assert met.tolist() == [[0, 0, 0, 1, 0, 2]]
    assert same.tolist() == [[0, 0, 0, 0, 0, 1]]


def test_spans_that_come_again() -> None:
    some = words([0, 5, 6, 7, 9, 5, 6, 7, 5, 6], source=[-1, -1, -1, -1, -1, 1, 2, 3, 5, 6])
    second, first = data.twice(some)
    # 7 goes on with a new word the second time; the third 5 was copied from a copy.
    assert [found.tolist() for found in second] == [[0, 0], [5, 6]]
    assert [found.tolist() for found in first] == [[0, 0], [1, 2]]


def test_gains_are_those_of_induction_over_bigrams() -> None:
    # After 7 comes what came in this row before: bigrams give it a half, induction adds a half of 1. After 5 it never does.
    some = words([0, 7, 1, 7, 1], [0, 7, 2, 7, 2], [0, 5, 1, 5, 2])
    found = data.gains(some)
    assert found[7] == pytest.approx(np.log(0.75 / 0.5))
    assert found[5] == pytest.approx(np.log(0.5))
    assert not found[[0, 3]].any()


def test_candidates_are_positions_of_words_of_the_whitelist() -> None:
    chosen = data.whitelist()
    assert not chosen[BOS]
    assert 0.5 < chosen.mean() < 0.9
    mask = candidates(np.array([[BOS, *np.flatnonzero(chosen)[:2], *np.flatnonzero(~chosen)[-2:]]]))
    assert mask.tolist() == [[False, True, True, False, False]]
    # It is no accident of the text it was decided on.
    other = data.gains(text(data.SAMPLE, seed=1)) >= data.HELPS
    assert (other == chosen).mean() > 0.9


def test_rows_for_prefix_matching() -> None:
    rows = repeated()
    assert rows.shape[1] == 1 + WORDS * TIMES == LENGTH
    assert (rows[:, 0] == BOS).all()
    assert (rows[:, 1 : 1 + WORDS] == rows[:, -WORDS:]).all()
    assert all(len(set(row)) == WORDS + 1 for row in rows.tolist())


def test_scores_of_heads_that_are_put_in_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each head looks so many tokens back: 1 is the previous token, 24 what followed the word 25 earlier.
    back = torch.tensor([0, 1, WORDS - 1, WORDS])
    pattern = torch.stack([torch.eye(LENGTH).roll(int(by), 0).tril() for by in back])
    name = "evaluation.scrubbing.induction.roles.patterns"
    monkeypatch.setattr(name, lambda _, tokens: [pattern.expand(len(tokens), -1, -1, -1)])
    previous, matching = scores(SmallTransformer(SIZES))
    assert previous[0] == pytest.approx([0, 1, 0, 0])
    assert matching[0] == pytest.approx([0, 0, 1, 0])


def test_fused_attention_is_attention() -> None:
    torch.manual_seed(0)
    model, tokens = SmallTransformer(SIZES), repeated()[:2]
    with torch.no_grad():
        assert torch.allclose(fused(model, tokens), model(tokens), atol=1e-5)


def test_training_repeats_from_its_seed_and_leaves_torch_as_it_was() -> None:
    state = torch.get_rng_state()
    one, again, other = train(0, steps=2), train(0, steps=2), train(1, steps=2)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(one.embed.weight, other.embed.weight)


@pytest.mark.parametrize("seed", SEEDS)
def test_models_do_induction(seed: int) -> None:
    model = load(seed)
    assert model.sizes == SIZES
    told = roles(model)
    assert told.previous and told.induction
    held = text(100, seed=2, part="held out")
    lost, (second, first) = losses(model, held), data.twice(held)
    assert lost[second].mean() < lost[first].mean() - 1
    seen = patterns(model, torch.from_numpy(held.tokens.copy()))
    assert all(torch.allclose(one.sum(-1), torch.ones(())) for one in seen)


def test_weights_are_small() -> None:
    assert sum(weights(seed).stat().st_size for seed in SEEDS) < 3e6
