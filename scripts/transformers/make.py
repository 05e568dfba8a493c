"""Writes the small networks of the tests of `encoders/src/transformers`, with what the reference makes of a picture and of texts.

    pip install torch==2.15.0 transformers==5.24.0 tokenizers==0.23.3 safetensors pillow==12.0.0
    python make.py ../../encoders/tests/transformers

Each network has the form of a published one with few and narrow layers, and random weights that f16 holds exactly; the reference is Hugging Face's
`transformers` (its processors on Pillow), computing in f32 on one thread. A folder is in the hub's layout: `config.json`, `model.safetensors`,
`preprocessor_config.json`, `tokenizer.json`. Beside them lie `expected.safetensors` (what the tests compare with) and, where there is a text tower,
`texts.json` with the texts and their token numbers. Random numbers come from numpy's PCG64 keyed by the names of tensors, so that the files
are the same wherever this is run with these versions. (Pillow 13 filters columns before rows where it finds that cheaper, and rounds in between: some of its bytes differ.)

With `--real FOLDER OUT.safetensors` it writes the sentence vectors of a MiniLM on its own weights instead; with `--pixels OUT.safetensors` what
Pillow makes of a picture with each filter.
"""

import collections
import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

TEXTS = [
    "two dogs play in the snow",
    "A man's RED bicycle, leaning on 3 walls!",
    "a",
    "Zwei Hunde spielen im Café",
    "a very long caption that goes on and on, about snow and dogs and the man and his bicycle, until it is cut",
    "",
]


def picture(width, height):
    """The picture of the tests: smooth along one diagonal and rough along the other."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((7 * y + 13 * x + 29 * c + 11 * (x * y % 17)) % 256).astype(np.uint8)


def randomise(network):
    """Weights that make activations of about one, so that a wrong one is seen."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            draw = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
            noise = draw.standard_normal(tuple(value.shape))
            if name.endswith("running_var"):
                made = 0.5 + draw.random(tuple(value.shape))
            elif name.endswith("running_mean"):
                made = 0.2 * noise
            elif value.ndim == 1 and ("norm" in name.lower() or "lambda" in name) and not name.endswith("bias"):
                made = 1 + 0.2 * noise
            elif value.ndim == 1 and name.endswith("bias"):
                made = 0.1 * noise
            elif value.ndim < 2 or "embedding" in name and "projection" not in name and "patch_embedding" not in name:
                made = 0.5 * noise
            else:
                made = 1.2 * noise / np.sqrt(np.prod(value.shape[1:]))
            value.copy_(torch.from_numpy(np.asarray(made)).to(torch.float16).to(torch.float32))
    return network.eval()


def numbers(folder, network, only=None):
    """The weights as f16, without what is no parameter."""
    network.save_pretrained(folder)
    saved = load_file(folder / "model.safetensors")
    kept = {n: v.to(torch.float16) if v.is_floating_point() else v for n, v in saved.items() if only is None or only(n)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def images(folder, processor, size=(61, 45)):
    """Writes the processor, and returns the pixels that it makes of the picture."""
    processor.save_pretrained(folder)
    seen = processor(images=Image.fromarray(picture(*size)), return_tensors="pt")["pixel_values"]
    return seen.to(torch.float32)


def expect(folder, **tensors):
    save_file({name: value.detach().to(torch.float32).contiguous() for name, value in tensors.items()}, folder / "expected.safetensors")


def texts(folder, tokenizer, ids):
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "texts.json").write_text(json.dumps({"texts": TEXTS, "ids": ids}, ensure_ascii=False) + "\n")


def words():
    """The words of three of the texts, in the order in which they come; the trainers of `tokenizers` break ties at random."""
    found = re.findall(r"[a-z]+|[0-9]|[^a-z0-9 ]", " ".join(TEXTS[:3] + TEXTS[4:5]).lower())
    return list(dict.fromkeys(found))


def pairs_of_letters():
    """Letters, letters at the end of a word, and forty merges: the commonest pair first, of equals the first in the alphabet."""
    letters = sorted(set("".join(words())))
    vocabulary = {token: number for number, token in enumerate(letters + [letter + "</w>" for letter in letters])}
    split = [list(word[:-1]) + [word[-1] + "</w>"] for word in words()]
    merges = []
    while len(merges) < 40:
        counts = collections.Counter(pair for word in split for pair in zip(word, word[1:]))
        one, two = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append((one, two))
        vocabulary[one + two] = len(vocabulary)
        for word in split:
            for at in range(len(word) - 1):
                if word[at : at + 2] == [one, two]:
                    word[at : at + 2] = [one + two]
    return vocabulary, merges


