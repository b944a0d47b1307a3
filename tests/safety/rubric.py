"""The 31 traits of the C2PA Conformance Program's asset rubric 0.2 for specification 2.4, restated.

Each takes a parsed crJSON report and returns what breaks it; an empty list means that the trait holds.
"""

from collections.abc import Callable
from typing import Any

Report = dict[str, Any]
Trait = Callable[[Report], list[Any]]

INCEPTION = {"c2pa.created", "c2pa.opened"}
NOT_EDITORIAL = {
    *("c2pa.converted", "c2pa.published", "c2pa.repackaged", "c2pa.transcoded", "c2pa.resized.proportional"),
    *("c2pa.enhanced", "c2pa.edited.metadata", "c2pa.watermarked", "c2pa.watermarked.bound"),
    *("c2pa.watermarked.unbound", "c2pa.redacted"),
}
ACTIONS = (
    NOT_EDITORIAL
    | INCEPTION
    | {
        *("c2pa.addedText", "c2pa.adjustedColor", "c2pa.changedSpeed", "c2pa.color_adjustments", "c2pa.cropped"),
        *("c2pa.deleted", "c2pa.drawing", "c2pa.dubbed", "c2pa.edited", "c2pa.filtered", "c2pa.mastered", "c2pa.mixed"),
        *("c2pa.orientation", "c2pa.placed", "c2pa.remixed", "c2pa.removed", "c2pa.resized", "c2pa.translated"),
        *("c2pa.trimmed", "c2pa.unknown"),
    }
)
OLD_ACTIONS = {
    *("c2pa.copied", "c2pa.formatted", "c2pa.version_updated", "c2pa.printed", "c2pa.managed", "c2pa.produced"),
    *("c2pa.saved", "c2pa.color_adjustments", "c2pa.watermarked"),
}
ASSERTIONS = {
    *("c2pa.hash.data", "c2pa.hash.data.part", "c2pa.actions.v2", "c2pa.ingredient.v3", "c2pa.hash.boxes"),
    *("c2pa.hash.bmff.v3", "c2pa.hash.collection.data", "c2pa.soft-binding", "c2pa.cloud-data", "c2pa.embedded-data"),
    *("c2pa.metadata", "c2pa.certificate-status", "c2pa.asset-ref", "c2pa.asset-type.v2", "c2pa.hash.multi-asset"),
    *("c2pa.thumbnail.claim", "c2pa.thumbnail.ingredient", "c2pa.icon", "c2pa.external-reference", "c2pa.time-stamp"),
    *("c2pa.ai-disclosure", "c2pa.assertion.metadata"),
}
OLD_ASSERTIONS = {
    *("c2pa.claim", "c2pa.hash.bmff.v2", "c2pa.asset-type", "c2pa.ingredient", "c2pa.ingredient.v2", "c2pa.actions"),
}
STANDARD_PARAMETERS = {
    *("redacted", "ingredients", "ingredient", "description", "relatedAssertions", "sourceLanguage"),
    *("targetLanguage", "multipleInstances", "ranges", "weight", "width", "italic", "slant", "optical-size"),
}
MALFORMED = (".malformed", ".invalid", ".missing", ".multiple", "multipleHardBindings", "unknownBox", ".inaccessible")
MISMATCHED = ("ismatch", "hardBinding.redacted", "claimSignature.missing")


def active(report: Report) -> Report:
    first: Report = report["manifests"][0]
    return first


