"""The `audit` decorator: a question, its threat models, and a generator that claims before it is told."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from assay.audit import problems
from assay.audit.runner import Session, Watch
from assay.errors import BadData, nearest
from assay.evidence import Claim, Ledger, Note, Policy, Threat
from assay.evidence.digest import plain
from assay.scale import Executor

if TYPE_CHECKING:
    from assay.run.model import Model

Source: TypeAlias = "Model | str | Path | Callable[[], Model] | None"
"""A model, what `Model.load` takes, or a function that loads one."""

Story = Callable[..., Iterator[Sequence[Claim]]]
"""A generator function: yields claims, and receives what came of them as a list of `Audited`."""


@dataclass(frozen=True)
class Plan:
    """An audit that can be run. Calling it with arguments gives the same audit with those arguments.

    Attributes:
        story: the generator function.
        problem: the problem class.
        question: what is asked, with ``{model}`` where the model's name belongs.
        threats: the ways in which the problem could be real.
        data: files and folders, by name.
        notes: words for the report.
        arguments: of the generator function; JSON values.
    """

    story: Story
    problem: str
    question: str
    threats: tuple[Threat, ...]
    data: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The generator function's name."""
        return self.story.__name__

    @property
    def defaults(self) -> dict[str, Any]:
        """The arguments that the story takes, with what they are when nobody says otherwise."""
        return {name: parameter.default for name, parameter in inspect.signature(self.story).parameters.items()}

    @property
    def bound(self) -> dict[str, Any]:
        """All arguments, as JSON values. Raises `BadData` where one is missing or is none."""
        given = {**self.defaults, **self.arguments}
        missing = [name for name, value in given.items() if value is inspect.Parameter.empty]
        if missing:
            raise BadData(
                f"the audit {self.name!r} needs {', '.join(missing)}",
                hint=f"give it: {self.name}({missing[0]}=...), or --set {missing[0]}=...",
            )
        return cast(dict[str, Any], plain(given))

    def __call__(self, **arguments: Any) -> Plan:
        """The same audit with these arguments. Raises `BadData` for one that it does not take."""
        for name in arguments:
            if name not in self.defaults:
                raise BadData(
                    f"the audit {self.name!r} takes no argument {name!r}",
                    nearest=nearest(name, self.defaults),
                    hint="its arguments are those of its function",
                )
        return replace(self, arguments={**self.arguments, **arguments})

    def run(
        self,
        model: Source = None,
        *,
        into: str | Path,
        executor: Executor | None = None,
        auditor: str = "",
        watch: Watch | None = None,
        retry: bool = False,
        policies: Sequence[Policy] = (),
        reports: bool = True,
    ) -> Ledger:
        """Run the audit, or go on with the run in ``into``; what is recorded there is neither lost nor done again.

        Claims are hashed into the ledger before the first forward pass, and reports are written at the end.

        Args:
            model: a loaded model, what `Model.load` takes, or a function that loads one once the folder is known to be
                good; nothing is the default model.
            into: the run's folder: ``ledger``, ``arrays/``, ``report.html``, ``report.md``.
            executor: who does the units of work; nothing is this process.
            auditor: who asks, for the report.
            watch: told what happens.
            retry: measure claims again that have no outcome because their measure failed.
            policies: by which parts may be released later, beside those that come with Assay.
            reports: write them at the end.

        Returns: the ledger, open for reading.

        Raises:
            Unwritable, LedgerInUse, LedgerBroken, CorruptFile: of the folder, before anything else.
            BadData: claims that cannot be tested, or a folder that holds another audit.
            PolicyTooLate: a policy that the run in the folder did not begin with.
            ModelMismatch: a folder that holds a run on another model.
        """
        session = Session(self, Path(into), watch or Watch(), retry, policies)
        return session.run(model, executor, auditor, reports)


def audit(
    *,
    problem: str,
    question: str,
    threats: Sequence[Threat],
    data: Mapping[str, str | Path] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[Story], Plan]:
    """Make a `Plan` of a generator function that yields lists of claims and receives lists of `Audited`.

    What it yields first is confirmatory; what it yields after an outcome is exploratory, by its place in the ledger.
    The function holds no model: for the same answers it makes the same claims. See `Plan` for the arguments; ``notes``
    are texts by the section of the report that they belong to, ``method``, ``data`` or ``limits``.
    """

    def made(story: Story) -> Plan:
        if not inspect.isgeneratorfunction(story):
            raise BadData(
                f"{story.__name__!r} is no generator function",
                hint="an audit yields its claims: outcomes = yield [Claim(...), Claim(...)]",
            )
        files = {name: Path(path) for name, path in (data or {}).items()}
        said = tuple(_note(about, text) for about, texts in (notes or {}).items() for text in texts)
        return Plan(story, problem, question, tuple(threats), files, said)

    return made


def _note(about: str, text: str) -> Note:
    return Note.model_validate({"about": about, "text": text})


def audit_names() -> list[str]:
    """The audits that come with Assay."""
    found = pkgutil.iter_modules(problems.__path__)
    return sorted(one.name for one in found if not one.ispkg and not one.name.startswith("_"))


def audit_called(name: str) -> Plan:
    """An audit by its name, or from a file of one's own: ``my_audit.py``, ``my_audit.py:function``.

    Raises:
        BadData: no such audit or file, or a file without exactly one audit where none is named.
    """
    file, _, wanted = name.partition(":")
    if file.endswith(".py"):
        module = _module_of(Path(file))
    elif name in audit_names():
        module = importlib.import_module(f"{problems.__name__}.{name}")
    else:
        raise BadData(
            f"there is no audit {name!r}",
            nearest=nearest(name, audit_names()),
            hint="name an audit that comes with Assay, or a file of your own: my_audit.py",
        )
    found = {plan.name: plan for plan in vars(module).values() if isinstance(plan, Plan)}
    if wanted in found or (len(found) == 1 and not wanted):
        return found[wanted] if wanted else next(iter(found.values()))
    raise BadData(
        f"{name!r} names no single audit",
        found=", ".join(found) or "no function under @assay.audit",
        hint=f"name one of them: {file}:{next(iter(found), 'function')}",
    )


def _module_of(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadData(f"there is no file {str(path)!r}", hint="give the path of a Python file with an audit in it")
    name = f"assay_audit_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a unit's own name leads
    spec.loader.exec_module(module)
    return module
