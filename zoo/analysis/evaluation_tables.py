"""What an evaluation found, as tables for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

MOST_ROWS = 20  # of classes; of more, those with the smallest F1
NUMBERS = (
    "loss",
    "mae",
    "rmse",
    "mean_error",
    "r2",
    "kappa",
    "brier",
)  # not written as percentages


def print_evaluation(results: Mapping[str, Any], console: Console) -> None:
    """Prints the tables of what `zoo.analysis.evaluation.evaluate` returns.

    Args:
      results: of it, with "corruptions" where they were measured.
      console: to print on, without markup: brackets in names of splits and classes are theirs.
    """
    evaluations = results["evaluations"]
    console.print(_figures(evaluations))
    for found in evaluations:
        if found["bad"]:
            console.print(f"{len(found['bad'])} images of {_title(found)} cannot be decoded")
    last = evaluations[-1]
    if "classes" in last:
        console.print(_classes(last))
    for pair in last.get("confused", ())[:5]:
        console.print(
            f"{pair['true']} is said to be {pair['said']} {pair['count']} times, "
            f"{_percent(pair['part'])} of its examples",
        )
    for found in evaluations:
        if "temperature" in found:
            console.print(_temperature(found))
    for compared in results.get("comparisons", ()):
        console.print(_comparison(compared))
    for measured in results.get("corruptions", ()):
        console.print(_corruptions(measured))
    for diagnosis in results.get("diagnoses", ()):
        console.print(_diagnosis(diagnosis))


def show(name: str, value: float | None) -> str:
    """Returns a figure as a person reads it.

    Example:
      >>> show("top1", 0.912), show("loss_b", 0.3117), show("f1", float("nan"))
      ('91.20 %', '0.3117', 'undefined')
    """
    if value is None or value != value:
        return "undefined"
    plain = any(name == error or name.startswith(f"{error}_") for error in NUMBERS)
    return f"{value:.4g}" if plain else _percent(value)


def _percent(value: float) -> str:
    return f"{value:.2%}".replace("%", " %")


def _between(name: str, interval: Sequence[float] | None) -> str:
    if interval is None or interval[0] != interval[0]:
        return ""
    low, high = (show(name, limit) for limit in interval)
    return f"{low.removesuffix(' %')} to {high}"


def _title(found: Mapping[str, Any]) -> str:
    return f"{found['model']}, {found['data']['split']}"


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    return table


def _figures(evaluations: Sequence[Mapping[str, Any]]) -> Table:
    """Returns all figures with their intervals, those of several evaluations side by side."""
    models = list(dict.fromkeys(found["model"] for found in evaluations))
    title = models[0] if len(models) == 1 else ""
    for i, model in enumerate(models if len(models) > 1 else ()):
        title += f"{i + 1}: {model}\n"
    columns = ["figure"]
    for found in evaluations:
        number = f"{models.index(found['model']) + 1}, " if len(models) > 1 else ""
        columns.append(f"{number}{found['data']['split']}\n{found['examples']:,} examples")
    alone = len(evaluations) == 1
    table = _table(title.strip(), [*columns, "95 % interval"] if alone else columns)
    for name in evaluations[0]["figures"]:
        row = []
        for found in evaluations:
            figure = found["figures"].get(name, {"value": None, "interval": None})
            value, between = show(name, figure["value"]), _between(name, figure["interval"])
            row += [value, between] if alone else [f"{value}\n{between}".strip()]
        table.add_row(name, *row)
    return table


def _classes(found: Mapping[str, Any]) -> Table:
    rows = found["classes"]
    title = f"Classes of {_title(found)}"
    if len(rows) > MOST_ROWS:
        rows = sorted((r for r in rows if r["examples"]), key=lambda r: r["f1"])[:MOST_ROWS]
        title += f": the {len(rows)} of {len(found['classes'])} with the smallest F1"
    names = ("precision", "recall", "f1")
    table = _table(title, ("class", "examples", "precision", "recall", "95 % interval", "F1"))
    for row in rows:
        precision, recall, f1 = (_percent(row[name]) for name in names)
        between = _between("recall", row["recall_interval"])
        table.add_row(row["name"], f"{row['examples']:,}", precision, recall, between, f1)
    return table


def _temperature(found: Mapping[str, Any]) -> str:
    scaled = found["temperature"]
    changes = "  ".join(
        f"{name} {show(name, found['figures'][name]['value'])} -> {show(name, after['value'])}"
        for name, after in scaled["figures"].items()
    )
    return f"{_title(found)}: temperature {scaled['value']:.4g} ({scaled['how']})  {changes}"


def _comparison(compared: Mapping[str, Any]) -> Table:
    first, second = compared["models"]
    table = _table(
        f"{first} less {second}, {compared['split']}", ("figure", "difference", "95 % interval")
    )
    for name, difference in compared["differences"].items():
        value, interval = difference["value"], difference["interval"]
        if name == compared.get("figure"):
            interval = compared["interval"]
        table.add_row(name, show(name, value), _between(name, interval))
    if "p_value" in compared:
        table.caption = (
            f"only the first is right {compared['only_first']:,} times, only the second "
            f"{compared['only_second']:,}: McNemar's p = {compared['p_value']:.3g}"
        )
    return table


def _corruptions(measured: Mapping[str, Any]) -> Table:
    severities = [str(severity) for severity in measured["severities"]]
    table = _table(
        f"{measured['figure']} of {measured['model']}, {measured['split']}, by severity",
        ("corruption", *severities, "mean error"),
    )
    for name, found in measured["each"].items():
        values = (show(measured["figure"], found[s][measured["figure"]]) for s in severities)
        table.add_row(name, *values, show(measured["figure"], measured["errors"][name]))
    table.add_row("all", *[""] * len(severities), show(measured["figure"], measured["mean_error"]))
    if "relative_error" in measured:
        table.caption = f"mCE relative to {measured['relative_to']}: " + _percent(
            measured["relative_error"]
        )
    return table


def _diagnosis(diagnosis: Mapping[str, Any]) -> Table:
    table = _table(
        f"Where the error of {diagnosis['model']} comes from",
        ("part", "difference of errors", "size", "95 % interval"),
    )
    for part in diagnosis["parts"]:
        between, name = " and ".join(part["between"]), diagnosis["figure"]
        row = part["name"], between, show(name, part["value"]), _between(name, part["interval"])
        table.add_row(*row)
        if part["name"] == diagnosis["largest"]:
            table.caption = (
                f"the largest is {part['name']}; what helps: {'; '.join(part['advice'])}"
            )
    return table
