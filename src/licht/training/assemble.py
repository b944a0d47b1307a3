"""From a recipe and a folder to a task that is ready to train: data prepared, networks built."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer

from licht.core.errors import InvalidSettings
from licht.model.autoencoder import Autoencoder
from licht.training.autoencoder import AutoencoderTask
from licht.training.build import autoencoder_config
from licht.training.carry import check_carried, open_start
from licht.training.checks import check
from licht.training.config import FlowLoss, Recipe, Source, Stream, Task
from licht.training.critic import CriticTask
from licht.training.distil import DistilTask
from licht.training.files import not_written
from licht.training.flow import FlowTask
from licht.training.folder import FolderRows, keep_settled_rows, rows_digest, settle_folder_streams
from licht.training.grounded import GroundedTask
from licht.training.loop import TrainingTask
from licht.training.pictures import PictureStore, WriteSheet
from licht.training.polish import PolishTask
from licht.training.preview import Preview, Sampling
from licht.training.rendered import RenderedRows, latents_of, mixed_captions, mixed_pictures
from licht.training.self_flow_task import SelfFlowTask
from licht.training.semantic import POSITION_PX, mixed_labels
from licht.training.state import newest_checkpoint
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder, save_tokenizer, train_tokenizer
from licht.training.trained import (
    autoencoder_folder,
    fill,
    fill_critic,
    latents_digest,
    named_folder,
    open_autoencoder,
    open_networks,
)
from licht.training.truth import TruthStore
from licht.training.workers import usable_cores

Progress = Callable[[str, int, int], None]
"""(what is being prepared, done, total); a total of 0 is news without a count."""

PROMPTS = (
    "a large shiny red sphere on a gray floor, light from the left",
    "a small matte blue cube on a teal floor, light from the right",
    "a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left",
    "a small shiny yellow cone to the right of a large matte green cylinder on a beige floor, light from the right",
    "a small shiny red cone, a small matte yellow cube and a small shiny blue cone in a row on a teal floor",
    "a large matte white torus on a lilac floor",
    'a large matte orange cube on a gray floor, the word "SUN" on top',
    'a small shiny purple sphere on a beige floor, the word "LICHT" on top',
)
"""What sheets during training show."""
_CHUNK = 64
_TOKENIZER_CAPTIONS = 20_000


def assemble(
    recipe: Recipe,
    run: Path,
    data: Path,
    device: torch.device,
    known: Mapping[str, Path],
    write_sheet: WriteSheet,
    on_progress: Progress,
) -> TrainingTask:
    """Prepare what is missing in `data` and build the task. Preparing goes on after an interruption.

    `known` are model folders that a recipe may name.
    Raises `InvalidSettings` for a recipe that means nothing or names an autoencoder that is not there.
    """
    check(recipe)
    _check_grounding(recipe)
    check_carried(recipe, known)
    if recipe.task is Task.POLISH:
        _named_for_polishing(recipe, known)
    if recipe.task is Task.AUTOENCODER:
        shown = {"shows": "every sort of picture", "seed": recipe.data.seed}
        store = PictureStore(data / "pictures.bin", recipe.data.pictures, (128, 128), shown)
        told = partial(on_progress, "pictures")
        store.fill(mixed_pictures(recipe.data.seed), _CHUNK, told, usable_cores())
        start = _start_autoencoder(recipe, known)
        return AutoencoderTask(recipe, store, device, write_sheet, _labels(recipe, data, on_progress), start)
    autoencoder = find_autoencoder(recipe, known)
    encoder = CaptionEncoder(find_tokenizer(recipe, run, known), recipe.networks.text_length)
    # the world is rendered by all cores, which encode what they render; a folder's pictures only wait to be encoded
    rendered = RenderedRows(autoencoder, encoder, "train", recipe.data.seed)
    placed = autoencoder if device.type == "cpu" else deepcopy(autoencoder).to(device)
    streams, given = settle_folder_streams(
        recipe.data.streams, recipe.data.broken, lambda line: on_progress(line, 0, 0), run
    )
    keep_settled_rows(run, streams)
    own = FolderRows(partial(latents_of, placed), encoder, given)
    source = {"tokenizer": encoder.digest, "autoencoder": latents_digest(autoencoder)}
    stores = []
    for stream in streams:
        folder = stream.source is Source.FOLDER
        drawn = {"seed": recipe.data.seed, "repeats": "apart"}
        made_of = {"pictures": rows_digest(given[stream.name])} if folder else drawn
        channels, length = 4 * recipe.networks.z_channels, recipe.networks.text_length
        store_of = StreamStore(data, stream, channels, length, {**source, **made_of})
        if folder:
            store_of.fill(own, _CHUNK, on_progress, usable_cores() if device.type == "cpu" else 1)
        else:
            store_of.fill(rendered, _CHUNK, on_progress, usable_cores())
        stores.append(store_of)
    if recipe.task is Task.FLOW:
        preview = Preview(placed, encoder, PROMPTS, write_sheet, Sampling())
        truths = _truths(streams, data, rendered, on_progress) if _wants_truth(recipe.flow) else {}
        flow = _flow(recipe, stores, (encoder, device, preview), truths)
        if recipe.start_from is not None:
            fill(flow.networks, open_start(recipe, known))
        return flow
    if recipe.task is Task.CRITIC:
        truths = _truths(streams, data, rendered, on_progress)
        return CriticTask(recipe, stores, encoder, device, lambda *_: {}, truths)
    sampling = Sampling() if recipe.task is Task.GUIDANCE else Sampling(recipe.distil.steps, None)
    preview = Preview(placed, encoder, PROMPTS, write_sheet, sampling)
    if recipe.task is Task.POLISH:
        truths = _truths(streams, data, rendered, on_progress)
        return _polishing(recipe, stores, (encoder, device, preview), truths, known)
    return _distillation(recipe, stores, encoder, device, preview, known)


def _start_autoencoder(recipe: Recipe, known: Mapping[str, Path]) -> Autoencoder | None:
    if recipe.start_from is None:
        return None
    start = open_autoencoder(named_folder(recipe.start_from, known))
    if start.config != autoencoder_config(recipe.networks):
        raise InvalidSettings(f"{recipe.start_from} has an autoencoder of other sizes than the recipe says")
    return start


def _check_grounding(recipe: Recipe) -> None:
    """Refuse what cannot be grounded before anything is prepared."""
    grounded = recipe.task is Task.FLOW and _wants_truth(recipe.flow)
    if grounded and recipe.flow.self_flow:
        raise InvalidSettings(
            "flow.self_flow has a loss of its own and goes with neither flow.grounded nor flow.objects; set one of them"
        )
    if not grounded and recipe.task not in {Task.CRITIC, Task.POLISH}:
        return
    advice = "set flow.grounded and flow.objects to 0" if grounded else "leave that stream out"
    for stream in recipe.data.streams:
        if stream.source is Source.FOLDER:
            raise InvalidSettings(f"nothing is known of what stands where in {stream.name}; {advice}")


def _wants_truth(loss: FlowLoss) -> bool:
    """Whether training asks what stands where."""
    return loss.grounded > 0 or loss.objects > 0


def _flow(
    recipe: Recipe,
    stores: Sequence[StreamStore],
    rest: tuple[CaptionEncoder, torch.device, Preview],
    truths: Mapping[str, TruthStore],
) -> FlowTask:
    if _wants_truth(recipe.flow):
        return GroundedTask(recipe, stores, *rest, truths)
    return (SelfFlowTask if recipe.flow.self_flow else FlowTask)(recipe, stores, *rest)


def _truths(
    streams: Sequence[Stream], data: Path, rendered: RenderedRows, on_progress: Progress
) -> dict[str, TruthStore]:
    found = {}
    for stream in streams:
        found[stream.name] = TruthStore(data / stream.name / "truth.bin", stream)
        found[stream.name].fill(rendered.scenes, _CHUNK, on_progress, usable_cores())
    return found


def _labels(recipe: Recipe, data: Path, on_progress: Progress) -> PictureStore | None:
    if not recipe.autoencoder.semantic:
        return None
    shown = {"shows": "labels of every sort of picture", "seed": recipe.data.seed}
    store = PictureStore(data / "labels.bin", recipe.data.pictures, (128 // POSITION_PX, 128 // POSITION_PX), shown)
    store.fill(mixed_labels(recipe.data.seed), _CHUNK, partial(on_progress, "labels"), usable_cores())
    return store


def _polishing(
    recipe: Recipe,
    stores: Sequence[StreamStore],
    rest: tuple[CaptionEncoder, torch.device, Preview],
    truths: Mapping[str, TruthStore],
    known: Mapping[str, Path],
) -> PolishTask:
    critic = _named_for_polishing(recipe, known)
    task = PolishTask(recipe, stores, *rest, truths)
    fill(task.networks, open_start(recipe, known))
    fill_critic(task.critic, critic)
    return task


def _named_for_polishing(recipe: Recipe, known: Mapping[str, Path]) -> Path:
    """The critic's run. Raises `InvalidSettings` where that or the model that is to be polished is missing."""
    if recipe.start_from is None:
        raise InvalidSettings(f"recipe {recipe.name} needs start_from: a step-distilled model", field="start_from")
    if recipe.polish.critic_from is None:
        raise InvalidSettings(
            f"recipe {recipe.name} needs polish.critic_from: the run of nano_critic", field="polish.critic_from"
        )
    critic = named_folder(recipe.polish.critic_from, known)
    newest_checkpoint(critic)
    return critic


