"""Reads Prometheus text with the official parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def samples(text: str) -> dict[str, list[Sample]]:
    """Sample name -> its samples."""
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def total(text: str, name: str, **labels: str) -> float:
    """The sum over the samples of a name that carry these labels."""
    return sum(
        sample.value
        for sample in samples(text).get(name, [])
        if all(sample.labels.get(key) == value for key, value in labels.items())
    )
