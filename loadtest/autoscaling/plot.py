"""Draws the CSV files of replay.py: plot.py FOLDER IMAGE.png (needs matplotlib)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PROFILES = ("defaults", "tuned")
SHAPES = ("step", "spike", "sine", "sawtooth")
STYLES = {
    "ray 2.60": {"color": "#888888", "linewidth": 2.5},
    "mobula": {"color": "#1f6feb", "linestyle": "--"},
    "mobula reactive": {"color": "#d1242f"},
}


def main(folder: Path, image: Path) -> None:
    """One row per profile, one column per shape."""
    figure, grid = plt.subplots(len(PROFILES), len(SHAPES), figsize=(16, 6.5), sharex=True)
    for profile, row in zip(PROFILES, grid, strict=True):
        for shape, axes in zip(SHAPES, row, strict=True):
            with (folder / f"{profile}-{shape}.csv").open() as file:
                rows = list(csv.DictReader(file))
            seconds = [float(entry["second"]) for entry in rows]
            needed = [float(entry["requests_per_s"]) / 4 for entry in rows]
            axes.fill_between(seconds, needed, color="#f2e8cf", label="needed by the load")
            for name, style in STYLES.items():
                replicas = [int(entry[name]) for entry in rows]
                axes.step(seconds, replicas, where="post", label=name, **style)
            axes.set_title(f"{shape}, {profile}")
            axes.set_ylim(0, 42)
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    for axes in grid[:, 0]:
        axes.set_ylabel("replicas")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(image, dpi=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
