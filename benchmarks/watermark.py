"""The watermark under attack, and how often it is seen where it is not. The last line printed is JSON.

    .venv/bin/python benchmarks/watermark.py --pictures 200 --workers 2            # robustness
    .venv/bin/python benchmarks/watermark.py --pictures 200 --wrong-keys 500       # the null hypothesis, keys
    .venv/bin/python benchmarks/watermark.py --blind 2000 --size 256               # the null hypothesis, searches
    .venv/bin/python benchmarks/watermark.py --speed                               # time per megapixel, one core
    .venv/bin/python benchmarks/watermark.py --others 6                            # beside invisible-watermark
    .venv/bin/python benchmarks/watermark.py --small 8                             # 256 and 128 pixels
    .venv/bin/python benchmarks/watermark.py --regenerate 20                       # through the built-in model

`--keep FILE` writes down what is finished, so that a run that was interrupted goes on; `--minutes` ends a run in time.
`--others` needs the package invisible-watermark. `--plot FILE` draws the null distribution of --blind or --wrong-keys.

The pictures: photographs and textures that ship with scikit-image and matplotlib, in different cuts; pages of text;
rendered shapes and gradients; and what the built-in model draws, enlarged.
"""

import argparse
import io
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from licht.core.request import Picture
from licht.safety.watermark import DETECTED, Watermark
from licht.safety.watermark_pattern import PILOT, mark_layer
from licht.safety.watermark_spectrum import Pose, cell_values, colour_differences, luminance, spectrum

