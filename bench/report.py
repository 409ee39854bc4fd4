"""Medians, ratios and the bars that they have to hold."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from systems import SYSTEMS

#: measure → system → one number a round.
Results = Mapping[str, Mapping[str, list[float]]]


@dataclass(frozen=True)
class Bar:
    """What umbel's median has to be: at least (or at most) so many times another's, or a number of its own."""

    measure: str
    limit: float
    than: str = ""
    at_least: bool = True

    def holds(self, medians: Mapping[str, Mapping[str, float]]) -> tuple[float, bool] | None:
        """The ratio or number that was reached, and whether it is enough; None where nothing was measured."""
        row = medians.get(self.measure, {})
        if "umbel" not in row or (self.than and self.than not in row):
            return None
        reached = row["umbel"] / row[self.than] if self.than else row["umbel"]
        return reached, reached >= self.limit if self.at_least else reached <= self.limit


BARS = (
    Bar("drain_per_s", 4, "huey"),
    Bar("drain_per_s", 12, "celery"),
    Bar("results_per_s", 4, "huey"),
    Bar("enqueue_per_s", 2, "huey"),
    Bar("bulk_per_s", 100_000),
    Bar("latency_p50_ms", 0.7, "huey", at_least=False),
    Bar("latency_p99_ms", 5, at_least=False),
    Bar("idle_cpu_percent", 1, at_least=False),
    Bar("memory_mb", 50, at_least=False),
    Bar("first_task_s", 0.3, at_least=False),
    Bar("delayed_growth_mb", 20, at_least=False),
    Bar("calls_per_enqueue", 60, at_least=False),
    Bar("consumer_calls_per_task", 40, at_least=False),
)


def medians(results: Results) -> dict[str, dict[str, float]]:
    """The median of each measure of each system."""
    return {
        measure: {system: statistics.median(values) for system, values in row.items()}
        for measure, row in results.items()
    }


def table(results: Results) -> str:
    """Each measure as median (lowest to highest) of each system."""
    systems = [name for name in SYSTEMS if any(name in row for row in results.values())]
    lines = ["| measure | " + " | ".join(SYSTEMS[name].title for name in systems) + " |"]
    lines.append("|---" * (len(systems) + 1) + "|")
    for measure, row in results.items():
        cells = [cell(row[name]) if name in row else "–" for name in systems]
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    """Median, with the range where there were several rounds."""
    middle = figure(statistics.median(values))
    return middle if len(values) == 1 else f"**{middle}** ({figure(min(values))} to {figure(max(values))})"


def figure(value: float) -> str:
    """A number with as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdicts(results: Results) -> tuple[str, bool]:
    """One line for each bar, and whether all of them that were measured hold."""
    middle = medians(results)
    lines, good = [], True
    for bar in BARS:
        outcome = bar.holds(middle)
        if outcome is None:
            continue
        reached, enough = outcome
        good &= enough
        sign = "≥" if bar.at_least else "≤"
        than = f" × {SYSTEMS[bar.than].title}" if bar.than else ""
        word = "holds" if enough else "MISSED"
        lines.append(f"{word:>6}  {bar.measure}: {figure(reached)}{than} (bar {sign} {bar.limit:,g}{than})")
    return "\n".join(lines), good
