"""What is withheld is nowhere: in no release, report or export, in no length, no name of a file, nothing printed.

Random audits, in which every text, number and name is long and random, meet random policies; what a policy withholds
is then looked for in all that is given away, opened as far as anybody can open it. Beside that: that withheld content
changes no length, that a further grant hides nothing, and that a text which names a place is withheld wherever it is.
"""

from __future__ import annotations

import base64
import io
import random
import re
import string
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

from typer.testing import CliRunner

from assay.cli.app import app
from assay.disclose import Desk, sdjwt, shipped_policies, verify
from assay.disclose.credential import TYPE
from assay.disclose.items import Item, cut
from assay.disclose.keys import new_recipient, new_signing_key, read_private, read_public, read_recipients
from assay.disclose.seal import sizes
from assay.evidence import (
    Audit,
    BarFigure,
    Body,
    Claim,
    Control,
    DoseFigure,
    Effect,
    End,
    Example,
    LayerFigure,
    Ledger,
    Missing,
    Note,
    NullFigure,
    Origin,
    Outcome,
    Policy,
    Series,
    SideEffect,
    TableData,
    Threat,
    Unit,
    canonical,
    of_file,
    of_json,
    read_findings,
)
from assay.evidence.entry import About, Grade, Grant, Part
from assay.report import write_reports
from assay.report.exports import write_exports
from reliability import Row

TEXT, NUMBER = 8, 12  # how long a piece of a text, and of a number or a digest, must be to be no chance
PROBLEMS = ("deception", "tampering")
SIGNS = string.ascii_letters + string.digits


