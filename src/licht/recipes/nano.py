"""The built-in family, from nothing: autoencoder, then the flow model with its text tower."""

from licht.training.config import (
    DataConfig,
    DistilConfig,
    FlowLoss,
    JudgeConfig,
    Networks,
    OptimConfig,
    PolishConfig,
    Recipe,
    Source,
    Stream,
    Task,
)

SMALL = Networks()
FAMILY = Networks(hidden_size=320, heads=5, depth=2, depth_single=4)
"""Rather wide than deep: half of 256 channels would be taken by the noise of a token's 128."""
PICTURES = (
    *("one", "two", "relation", "row", "layout", "one", "two", "character"),
    *("hex", "pattern", "studio", "negation", "two", "layout", "relation", "many"),
)
WORDS = ("word", "word", "two_lines")
EDITS = ("recolor", "restyle", "resize", "move", "add", "remove", "replace", "relight", "floor", "text", "camera")
PATTERNS = ("pattern", "pattern", "one", "character")
HARD_EDITS = ("recolor", "remove", "text", "restyle", "replace")
MOVES = ("move", "resize", "remove", "recolor", "replace")
ONE_REFERENCE = ("subject", "subject", "subject", "palette", "lettering", "depth", "edges")
MORE_OF_ONE = ("subject", "subject", "subject", "subject", "palette", "edges")
TWO_REFERENCES = ("subjects", "subjects", "floor", "lighting")
MORE_OF_TWO = ("subjects", "subjects", "subjects", "floor")


def nano_autoencoder() -> Recipe:
    """The autoencoder: 1 M parameters, 32 latent channels; half an hour on two CPU cores."""
    return Recipe(
        name="nano_autoencoder",
        task=Task.AUTOENCODER,
        hardware="two CPU cores",
        optim=OptimConfig(
            steps=5_000,
            batch=16,
            adamw_lr=2e-3,
            muon_lr=5e-3,
            betas=(0.9, 0.99),
            warmup_steps=200,
            decay_share=0.6,
            muon=False,
            muon_kernels=True,
        ),
        data=DataConfig(pictures=12_000, crop_px=64),
        networks=SMALL,
    )


STREAMS = (
    Stream("pictures", Source.PICTURE, PICTURES, rows=20_000, weight=0.34),
    Stream("patterns", Source.PICTURE, PATTERNS, rows=2_500, weight=0.06, skip=30_000),
    Stream("words", Source.PICTURE, WORDS, rows=4_000, weight=0.08),
    Stream("more_words", Source.PICTURE, WORDS, rows=4_000, weight=0.08, skip=8_000),
    Stream("hex", Source.PICTURE, ("hex",), rows=3_000, weight=0.06, skip=1_300),
    Stream("wide", Source.PICTURE, PICTURES, rows=800, weight=0.015, size_px=(160, 96)),
    Stream("tall", Source.PICTURE, PICTURES, rows=800, weight=0.015, size_px=(96, 160)),
    Stream("tiny", Source.PICTURE, PICTURES, rows=800, weight=0.015, size_px=(64, 64)),
    Stream("edits", Source.EDIT, EDITS, rows=5_000, weight=0.14, references=1, captions=3),
    Stream("more_edits", Source.EDIT, HARD_EDITS, rows=3_000, weight=0.08, references=1, captions=3, skip=4_000),
    Stream("moves", Source.EDIT, MOVES, rows=4_500, weight=0.12, references=1, captions=3, skip=10_000),
    Stream("one", Source.TASK, ONE_REFERENCE, rows=3_000, weight=0.07, references=1, captions=3),
    Stream("more_one", Source.TASK, MORE_OF_ONE, rows=6_000, weight=0.12, references=1, captions=3, skip=10_000),
    Stream("picked", Source.TASK, ("pick",), rows=1_500, weight=0.03, references=2, captions=3),
    Stream("two", Source.TASK, TWO_REFERENCES, rows=1_600, weight=0.04, references=2, captions=3),
    Stream("more_two", Source.TASK, MORE_OF_TWO, rows=1_600, weight=0.05, references=2, captions=3, skip=10_000),
    Stream("three", Source.TASK, ("subjects",), rows=600, weight=0.02, references=3, captions=3),
    Stream("four", Source.TASK, ("subjects",), rows=400, weight=0.015, references=4, captions=3),
    Stream("ten", Source.TASK, ("many",), 300, 0.01, references=8, reference_px=64, captions=3),
)
"""What the family is trained and distilled on; prepared once, for all of them."""


