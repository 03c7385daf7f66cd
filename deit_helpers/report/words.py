"""What pages say alike: what a figure was measured on, and what must be said on each of them."""

from __future__ import annotations

from typing import Any

from ..ascend.cann import is_emulated
from ..files import read_json
from ..run.expected import for_dataset
from ..run.folder import Run
from .elements import Banner, Stack


def notes(run: Run) -> Stack:
    """What sets a run apart, a banner each, whichever batch size it is opened at; missing files say nothing."""
    sizes = {*run.spec.batch_sizes, *([run.batch_size] if run.batch_size else [])}
    contents = [read_json(run.at(size).file(name)) for size in sorted(sizes) for name in ("convert", "infer")]
    pretended = [content.get("emulated") or content.get("runtime", {}).get("emulated") for content in contents]
    quoted = {top1: where for content in contents for where, top1, _ in content.get("quoted_accuracy", [])}
    banners = []
    if run.spec.checkpoint == "demo":
        text = (
            "Digits, a seeded random backbone and a head fitted on other digits. These figures exercise the pipeline; "
            "they say nothing about DeiT on ImageNet."
        )
        banners.append(Banner("note", "This is the embedded demo.", text))
    if is_emulated(run.spec.backend) or any(pretended):  # here, or where a file was made
        text = "A program stood in for the device and its tools: rates are those of this computer, operator times made up."
        banners.append(Banner("fail", "Emulated device, no hardware measured.", text))
    if any(content.get("imported_from") for content in contents):
        text = "Another tool measured these figures elsewhere; nothing of this page was run again here."
        banners.append(Banner("inconclusive", "Imported figures.", text))
    if warning := for_dataset(run)[1]:
        banners.append(Banner("inconclusive", "The expected figures are of other images.", in_words(warning)))
    if warning := preprocessing(run):
        banners.append(Banner("inconclusive", "The preprocessing is not the model's.", in_words(warning)))
    if len(quoted) > 1:
        both = " and ".join(f"{top1:.2f} % ({where})" for top1, where in sorted(quoted.items()))
        text = f"Acc@1 is {both}: {max(quoted) - min(quoted):.2f} points apart, and neither can be traced to a cause."
        banners.append(Banner("inconclusive", "The imported accuracies disagree.", text))
    return Stack(banners)


def in_words(*sentences: str) -> str:
    """Sentences as a paragraph."""
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in sentences)


def disturbed(run: Run) -> str:
    """What speaks against the rates of 05 and 07 at the run's batch size, as their files say it; empty where nothing does."""
    reasons = ((step, read_json(run.file(name)).get("disturbed")) for step, name in (("05", "infer"), ("07", "perf")))
    return "; ".join(f"in {step}, {reason}" for step, reason in reasons if reason)


def trust(run: Run) -> Stack:
    """Amber where the rates are not to be trusted: at the run's batch size, or without one at each of its spec."""
    text = ". ".join(f"bs{at.size}: {why}" for at in run.at_each(run.batch_size is None) if (why := disturbed(at)))
    return Stack([Banner("inconclusive", "The throughput is not trustworthy.", f"{text}.")] if text else [])


def preprocessing(run: Run) -> str:
    """Where the recipe is not what the model's timm configuration asks for, with both values; else empty."""
    differences = run.spec.recipe.differences(read_json(run.file("export")).get("timm_config", {}))
    advice = f"`preprocess: model` takes what timm says of {run.spec.model}"
    return f"recipe {run.spec.recipe.name} has {'; '.join(differences)}; {advice}" if differences else ""


def runtime_text(runtime: dict[str, Any], streams: bool = True) -> str:
    """Which runtime and device a figure was measured on, as a backend describes itself.

    Without `streams`, not how many batches it works on at once: batch sizes differ in it, and a profile is of one.
    """
    at_once = f", {runtime['streams']} batches at once" if streams and runtime.get("streams", 1) > 1 else ""
    return f"{runtime['backend']} {runtime['version']} ({runtime['device']}, {runtime['precision']}{at_once})"


def in_flight_text(*records: dict[str, Any]) -> str:
    """What a latency includes besides the work on one batch, where several are sent at once."""
    several = sorted({number for record in records for number in record.get("in_flight") or [1]})
    return f", from sending one to its answer with {' or '.join(map(str, several))} in flight" if several > [1] else ""