@dataclass
class Maker:
    """A random audit; it keeps every word, number and digest that it made up."""

    chance: random.Random
    words: set[str] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)

    def word(self) -> str:
        """16 to 24 random signs."""
        made = "".join(self.chance.choices(SIGNS, k=self.chance.randint(16, 24)))
        self.words.add(made)
        return made

    def text(self) -> str:
        """A few words, now and then with a place in it."""
        place = f" at L{self.chance.randrange(40)}.resid" if self.chance.random() < 0.1 else ""
        return f"{self.word()} {self.word()}{place}"

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """With all of its digits."""
        made = self.chance.uniform(low, high)
        self.numbers.add(repr(made).partition(".")[2])
        return made

    def whole(self) -> int:
        """A long whole number."""
        made = self.chance.randrange(10**14, 10**15)
        self.numbers.add(str(made))
        return made

    def digest(self) -> str:
        """Of something else."""
        made = of_json(self.chance.random())
        self.numbers.add(made)
        return made

    def some(self, make: Callable[[], Any], most: int = 2, least: int = 0) -> tuple[Any, ...]:
        """A few of them."""
        return tuple(make() for _ in range(self.chance.randint(least, most)))

    def pick(self, kind: Any) -> Any:
        """One of a literal type's."""
        return self.chance.choice(get_args(kind))

    def effect(self) -> Effect:
        low, value, high = sorted(self.number() for _ in range(3))
        many, of = self.whole(), self.word()
        return Effect(name=self.text(), value=value, unit=of, low=low, high=high, level=0.95, n=many, n_is=self.word())

    def control(self) -> Control:
        return Control(name=self.text(), values=self.some(self.number, 4, 1), p=self.number(), note=self.text())

    def series(self) -> Series:
        many = self.chance.randint(1, 3)
        x, means, lows, highs = (tuple(self.number() for _ in range(many)) for _ in range(4))
        return Series(name=self.text(), x=x, means=means, lows=lows, highs=highs)

    def figure(self) -> Any:
        said: dict[str, Any] = dict(title=self.text(), x_label=self.text(), y_label=self.text(), caption=self.text())
        match self.chance.randrange(4):
            case 0:
                return NullFigure(**said, observed=self.number(), controls=self.some(self.control, 2, 1))
            case 1:
                return DoseFigure(**said, series=self.some(self.series, 2, 1))
            case 2:
                return LayerFigure(**said, series=self.some(self.series, 2, 1))
        labels = self.some(self.text, 3, 1)
        values, lows, highs = (tuple(self.number() for _ in labels) for _ in range(3))
        return BarFigure(**said, labels=labels, values=values, lows=lows, highs=highs)

    def table(self) -> TableData:
        columns = self.some(self.text, 3, 1)
        rows = self.some(lambda: tuple(self.chance.choice([self.text, self.number, self.whole])() for _ in columns), 3)
        return TableData(title=self.text(), columns=columns, rows=rows, caption=self.text())

    def example(self) -> Example:
        return Example(prompt=self.text(), natural=self.text(), steered=self.text())

    def claim(self, threat: str) -> Claim:
        made = Claim(
            key=self.word(), threat=threat, statement=self.text(), method=self.text(), controls=self.some(self.text),
            refuted_by=self.text(), measure=self.word(),
            params={self.word(): [self.number(), self.whole(), self.text()]}, problem=self.chance.choice(PROBLEMS), about=self.pick(About), grade=self.pick(Grade),
        )  # fmt: skip
        self.numbers |= {made.digest, of_json(made.params)}
        return made

    def outcome(self, claim: str) -> Outcome:
        return Outcome(
            claim=claim, verdict=self.chance.choice(["supported", "not supported"]), because=self.text(),
            where=self.some(lambda: f"L{self.chance.randrange(40)}.resid @ {self.word()}"),
            effects=self.some(self.effect, 2, 1), p=self.number(0, 0.05), alpha=self.number(0.05, 0.2),
            controls=self.some(self.control),
            side_effects=self.some(lambda: SideEffect(name=self.text(), value=self.number(), unit=self.word())),
            power=self.text(), figures=self.some(self.figure), tables=self.some(self.table),
            not_looked_at=self.some(self.text), examples=self.some(self.example),
        )  # fmt: skip

    def unit(self) -> Unit:
        return Unit(
            address=self.digest(), measure=self.word(), params={self.word(): self.text()},
            result={self.word(): [self.number(), self.text()]}, artefacts={self.word(): self.digest()},
            seconds=self.number(),
        )  # fmt: skip

    def origin(self) -> Origin:
        return Origin(
            model=self.word(), revision=self.word(), fingerprint=self.digest(),
            model_files={self.word(): self.digest()}, prompt_format={self.word(): self.digest()},
            data={self.text(): self.digest()}, versions={self.word(): self.word()}, seeds={self.word(): self.whole()},
            machine={self.word(): self.text()}, selftest={self.text(): self.number()}, more={self.word(): self.text()},
        )  # fmt: skip

    def grant(self) -> Grant:
        chosen = self.chance.random()
        parts = self.chance.sample(get_args(Part), self.chance.randint(1, 6))
        return Grant(
            parts=tuple(parts) if chosen < 0.7 else ("claim", "outcome", *parts),
            about=None if chosen < 0.5 else tuple(self.chance.sample(get_args(About), 3)),
            problems=None if self.chance.random() < 0.7 else (self.chance.choice(PROBLEMS),), up_to=self.pick(Grade),
        )  # fmt: skip

    def policy(self, name: str) -> Policy:
        """Random grants: two, or none at all."""
        return Policy(name=name, says=name, show=self.some(self.grant, 4))

    def bodies(self, *policies: Policy) -> list[Body]:
        """A whole audit."""
        threats = tuple(
            Threat(key=self.word(), statement=self.text(), scope=self.text(), benign=self.text())
            for _ in range(self.chance.randint(1, 3))
        )
        audit = Audit(
            name=self.word(), problem=self.chance.choice(PROBLEMS), question=self.text(), threats=threats,
            auditor=self.text(), access=self.text(),
        )  # fmt: skip
        notes = [Note(about=about, text=self.text()) for about in ("method", "data", "limits")]
        keys = [threat.key for threat in threats]
        claims = [self.claim(key) for key in [self.chance.choice(keys), *keys, *self.chance.sample(keys, 1)]]
        results: list[Body] = [self.unit(), self.unit(), *(self.outcome(one.digest) for one in claims[1:])]
        late = self.claim(keys[0])
        missing = Missing(claim=claims[0].digest, reason=self.text())
        return [audit, self.origin(), *notes, *claims, *policies, *results, missing, late, self.outcome(late.digest)]