KEY = bytes(range(32))
PHOTOGRAPHS = (
    *("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "hubble_deep_field.jpg", "ihc.png"),
    *("moon.png", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg", "rocket.jpg"),
)
TEXTURES = ("brick.png", "grass.png", "gravel.png")
PAGES = ("page.png", "text.png")
SHARE = {"photograph": 0.55, "texture": 0.02, "page": 0.05, "rendered": 0.23, "model": 0.15}
"""Of all pictures. Full-frame texture is rare among pictures that people make, and the hardest; it is listed apart."""

Attack = Callable[[Image.Image], Image.Image]


def encoded(image: Image.Image, file_format: str, quality: int) -> Image.Image:
    """Through a lossy file and back."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Bicubic, both sides by `factor`."""
    size = round(image.width * factor), round(image.height * factor)
    return image.resize(size, Image.Resampling.BICUBIC)


def cropped(image: Image.Image, area: float) -> Image.Image:
    """A part of this share of the area, at a place that depends on the pixels alone."""
    side = math.sqrt(area)
    width, height = round(image.width * side), round(image.height * side)
    rng = np.random.default_rng(int(np.asarray(image, np.int64).sum()))
    left, top = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    """Independent normal noise on every channel."""
    values = np.asarray(image, float)
    values = values + np.random.default_rng(1).normal(0, sigma, values.shape)
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    """About the middle, corners black."""
    return image.rotate(degrees, Image.Resampling.BICUBIC)


ATTACKS: dict[str, Attack] = {
    "none": lambda image: image,
    "JPEG 90": lambda image: encoded(image, "JPEG", 90),
    "JPEG 75": lambda image: encoded(image, "JPEG", 75),
    "JPEG 50": lambda image: encoded(image, "JPEG", 50),
    "WebP 80": lambda image: encoded(image, "WEBP", 80),
    "WebP 50": lambda image: encoded(image, "WEBP", 50),
    "resize 0.5": lambda image: resized(image, 0.5),
    "resize 0.75": lambda image: resized(image, 0.75),
    "resize 1.5": lambda image: resized(image, 1.5),
    "resize 2": lambda image: resized(image, 2.0),
    "crop 50 %": lambda image: cropped(image, 0.50),
    "crop 25 %": lambda image: cropped(image, 0.25),
    "flip": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "rotate 1": lambda image: rotated(image, 1),
    "rotate -3": lambda image: rotated(image, -3),
    "noise 15": lambda image: noisy(image, 15),
    "brightness 1.3": lambda image: image.point(lambda value: value * 1.3),
    "contrast 0.7": lambda image: image.point(lambda value: (value - 128) * 0.7 + 128),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "social": lambda image: encoded(resized(image, 0.83), "JPEG", 70),
    "screenshot": lambda image: encoded(resized(cropped(image, 0.80), 0.7), "JPEG", 80),
}
MESSAGE_BITS = {"licht": 64, "dwtDct": 48, "rivaGan": 32}
"""What each mark holds; 48 are what the official code embeds."""


def cut(source: Image.Image, size: int, seed: int) -> Image.Image:
    """A square cut of `size` pixels from somewhere in `source`, between the whole width and two thirds of it."""
    rng = np.random.default_rng(seed)
    side = round(min(source.size) * rng.uniform(0.67, 1.0))
    left, top = int(rng.integers(0, source.width - side + 1)), int(rng.integers(0, source.height - side + 1))
    part = source.crop((left, top, left + side, top + side))
    return part.resize((size, size), Image.Resampling.LANCZOS)


def rendered(size: int, seed: int) -> Image.Image:
    """A gradient with smooth-edged shapes on it, drawn at twice the size."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 2 * size, 0 : 2 * size] / (2 * size)
    ends = rng.integers(0, 256, (3, 3))
    ground = ends[0] + (ends[1] - ends[0]) * x[..., None] * 0.6 + (ends[2] - ends[0]) * y[..., None] * 0.4
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 7))):
        a, b, w, h = (int(v) for v in rng.integers(0, size, 4))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((a, b, a + w + 20, b + h + 20), fill=colour)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def drawn_by_model(size: int, count: int) -> Iterator[Image.Image]:
    """What the built-in model draws, released as bare pixels and enlarged."""
    if not count:
        return
    import licht

    model = licht.load("nano", policy="off")
    colours, shapes = ("red", "blue", "green", "yellow", "white"), ("sphere", "cube", "cylinder", "cone")
    for seed in range(count):
        prompt = f"a large matte {colours[seed % 5]} {shapes[seed % 4]} on a gray floor, light from the left"
        image = model.generate(prompt, seed=seed, steps=8)[0].image.convert("RGB")
        yield image.resize((size, size), Image.Resampling.LANCZOS)


def source_files() -> dict[str, list[Path]]:
    """Kind -> files that ship in packages of the test environment."""
    import matplotlib as mpl
    import skimage

    shipped = Path(skimage.__file__).parent / "data"
    grace = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return {
        "photograph": [*(shipped / name for name in PHOTOGRAPHS), grace],
        "texture": [shipped / name for name in TEXTURES],
        "page": [shipped / name for name in PAGES],
    }


def pictures(count: int, size: int) -> Iterator[tuple[str, Image.Image]]:
    """(kind, picture), `count` of them."""
    numbers = {kind: round(share * count) for kind, share in SHARE.items()}
    numbers["photograph"] += count - sum(numbers.values())
    for kind, files in source_files().items():
        for number in range(numbers[kind]):
            yield kind, cut(Image.open(files[number % len(files)]).convert("RGB"), size, number)
    for number in range(numbers["rendered"]):
        yield "rendered", rendered(size, number)
    for image in drawn_by_model(size, numbers["model"]):
        yield "model", image


def base_pictures(count: int, size: int, kept: Path | None) -> list[tuple[str, Image.Image]]:
    """`pictures`, kept beside `kept`: making them takes longer than a good many searches."""
    stored = kept.with_suffix(f".{count}x{size}.npz") if kept else None
    if stored and stored.exists():
        with np.load(stored) as file:
            return [
                (str(kind), Image.fromarray(pixels)) for kind, pixels in zip(file["kinds"], file["pixels"], strict=True)
            ]
    made = list(pictures(count, size))
    if stored:
        np.savez(stored, kinds=[kind for kind, _ in made], pixels=np.stack([np.asarray(image) for _, image in made]))
    return made


def to_picture(image: Image.Image) -> Picture:
    """As the detector takes it."""
    return Picture(image.width, image.height, image.tobytes())


def to_image(picture: Picture) -> Image.Image:
    """As the attacks take it."""
    return Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)


def attacked(task: tuple[int, str, Image.Image, Sequence[str]]) -> list[Any]:
    """Mark one picture and attack it: its number, kind, PSNR, and for each attack (log10 p, payload exact)."""
    number, kind, image, names = task
    mark, payload = Watermark(KEY), int(np.random.default_rng(number).integers(2**63))
    marked = to_image(mark.embed(to_picture(image), payload, nonce=number * 4099 % 2**20))
    error = np.mean(np.square(np.asarray(image, float) - np.asarray(marked, float)))
    found = {}
    for name in names:
        detection = mark.detect(to_picture(ATTACKS[name](marked)))
        found[name] = math.log10(max(detection.p, 1e-300)), detection.payload == payload
    return [number, kind, 10 * math.log10(255**2 / error), found]


def kept_rows(kept: Path | None) -> list[list[Any]]:
    """What earlier runs have finished, one JSON list a line."""
    return [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []


def finish(
    job: Callable[[Any], Any], tasks: Sequence[Any], workers: int, kept: Path | None, minutes: float
) -> Iterator[Any]:
    """`job` of every task, written to `kept` as it is finished; no task is begun after `minutes`."""
    until = time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(workers) as pool:
        for start in range(0, len(tasks), 4 * workers):
            if time.monotonic() > until:
                print(f"{start} of {len(tasks)} finished in time; run it again to go on", flush=True)
                return
            for result in pool.map(job, tasks[start : start + 4 * workers]):
                if kept:
                    with kept.open("a") as file:
                        file.write(json.dumps(result) + "\n")
                yield result


def robustness(
    count: int, size: int, workers: int, kept: Path | None, minutes: float, names: Sequence[str]
) -> dict[str, object]:
    """The table of attacks. `kept` holds what is finished: a run that was interrupted, or had other attacks, goes on."""
    done: dict[int, tuple[str, float, dict[str, Any]]] = {}

    def add(rows: Iterable[list[Any]]) -> None:
        for number, kind, psnr, found in rows:
            done[number] = (kind, psnr, {**(done[number][2] if number in done else {}), **found})

    add(kept_rows(kept))
    tasks = []
    for number, (kind, image) in enumerate(base_pictures(count, size, kept)):
        missing = [name for name in names if number not in done or name not in done[number][2]]
        tasks += [(number, kind, image, missing)] if missing else []
    np.random.default_rng(0).shuffle(tasks)
    add(finish(attacked, tasks, workers, kept, minutes))
    complete = [row for row in done.values() if set(names) <= set(row[2])]
    return summary(complete, size, names)


def summary(
    results: list[tuple[str, float, dict[str, tuple[float, bool]]]], size: int, names: Sequence[str]
) -> dict[str, object]:
    """Shares of what was detected and read, attack by attack."""
    table = {}
    limit = math.log10(DETECTED)
    print(f"{'attack':<16}{'detected':>9}{'payload':>9}{'median log10 p':>16}{'worst':>8}   not detected")
    for name in names:
        rows = [(kind, *found[name]) for kind, _, found in results]
        missed = sorted(kind for kind, p, _ in rows if p >= limit)
        table[name] = {
            "detected": sum(p < limit for _, p, _ in rows) / len(rows),
            "payload": sum(exact for *_, exact in rows) / len(rows),
            "median_log10_p": round(statistics.median(p for _, p, _ in rows), 1),
            "missed": {kind: missed.count(kind) for kind in sorted(set(missed))},
        }
        row = table[name]
        worst = max(p for _, p, _ in rows)
        print(
            f"{name:<16}{row['detected']:>9.1%}{row['payload']:>9.1%}{row['median_log10_p']:>16}{worst:>8.1f}   {row['missed']}"
        )
    decibels = [psnr for _, psnr, _ in results]
    return {
        "pictures": len(results),
        "size_px": size,
        "kinds": {kind: sum(k == kind for k, *_ in results) for kind in SHARE},
        "psnr_db": {"min": round(min(decibels), 2), "median": round(statistics.median(decibels), 2)},
        "attacks": table,
    }


def wrong_keys(count: int, size: int, keys: int, kept: Path | None, drawn: Path | None) -> dict[str, object]:
    """p-values of single looks with keys that marked nothing, whitening shared: they must be uniform."""
    values = []
    for number, (_, image) in enumerate(base_pictures(count, size, kept)):
        picture = to_picture(image)
        white = spectrum(luminance(picture), colour_differences(picture))
        centre = np.array([(image.width - 1) / 2, (image.height - 1) / 2])
        cells, rows, columns = cell_values(white, Pose(1.0, 0.0, 0), centre)
        for trial in range(keys):
            rng = np.random.default_rng([number, trial])
            signs, slots = mark_layer(rng.bytes(32), int(rng.integers(2**20)), rows, columns)
            known = slots == PILOT
            z = float((cells * signs)[known].sum() / math.sqrt(np.square(cells[known]).sum()))
            values.append(0.5 * math.erfc(z / math.sqrt(2)))
    if drawn:
        plot(values, drawn, f"{len(values):,} wrong keys")
    return {"trials": len(values), **against_uniform(values)}


def searched(task: tuple[int, Image.Image]) -> list[Any]:
    """[number, p-value] of one full search with a key that marked nothing."""
    number, image = task
    return [number, Watermark(np.random.default_rng(number).bytes(32)).detect(to_picture(image)).p]


def blind(
    count: int, size: int, workers: int, kept: Path | None, minutes: float, drawn: Path | None
) -> dict[str, object]:
    """p-values of full searches."""
    base = base_pictures(min(count, 200), size, kept)
    done = dict(kept_rows(kept))
    tasks = [(number, base[number % len(base)][1]) for number in range(count) if number not in done]
    done.update(finish(searched, tasks, workers, kept, minutes))
    values = list(done.values())
    if drawn:
        plot(values, drawn, f"{len(values):,} full searches")
    return {"searches": len(values), "size_px": size, **against_uniform(values)}


def against_uniform(values: list[float]) -> dict[str, object]:
    """Counts below 10^-k beside the band that 99.9 % of uniform samples keep; a search may stay below it."""
    rows = {}
    for k in range(1, 9):
        expected = len(values) * 10.0**-k
        spread = 3.29 * math.sqrt(expected * (1 - 10.0**-k))
        seen = sum(value < 10.0**-k for value in values)
        rows[f"1e-{k}"] = {"seen": seen, "expected": expected, "upper": math.ceil(expected + spread + 3)}
        print(f"p < 1e-{k}: {seen} seen, {expected:g} expected")
    return {"smallest": min(values), "counts": rows}


def bits_of(method: str, count: int) -> Callable[[Image.Image], list[int]]:
    """Reads the bits of invisible-watermark."""
    from imwatermark import WatermarkDecoder

    decoder = WatermarkDecoder("bits", count)
    return lambda image: [int(bit) for bit in decoder.decode(np.asarray(image)[:, :, ::-1].copy(), method)]


def compared(task: tuple[int, Sequence[str], Sequence[str], int]) -> list[Any]:
    """[number, {mark: [PSNR, {attack: (share of bits right, all right)}]}] of one photograph, marked by each of `methods`."""
    number, methods, names, size = task
    files, rng = source_files()["photograph"], np.random.default_rng([7, number])
    image = cut(Image.open(files[number % len(files)]).convert("RGB"), size, number)
    found: dict[str, Any] = {}
    for method in methods:
        message = [int(bit) for bit in rng.integers(0, 2, MESSAGE_BITS[method])]
        marked, read = marked_by(method, image, message)
        error = np.mean(np.square(np.asarray(image, float) - np.asarray(marked, float)))
        right: dict[str, tuple[float, bool]] = {}
        for name in names:
            same = [a == b for a, b in zip(read(ATTACKS[name](marked)), message, strict=True)]
            right[name] = sum(same) / len(same), all(same)
        found[method] = [10 * math.log10(255**2 / error), right]
    return [number, found]


def marked_by(
    method: str, image: Image.Image, message: list[int]
) -> tuple[Image.Image, Callable[[Image.Image], list[int]]]:
    """`image` with `message` in it, and what reads it again."""
    if method == "licht":
        payload = int("".join(map(str, message)), 2)
        return to_image(Watermark(KEY).embed(to_picture(image), payload)), partial(_read_ours, len(message))
    from imwatermark import WatermarkEncoder

    if method == "rivaGan":
        WatermarkEncoder.loadModel()
    encoder = WatermarkEncoder()
    encoder.set_watermark("bits", message)
    made = np.clip(encoder.encode(np.asarray(image)[:, :, ::-1].copy(), method), 0, 255)
    return Image.fromarray(made.astype(np.uint8)[:, :, ::-1].copy()), bits_of(method, len(message))


def others(
    count: int, size: int, kept: Path | None, minutes: float, methods: Sequence[str], names: Sequence[str]
) -> dict[str, object]:
    """invisible-watermark beside ours, on the same pictures: bits right, whole messages right, PSNR."""
    done = kept_rows(kept)
    known = {row[0] for row in done if all(set(names) <= set(row[1].get(method, [0, ()])[1]) for method in methods)}
    tasks = [(number, methods, names, size) for number in range(count) if number not in known]
    done = [row for row in done if row[0] in known] + list(finish(compared, tasks, 1, kept, minutes))
    table: dict[str, object] = {}
    for name in names:
        rows = {method: [found[method][1][name] for _, found in done] for method in methods}
        line = {m: [round(statistics.mean(bits for bits, _ in r), 3), sum(e for _, e in r)] for m, r in rows.items()}
        table[name] = line
        print(f"{name:<16}" + "".join(f"{m:>10} {bits:.3f} {exact:>3}" for m, (bits, exact) in line.items()))
    return {
        "pictures": len(done),
        "size_px": size,
        "psnr_db": {m: round(statistics.mean(found[m][0] for _, found in done), 2) for m in methods},
        "bits_right_and_exact": table,
    }


def _read_ours(bits: int, image: Image.Image) -> list[int]:
    payload = Watermark(KEY).detect(to_picture(image)).payload
    return [(payload or 0) >> place & 1 for place in reversed(range(bits))] if payload is not None else [-1] * bits


def small(count: int) -> dict[str, object]:
    """Photographs of 256 and 128 pixels, as they are and after JPEG 75: found, and read."""
    files, mark, table = source_files()["photograph"], Watermark(KEY), {}
    for size in (256, 128):
        for name in ("none", "JPEG 75"):
            found = []
            for number in range(count):
                image = cut(Image.open(files[number % len(files)]).convert("RGB"), 512, number)
                image = image.resize((size, size), Image.Resampling.LANCZOS)
                marked = to_image(mark.embed(to_picture(image), number + 1, nonce=number))
                detection = mark.detect(to_picture(ATTACKS[name](marked)))
                found.append((detection.detected, detection.payload == number + 1))
            table[f"{size} px, {name}"] = {"detected": sum(d for d, _ in found), "payload": sum(e for _, e in found)}
    return {"pictures": count, "small": table}


def regenerate(count: int, size: int) -> dict[str, object]:
    """What is left after the built-in autoencoder, and after a pass of the built-in model over the picture."""
    import licht
    from licht.engine.stages import decode, encode_reference, join_references

    model = licht.load("nano", policy="off")
    mark, rows = Watermark(KEY), []
    for number, (kind, image) in enumerate(pictures(count, size)):
        marked = mark.embed(to_picture(image), number + 1, nonce=number)
        latents = encode_reference(model.engine.autoencoder, marked)
        grid = (latents.shape[2], latents.shape[3])
        passed = {"autoencoder": decode(model.engine.autoencoder, join_references([latents]).tokens_1RC, grid)}
        for strength in (0.1, 0.3):
            drawn = model.generate("a picture", start=to_image(marked), strength=strength, seed=1, steps=10)[0]
            passed[f"pass of strength {strength}"] = to_picture(drawn.image.convert("RGB"))
        for name, result in passed.items():
            error = np.mean(
                np.square(np.frombuffer(marked.rgb, np.uint8).astype(float) - np.frombuffer(result.rgb, np.uint8))
            )
            found = mark.detect(result)
            rows.append((name, 10 * math.log10(255**2 / error), found.detected, found.payload == number + 1))
            print(kind, *(round(v, 3) if isinstance(v, float) else v for v in rows[-1]), flush=True)
    table = {}
    for name in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == name]
        table[name] = {
            "psnr_db": round(statistics.median(row[1] for row in mine), 1),
            "detected": sum(row[2] for row in mine) / len(mine),
            "payload": sum(row[3] for row in mine) / len(mine),
        }
    return {"pictures": count, "size_px": size, "regenerated": table}


def plot(values: list[float], path: Path, title: str) -> None:
    """Seen against expected shares below each p, both logarithmic, with the 99.9 % band."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "licht"
    from matplotlib import pyplot as plt

    # every one of the smallest, and of the others as many as can be told apart
    ranks = np.unique(np.concatenate([np.arange(1, 301), np.geomspace(300, len(values), 600).astype(int)]))
    ranks = ranks[ranks <= len(values)]
    ordered, shares = np.maximum(np.sort(values), 1e-12)[ranks - 1], ranks / len(values)
    bound = np.logspace(-math.log10(len(values)) - 0.5, 0, 200)
    spread = 3.29 * np.sqrt(bound * (1 - bound) / len(values))
    figure, axes = plt.subplots(figsize=(5, 4))
    axes.fill_between(bound, np.maximum(bound - spread, 1e-9), bound + spread, color="0.88", label="99.9 % of uniform")
    axes.plot(bound, bound, color="0.6", linewidth=1)
    axes.step(ordered, shares, where="post", color="tab:blue", linewidth=1.2, label=title)
    axes.set(
        xscale="log", yscale="log", xlabel="p", ylabel="share of p-values below", xlim=(bound[0], 1), ylim=(bound[0], 1)
    )
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def speed(runs: int) -> dict[str, float]:
    """Medians of CPU time for one megapixel on one thread: embedding, finding a mark, and finding none."""
    image = cut(Image.open(source_files()["photograph"][0]).convert("RGB"), 1024, 0)
    mark, picture = Watermark(KEY), to_picture(image)
    marked = mark.embed(picture, 1)
    jobs: dict[str, Callable[[], object]] = {
        "embed_ms": partial(mark.embed, picture, 1),
        "detect_marked_ms": partial(mark.detect, marked),
        "detect_unmarked_ms": partial(mark.detect, picture),
    }
    measured = {}
    for name, job in jobs.items():
        times = []
        for _ in range(runs):
            start = time.process_time()
            job()
            times.append(time.process_time() - start)
        measured[name] = round(statistics.median(times) * 1000, 1)
    return measured


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a file that lets an interrupted run go on")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing new after this time")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="NAME")
    parser.add_argument("--wrong-keys", type=int, help="keys a picture")
    parser.add_argument("--blind", type=int, help="full searches")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--others", type=int, help="pictures")
    parser.add_argument("--marks", nargs="+", choices=MESSAGE_BITS, default=list(MESSAGE_BITS), help="for --others")
    parser.add_argument("--regenerate", type=int, help="pictures")
    parser.add_argument("--small", type=int, help="pictures")
    parser.add_argument("--plot", type=Path, help="an SVG of the null distribution")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.speed:
        result: dict[str, object] = {**speed(11)}
    elif options.others:
        result = others(options.others, options.size, options.keep, options.minutes, options.marks, options.attacks)
    elif options.small:
        result = small(options.small)
    elif options.regenerate:
        result = regenerate(options.regenerate, options.size)
    elif options.blind:
        result = blind(options.blind, options.size, options.workers, options.keep, options.minutes, options.plot)
    elif options.wrong_keys:
        result = wrong_keys(options.pictures, options.size, options.wrong_keys, options.keep, options.plot)
    else:
        result = robustness(
            options.pictures, options.size, options.workers, options.keep, options.minutes, options.attacks
        )
    print(json.dumps({"benchmark": "watermark", **result}))


if __name__ == "__main__":
    main()
