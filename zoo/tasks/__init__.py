"""One file per task: its loss, its metrics, its predictions."""