def assertions(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = active(report).get("assertions", {})
    return found


def values(report: Report) -> list[Report]:
    return [value for value in assertions(report).values() if isinstance(value, dict)]


def actions(report: Report) -> list[Report]:
    return [action for value in values(report) for action in value.get("actions", [])]


def ingredients(report: Report) -> list[Report]:
    return [value for value in values(report) if "relationship" in value]


def parameters(report: Report) -> list[Report]:
    return [action["parameters"] for action in actions(report) if "parameters" in action]


def claim(report: Report) -> Report:
    found: Report = active(report)["claim.v2"]
    return found


def generator(report: Report) -> Report:
    info = claim(report)["claim_generator_info"]
    found: Report = info[0] if isinstance(info, list) else info
    return found


def failures(report: Report) -> list[str]:
    return [failure["code"] for failure in active(report)["validationResults"].get("failure", [])]


def _position(report: Report) -> list[Any]:
    listed = [entry["url"] for entry in claim(report)["created_assertions"] if "c2pa.actions" in entry["url"]]
    first = [action["action"] for action in actions(report)][:1]
    return (
        []
        if listed and listed[0].endswith("c2pa.actions.v2") and set(first) <= INCEPTION and first
        else [listed, first]
    )


def _is_ours(name: str) -> bool:
    return name.startswith("c2pa.")


TRAITS: dict[str, Trait] = {
    "source type of perceptible changes": lambda r: [
        a["action"]
        for a in actions(r)
        if _is_ours(a["action"])
        and a["action"] not in INCEPTION | NOT_EDITORIAL | {"c2pa.placed"}
        and "digitalSourceType" not in a
    ],
    "specification version": lambda r: [] if generator(r).get("specVersion", "").startswith("2.4") else [generator(r)],
    "all actions included is said": lambda r: [
        v for v in values(r) if "actions" in v and v.get("allActionsIncluded") is None
    ],
    "opened has no source type": lambda r: [
        a for a in actions(r) if a["action"] == "c2pa.opened" and "digitalSourceType" in a
    ],
    "validation results, structure": lambda r: [] if "validationResults" in active(r) else ["missing"],
    "no structural failures": lambda r: [code for code in failures(r) if any(part in code for part in MALFORMED)],
    "validation results, integrity": lambda r: [] if active(r).get("validationResults") else ["missing"],
    "no mismatches": lambda r: [code for code in failures(r) if any(part in code for part in MISMATCHED)],
    "inception comes first": _position,
    "no deprecated assertions": lambda r: [k for k in assertions(r) if k.startswith("stds.") or k in OLD_ASSERTIONS],
    "only known assertions": lambda r: [
        k for k in assertions(r) if _is_ours(k) and k.split("__")[0] not in ASSERTIONS | OLD_ASSERTIONS
    ],
    "no deprecated actions": lambda r: [a["action"] for a in actions(r) if a["action"] in OLD_ACTIONS],
    "only known actions": lambda r: [
        a["action"] for a in actions(r) if _is_ours(a["action"]) and a["action"] not in ACTIONS
    ],
    "custom assertions have a namespace": lambda r: [k for k in assertions(r) if "." not in k],
    "custom actions have a namespace": lambda r: [a["action"] for a in actions(r) if "." not in a["action"]],
    "custom parameters have a namespace": lambda r: [
        k for p in parameters(r) for k in p if k not in STANDARD_PARAMETERS and "." not in k
    ],
    "no legacy parameters": lambda r: [p for p in parameters(r) if "description" in p or "ingredient" in p],
    "manifest URN": lambda r: [] if active(r)["label"].startswith("urn:c2pa:") else [active(r)["label"]],
    "no ratings by human entry": lambda r: [
        v
        for v in values(r)
        if "reviewRatings" in v and str(v.get("dataSource", {}).get("type", "")).startswith("humanEntry")
    ],
    "ingredient without manifest has no results": lambda r: [
        i for i in ingredients(r) if "activeManifest" not in i and "validationResults" in i
    ],
    "ingredient with manifest has results": lambda r: [
        i for i in ingredients(r) if "activeManifest" in i and "validationResults" not in i
    ],
    "relationships": lambda r: [
        i for i in ingredients(r) if i["relationship"] not in ("parentOf", "inputTo", "componentOf")
    ],
    "created has a source type": lambda r: [
        a for a in actions(r) if a["action"] == "c2pa.created" and "digitalSourceType" not in a
    ],
    "no deprecated claim fields": lambda r: ["specVersion"] if "specVersion" in claim(r) else [],
    "ingredient: manifest or source type": lambda r: [
        i for i in ingredients(r) if "activeManifest" in i and "digitalSourceType" in i
    ],
    "alternative representation: one of two": lambda r: [
        v
        for v in values(r)
        if "exif.originalPreservationImage" in (v.get("type"), v.get("parameters", {}).get("type"))
        and ("multiAssetPartIndex" in v.get("parameters", {}))
        == ("embeddedOriginalPreservationImage" in v.get("parameters", {}))
    ],
    "external references point to what they may": lambda r: [
        v["label"]
        for v in values(r)
        if {"label", "url"} <= set(v)
        and "relationship" not in v
        and v["label"].startswith(("c2pa.actions", "c2pa.cloud-data", "c2pa.external", "c2pa.hash", "c2pa.ingredient"))
    ],
    "hashes have no url": lambda r: [
        k for k in ("c2pa.hash.data", "c2pa.hash.bmff.v3") if "url" in assertions(r).get(k, {})
    ],
    "opened alone includes all actions": lambda r: [
        v
        for v in values(r)
        if [a["action"] for a in v.get("actions", [])] == ["c2pa.opened"] and v.get("allActionsIncluded") is not True
    ],
    "opened names one ingredient": lambda r: [
        a
        for a in actions(r)
        if a["action"] == "c2pa.opened" and len(a.get("parameters", {}).get("ingredients", [])) != 1
    ],
    "no box hash in TIFF": lambda r: [
        k
        for k in ("c2pa.hash.boxes",)
        if k in assertions(r) and assertions(r).get("c2pa.asset-type.v2", {}).get("dc:format") == "image/tiff"
    ],
}
