#!/usr/bin/env python3
"""Writes deploy/k8s/chart/README.md: its text, and a table made of the comments in values.yaml.

    scripts/chart_readme.py            writes it
    scripts/chart_readme.py --check    says whether it is current (exit status 1: it is not)

A comment `# -- text` above a key says what the key is. Every key has one, itself or by way of a
key that it is part of; a key with none is an error. Needs PyYAML.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent.parent / "deploy/k8s/chart"
# Longer defaults are left to values.yaml.
DEFAULT_CHARS_MAX = 60

Row = tuple[str, str, str]


def comment_above(lines: list[str], line: int) -> str | None:
    """The documentation that ends on the line before this one."""
    found: list[str] = []
    for text in reversed(lines[:line]):
        text = text.strip()
        if not text.startswith("#"):
            return None
        found.insert(0, text.removeprefix("#").strip())
        if found[0].startswith("-- "):
            return " ".join(found).removeprefix("-- ")
    return None


def default_of(node: yaml.Node) -> str:
    value = yaml.SafeLoader("").construct_document(node)
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= DEFAULT_CHARS_MAX else "see values.yaml"


def rows_of(lines: list[str], node: yaml.MappingNode, path: str, covered: bool) -> list[Row]:
    rows: list[Row] = []
    for key, value in node.value:
        name = f"{path}.{key.value}" if path else key.value
        text = comment_above(lines, key.start_mark.line)
        below: list[Row] = []
        if isinstance(value, yaml.MappingNode):
            below = rows_of(lines, value, name, covered or text is not None)
        if text is not None:
            # A map whose keys are documented has no default of its own.
            rows.append((name, "" if below else default_of(value), text))
        elif not below and not covered:
            raise SystemExit(
                f"values.yaml:{key.start_mark.line + 1}: {name} has no '# -- ' comment"
            )
        rows.extend(below)
    return rows


def render() -> str:
    text = (CHART / "values.yaml").read_text()
    rows = rows_of(text.splitlines(), yaml.compose(text), "", False)
    cells = (f"| `{key}` | {default} | {what} |" for key, default, what in rows)
    table = "\n".join(["| key | default | what |", "|---|---|---|", *cells])
    return (CHART / "README.md.tmpl").read_text().replace("{{ values }}", table)


def main() -> int:
    readme = CHART / "README.md"
    wanted = render()
    if "--check" in sys.argv[1:]:
        if readme.is_file() and readme.read_text() == wanted:
            return 0
        print(f"{readme} is not current; run scripts/chart_readme.py", file=sys.stderr)
        return 1
    readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
