"""Embeddings of an independent program, and their metrics by an independent calculation.

scikit-learn's CCA between the first seven and the last six columns of its wine data (178 wines of three cultivars), fitted on two
thirds; the projections of the others are the files. Recall and ranks are counted one by one, average precision is scikit-learn's.
Written with numpy 2.4.6 and scikit-learn 1.9.1.
"""

import json

import numpy as np
from sklearn.cross_decomposition import CCA
from sklearn.datasets import load_wine
from sklearn.metrics import average_precision_score

wine = load_wine()
test = np.arange(len(wine.data)) % 3 == 0
x, y = wine.data[:, :7], wine.data[:, 7:]
cca = CCA(n_components=4, max_iter=5000, tol=1e-10).fit(x[~test], y[~test])
u, v = (part.astype(np.float32) for part in cca.transform(x[test], y[test]))
labels = wine.target[test]
np.save("images.npy", u)
np.save("texts.npy", v)
with open("labels.txt", "w") as out:
    out.writelines(f"{wine.target_names[label]}\n" for label in labels)


def unit(a):
    a = a.astype(np.float64)
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def ranks(scores):
    return [1 + int((row > row[i]).sum()) for i, row in enumerate(scores)]


expected = {}
for name, scores in {
    "cosine": unit(u) @ unit(v).T,
    "dot": u.astype(np.float64) @ v.astype(np.float64).T,
    "l2": -np.linalg.norm(u[:, None].astype(np.float64) - v[None].astype(np.float64), axis=2),
}.items():
    metrics = {}
    for direction, s in ("i2t", scores), ("t2i", scores.T):
        assert all(len(set(row)) == len(row) for row in s), "no ties"
        found = ranks(s)
        for k in 1, 5, 10:
            metrics[f"{direction} R@{k}"] = 100 * float(np.mean([rank <= k for rank in found]))
        metrics[f"{direction} MedR"] = float(np.median(found))
        metrics[f"{direction} MeanR"] = float(np.mean(found))
        precisions = [average_precision_score(labels == labels[i], row) for i, row in enumerate(s)]
        metrics[f"{direction} MAP@all"] = float(np.mean(precisions))
    metrics["rsum"] = sum(value for key, value in metrics.items() if "R@" in key)
    expected[name] = metrics
with open("expected.json", "w") as out:
    json.dump(expected, out, indent=1)
    out.write("\n")
