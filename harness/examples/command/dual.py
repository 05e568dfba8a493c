"""Two linear maps into one space, trained by the symmetric softmax over a batch: a program for xmbench's method `command`.

Reads NumPy arrays and JSON lines, writes NumPy arrays; the contract is at the head of methods/src/external/command.rs.
"""

import json
import os
import pathlib

import numpy as np
import torch

env = os.environ
inputs, model = pathlib.Path(env["XMBENCH_IN"]), pathlib.Path(env["XMBENCH_MODEL"])
options = dict(part.split("=") for part in env["XMBENCH_OPTIONS"].split())
width, epochs, batch = (int(options.get(key, default)) for key, default in [("width", 64), ("epochs", 20), ("batch", 32)])


def images(folder):
    """One vector an image: the mean of its regions, where there is no other."""
    if (folder / "images.npy").exists():
        return torch.from_numpy(np.load(folder / "images.npy"))
    return torch.from_numpy(np.load(folder / "fragments.npy").mean(axis=1))


def texts(folder, words):
    """One vector a text: how often it has each of the words of training."""
    lines = [json.loads(line)["tokens"] for line in open(folder / "texts.jsonl")]
    counts = torch.zeros(len(lines), words)
    for row, tokens in enumerate(lines):
        for token in tokens:
            if token < words:
                counts[row, token] += 1
    return torch.nn.functional.normalize(counts)


def fit():
    torch.manual_seed(int(env["XMBENCH_SEED"]))
    folder = inputs / "train"
    words = 1 + max(max(json.loads(line)["tokens"]) for line in open(folder / "texts.jsonl"))
    x, y = images(folder), texts(folder, words)
    pairs = torch.from_numpy(np.loadtxt(folder / "pairs.csv", delimiter=",", skiprows=1, dtype=np.int64))
    maps = torch.nn.ModuleList([torch.nn.Linear(x.shape[1], width), torch.nn.Linear(words, width)])
    optimiser = torch.optim.Adam(maps.parameters(), lr=1e-2)
    for _ in range(epochs):
        for chosen in torch.randperm(len(pairs)).split(batch):
            u, v = (torch.nn.functional.normalize(f(a[pairs[chosen, k]])) for k, (f, a) in enumerate(zip(maps, (x, y))))
            logits, own = 10 * u @ v.T, torch.arange(len(chosen))
            loss = torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    torch.save({"maps": maps, "words": words}, model / "maps.pt")


def encode(phase):
    saved = torch.load(model / "maps.pt", weights_only=False)
    rows = images(inputs) if phase == "images" else texts(inputs, saved["words"])
    with torch.no_grad():
        np.save(env["XMBENCH_OUT"], saved["maps"][phase == "texts"](rows).numpy())


phase = env["XMBENCH_PHASE"]
fit() if phase == "fit" else encode(phase)