def clip_tokenizer():
    """The pipeline of CLIP's tokenizer.json, trained on the texts."""
    vocabulary, merges = pairs_of_letters()
    # Behind all others, as in CLIP's vocabulary, whose last word stands for unknown ones.
    for special in ["<|startoftext|>", "<|endoftext|>"]:
        vocabulary[special] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pattern = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens([AddedToken("<|startoftext|>", normalized=False, special=True), AddedToken("<|endoftext|>", normalized=False, special=True)])
    start, end = (tokenizer.token_to_id(token) for token in ("<|startoftext|>", "<|endoftext|>"))
    tokenizer.post_processor = processors.RobertaProcessing(("<|endoftext|>", end), ("<|startoftext|>", start), trim_offsets=False, add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, start, end


def clip(out):
    folder = out / "clip"
    tokenizer, start, end = clip_tokenizer()
    tower = dict(num_hidden_layers=2, hidden_act="quick_gelu")
    config = transformers.CLIPConfig(
        text_config=dict(vocab_size=tokenizer.get_vocab_size(), hidden_size=24, intermediate_size=48, num_attention_heads=3, max_position_embeddings=12,
                         bos_token_id=start, eos_token_id=end, pad_token_id=end, **tower),
        vision_config=dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, image_size=32, patch_size=8, **tower),
        projection_dim=16)
    network = randomise(transformers.CLIPModel(config))
    numbers(folder, network)
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    pixels = images(folder, processor)
    with torch.no_grad():
        seen = network.vision_model(pixel_values=pixels)
        vector = network.visual_projection(seen.pooler_output)
        tokenizer.enable_truncation(12)
        tokenizer.enable_padding(pad_id=end, pad_token="<|endoftext|>")
        encoded = tokenizer.encode_batch(TEXTS)
        ids, mask = (torch.tensor([getattr(one, part) for one in encoded]) for part in ("ids", "attention_mask"))
        read = network.text_model(input_ids=ids, attention_mask=mask)
        captions = network.text_projection(read.pooler_output)
        read_short = [r[: int(m.sum())] for r, m in zip(read.last_hidden_state, mask)]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts(folder, tokenizer, [[i for i, keep in zip(one.ids, one.attention_mask) if keep] for one in encoded])
    expect(folder, pixels=pixels[0], vector=vector[0], regions=seen.last_hidden_state[0, 1:], captions=captions, tokens=torch.cat(read_short))


def siglip(out):
    folder = out / "siglip"
    letters = sorted(set("".join(words())) - set(".,!'"))
    whole = ["\u2581" + word for word in words()[::2] if word.isalpha() and len(word) > 1]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(letter, -4.0 - 0.01 * number) for number, letter in enumerate(letters)]
    pieces += [(word, -5.0 - 0.1 * number) for number, word in enumerate(whole)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"), ""),
                                                 normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", end)])
    tower = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=72, num_attention_heads=4)
    config = transformers.SiglipConfig(
        text_config=dict(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=16, pad_token_id=end, eos_token_id=end, bos_token_id=end, projection_size=32, **tower),
        vision_config=dict(image_size=32, patch_size=8, **tower))
    network = randomise(transformers.SiglipModel(config))
    numbers(folder, network)
    pixels = images(folder, transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}))
    with torch.no_grad():
        seen = network.vision_model(pixel_values=pixels)
        tokenizer.enable_truncation(16)
        tokenizer.enable_padding(length=16, pad_id=end, pad_token="</s>")
        ids = [one.ids for one in tokenizer.encode_batch(TEXTS)]
        read = network.text_model(input_ids=torch.tensor(ids))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts(folder, tokenizer, ids)
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "</s>"}) + "\n")
    expect(folder, pixels=pixels[0], vector=seen.pooler_output[0], regions=seen.last_hidden_state[0], captions=read.pooler_output,
           tokens=read.last_hidden_state.reshape(-1, 32))


def vit(out):
    folder = out / "vit"
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8, num_labels=3)
    network = randomise(transformers.ViTForImageClassification(config))
    numbers(folder, network)
    pixels = images(folder, transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}))
    with torch.no_grad():
        seen = network.vit(pixel_values=pixels)
    expect(folder, pixels=pixels[0], vector=seen.last_hidden_state[0, 0], regions=seen.last_hidden_state[0, 1:])


