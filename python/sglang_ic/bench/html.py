"""The report as one HTML file: charts inside, nothing fetched."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

from sglang_ic.bench import markdown

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c1c1c; }
h1 { font-size: 1.7rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { border: 1px solid #ddd; padding: 0.25rem 0.6rem; text-align: right; white-space: nowrap; }
th { background: #f5f5f5; } th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } code, pre { font-size: 0.85rem; } pre { white-space: pre-wrap; }
.note { background: #fff4d6; border-left: 4px solid #e69f00; padding: 0.4rem 0.8rem; }
.error { color: #a32020; } .caption { color: #555; }
"""


def report(document: dict[str, Any], charts: dict[str, bytes]) -> str:
    """The page.

    Args:
        charts: PNG bytes by the names that `charts.charts` gives.
    """
    title = "IndexCache under load"
    body = [f"<h1>{title}</h1>", *_lead(document)]
    body += [f'<p class="note">{_safe(note)}</p>' for note in markdown.notes(document)]
    body += ["<h2>Arms</h2>", _table(*markdown.arm_rows(document))]
    body += [f"<h2>Speed-up over <code>{_safe(document['reference'])}</code></h2>"]
    body += [f'<p class="caption">{_safe(markdown.ratio_caption(document))}</p>']
    body += [_image(charts, "speedup"), _table(*markdown.ratio_rows(document))]
    for name, description in document["scenarios"].items():
        body += _scenario(document, name, description, charts)
    if document["left_out"]:
        items = "".join(f"<li>{_safe(f'{k}: {v}')}</li>" for k, v in document["left_out"].items())
        body.append(f"<h2>Left out</h2><ul>{items}</ul>")
    body += ["<h2>How</h2>", f"<pre>{_safe(document['command'])}</pre>"]
    body += [f"<p>{_safe(markdown.versions_line(document))}</p>"]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _lead(document: dict[str, Any]) -> list[str]:
    settings = document["settings"]
    text = (
        f"{document['started_at']} to {document['finished_at']}, "
        f"{markdown.hardware_line(document)}. {settings['rounds']} interleaved rounds, lengths "
        f"times {settings['scale']:g}, seed {settings['seed']}."
    )
    return [f"<p>{_safe(text)}</p>"]


def _scenario(
    document: dict[str, Any], name: str, description: str, charts: dict[str, bytes]
) -> list[str]:
    points = [point for point in document["points"] if point["scenario"] == name]
    if not points:
        return []
    parts = [f"<h2>{_safe(name)}</h2>", f"<p>{_safe(description)}</p>"]
    parts += [_image(charts, f"{name}-latency"), _image(charts, f"{name}-goodput")]
    for point in points:
        parts.append(f"<h3>{_safe(point['label'])}</h3>")
        parts.append(f'<p class="caption">{_safe(markdown.point_caption(point))}</p>')
        parts.append(_table(*markdown.absolute_rows(point)))
        parts += [f'<p class="error">{_safe(one)}</p>' for one in markdown.error_lines(point)]
    return parts


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_safe(cell)}</th>" for cell in heading)
    body = "".join(
        "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _image(charts: dict[str, bytes], name: str) -> str:
    if name not in charts:
        return ""
    data = base64.b64encode(charts[name]).decode()
    return f'<p><img alt="{_safe(name)}" src="data:image/png;base64,{data}"></p>'


def _safe(text: str) -> str:
    return html.escape(text)