def write(path: Path, bodies: Sequence[Body], maker: Maker | None = None) -> None:
    """A ledger of these; by a maker, with a correction of the last outcome and an end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ticks = iter(range(10**9))
    with Ledger.open(path, clock=lambda: datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=next(ticks))) as ledger:
        ledger.extend([(body.kind, body.entry_key, body) for body in bodies])
        if maker is not None:
            said = ledger.latest("outcome", bodies[-1].entry_key)
            assert said is not None
            now = said.read(Outcome).model_copy(update=dict(because=maker.text()))
            ledger.correct(said, now, author=maker.text(), reason=maker.text())
            ledger.record(End(seconds=maker.number(), units=maker.whole()))
            maker.numbers |= {entry.digest for entry in ledger.entries()[:-1]}


# ── what is looked for, and where ───────────────────────────────────────────────────────────────────────────────


def secrets_of(maker: Maker, shown: Sequence[Item], clear: str) -> tuple[set[str], set[str]]:
    """Words, and numbers with digests, that nothing which is shown in its own right holds."""
    open_text = canonical([one.model_dump(mode="json") for one in shown]) + clear
    return (
        {one for one in maker.words if one not in open_text},
        {one for one in maker.numbers if one not in open_text},
    )


def clear_of(bodies: Sequence[Body], head: str) -> str:
    """What every release says in the clear (`assay.disclose.credential`), made from the audit and not from a release."""
    origin = next(body for body in bodies if isinstance(body, Origin))
    digests = [of_json(origin.model_files), of_json(origin.prompt_format)]
    return canonical([origin.model, origin.revision, origin.fingerprint, *digests, head])


def opened(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """A file as text, and all that is packed in it: base64url of tokens, members of archives."""
    yield name, data.decode("utf-8", "replace")
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield f"{name}/{member}", f"{member} {archive.read(member).decode('utf-8', 'replace')}"
    for token in re.findall(rb"[A-Za-z0-9+/_-]{32,}", data) if name.endswith((".assay", ".json")) else ():
        whole = token[: len(token) - (len(token) % 4 == 1)] + b"=="  # no base64 has one sign more than fours
        yield name, base64.b64decode(whole.translate(bytes.maketrans(b"-_", b"+/"))).decode("utf-8", "replace")


def pieces(texts: set[str], length: int) -> set[str]:
    """Every substring of a length."""
    return {one[at : at + length] for one in texts for at in range(len(one) - length + 1)}


def found_in(places: Sequence[tuple[str, str]], words: set[str], numbers: set[str]) -> list[str]:
    """Where a piece of a secret stands, with the piece."""
    wanted = ((TEXT, pieces(words, TEXT)), (NUMBER, pieces(numbers, NUMBER)))
    return [
        f"{name}: {text[at : at + length]!r}"
        for name, text in places
        for length, known in wanted
        for at in range(len(text) - length + 1)
        if text[at : at + length] in known
    ]


@dataclass(frozen=True)
class Case:
    """What became of one audit under one policy."""

    leaks: list[str]
    withheld: int
    shown: int
    bytes: int


def one_case(folder: Path, seed: int, *, policy: Policy | None = None) -> Case:
    """Seal and release a random audit by the command line, read the release by it, and look for what was withheld."""
    maker = Maker(random.Random(seed))
    ours = policy or maker.policy("ours")
    for name in ("one", "two"):
        new_recipient(folder / name)
    secret, public = new_signing_key(folder / "key")
    run = folder / "run"
    bodies = maker.bodies(ours, maker.policy("sealed"), *shipped_policies())
    write(run / "ledger", bodies, maker)
    said = [
        _command("seal", run, "--to", "sealed", *(f"--recipient={folder / name}.recipient" for name in ("one", "two"))),
        _command("release", run, "--to", ours.name, "--key", secret),
    ]
    file, into = run / "release" / f"{ours.name}.assay", folder / "into"
    release = verify(file.read_bytes(), read_public(public), audience=ours.name)
    write_reports(release.findings, into, release)
    write_exports(release, of_file(file), into, key=read_private(secret))
    if release.findings.threats:
        said.append(_command("verify", file, "--key", public, "--to", ours.name))
    given = [file, run / "release" / "sealed.age", *sorted(path for path in into.rglob("*") if path.is_file())]
    places = [one for path in given for one in opened(path.name, path.read_bytes())]
    names = " ".join(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    places += [("what is printed", "\n".join(said)), ("names of files", names)]
    clear = clear_of(bodies, str(release.signed.ledger["head"]))
    leaks = found_in(places, *secrets_of(maker, release.items, clear))
    return Case(leaks, release.withheld, len(release.items), sum(len(text) for _, text in places))


def _command(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None:
        raise done.exception
    return str(done.output)


def leak_rows(cases: int) -> list[Row]:
    """Random audits under random policies, and under the three that come with Assay."""
    found: list[Case] = []
    for seed in range(cases):
        with tempfile.TemporaryDirectory() as folder:
            found.append(one_case(Path(folder), seed, policy=[None, None, *shipped_policies()][seed % 5]))
    leaks = [f"seed {seed}: {leak}" for seed, case in enumerate(found) for leak in case.leaks]
    withheld, shown, size = (sum(getattr(case, name) for case in found) for name in ("withheld", "shown", "bytes"))
    what = f"{TEXT} bytes of a withheld text, {NUMBER} of a number or digest, in release, report, exports, names, log, seal"
    count = (
        f"{len(leaks)} in {cases:,} audits: {withheld:,} items withheld, {shown:,} shown, {size / 1e6:,.0f} MB searched"
    )
    return [Row(what, f"{count}{': ' + '; '.join(leaks[:3]) if leaks else ''}", not leaks and withheld > 0 < shown)]


# ── lengths and counts ──────────────────────────────────────────────────────────────────────────────────────────

_FEW = Policy(name="few", says="", show=(Grant(parts=("question", "threat", "verdict", "claim", "outcome")),))
_ALL = Policy(name="all", says="", show=(Grant(parts=get_args(Part)),))


def _pair_of_audits(seed: int, *, more: int = 0) -> list[Body]:
    """An audit whose shown items are always the same, and whose withheld ones are drawn; ``more`` further units."""
    fixed, maker = Maker(random.Random(0)), Maker(random.Random(seed))
    threat = Threat(key="t", statement="s", scope="s", benign="b")
    units = [maker.unit() for _ in range(3 + more)]
    claims, outcomes = [], []
    for number in range(3):
        plain = fixed.claim("t").model_copy(
            update=dict(key=f"c{number}", about="behaviour", grade="low", problem="deception", statement="s", method="m",
                        refuted_by="r", measure="x", controls=())
        )  # fmt: skip
        claim = Claim.model_validate({**plain.model_dump(), "params": {maker.word(): maker.text()}})
        claims.append(claim)
        outcomes.append(
            Outcome(claim=claim.digest, verdict="supported", because="b", p=0.01, effects=(maker.effect(),),
                    figures=(maker.figure(),), examples=(maker.example(),))
        )  # fmt: skip
    audit = Audit(name="n", problem="deception", question="q", threats=(threat,))
    origin = Origin(model="m", fingerprint="f", data={"d": maker.digest()}, more={maker.word(): maker.text()})
    return [audit, origin, *claims, _FEW, _ALL, *units, *outcomes]


@dataclass(frozen=True)
class Weighed:
    """What anybody can weigh: a release's length, what it says in the clear, and a seal's padded length."""

    length: int
    signed: dict[str, Any]
    padded: int


def weigh(folder: Path, seed: int, *, more: int = 0) -> Weighed:
    """Release such an audit to the few, then seal all of it."""
    write(folder / "ledger", _pair_of_audits(seed, more=more))
    key = read_private(new_signing_key(folder / "key")[0])
    desk = Desk(folder)
    data = desk.release("few", key).read_bytes()
    recipients = [new_recipient(folder / name)[1] for name in ("one", "two")]
    padded = sizes(desk.seal("all", read_recipients(recipients)).read_bytes()).padded
    found = sdjwt.verify(data, read_public(folder / "key.pub"), typ=TYPE)
    return Weighed(len(data), found.signed, padded)


_STATED = ("jti", "iat", "iss", "cnf", "claims", "ledger", "claims_total", "policies")  # what may differ, and is stated


def length_rows(pairs: int) -> list[Row]:
    """Audits that differ in what is withheld alone, and audits with more of it."""
    same, more, said = [], [], []
    padded: set[int] = set()
    for seed in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            first, second = (weigh(Path(folder) / str(number), 2 * seed + number) for number in (0, 1))
            extra = 1 + seed % 4
            third = weigh(Path(folder) / "more", 2 * seed, more=extra)
        same.append(first.length - second.length)
        padded |= {first.padded, second.padded}
        more.append((third.length - first.length) / extra)
        for one, other in ((first, second), (first, third)):
            told = [
                {name: value for name, value in all_of.signed.items() if name not in _STATED} for all_of in (one, other)
            ]
            said.append(told[0] == told[1] and _shows(one, "few") == _shows(other, "few"))
    bucket = all(size % 4096 == 0 and (size // 4096).bit_count() == 1 for size in padded)
    return [
        Row(
            "releases of two audits that differ in withheld content alone",
            f"{sum(difference == 0 for difference in same)} of {pairs} pairs of one length, to the byte",
            not any(same),
        ),
        Row(
            "seals of all of it",
            f"padded to {', '.join(f'{size:,}' for size in sorted(padded))} bytes",
            bucket,
        ),
        Row(
            "releases of two audits with other numbers of withheld items",
            f"{min(more):.0f} to {max(more):.0f} bytes an item; else they differ in stated totals alone in "
            f"{sum(said)} of {len(said)} pairs",
            all(said) and 70 <= min(more) <= max(more) <= 80,
        ),
    ]  # fmt: skip


def _shows(one: Weighed, name: str) -> int:
    return next(policy["shows"] for policy in one.signed["policies"] if policy["policy"]["name"] == name)


# ── widening ────────────────────────────────────────────────────────────────────────────────────────────────────


def narrowed(items: Sequence[Item], policy: Policy, grants: Sequence[Grant]) -> int:
    """How many items a policy shows, and no longer with further grants. It should be none."""
    wider = policy.model_copy(update=dict(show=(*policy.show, *grants)))
    return sum(one.shown_by(policy) and not one.shown_by(wider) for one in items)


def widening_row(cases: int) -> Row:
    """The law, over the items of random audits."""
    hidden = asked = unordered = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(cases):
            maker = Maker(random.Random(seed))
            if seed % 20 == 0:
                write(path := Path(folder) / str(seed), maker.bodies(_ALL))
                with Ledger.read(path) as ledger:
                    items = cut(read_findings(ledger))
            policy = maker.policy("p")
            asked += len(items)
            hidden += narrowed(items, policy, maker.some(maker.grant, 3, 1))
            shown = [{place for place, one in enumerate(items) if one.shown_by(two)} for two in shipped_policies()]
            unordered += not shown[0] <= shown[1] <= shown[2]
    found = f"{hidden} of {asked:,} items hidden by a further grant; "
    found += f"public ⊆ named-researchers ⊆ internal in {cases - unordered:,} of {cases:,}"
    return Row(
        "the widening law, for random policies, grants and items", found, not hidden and not unordered and asked > 0
    )


# ── places ──────────────────────────────────────────────────────────────────────────────────────────────────────

PLACES = (
    "L13", "L13.resid", "L13.resid @ last", "L8:24.resid", "L8:24.mlp.out", "L:24.mid", "L8:.mid", "L:.attn.out",
    "L3.head[5].z @ subject[-1]", "L3.head[2:4].pattern", "L3.mid @ 2:6", "embed @ object", "logits @ -2",
    "L2.mid @ name[0:2]", "L3H5", "L3.H5", "L13_resid", "(L13)", "L=13", "L 13", "ℓ = 13", "layer 13", "LAYER 13",
    "layers 8 to 24", "layers 8–24", "Layer-13", "layer_13", "decoder_layer_3", "layer=13", "layer: 13", "layers=[8, 24]",
    "layers (8, 24)", "layers[3]", "layer\u00a013", "layer no. 13", "layer number 13", "layer index 4", "layer thirteen",
    "layers eight to fifteen", "13th layer", "the 3rd attention head", "thirteenth layer", "twenty-first layer",
    "the last layer", "the first two layers", "penultimate layer", "after 12 layers", "after twelve blocks",
    "relative depth 0.6", "block 3", "block_3", "blocks[3]", "blocks.3.hook_resid_post", "head 5 of layer 3", "head five",
    "head[3]", "heads 9.9 and 9.6", "neuron 512", "latent 77", "feature #77", "expert 5", "dim_300", "position 5",
    "positions 2 to 6", "token 3", "MLP 3", "mlp_3", "attn5", "attn_out", "resid_pre", "down_proj",
    "model.layers.3.self_attn.o_proj", "transformer.h.3", "model/layers/3", "L1", "layer 0", "head 0", "nats at L13",
)  # fmt: skip
"""As sites, modules and sentences name them, and as people do."""

HEADINGS = (
    "layer",
    "Layer",
    "layers",
    "L",
    "ℓ",
    "layer (0–29)",
    "Layer index",
    "head",
    "attention head",
    "site",
    "depth",
)
"""Of an axis or a column whose numbers are places."""

SENTENCES = (
    "block of 12 statements", "31 blocks of 30 items with two replies each", "Several layers at once.",
    "Short factual statements in English over eight topics; residual stream at the last token.",
    "Several layers at once, and places other than the last prompt token and the reply.",
    "The direction is projected out at every layer.", "The reading is sharpest in the last third of the layers.",
    "1280 statements, 11,064 tokens (3 TFLOP)", "The first 24 tokens that it writes.", "at most 16 depths",
    "SmolLM2-135M-Instruct", "Llama-3.1-8B", "paid £13", "told to lie", "13 layers", "write to somebody@example.org",
    "1% of the variance lies along the direction, effective rank 11", "attention and MLP add up to the stream",
    "Restoring what the MLPs write at the subject's last token", "layer by separation on tune clusters",
    "the third block of items", "the heads, one by one", "19 random, 19 covariance, 19 shuffled directions",
    "Each dot is one chance direction; the observed accuracy lies beyond every one of them.",
    "ahead 3", "unit 3 of the work",
)  # fmt: skip
"""What audits say that names no place, and has to stay shown."""


def _plain() -> list[Body]:
    """One of every kind, with words that name no place in every field, all of it shown to the public where it may be."""
    word = "word"
    series = Series(name=word, x=(1.0,), means=(1.0,), lows=(1.0,), highs=(1.0,))
    axes = dict(title=word, x_label=word, y_label=word, caption=word)
    control = Control(name=word, values=(1.0,), note=word)
    claim = Claim(
        key=word, threat=word, statement=word, method=word, controls=(word,), refuted_by=word, measure=word,
        params={"word": word}, problem="p", about="behaviour", grade="low",
    )  # fmt: skip
    outcome = Outcome(
        claim=claim.digest, verdict="supported", because=word, where=(word,), power=word, not_looked_at=(word,),
        effects=(Effect(name=word, value=1, unit=word, low=0, high=1, level=0.95, n=1, n_is=word),), controls=(control,),
        side_effects=(SideEffect(name=word, value=1, unit=word),), examples=(Example(prompt=word, natural=word, steered=word),),
        figures=(
            NullFigure(**axes, observed=1, controls=(control,)), DoseFigure(**axes, series=(series,)),
            BarFigure(**axes, labels=(word,), values=(1.0,), lows=(1.0,), highs=(1.0,)),
        ),
        tables=(TableData(title=word, columns=(word, "second"), rows=((word, 1),), caption=word),),
    )  # fmt: skip
    threat = Threat(key=word, statement=word, scope=word, benign=word)
    origin = Origin(
        model=word, revision=word, fingerprint=word, model_files={"a": word}, prompt_format={"a": word}, data={"a": word},
        versions={"a": word}, machine={"a": word}, selftest={"a": word}, more={"a": word},
    )  # fmt: skip
    unit = Unit(address=word, measure=word, params={"a": word}, result={"a": word}, artefacts={"a": word})
    audit = Audit(name=word, problem="p", question=word, threats=(threat,), auditor=word, access=word)
    return [audit, origin, Note(about="method", text=word), claim, _ALL, unit, outcome]


def fields() -> list[tuple[int, tuple[str | int, ...]]]:
    """Every text of such an audit: which body, and the way to it."""
    return [
        (number, way)
        for number, body in enumerate(_plain())
        if body is not _ALL
        for way in _ways(body.model_dump(mode="json"))
    ]


def _ways(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if value == "word":
        yield way
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _ways(one, (*way, key))
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from _ways(one, (*way, place))


def _with(value: Any, way: tuple[str | int, ...], text: str) -> Any:
    if not way:
        return text
    if isinstance(value, dict):
        return {**value, way[0]: _with(value[way[0]], way[1:], text)}
    return [*value[: way[0]], _with(value[way[0]], way[1:], text), *value[int(way[0]) + 1 :]]


class _Written:
    """Entries that nobody wrote to a disk: what `read_findings` needs of a ledger."""

    def __init__(self, bodies: Sequence[Body]) -> None:
        from assay.evidence import Entry

        self._all = [
            Entry(seq=n, kind=body.kind, key=body.entry_key, at="2026-11-21T00:00:00+00:00",
                  body=body.model_dump(mode="json"), prev="", digest=f"{n:064}")
            for n, body in enumerate(bodies, 1)
        ]  # fmt: skip
        self.head = self._all[-1].digest

    def entries(self, kind: str | None = None) -> list[Any]:
        return [one for one in self._all if kind in (None, one.kind)]

    def standing(self, claim: object) -> Any:
        raise NotImplementedError

    def verify(self, head: str | None = None) -> str:
        return head or self.head


def items_with(number: int, way: tuple[str | int, ...], text: str) -> list[Item]:
    """The items of an audit with a text in one field; those of its outcome follow the claim where that changed."""
    bodies = _plain()
    body = bodies[number]
    bodies[number] = type(body).model_validate(_with(body.model_dump(mode="json"), way, text))
    claim = next(one for one in bodies if isinstance(one, Claim))
    threat = next(one for one in bodies if isinstance(one, Audit)).threats[0].key
    claim = claim.model_copy(update=dict(threat=threat)) if way[-1] == "key" and number == 0 else claim
    bodies = [claim if isinstance(one, Claim) else one for one in bodies]
    bodies = [one.model_copy(update=dict(claim=claim.digest)) if isinstance(one, Outcome) else one for one in bodies]
    return cut(read_findings(_Written(bodies)))


def slipped(number: int, way: tuple[str | int, ...], text: str) -> list[str]:
    """The parts of items in which a text stands and which the public would see."""
    public = shipped_policies()[0]
    quoted = canonical(text)
    return [
        one.part for one in items_with(number, way, text) if quoted in canonical(one.value) and one.shown_by(public)
    ]


def place_rows(every: int = 1) -> list[Row]:
    """Every text in every field (or every n-th), and what has to stay shown."""
    known = fields()
    tried, through = 0, []
    for number, way in known:
        for text in (PLACES + HEADINGS)[::every]:
            tried += 1
            through += [f"{text!r} in {'.'.join(map(str, way))} ({part})" for part in slipped(number, way, text)]
    stays = [part for text in SENTENCES for part in [slipped(6, ("because",), text)] if part]
    found = f"{len(through)} of {tried:,} shown to the public"
    return [
        Row(
            f"{len(PLACES)} texts that name a place, {len(HEADINGS)} headings of places, each in {len(known)} fields",
            f"{found}{': ' + '; '.join(through[:3]) if through else ''}", not through and tried > 0,
        ),
        Row(f"{len(SENTENCES)} sentences of audits that name none", f"{len(stays)} shown", len(stays) == len(SENTENCES)),
    ]  # fmt: skip


def run(scale: float = 1.0) -> list[Row]:
    """At full scale 300 audits for leaks, 100 pairs weighed, 4,000 policies widened, every text in every field."""
    return [
        *leak_rows(max(5, round(300 * scale))),
        *length_rows(max(3, round(100 * scale))),
        widening_row(max(20, round(4000 * scale))),
        *place_rows(max(1, round(min(10, 0.3 / scale)))),
    ]
