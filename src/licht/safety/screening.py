"""The filters of the door, one after another: what is asked for, and the pictures that come in and go out.

A filter refuses by raising `Refused`. Every decision but an untouched pass is a row of the audit, and one row only: what
an early look lets pass is written down by the later one, which decides.
"""

from typing import Final

from licht.core.errors import Refused
from licht.core.request import ImageRequest, Picture
from licht.safety.image_filter import FilterFailed
from licht.safety.prompt_filter import Finding, screen
from licht.safety.prompt_rules import BRANDS, FIGURES
from licht.safety.tools import Decision, Tools

YES: Final = 0.5
"""The probability of yes from which on the language model's answer counts."""
QUESTION_LEVEL: Final = 2
"""The highest tolerance at which its yes refuses."""


def screen_request(request: ImageRequest, tools: Tools, tolerance: int, early: bool = False) -> None:
    """The prompt, then every picture that came with it. `early` leaves what is slow or needs torch for a later look."""
    _screen_prompt(request, tools, tolerance, early)
    if not early:
        _ask(request.prompt, None, tools, tolerance, "prompt")
    pictures = [(reference.picture, f"image {n}") for n, reference in enumerate(request.references, start=1)]
    if request.start is not None:
        pictures.append((request.start.picture, "the start picture"))
    for picture, name in pictures:
        screen_picture(picture, tools, tolerance, "input", name, early)
        if not early:
            _read_text(picture, tools, tolerance, name)
            _ask(request.prompt, picture, tools, tolerance, name)


def screen_picture(
    picture: Picture, tools: Tools, tolerance: int, stage: str, name: str = "the result", early: bool = False
) -> None:
    """Refuse a picture that is on a block-list or that the classifier names."""
    for block_list in tools.block_lists:
        match = block_list.match(picture)
        if match is not None:
            tools.audit(Decision(stage, "refused", f"block-list {block_list.name}", "known picture", match, tolerance))
            raise _moderated(stage, name, "known picture")
    judge = tools.image_filter
    if judge is None or (early and judge.needs_torch):
        return
    try:
        verdict = judge.judge(picture, tolerance)
    except FilterFailed as error:
        _failed(tools, tolerance, stage, name, f"image filter failed: {error}", error, early)
        return
    if verdict.refused:
        tools.audit(Decision(stage, "refused", f"classifier {verdict.label}", "image filter", verdict.score, tolerance))
        raise _moderated(stage, name, verdict.label)


def _screen_prompt(request: ImageRequest, tools: Tools, tolerance: int, early: bool) -> None:
    edits = bool(request.references or request.start)
    findings = (*screen(request.prompt, edits), *tools.terms.screen(request.prompt))
    reasons = _decided(findings, tools, tolerance, "prompt", request.prompt, early)
    if reasons:
        raise Refused(f"Request Moderated: {reasons}; ask for something else", field="prompt")


def _read_text(picture: Picture, tools: Tools, tolerance: int, name: str) -> None:
    """What is written in an input picture is read like a prompt: it is a way round the prompt filter."""
    if tools.reader is None:
        return
    try:
        text = tools.reader(picture)
    except FilterFailed as error:
        _failed(tools, tolerance, "input text", name, f"text reader failed: {error}", error)
        return
    findings = (*screen(text, edits=True), *tools.terms.screen(text))
    reasons = _decided(findings, tools, tolerance, "input text", text)
    if reasons:
        raise Refused(f"Request Moderated: {name}: text in it: {reasons}; use another picture", field="images")


def _ask(prompt: str, picture: Picture | None, tools: Tools, tolerance: int, name: str) -> None:
    """Put the question of public figures and protected works to a language model, where one is configured."""
    if tools.asker is None:
        return
    stage = "question" if picture is None else "input question"
    try:
        probability = tools.asker(prompt, picture)
    except FilterFailed as error:
        _failed(tools, tolerance, stage, name, f"question failed: {error}", error)
        return
    if probability is None or probability < YES:
        return
    refused = tolerance <= QUESTION_LEVEL
    category = f"{FIGURES}, {BRANDS}"
    asked = prompt if tools.trust.audit_prompts else None
    action = "refused" if refused else "let pass"
    tools.audit(Decision(stage, action, "yes/no question", category, probability, tolerance, asked))
    if refused and picture is None:
        raise Refused(f"Request Moderated: {category}; ask for something else", field="prompt")
    if refused:
        raise Refused(f"Request Moderated: {name}: {category}; use another picture", field="images")


def _decided(
    findings: tuple[Finding, ...], tools: Tools, tolerance: int, stage: str, text: str, early: bool = False
) -> str:
    """Write every finding down; the categories of those that refuse, or an empty text."""
    refused = any(finding.refused_at(tolerance) for finding in findings)
    if early and not refused:
        return ""
    said = text if tools.trust.audit_prompts else None
    for finding in findings:
        action = "refused" if finding.refused_at(tolerance) else "let pass"
        tools.audit(Decision(stage, action, finding.rule, finding.category, 1.0, tolerance, said))
    return ", ".join(dict.fromkeys(finding.category for finding in findings if finding.refused_at(tolerance)))


def _failed(
    tools: Tools, tolerance: int, stage: str, name: str, rule: str, error: Exception, early: bool = False
) -> None:
    """A filter without an answer refuses or lets pass, as set; either way it is written down."""
    action = "refused" if tools.trust.fail_closed else "let pass"
    if not early or tools.trust.fail_closed:
        tools.audit(Decision(stage, action, rule, "filter failure", 0.0, tolerance))
    if tools.trust.fail_closed:
        raise _moderated(stage, name, "the image filter failed" if "image" in rule else "a filter failed") from error


def _moderated(stage: str, name: str, reason: str) -> Refused:
    if stage == "output":
        return Refused(f"Content Moderated: {reason}; ask for something else")
    field = "prompt" if name == "prompt" else "images"
    return Refused(
        f"Request Moderated: {name}: {reason}; use another {'prompt' if field == 'prompt' else 'picture'}", field=field
    )
