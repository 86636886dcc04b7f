"""Score a model on labels of your own, clean, in noise and in rooms: python examples/own_task.py MODEL labels.csv

labels.csv has the columns path and label, and if you know them speaker and split (train, dev or test)."""

import sys

import robustdistiller


def score(model: str, table: str, **options):
    """One row for each condition."""
    conditions = ["clean", "noise:snr_db=10", "noise:snr_db=0", "reverb"]
    results = robustdistiller.evaluate(model, tasks=[table], conditions=conditions, **options)
    return results.frame[["task", "condition", "metric", "value", "items"]]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(score(*sys.argv[1:]).to_string(index=False))
