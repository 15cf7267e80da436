"""`write_report`: the report as one HTML file that needs no network, and its figures as PNG beside it."""

from __future__ import annotations

from pathlib import Path

from policylab.experiments.report.data import ReportData
from policylab.experiments.report.figures import draw_figures
from policylab.experiments.report.sections import SECTIONS
from policylab.experiments.report.style import inline_svg, png
from policylab.experiments.report.text import escaped
from policylab.files import write_atomic

STYLE = Path(__file__).with_name("report.css")

# Even if a value slipped through unescaped, the browser would load nothing and run nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(data: ReportData, folder: Path) -> Path:
    """Write ``report.html``, ``figures/*.png`` and, if there is one, ``figures/episode.gif`` below ``folder``.

    The page holds everything it shows: drawings as SVG, the episode as a data URI, no script. It follows the
    reader's light or dark setting.

    Returns:
        The path of ``report.html``.

    Raises:
        StorageError: a file cannot be written.
    """
    drawn = draw_figures(data)
    for name, figure in drawn.items():
        write_atomic(folder / "figures" / f"{name}.png", png(figure))
    if data.episode_gif:
        write_atomic(folder / "figures" / "episode.gif", data.episode_gif)
    svgs = {
        name: inline_svg(figure, name=name, title=escaped(name.replace("_", " "))) for name, figure in drawn.items()
    }
    path = folder / "report.html"
    write_atomic(path, page(data, svgs))
    return path


def page(data: ReportData, svgs: dict[str, str]) -> str:
    """Return the whole HTML document."""
    body = "\n".join(section(data, svgs) for section in SECTIONS)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(data.name)} – policylab report</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{body}
</main>
<footer>policylab {escaped(data.lineage.versions.get("policylab", ""))}</footer>
</body>
</html>
"""
