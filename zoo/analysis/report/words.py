"""How figures are called and written in the page."""

# name: title, and how it is written: "percent", or a number as "plain" or with "fixed" places.
FIGURES = {
    "loss": ("loss", "fixed"),
    "top1": ("top-1 accuracy", "percent"),
    "top5": ("top-5 accuracy", "percent"),
    "accuracy": ("accuracy", "percent"),
    "exact_match": ("exact match", "percent"),
    "label_accuracy": ("accuracy of labels", "percent"),
    "precision": ("precision", "percent"),
    "recall": ("recall", "percent"),
    "specificity": ("specificity", "percent"),
    "f1": ("F1", "percent"),
    "macro_f1": ("macro F1", "percent"),
    "macro_precision": ("macro precision", "percent"),
    "macro_recall": ("macro recall", "percent"),
    "weighted_f1": ("weighted F1", "percent"),
    "weighted_precision": ("weighted precision", "percent"),
    "weighted_recall": ("weighted recall", "percent"),
    "balanced_accuracy": ("balanced accuracy", "percent"),
    "kappa": ("Cohen's kappa", "fixed"),
    "roc_auc": ("area under the ROC curve", "fixed"),
    "average_precision": ("average precision", "fixed"),
    "brier": ("Brier score", "fixed"),
    "ece": ("expected calibration error", "percent"),
    "adaptive_ece": ("ECE of bins with as many examples", "percent"),
    "classwise_ece": ("class-wise ECE", "percent"),
    "mae": ("mean absolute error", "plain"),
    "rmse": ("root mean square error", "plain"),
    "r2": ("R²", "fixed"),
    "mean_error": ("mean error", "plain"),
    "learning_rate": ("learning rate", "plain"),
}

ROLES = {  # what splits are called
    "train": "training",
    "train-dev": "train-dev",
    "validation": "validation",
    "test": "test",
}


def title_of(name: str) -> str:
    """Returns what a figure is called; of one of several targets, with the target behind it.

    Example:
      >>> title_of("rmse_width"), title_of("top1")
      ('root mean square error, width', 'top-1 accuracy')
    """
    known, target = _split(name)
    return f"{FIGURES[known][0]}, {target}" if target else FIGURES.get(known, (known,))[0]


def form_of(name: str) -> str:
    """Returns how a figure is written."""
    return FIGURES.get(_split(name)[0], ("", "plain"))[1]


def _split(name: str) -> tuple[str, str]:
    """Splits the name of a figure into that of `FIGURES` and a target's."""
    if name in FIGURES:
        return name, ""
    known = [figure for figure in FIGURES if name.startswith(f"{figure}_")]
    return (max(known, key=len), name[len(max(known, key=len)) + 1 :]) if known else (name, "")
