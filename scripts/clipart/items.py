"""What of openclipart becomes an item of the dataset `clipart`, and with which captions.

Nothing here reads pixels. `items(root)` walks `ROOT/svg`, reads the RDF metadata of each drawing and returns the kept
ones in the order of their paths, with a count of what was dropped and why.
"""

import collections
import html
import re
import struct
import unicodedata
import xml.etree.ElementTree as ET
from pathlib import Path

DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
WORKS = ["{http://web.resource.org/cc/}Work", "{http://creativecommons.org/ns#}Work"]

# The two addresses by which a drawing's metadata say that it is in the public domain.
PUBLIC_DOMAIN = {
    "http://web.resource.org/cc/PublicDomain",
    "http://creativecommons.org/licenses/publicdomain/",
}

# A picture of more pixels is not decoded: the largest of the package has 623 million.
MOST_PIXELS = 20_000_000

# A title or description that more drawings share than this is that of a series and says nothing of one of them.
SERIES = 12

# A list of keywords that more drawings share than this is given the drawing's name in front.
GENERIC = 4

# Of drawings with the same captions, word for word, no more are kept than this.
SAME = 4

# Words that the library's own tools left among the keywords.
JUNK = {"hash", "unsorted", "clipart", "clip art", "openclipart", "theme", "gplart", "none", "n a", "na", "svg",
        "special", "various", "cliparts", "png", "inkscape", "sodipodi", "transit", "signs and symbols"}

WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+")


def repaired(text):
    """Entities resolved, and what was read as Latin-1 twice read as UTF-8."""
    text = html.unescape(text)
    try:
        text = text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        pass
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text):
    return [word.lower().replace("’", "'") for word in WORD.findall(text.replace("_", " "))]


def folded(text):
    """Letters and digits without accents, in lower case."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if c.isalnum())


def without_numbers(found):
    """Words without the numbers by which the drawings of a series are told apart."""
    found = [re.sub(r"\d+$", "", word) if word[0].isalpha() else word for word in found]
    while found and (found[-1].isdigit() or len(found[-1]) == 1):
        found.pop()
    return found


def without_author(found, author):
    """Words up to two in a row that are the author's."""
    author = {word for word in words(author) if len(word) > 2}
    for place in range(len(found) - 1):
        if found[place] in author and found[place + 1] in author:
            return found[:place]
    return found


def name(stem, author):
    """The words of a file name, which ends with the author's name (cut at 24 letters) and a number."""
    stem = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", stem)
    tokens = [token for token in re.split(r"[_\s]+", stem) if token]
    author = folded(author)
    while len(tokens) > 1:
        last = folded(tokens[-1])
        number = last == "" or re.fullmatch(r"v?\d+[a-z]?|r|md|bwh|ganson|denco", last)
        if not number and not (last in author):
            break
        tokens.pop()
    return without_numbers(without_author(words(" ".join(tokens).replace("-", " ")), author))


def keyword(text, authors):
    """A keyword in words, or nothing if it is junk."""
    text = repaired(text).lower()
    if "hash(" in text or re.fullmatch(r"0x[0-9a-f]+", text) or folded(text) in authors:
        return ""
    found = words(text)
    out = " ".join(found)
    # Names of symbol tables (`mapsym`), and words that were run together.
    if out in JUNK or out.endswith("sym") or len(out) > 30 or any(len(word) > 18 for word in found) or out.isdigit():
        return ""
    return out