def nano_base() -> Recipe:
    """The undistilled flow model: text to image, edits and references in one stream; hours on two CPU cores."""
    return Recipe(
        name="nano_base",
        task=Task.FLOW,
        hardware="two CPU cores",
        optim=OptimConfig(steps=60_000, batch=64, adamw_lr=1.5e-3, muon_lr=3e-3, warmup_steps=200, ema=0.999),
        data=DataConfig(streams=STREAMS),
        networks=FAMILY,
        flow=FlowLoss(shift=2.2, text_step=8, full_length=0.12),
    )


def nano_dev() -> Recipe:
    """Guidance-distilled from the base: one pass a step, the scale is an input. Shares tower and autoencoder."""
    return Recipe(
        name="nano_dev",
        task=Task.GUIDANCE,
        hardware="two CPU cores",
        optim=OptimConfig(steps=3_000, batch=32, adamw_lr=1e-3, muon_lr=2.5e-3, warmup_steps=100, ema=0.995),
        data=DataConfig(streams=STREAMS),
        networks=FAMILY,
        flow=FlowLoss(shift=2.2, caption_dropout=0.0, text_step=8, full_length=0.12),
        start_from="runs/nano_base",
    )


def nano_klein() -> Recipe:
    """Step-distilled from the base: four steps without guidance, the default model. Shares tower and autoencoder."""
    return Recipe(
        name="nano_klein",
        task=Task.STEPS,
        hardware="two CPU cores",
        optim=OptimConfig(steps=3_000, batch=32, adamw_lr=1e-3, muon_lr=2.5e-3, warmup_steps=100, ema=0.995),
        data=DataConfig(streams=STREAMS),
        networks=FAMILY,
        flow=FlowLoss(caption_dropout=0.0, text_step=8, full_length=0.12),
        distil=DistilConfig(guidance=3.0, reference_guidance=1.8, steps=4, substeps=4, on_policy=0.5),
        start_from="runs/nano_base",
    )


def nano_critic() -> Recipe:
    """A recogniser of latents, by whose eyes `nano_polish` learns."""
    return Recipe(
        name="nano_critic",
        task=Task.CRITIC,
        hardware="two CPU cores",
        optim=OptimConfig(
            steps=1_500, batch=64, adamw_lr=1e-3, muon_lr=2e-3, warmup_steps=60, ema=0.99, muon_kernels=True
        ),
        data=DataConfig(streams=STREAMS),
        networks=FAMILY,
        start_from="nano",
    )


def nano_polish() -> Recipe:
    """The step-distilled model learns from true pictures, by the eyes of `nano_critic`."""
    return Recipe(
        name="nano_polish",
        task=Task.POLISH,
        hardware="two CPU cores",
        optim=OptimConfig(
            steps=1_200,
            batch=16,
            adamw_lr=1e-4,
            muon_lr=2e-4,
            betas=(0.5, 0.95),
            warmup_steps=40,
            decay_share=0.5,
            ema=0.995,
            critic_rate=5.0,
        ),
        data=DataConfig(streams=STREAMS),
        networks=FAMILY,
        flow=FlowLoss(caption_dropout=0.0, text_step=8, full_length=0.12),
        polish=PolishConfig(critic_from="runs/nano_critic"),
        start_from="nano",
    )


def nano_judge() -> Recipe:
    """The judge that measures the family: a recogniser of rendered pictures, on one CPU core."""
    return Recipe(
        name="nano_judge",
        task=Task.JUDGE,
        hardware="one CPU core",
        optim=OptimConfig(
            steps=6_000,
            batch=16,
            adamw_lr=2e-3,
            muon_lr=4e-3,
            warmup_steps=60,
            decay_share=0.7,
            ema=0.99,
            muon=False,
            muon_kernels=True,
        ),
        data=DataConfig(seed=9_000, pictures=12_000),
        judge=JudgeConfig(patterned=0.35),
        checkpoint_minutes=2.0,
        sample_minutes=60.0,
    )


def nano_smoke() -> Recipe:
    """Three minutes from a fresh clone: the whole way in small, with the autoencoder that is shipped."""
    return Recipe(
        name="nano_smoke",
        task=Task.FLOW,
        hardware="any",
        optim=OptimConfig(steps=400, batch=16, warmup_steps=20, ema=0.98),
        data=DataConfig(
            streams=(
                Stream("pictures", Source.PICTURE, ("one",), rows=512, weight=0.8, captions=2),
                Stream("edits", Source.EDIT, ("recolor",), rows=128, weight=0.2, references=1, captions=2),
            )
        ),
        networks=Networks(hidden_size=128, heads=4, depth=1, depth_single=2, tower_size=128, vocab_size=640),
        autoencoder_from="nano",
        checkpoint_minutes=1.0,
        sample_minutes=10.0,
    )
