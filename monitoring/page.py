"""A report as one HTML page that needs no network and runs no script, in the style of the experiment's report."""

from __future__ import annotations

from collections.abc import Iterable

from policylab.experiments.report.page import POLICY, STYLE
from policylab.experiments.report.text import escaped


def page(title: str, sections: Iterable[str]) -> str:
    """Return the document.

    Args:
        title: plain text.
        sections: HTML whose text is escaped already.
    """
    body = "\n".join(sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<header><h1>{escaped(title)}</h1></header>
{body}
</main>
</body>
</html>
"""
