"""A table of a comparison over its last five epochs: python results/last_five.py FOLDER

For each method the mean of the last five epochs, over peers and seeds, and the difference to the
networks alone, seed by seed: on the held-out images, or, where a comparison has none, on the test
images. "own" are classifiers that a method adds. "D right" is the share of maps that AFD's
discriminators tell right, in the first epoch and in the last five. `codistill compare` reports test
images alone, each classifier by itself; this reads the histories of its runs.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

LAST = 5  # epochs, which `evaluate_every` always evaluates


def last_epochs(run: Path) -> dict[str, float]:
    """The mean over the last epochs of each figure of a history; AFD's first epoch as well."""
    records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    records = [r for r in records if "epoch" in r]
    figures = {
        k: mean(r[k] for r in records[-LAST:])
        for k in records[-1]
        if isinstance(records[-1][k], float | int)
    }
    right = [k for k in records[0] if k.startswith("measure/d")]
    return figures | ({"first": mean(records[0][k] for k in right)} if right else {})


def spread(values: list[float]) -> str:
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main(folder: Path) -> None:
    rows: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for run in sorted(p.parent for p in folder.glob("runs/*/result.json")):
        name, _, seed = run.name.rpartition("_seed")
        if seed.isdigit():  # a teacher is no row
            rows[name.rpartition("_")[0]][int(seed)] = last_epochs(run)
    if "independent" not in rows:
        sys.exit(f"{folder} has no finished runs/independent_NETWORK_seedN to compare with")

    alone = rows["independent"]
    images = "val" if any(k.startswith("val/") for of in alone.values() for k in of) else "test"
    top1 = f"{images}/top1/"

    def classifiers(of: dict[str, float]) -> list[str]:
        return [k.removeprefix(top1) for k in of if k.startswith(top1)]

    def peers(of: dict[str, float]) -> float:
        return mean(of[top1 + n] for n in classifiers(of) if n.startswith("peer"))

    adversarial = any("first" in of for by_seed in rows.values() for of in by_seed.values())
    head = ["setting", "seeds", "mean peer", "against alone, seed by seed", "ensemble", "own"]
    head += ["D right"] * adversarial
    print(f"Top-1 in % on the {'held-out' if images == 'val' else images} images.\n")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for name, by_seed in sorted(rows.items(), key=lambda row: row[0] != "independent"):
        pairs = [
            f"{peers(of) - peers(alone[s]):+.2f}" for s, of in sorted(by_seed.items()) if s in alone
        ]
        own = [
            f"{n} {spread([of[top1 + n] for of in by_seed.values()])}"
            for n in classifiers(next(iter(by_seed.values())))
            if n != "ensemble" and not n.startswith("peer")
        ]
        right = "-"
        if all("first" in of for of in by_seed.values()):
            last = [
                mean(v for k, v in of.items() if k.startswith("measure/d"))
                for of in by_seed.values()
            ]
            right = f"{mean(of['first'] for of in by_seed.values()):.0f} %, {mean(last):.0f} %"
        cells = [
            name,
            ", ".join(map(str, sorted(by_seed))),
            spread([peers(of) for of in by_seed.values()]),
            "" if name == "independent" else ", ".join(pairs),
            spread([of[top1 + "ensemble"] for of in by_seed.values()]),
            ", ".join(own) or "-",
            *[right] * adversarial,
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