def png_size(path):
    """Width and height from a PNG's header."""
    with open(path, "rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        raise ValueError(f"{path}: expected a PNG")
    return struct.unpack(">II", head[16:24])


def read(root, svg):
    """The metadata of one drawing, or `None` if it has none."""
    tree = ET.parse(svg).getroot()
    work = next((found for tag in WORKS for found in tree.iter(tag)), None)
    if work is None:
        return None
    text = lambda tag: repaired(work.findtext(DC + tag) or "")
    licences = [node.get(RDF + "resource") for node in work.iter() if node.tag.endswith("}license")]
    creator = work.find(DC + "creator")
    authors = [repaired(node.text or "") for node in creator.iter(DC + "title")] if creator is not None else []
    subject = work.find(DC + "subject")
    relative = svg.relative_to(root / "svg").with_suffix("")
    return {
        "path": relative.as_posix(),
        "png": root / "png" / (relative.as_posix() + ".png"),
        "title": text("title"),
        "description": text("description"),
        "keywords": [node.text or "" for node in subject.iter(RDF + "li")] if subject is not None else [],
        "author": ", ".join(author for author in authors if author),
        "licence": licences[0] if licences else "",
    }


def reason_to_drop(work):
    parts = work["path"].split("/")
    folder = "/".join(parts[:-1])
    if work["licence"] not in PUBLIC_DOMAIN:
        return "not marked public domain"
    if parts[0] in ("special", "unsorted"):
        return "special or unsorted"
    if folder == "shapes/stars":
        return "generated polygon"
    if "-theme" in folder:
        return "icon theme"
    if re.fullmatch(r"recreation/games/cards/(bordered|ornamental|simple|white|cardbacks)", folder):
        return "deck of cards"
    width, height = png_size(work["png"])
    if width * height > MOST_PIXELS:
        return "more pixels than are decoded"
    return None


def captions(work, titles, descriptions, keywords, shared, authors):
    """The captions of a drawing: its title or file name, its description, its keywords; the distinct ones."""
    named = name(work["path"].split("/")[-1], work["author"])
    title, text = work["title"], work["description"]
    series = re.search(r"collection|icon|clipart|theme|illustration|rpg", title.lower())
    titled = without_numbers(without_author(words(title), work["author"])) if titles[title] <= SERIES and not series else []
    # A file name that the title begins with, perhaps cut off, adds nothing to it.
    if titled and folded(" ".join(titled)).startswith(folded(" ".join(named))):
        named = titled
    machine = re.search(r"@|https?:|www|\.com|hash\(|public domain|inkscape|sodipodi|clipart|clip art|svg", text.lower())
    described = words(text) if descriptions[text] <= SERIES and not machine else []
    if not 2 <= len(described) <= 30:
        described = []
    listed = keywords[work["path"]]
    if shared[tuple(listed)] > GENERIC:
        listed = [word for word in named if word not in " ".join(listed).split()] + listed
    out = []
    for caption in (named, titled, described, listed):
        caption = " ".join(caption)
        if len(caption) > 1 and caption not in out and folded(caption) not in authors:
            out.append(caption)
    return out


def items(root):
    """The kept drawings as `(path, PNG, class, author, captions)`, the PNGs of others, and how many were dropped for which reason.

    The others are in the public domain and no item: the directions that vectors of cells are projected onto are found from them.
    """
    root = Path(root)
    dropped = collections.Counter()
    works, others = [], []
    for svg in sorted((root / "svg").rglob("*.svg"), key=lambda path: path.as_posix()):
        if svg.is_symlink():
            continue
        work = read(root, svg)
        reason = "no metadata" if work is None else reason_to_drop(work)
        if reason:
            dropped[reason] += 1
            if reason in ("icon theme", "deck of cards"):
                others.append(work["png"])
        else:
            works.append(work)
    titles = collections.Counter(work["title"] for work in works)
    descriptions = collections.Counter(work["description"] for work in works)
    authors = {folded(work["author"]) for work in works} | {""}
    keywords, shared = {}, collections.Counter()
    for work in works:
        found = list(dict.fromkeys(keyword(text, authors) for text in work["keywords"]))
        keywords[work["path"]] = [text for text in found if text]
        shared[tuple(keywords[work["path"]])] += 1
    out, same = [], collections.Counter()
    for work in works:
        if not keywords[work["path"]]:
            dropped["no keyword"] += 1
            continue
        found = captions(work, titles, descriptions, keywords, shared, authors)
        if len(found) < 2 or len(set(" ".join(found).split())) < 3:
            dropped["fewer than two captions or three words"] += 1
            continue
        same[tuple(sorted(found))] += 1
        if same[tuple(sorted(found))] > SAME:
            dropped["captions of several others"] += 1
            continue
        author = work["author"] if folded(work["author"]) not in ("", "none", "anonymous") else "unknown"
        out.append((work["path"], work["png"], work["path"].split("/")[0], author, found))
    return out, others, dropped
