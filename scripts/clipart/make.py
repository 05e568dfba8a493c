"""Makes the packs of `datasets/data` from the packages they come from; README.md beside this file says how.

    make.py pictures OPENCLIPART WORK     drawings of the items and others as squares of 224 pixels, and thumbnails
    make.py pack WORK DATA                items, thumbnails and quantised features of `clipart`, features of `emoji`
    make.py words GLOVE WORK DATA         vectors of the words of both

Each step writes the same bytes from the same input. Python 3.11, numpy and Pillow of the versions in README.md.
"""

import io
import json
import multiprocessing
import re
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import items
import pictures

SIDE = 224
THUMBNAIL = 96
COLOURS = 64

# Cells a side of the grid, and values that a cell's vector is projected to.
GRID = 3
CELL = 192

# Pictures are near duplicates when their vectors' cosine is above `ALIKE`, or their thumbnails' root mean square difference is
# below `DIFFERENCE` times the root mean square ink of the fuller one.
ALIKE = 0.95
DIFFERENCE = 0.15


def draw(job):
    path, square, thumbnail = job
    picture = pictures.square(path, SIDE)
    if picture is None:
        return False
    picture.save(square)
    if thumbnail:
        small = pictures.square(path, THUMBNAIL)
        method, dither = Image.Quantize.MEDIANCUT, Image.Dither.NONE
        small.quantize(COLOURS, method=method, dither=dither).save(thumbnail, "PNG", optimize=True)
    return True


