"""Checks as rows, and as the page ``docs/validation.md``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from energysim.validation.check import Check, Study, Verdict

KIND_WORDS = {
    "silicon": "measured on a chip",
    "vendor": "said by its maker",
    "tool": "computed by another tool",
    "paper": "printed in a paper",
}
"""What the words of :data:`energysim.validation.KINDS` mean."""

KIND_NAMES = {"silicon": "chips", "vendor": "vendors", "paper": "papers", "tool": "other tools"}
"""The same in a word."""

LONG = 24
"""Longer tables of the page are folded."""

INTRO = """# Validation

Our numbers beside those of chips, vendors and other tools. This page is written by
`energysim validate --format md -o docs/validation.md --plot docs/validation.svg`, and a test keeps
it fresh; `energysim validate` prints it in short and ends with status 1 if a number has left its
band.

*ours* is computed when you run it; *theirs* comes with the package, in `energysim/validation/data`.
*shown* means that nothing is claimed, and the table says why.
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """All checks of one quantity in a study."""

    study: Study
    quantity: str
    checks: tuple[Check, ...]

    @property
    def worst(self) -> Check:
        """The check that is furthest off; those outside their band before all others."""
        return max(self.checks, key=lambda check: (_rank(check.verdict), abs(check.difference)))

    @property
    def mean_difference(self) -> float:
        """Mean of the differences without their signs, as a ratio."""
        return sum(abs(check.difference) for check in self.checks) / len(self.checks)

    @property
    def verdict(self) -> Verdict:
        """``off`` if one is off, ``shown`` if nothing is claimed of any."""
        return max((check.verdict for check in self.checks), key=_rank)


def _rank(verdict: Verdict) -> int:
    return (Verdict.SHOWN, Verdict.OK, Verdict.OFF).index(verdict)


def summaries(studies: Iterable[Study]) -> Iterator[Summary]:
    """One summary for each quantity of each study, those shown apart from those claimed."""
    for study in studies:
        alike: dict[tuple[str, bool], list[Check]] = {}
        for check in study.checks:
            alike.setdefault((check.quantity, check.claimed), []).append(check)
        for (quantity, _), checks in alike.items():
            yield Summary(study, quantity, tuple(checks))


def records(studies: Iterable[Study]) -> list[dict[str, object]]:
    """One record a check."""
    return [
        {
            "study": study.name,
            "kind": study.kind,
            "what": check.what,
            "quantity": check.quantity,
            "unit": check.unit,
            "theirs": check.theirs,
            "ours": check.ours,
            "difference": check.difference if isfinite(check.difference) else None,
            "allowed": check.allowed,
            "verdict": str(check.verdict),
            "reason": check.reason,
            "source": study.source,
        }
        for study in studies
        for check in study.checks
    ]


# -- numbers as text -------------------------------------------------------------------------------


def amount(value: float, unit: str = "") -> str:
    """A number with its unit; whole numbers to the last digit, others with four."""
    whole = float(value).is_integer() and abs(value) < 1e15  # noqa: PLR2004 - digits of a float
    text = f"{int(value):,}" if whole else f"{value:,.4g}"
    return f"{text} {unit}".rstrip()


def difference(ratio: float) -> str:
    """A difference in percent; nothing where there is none."""
    if ratio == 0:
        return "0"
    if not isfinite(ratio):
        return "new"
    percent = 100 * ratio
    return f"{percent:+.0f} %" if abs(percent) >= 100 else f"{percent:+.2g} %"  # noqa: PLR2004


def verdict_words(studies: Sequence[Study]) -> str:
    """How many claims hold, by kind, and how many numbers are only shown."""
    every = [(study.kind, check) for study in studies for check in study.checks]
    parts = []
    for kind, name in KIND_NAMES.items():
        claims = [check for own, check in every if own == kind and check.claimed]
        held = sum(check.verdict is Verdict.OK for check in claims)
        if claims:
            parts.append(f"{name} {held:,} of {len(claims):,}")
    shown = sum(not check.claimed for _, check in every)
    return f"claims that hold: {', '.join(parts)}; {shown:,} more numbers are shown"


# -- the page --------------------------------------------------------------------------------------


def page(studies: Sequence[Study], picture: str | None = None) -> str:
    """The page of all studies, in Markdown."""
    parts = [INTRO]
    if picture:
        parts.append(f"![predicted against published numbers]({picture})\n")
    parts.append(_overview(studies))
    parts += [section(study) for study in studies]
    return "\n".join(parts)


OVERVIEW = ("against", "theirs", "what", "checks", "mean", "worst", "allowed", "verdict")


def _overview(studies: Sequence[Study]) -> str:
    rows = [row for study in studies for row in overview(study)]
    words = verdict_words(studies)
    table = _table(OVERVIEW, rows, right=(3, 4, 5))
    return f"{words[0].upper()}{words[1:]}.\n\n{table}"


def overview(study: Study) -> list[tuple[str, ...]]:
    """Cells of the overview: one row for each quantity of a study."""
    return [
        (
            f"[{study.title}](#{study.name})" if place == 0 else "",
            KIND_WORDS[study.kind] if place == 0 else "",
            summary.quantity,
            str(len(summary.checks)),
            difference(summary.mean_difference).removeprefix("+"),
            difference(summary.worst.difference),
            summary.worst.allowed,
            str(summary.verdict),
        )
        for place, summary in enumerate(summaries([study]))
    ]


def section(study: Study) -> str:
    """One study: what it compares, how, and every number."""
    checks = study.checks
    some_reason = any(check.reason for check in checks)
    heads = ["what", "quantity", "theirs", "ours", "difference", "allowed", "verdict"]
    rows = [
        [
            check.what,
            check.quantity,
            amount(check.theirs, check.unit),
            amount(check.ours, check.unit),
            difference(check.difference),
            check.allowed,
            str(check.verdict),
            *([check.reason] if some_reason else []),
        ]
        for check in checks
    ]
    table = _table((*heads, *(["reason"] if some_reason else [])), rows, right=(2, 3, 4))
    if len(rows) > LONG:
        table = f"<details><summary>all {len(rows)} numbers</summary>\n\n{table}\n</details>\n"
    return (
        f'<a id="{study.name}"></a>\n\n## {study.title}\n\n'
        f"*{study.source}*; {KIND_WORDS[study.kind]}.\n\n{study.method}\n\n{table}"
    )


def row_text(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    rules = ["---:" if i in right else "---" for i in range(len(heads))]
    lines = [heads, rules, *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(map(row_text, lines))
