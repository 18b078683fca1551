"""Plot of the results: statuses per second without latency, and the share of the ideal rate with latency."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .report import NAMES, cpu_model, find_row
from .rivals import CEILING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .loops import Loop
    from .runner import Row
    from .scenarios import Scenario

_COLORS: dict[Loop, str] = {"asyncio": "#8fa3b8", "uvloop": "#1f5f99"}
_BAR_HEIGHT = 0.4
_INCHES_PER_CLIENT = 0.5
# Fixed, so that the same figures give the same file.
_SVG_SALT = "printos-async"


def _label(rival: str) -> str:
    return re.sub(r"[*`]", "", NAMES.get(rival, rival))


def _draw(axes: Axes, rows: Sequence[Row], scenario: Scenario) -> None:
    ideal = scenario.ideal_rate
    loops = list(dict.fromkeys(row.loop for row in rows))
    rivals = list(dict.fromkeys(row.rival for row in rows if row.scenario == scenario))
    for offset, loop in enumerate(loops):
        measured = [
            (place, row)
            for place, rival in enumerate(rivals)
            if (row := find_row(rows, scenario, loop, rival)) is not None
        ]
        bars = axes.barh(
            [place + offset * _BAR_HEIGHT for place, _ in measured],
            [row.rate / ideal * 100 if ideal else row.rate for _, row in measured],
            height=_BAR_HEIGHT,
            color=_COLORS[loop],
            label=loop,
        )
        axes.bar_label(bars, fmt="{:.0f} %" if ideal else "{:,.0f}", padding=3, fontsize=7)
    axes.set_yticks([place + (len(loops) - 1) * _BAR_HEIGHT / 2 for place in range(len(rivals))])
    axes.set_yticklabels([_label(rival) for rival in rivals])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(scenario.title, fontsize=10, loc="left")
    axes.set_xlabel(f"% of the ideal {ideal:,.0f} statuses/s" if ideal else "statuses/s", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the scenarios below each other into an SVG file that names the machine."""
    import matplotlib as mpl  # noqa: PLC0415 - only --write draws

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": _SVG_SALT, "svg.fonttype": "none"})  # text stays text
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after its back end is chosen

    # It is no client, and would set the scale.
    rows = [row for row in rows if not row.rival.startswith(CEILING)]
    scenarios = list(dict.fromkeys(row.scenario for row in rows))
    clients = [len({row.rival for row in rows if row.scenario == scenario}) for scenario in scenarios]
    figure, axes = plt.subplots(
        len(scenarios),
        figsize=(8, sum(clients) * _INCHES_PER_CLIENT + len(scenarios)),
        height_ratios=clients,
        layout="constrained",
        squeeze=False,
    )
    for one, scenario in zip(axes[:, 0], scenarios, strict=True):
        _draw(one, rows, scenario)
    # In the first plot, whose upper bars leave room. Below the last one it would be a screen away from the first.
    axes[0, 0].legend(title="event loop", loc="upper right", fontsize=9, title_fontsize=9)
    figure.suptitle(f"push_statuses and other clients, on one core of {cpu_model()}", fontsize=11)
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