def make_pictures(openclipart, work):
    kept, others, dropped = items.items(openclipart)
    for folder in ("items", "thumbnails", "others"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    place = lambda folder, number: work / folder / f"{number:04}.png"
    jobs = [(item[1], place("items", n), place("thumbnails", n)) for n, item in enumerate(kept)]
    jobs += [(png, place("others", n), None) for n, png in enumerate(others)]
    with multiprocessing.Pool() as pool:
        seen = pool.map(draw, jobs, chunksize=32)
    # What is white on white leaves a hole in the numbers.
    listed = [
        {"number": n, "path": path, "class": kind, "author": author, "captions": captions}
        for n, (path, _, kind, author, captions) in enumerate(kept)
        if seen[n]
    ]
    dropped["nothing to see on white"] = len(kept) - len(listed)
    (work / "items.json").write_text(json.dumps(listed, indent=1, ensure_ascii=False))
    print(f"{len(listed)} items, {len(others)} others; dropped: {dict(dropped)}")


def encoded(work, folder):
    """What the encoder wrote of the pictures of a folder, in the order of their names: vectors `[pictures, 1280]` and the last
    map, `[pictures, 7, 7, 1280]`."""
    values = np.fromfile(work / f"{folder}.f32", "<f4")
    pictures = len(list((work / folder).glob("*.png")))
    if len(values) != pictures * 50 * 1280:
        raise SystemExit(f"{folder}.f32: expected 50 x 1280 values for each of {pictures} pictures; encode them again")
    values = values.reshape(pictures, 50, 1280)
    return values[:, 0], values[:, 1:].reshape(pictures, 7, 7, 1280)


def cells(maps):
    """Means over a grid of overlapping windows, `[pictures, GRID * GRID, 1280]`."""
    spans = [(i * 7 // GRID, -(-(i + 1) * 7 // GRID)) for i in range(GRID)]
    return np.stack([maps[:, a:b, c:d].mean((1, 2)) for a, b in spans for c, d in spans], 1)


def directions(sample):
    """Mean and the `CELL` directions in which the rows of `sample` vary most; of each the largest entry is positive."""
    rows = sample.reshape(-1, sample.shape[-1]).astype(np.float64)
    mean = rows.mean(0)
    _, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean))
    vectors = vectors[:, ::-1][:, :CELL]
    largest = np.abs(vectors).argmax(0)
    return mean, vectors * np.sign(vectors[largest, np.arange(CELL)])


def quantised(table):
    """`[items, fragments, width]` as one byte a value: `low + step * byte`, a step and a low a column.

    Little-endian: `XMQ1`, items, fragments, width as u32, then `low` and `step` as f32, then the bytes.
    """
    count, fragments, width = table.shape
    low, high = table.min((0, 1)), table.max((0, 1))
    step = ((high - low) / 255).astype(np.float32)
    low = low.astype(np.float32)
    scale = np.where(step > 0, step, 1).astype(np.float64)
    levels = np.clip(np.rint((table.astype(np.float64) - low) / scale), 0, 255).astype(np.uint8)
    head = b"XMQ1" + struct.pack("<3I", count, fragments, width)
    return head + low.tobytes() + step.tobytes() + levels.tobytes()


def series(listed, vectors, thumbnails):
    """A number for each item, the same for those that have a caption in common or look alike."""
    leader = list(range(len(listed)))

    def find(item):
        while leader[item] != item:
            leader[item] = leader[leader[item]]
            item = leader[item]
        return item

    def join(a, b):
        a, b = find(a), find(b)
        leader[max(a, b)] = min(a, b)

    first = {}
    for number, item in enumerate(listed):
        for caption in item["captions"]:
            join(number, first.setdefault(caption, number))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ink = (255 - thumbnails.reshape(len(listed), -1).astype(np.float32)) / 255
    square = (ink * ink).sum(1)
    for a in range(1, len(listed)):
        alike = unit[:a] @ unit[a] > ALIKE
        far = square[:a] + square[a] - 2 * (ink[:a] @ ink[a])
        alike |= far < DIFFERENCE**2 * np.maximum(square[:a], square[a])
        for b in np.flatnonzero(alike):
            join(a, int(b))
    leaders = [find(number) for number in range(len(listed))]
    names = {lead: place for place, lead in enumerate(sorted(set(leaders)))}
    return [names[lead] for lead in leaders]


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{path.name}: {len(data)} bytes")


def make_pack(work, data):
    listed = json.loads((work / "items.json").read_text())
    small = [(work / "thumbnails" / f"{item['number']:04}.png").read_bytes() for item in listed]
    vectors, maps = encoded(work, "items")
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in small])
    numbers = series(listed, vectors, pixels)
    lines = ["path\tclass\tseries\tauthor\tcaptions"]
    for item, number in zip(listed, numbers):
        fields = [item["path"], item["class"], str(number), item["author"], *item["captions"]]
        assert not any("\t" in field or "\n" in field for field in fields)
        lines.append("\t".join(fields))
    write(data / "clipart/items.tsv", ("\n".join(lines) + "\n").encode())
    ends = np.cumsum([len(png) for png in small]).astype("<u4")
    write(data / "clipart/thumbnails.bin", ends.tobytes() + b"".join(small))
    mean, basis = directions(cells(encoded(work, "others")[1]))
    project = lambda maps: ((cells(maps).astype(np.float64) - mean) @ basis).astype(np.float32)
    write(data / "clipart/global.bin", quantised(vectors[:, None]))
    write(data / "clipart/cells.bin", quantised(project(maps)))
    emoji_vectors, emoji_maps = encoded(work, "emoji")
    write(data / "emoji/ids.txt", (work / "emoji/ids.txt").read_bytes())
    write(data / "emoji/global.bin", quantised(emoji_vectors[:, None]))
    write(data / "emoji/cells.bin", quantised(project(emoji_maps)))


def make_words(glove, work, data):
    """Vectors of the words that stand in `WORK/*/words.txt`, from the npm package's JSON, as f16 behind the list of words."""
    wanted = set()
    for path in work.glob("*/words.txt"):
        wanted |= set(path.read_text().split())
    text = Path(glove).read_text()
    found = {}
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)":\[([-\d.,e]+)\]', text):
        word = json.loads(f'"{match[1]}"')
        if word in wanted and word not in found:
            # 100 values; behind them stand the vector's norm and the word's number.
            found[word] = [float(value) for value in match[2].split(",")[:100]]
    words = sorted(found)
    table = np.array([found[word] for word in words]).astype("<f2")
    write(data / "words/glove.txt", ("\n".join(words) + "\n").encode())
    write(data / "words/glove.bin", table.tobytes())
    print(f"{len(words)} of {len(wanted)} words have a vector")


STEPS = {"pictures": (make_pictures, 2), "pack": (make_pack, 2), "words": (make_words, 3)}

if __name__ == "__main__":
    step, given = STEPS.get(sys.argv[1] if len(sys.argv) > 1 else "", (None, 0))
    if step is None or len(sys.argv) != 2 + given:
        raise SystemExit(__doc__)
    step(*(Path(argument) for argument in sys.argv[2:]))
