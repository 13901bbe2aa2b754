"""Every error Assay raises on purpose, and the one form they all print in.

::

    AssayError
    ├── ModelError
    │   ├── NotACausalLM          the model scores no next token
    │   ├── UnknownArchitecture   anatomy.py has no entry for it, and none was declared
    │   ├── SelfTestFailed        a site of this very model is not what its name says
    │   └── ModelMismatch         a direction, or a run begun earlier, met another model
    ├── PlaceError
    │   ├── BadSite               the text is no site
    │   ├── NoSuchSite            the model has no such layer, head or part
    │   ├── NoSuchPosition        the row has no such position or span
    │   ├── NoSuchRow             the run has no row of that name
    │   └── NotWhole              a site or a weight of which this process has a part only
    ├── InterventionError
    │   ├── NeverFired            an intervention touched other tokens than it was meant to
    │   ├── BadVector             wrong width, NaN, infinite or zero
    │   └── BadDose               a strength that is no finite number, or two strengths at once
    ├── DataError
    │   ├── EmptyData             nothing to learn from, or prompts that tokenise to nothing
    │   ├── OneClass              labels that do not differ
    │   ├── BadData               a file or row that does not read as what it should be
    │   ├── BadHypothesis         a hypothesis that does not fit the model, or claims a place twice
    │   └── LeakedData            items that found or tuned a direction came back at its test
    ├── FileError
    │   ├── CorruptFile           a file that is not what its name says, or was cut short
    │   └── Unwritable            a folder that cannot be written
    ├── RecordError
    │   ├── LedgerInUse           a second writer on one ledger
    │   ├── LedgerBroken          the chain of entries does not verify
    │   ├── PolicyTooLate         a policy that was not in the ledger before the first result
    │   ├── NotVerified           a credential, release, seal or timestamp that is not what was signed
    │   └── SealClosed            none of the keys at hand opens a seal
    └── MissingExtra              an optional dependency is not installed

An error says what happened (with the value's own repr), what was found, what is near, and one hint.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class AssayError(Exception):
    """The base of all of them.

    ``AssayError("what happened", hint="what to do", found="…", nearest="…")`` prints::

        ClassName: what happened

          found     …
          nearest   …

          hint: what to do
          see:  docs/errors/class-name.md

    The keyword fields are printed in the order given; empty ones are left out.
    """

    def __init__(self, what: str, *, hint: str, **fields: object) -> None:
        self.what = what
        self.hint = hint
        self.fields = {
            name.replace("_", " "): str(value) for name, value in fields.items() if value is not None and str(value)
        }
        super().__init__(str(self))

    @classmethod
    def page(cls) -> str:
        """The documentation page of this error, relative to the project's root."""
        return f"docs/errors/{re.sub(r'(?<!^)(?=[A-Z])', '-', cls.__name__.replace('LM', 'Lm')).lower()}.md"

    def __str__(self) -> str:
        width = max([9, *map(len, self.fields)])
        under = "\n" + " " * (width + 3)  # a value of several lines, as a picture is
        body = "".join(f"  {name:<{width}} {value.replace(chr(10), under)}\n" for name, value in self.fields.items())
        return f"{self.what}\n\n{body}{chr(10) if body else ''}  hint: {self.hint}\n  see:  {self.page()}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.hint, self.fields)


def _rebuild(kind: type[AssayError], what: str, hint: str, fields: dict[str, str]) -> AssayError:
    return kind(what, hint=hint, **fields)


class ModelError(AssayError): ...


class NotACausalLM(ModelError): ...


class UnknownArchitecture(ModelError): ...


class SelfTestFailed(ModelError): ...


class ModelMismatch(ModelError): ...


class PlaceError(AssayError): ...


class BadSite(PlaceError): ...


class NoSuchSite(PlaceError): ...


class NoSuchPosition(PlaceError): ...


class NoSuchRow(PlaceError): ...


class NotWhole(PlaceError): ...


class InterventionError(AssayError): ...


class NeverFired(InterventionError): ...


class BadVector(InterventionError): ...


class BadDose(InterventionError): ...


class DataError(AssayError): ...


class EmptyData(DataError): ...


class OneClass(DataError): ...


class BadData(DataError): ...


class BadHypothesis(DataError): ...


class LeakedData(DataError): ...


class FileError(AssayError): ...


class CorruptFile(FileError): ...


class Unwritable(FileError): ...


class RecordError(AssayError): ...


class LedgerInUse(RecordError): ...


class LedgerBroken(RecordError): ...


class PolicyTooLate(RecordError): ...


class NotVerified(RecordError): ...


class SealClosed(RecordError): ...


class MissingExtra(AssayError): ...


_LAB = frozenset(
    [
        "accelerate",
        "gguf",
        "huggingface_hub",
        "jaxtyping",
        "narwhals",
        "pyarrow",
        "safetensors",
        "scipy",
        "sklearn",
        "torch",
        "transformers",
    ]
)


def laboratory_missing(error: ModuleNotFoundError) -> MissingExtra | None:
    """What to say where a package of the laboratory is not installed; None where it is another one that is missing."""
    name = (error.name or "").partition(".")[0]
    if name not in _LAB:
        return None
    return MissingExtra(
        "this needs the laboratory, which looks into models",
        found=f"no package {name}",
        hint="pip install 'assay[lab]'; what is installed can verify, open and read releases",
    )


def nearest(wanted: str, known: Iterable[str], most: int = 3) -> str:
    """The entries of ``known`` closest to ``wanted``, for an error's ``nearest`` field."""
    names = list(known)
    return ", ".join(difflib.get_close_matches(wanted, names, n=most, cutoff=0.4) or names[:most])
