"""The page: its contents as plain structures, and the file."""

import base64
import hashlib
import html
from importlib import resources
import json
import math
from pathlib import Path
import string
import time
from typing import Any

import numpy as np

import zoo
from zoo.analysis.measuring import class_names_of, measure
from zoo.analysis.outcomes import Outcomes, outcomes_of
from zoo.analysis.replacing import replacing
from zoo.analysis.report import numbers as values
from zoo.analysis.report.claims import claims_of, worth_seeing
from zoo.analysis.report.confidence import calibration
from zoo.analysis.report.confusions import class_table, confusions
from zoo.analysis.report.course import course
from zoo.analysis.report.evidence import Evidence
from zoo.analysis.report.gaps import gaps
from zoo.analysis.report.pictures import embed, shorten
from zoo.analysis.report.summary import summary, title
from zoo.analysis.report.words import ROLES
from zoo.tasks.regression import Regression

SCRIPTS = ("basics", "charts", "matrix", "galleries", "page")
RESAMPLES = {True: 1000, False: 100}  # of the bootstrap: of the split in focus, of the others


def contents(evidence: Evidence, *, human_error: float | None, images: int) -> dict[str, Any]:
    """Returns what the page says, as plain structures by section.

    Args:
      evidence: of the run.
      human_error: that of a person, as a part of 1; None if it is not known.
      images: how many pictures to show in a gallery.
    """
    look, focus = evidence.look, evidence.focus
    outcomes = outcomes_of(look.predictions)
    measured = {
        role: measure(own.predictions, number=RESAMPLES[role == focus])
        for role, own in evidence.looks.items()
    }
    results = evidence.results
    metric = results.get("best_metric") or f"val/{evidence.trained.task.best.metric}"
    out: dict[str, Any] = {
        "title": title(evidence),
        "summary": summary(evidence, measured),
        "gaps": gaps(evidence, measured, human_error),
        "course": course(evidence.lines, metric, results.get("best_step")),
        "footer": f"Made by zoo {zoo.__version__} on {time.strftime('%Y-%m-%d %H:%M %z')} with "
        "python -m zoo report. The page holds all that it shows; it loads nothing.",
    }
    if isinstance(evidence.trained.task, Regression):
        return out | {
            "numbers": values.numbers(outcomes),
            "pictures": _numbered(evidence, outcomes, images),
        }
    names = class_names_of(look.predictions)
    if outcomes.truth.ndim == 1:
        out["confusions"] = confusions(outcomes, names)
    fit_on = evidence.looks.get("validation") if focus == "test" else None
    return out | {
        "classes": class_table(outcomes, names, measured[focus]["classes"]),
        "pictures": _claimed(evidence, outcomes, names, images),
        "calibration": calibration(
            outcomes, fit_on and outcomes_of(fit_on.predictions), ROLES["validation"]
        ),
    }


def _claimed(
    evidence: Evidence, outcomes: Outcomes, names: tuple[str, ...], images: int
) -> dict[str, Any]:
    """Returns pictures of answers, as [picture, true, said, how sure, right]."""
    claims = claims_of(outcomes, names)
    order = worth_seeing(claims, images)
    pictures, position = _embedded(evidence, claims.rows[order])
    kept = [int(i) for i in order if int(claims.rows[i]) in position]
    items = [
        [
            position[int(claims.rows[i])],
            int(claims.truth[i]),
            int(claims.said[i]),
            float(claims.sure[i]),
            int(claims.right[i]),
        ]
        for i in kept
    ]
    return {
        **pictures,
        "names": list(claims.names),
        "affirmative": claims.affirmative,
        "many": images,
        "items": items,
    }


def _numbered(evidence: Evidence, outcomes: Outcomes, images: int) -> dict[str, Any]:
    """Returns pictures of a regression, as [picture, true values, predicted values]."""
    task = outcomes.task
    assert isinstance(task, Regression)
    pictures, position = _embedded(evidence, values.worth_seeing(outcomes, images))
    items = [
        [k, outcomes.truth[i].tolist(), outcomes.said[i].tolist()] for i, k in position.items()
    ]
    return {**pictures, "targets": list(task.names), "many": images, "items": items}


def _embedded(evidence: Evidence, rows: np.ndarray) -> tuple[dict[str, Any], dict[int, int]]:
    predictions = evidence.look.predictions
    beginning, places = shorten(list(predictions.places))
    pictures, position = embed(evidence.look.source, rows, predictions.indices, places)
    text = f"{len(pictures):,} of {len(predictions.logits):,} examples are kept in this page"
    text += f"; their places begin with {beginning.strip()}" if beginning else "."
    return {"text": text, "pictures": pictures}, position


def render(contents: dict[str, Any]) -> str:
    """Returns the page, HTML.

    Names of classes and files get in as JSON, without the characters that end a script, and the
    script of the page makes text of them, never markup. A policy in the page forbids it to load or
    send anything, and to run another script than its own.

    Args:
      contents: see `contents`.
    """
    files = resources.files("zoo.analysis.report")
    style = (files / "style.css").read_text("utf-8")
    parts = [(files / "script" / f"{name}.js").read_text("utf-8") for name in SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"
    data = json.dumps(_plain(contents), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return string.Template((files / "page.html").read_text("utf-8")).substitute(
        title=html.escape(contents["title"]),
        version=zoo.__version__,
        style=style,
        style_digest=_digest(style),
        script=script,
        script_digest=_digest(script),
        data=data,
    )


def _digest(text: str) -> str:
    """Returns how a content security policy names a script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _plain(value: Any) -> Any:
    """Returns what JSON can hold: undefined numbers are None, others have six digits."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write(file: Path, page: str) -> None:
    """Writes the page, whole or not at all."""
    with replacing(file) as scratch:
        # A lone half of a pair of surrogates, of a file's name that is not UTF-8, is a "?".
        scratch.write_bytes(page.encode("utf-8", "replace"))
