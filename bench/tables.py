"""Markdown tables."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; all columns but the first hold figures."""
    shown = [head, ["---", *(["--:"] * (len(head) - 1))], *rows]
    return [f"| {' | '.join(cells)} |" for cells in shown]


def figure(value: float | None, digits: int = 1) -> str:
    """A number with separators; large ones without decimals; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.{digits}f}"  # noqa: PLR2004
