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
    """What a system's median has to be: at least (or at most) so many times the best of others', or just a number."""

    measure: str
    limit: float
    than: tuple[str, ...] = ()
    at_least: bool = True
    of: str = "umbel"
    #: The measure of the others that it is compared with, if not the same.
    versus: str = ""

    def holds(self, medians: Mapping[str, Mapping[str, float]]) -> tuple[float, bool, str] | None:
        """The ratio or number reached, whether it is enough, the best other; None where not all was measured."""
        own, row = medians.get(self.measure, {}), medians.get(self.versus or self.measure, {})
        if self.of not in own or any(name not in row for name in self.than):
            return None
        reached, best = own[self.of], ""
        if self.than:
            best = (max if self.at_least else min)(self.than, key=row.__getitem__)
            reached /= row[best]
        return reached, reached >= self.limit if self.at_least else reached <= self.limit, best


_SQLITE = (
    Bar("drain_per_s", 4, ("huey",)),
    Bar("drain_per_s", 12, ("celery",)),
    Bar("results_per_s", 4, ("huey",)),
    Bar("enqueue_per_s", 2, ("huey",)),
    Bar("bulk_per_s", 100_000),
    Bar("latency_p50_ms", 0.7, ("huey",), at_least=False),
    Bar("latency_p99_ms", 5, at_least=False),
    Bar("idle_cpu_percent", 1, at_least=False),
    Bar("memory_mb", 50, at_least=False),
    Bar("first_task_s", 0.3, at_least=False),
    Bar("delayed_growth_mb", 20, at_least=False),
    Bar("calls_per_enqueue", 60, at_least=False),
    Bar("consumer_calls_per_task", 40, at_least=False),
)

_RIVALS = ("dramatiq", "huey-redis")
_REDIS = (
    Bar("drain_per_s", 30, ("celery",), of="umbel-redis"),
    Bar("drain_per_s", 4, _RIVALS, of="umbel-redis"),
    Bar("results_per_s", 25, ("celery",), of="umbel-redis"),
    Bar("results_per_s", 5, _RIVALS, of="umbel-redis"),
    Bar("enqueue_of_bare", 0.8, of="umbel-redis"),
    Bar("bulk_per_s", 100_000, of="umbel-redis"),
    Bar("latency_p50_ms", 0.35, ("celery",), at_least=False, of="umbel-redis"),
    Bar("latency_p50_ms", 1, _RIVALS, at_least=False, of="umbel-redis"),
    Bar("late_p50_ms", 50, at_least=False, of="umbel-redis"),
    Bar("late_p99_ms", 250, at_least=False, of="umbel-redis"),
    # Executors that warm up and pages that are shared no more; what a waiting task takes would be more than ten.
    Bar("countdown_growth_mb", 3, at_least=False, of="umbel-redis"),
    Bar("large_per_s", 3, ("celery",), of="umbel-redis"),
    Bar("large_per_s", 1.3, ("huey-redis",), of="umbel-redis"),
    Bar("chord_1000_ms", 1 / 30, ("celery",), at_least=False, of="umbel-redis"),
    Bar("chord_1000_ms", 1 / 3, _RIVALS, at_least=False, of="umbel-redis"),
    Bar("chain_100_ms", 1 / 8, ("celery",), at_least=False, of="umbel-redis"),
    Bar("group_per_s", 60_000, of="umbel-redis"),
    # A hundred thousand ids are kept for the result; the messages must not be.
    Bar("group_growth_mb", 25, at_least=False, of="umbel-redis"),
    Bar("workflow_of_plain", 2, at_least=False, of="umbel-redis"),
)

_RABBITMQ = (
    Bar("drain_per_s", 1.3, ("dramatiq-rabbitmq", "dramatiq-1-rabbitmq"), of="umbel-rabbitmq"),
    # A loop in one thread waits for the broker's confirm of every message, whoever sends it: nobody is four times
    # faster than anybody there. What confirms that are not waited for one by one are worth shows in bulk.
    Bar("bulk_per_s", 4, ("celery-rabbitmq",), of="umbel-rabbitmq", versus="enqueue_per_s"),
    Bar("enqueue_per_s", 1, ("celery-rabbitmq",), of="umbel-rabbitmq"),
    Bar("enqueue_of_bare", 0.8, of="umbel-rabbitmq"),
    Bar("threads_per_s", 1, ("celery-rabbitmq",), of="umbel-rabbitmq"),
    Bar("latency_p50_ms", 0.5, ("celery-rabbitmq",), at_least=False, of="umbel-rabbitmq"),
)

BARS = (*_SQLITE, *_REDIS, *_RABBITMQ)


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
        reached, enough, best = outcome
        good &= enough
        sign = "≥" if bar.at_least else "≤"
        than = f" × {bar.versus}{' of ' if bar.versus else ''}{SYSTEMS[best].title}" if best else ""
        word = "ok" if enough else "below"
        lines.append(f"{word:>6}  {bar.of}: {bar.measure} {figure(reached)}{than} (bar {sign} {figure(bar.limit)})")
    return "\n".join(lines), good
