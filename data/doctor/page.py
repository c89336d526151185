"""The report as one HTML page that needs no other file."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.doctor.findings import SEVERITIES, Finding
from data.doctor.pictures import bars, examples, samples
from data.records import Dataset

MAX_LISTED = 20  # messages of a kind; report.json has all
MAX_CLASSES = 24  # as many as a picture has room for
HISTOGRAMS = {
    "sides_at_input": "object size at the network's input, px",
    "ratios_at_input": "height / width",
}


def by_kind(findings: Sequence[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """(severity, kind) -> its findings; errors first, then by kind."""
    groups = defaultdict(list)
    for finding in findings:
        groups[finding.severity, finding.kind].append(finding)
    return {
        key: groups[key] for key in sorted(groups, key=lambda key: (SEVERITIES.index(key[0]), key))
    }


def render(report: dict, findings: Sequence[Finding], datasets: Mapping[str, Dataset]) -> str:
    """The page. report: what report.json has; datasets: split -> what was read."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = [
        {
            "severity": severity,
            "kind": kind,
            "count": len(group),
            "stops": any(finding.stops for finding in group),
            "messages": [finding.message for finding in group[:MAX_LISTED]],
            "examples": examples(group, datasets),
        }
        for (severity, kind), group in by_kind(findings).items()
    ]
    return environment.get_template("page.html").render(
        report=report,
        groups=groups,
        samples={split: samples(dataset) for split, dataset in datasets.items()},
        histograms=_histograms(report["splits"]),
    )


def _histograms(splits: Mapping[str, dict]) -> list[str]:
    pictures = [
        bars(title, {split: figures[name] for split, figures in splits.items()})
        for name, title in HISTOGRAMS.items()
    ]
    per_image = {split: f["boxes_per_image"]["histogram"] for split, f in splits.items()}
    pictures.append(bars("objects an image", per_image))
    classes = {
        split: {row["name"]: row["objects"] for row in figures["classes"][:MAX_CLASSES]}
        for split, figures in splits.items()
    }
    shown = len(next(iter(classes.values())))
    total = len(next(iter(splits.values()))["classes"])
    title = "classes" if shown == total else f"the first {shown} of {total} classes"
    return [*pictures, bars(title, classes)]