def _distillation(
    recipe: Recipe,
    stores: Sequence[StreamStore],
    encoder: CaptionEncoder,
    device: torch.device,
    preview: Preview,
    known: Mapping[str, Path],
) -> DistilTask:
    start = open_start(recipe, known)
    teacher = start
    if recipe.teacher_from is not None:
        teacher = open_networks(named_folder(recipe.teacher_from, known), recipe.networks)
    # kept before the teacher is changed for the device
    tower = teacher.tower.state_dict()
    task = DistilTask(recipe, stores, encoder, device, preview, teacher)
    fill(task.networks, start)
    # it reads what the teacher's tower says, and is to be drawn with that tower
    task.networks.tower.load_state_dict(tower)
    return task


def find_autoencoder(recipe: Recipe, known: Mapping[str, Path]) -> Autoencoder:
    """The trained autoencoder that a recipe names: the `vae/` of a model folder, or the newest average of a run."""
    return open_autoencoder(autoencoder_folder(recipe, known))


def find_tokenizer(recipe: Recipe, run: Path, known: Mapping[str, Path]) -> Tokenizer:
    """The run's tokenizer: that of the networks it starts from, else trained on captions of the rendered world.

    Its folder appears when it is complete. Raises `InvalidSettings`, `OutputFailed`.
    """
    folder, partial = run / "tokenizer", run / ".tokenizer.part"
    if not (folder / "tokenizer.json").is_file():
        try:
            run.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            _make_tokenizer(recipe, partial, known)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        except OSError as error:
            raise not_written(folder, error) from error
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _make_tokenizer(recipe: Recipe, folder: Path, known: Mapping[str, Path]) -> None:
    if recipe.start_from is None:
        texts = mixed_captions(recipe.data.seed, _TOKENIZER_CAPTIONS)
        save_tokenizer(train_tokenizer(texts, recipe.networks.vocab_size), folder)
        return
    kept = named_folder(recipe.start_from, known) / "tokenizer"
    if not (kept / "tokenizer.json").is_file():
        raise InvalidSettings(f"{kept} has no tokenizer.json; start_from must name a run or a model folder")
    shutil.copytree(kept, folder)