def dinov2(out):
    folder = out / "dinov2"
    config = transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=28, patch_size=7)
    network = randomise(transformers.Dinov2Model(config))
    numbers(folder, network)
    imagenet = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    pixels = images(folder, transformers.BitImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 43, "width": 43}, **imagenet))
    small = transformers.BitImageProcessorPil(size={"shortest_edge": 21}, crop_size={"height": 21, "width": 21}, **imagenet)
    small = images(out / "scratch", small)
    with torch.no_grad():
        seen, fewer = network(pixel_values=pixels), network(pixel_values=small)
    expect(folder, pixels=pixels[0], vector=seen.pooler_output[0], regions=seen.last_hidden_state[0, 1:], fewer=fewer.pooler_output[0])


def resnet(out):
    for kind, more in [("bottleneck", {}), ("basic", {"downsample_in_first_stage": True})]:
        folder = out / f"resnet-{kind}"
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 24, 32] if kind == "bottleneck" else [8, 16, 24], depths=[2, 1, 2], layer_type=kind, **more)
        network = randomise(transformers.ResNetModel(config))
        numbers(folder, network, only=lambda name: not name.endswith("num_batches_tracked"))
        processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 75}, crop_pct=0.875, image_mean=[0.485, 0.456, 0.406],
                                                           image_std=[0.229, 0.224, 0.225])
        pixels = images(folder, processor)
        with torch.no_grad():
            seen = network(pixel_values=pixels)
            found = dict(vector=seen.pooler_output[0, :, 0, 0], regions=seen.last_hidden_state[0].permute(1, 2, 0))
            if kind == "bottleneck":
                found["pixels"] = pixels[0]
                # The same weights are those of the form that reduces in the first of a block's layers.
                config.downsample_in_bottleneck = True
                other = transformers.ResNetModel(config)
                other.load_state_dict(network.state_dict())
                found["first"] = other.eval()(pixel_values=pixels).pooler_output[0, :, 0, 0]
        expect(folder, **found)


def pooled(read, mask):
    """The mean over tokens and then unit length, as sentence-transformers has it."""
    mean = (read * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1e-9)
    return torch.nn.functional.normalize(mean, p=2, dim=1)


def bert(out):
    folder = out / "bert"
    letters = sorted(set("".join(words())))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *["##" + letter for letter in letters if letter.isalpha()], "##ing", "##s"]
    pieces += [word for word in words()[::2] if len(word) > 1]
    tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)])
    config = transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=64, max_position_embeddings=20)
    network = randomise(transformers.BertModel(config, add_pooling_layer=False))
    numbers(folder, network)
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(TEXTS)
    ids, mask = (torch.tensor([getattr(one, part) for one in encoded]) for part in ("ids", "attention_mask"))
    with torch.no_grad():
        read = network(input_ids=ids, attention_mask=mask).last_hidden_state
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts(folder, tokenizer, [[i for i, keep in zip(one.ids, one.attention_mask) if keep] for one in encoded])
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}) + "\n")
    first = torch.nn.functional.normalize(read[:, 0], p=2, dim=1)
    expect(folder, captions=pooled(read, mask), first=first, tokens=torch.cat([r[: int(m.sum())] for r, m in zip(read, mask)]))


def real(folder, out):
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    network = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    encoded = tokenizer.encode_batch(TEXTS)
    ids, mask = (torch.tensor([getattr(one, part) for one in encoded]) for part in ("ids", "attention_mask"))
    with torch.no_grad():
        read = network(input_ids=ids, attention_mask=mask).last_hidden_state
    save_file({"captions": pooled(read, mask)}, out)


def filters(out):
    """A picture made smaller, larger, and one of each, by every filter of Pillow: `FILTER-HEIGHTxWIDTH`."""
    image = Image.fromarray(picture(31, 23))
    made = {}
    for number, name in enumerate(["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]):
        for height, width in [(7, 9), (40, 50), (11, 60), (23, 5)]:
            made[f"{name}-{height}x{width}"] = torch.from_numpy(np.array(image.resize((width, height), resample=number)))
    save_file(made, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if sys.argv[1] == "--real":
        real(*sys.argv[2:])
    elif sys.argv[1] == "--pixels":
        filters(sys.argv[2])
    else:
        out = Path(sys.argv[1])
        for make in [clip, siglip, vit, dinov2, resnet, bert]:
            make(out)
        for left in (out / "scratch").iterdir():
            left.unlink()
        (out / "scratch").rmdir()
        filters(out / "filters.safetensors")
