"""Writes lite-small.safetensors and lite-small.pth, the small network of the tests, with what the reference makes of a picture.

    pip install torch efficientnet_lite_pytorch==0.1.0 && python make.py

The network has the form of EfficientNet-Lite0 with few channels, an odd picture and random weights that f16 holds exactly; its
normalisation is that of some random pictures, so that no channel is dead or always full. lite-small.pth holds three of its tensors in the form of
torch.save before 1.6, one of them with the channel varying fastest.
"""
import json
import struct

import numpy as np
import torch
from efficientnet_lite_pytorch.model import EfficientNet
from efficientnet_lite_pytorch.utils import BlockDecoder, GlobalParams

SIDE = 75
BLOCKS = ["r1_k3_s11_e1_i32_o64", "r2_k3_s22_e6_i64_o32", "r2_k5_s22_e6_i32_o64", "r1_k3_s22_e6_i64_o64",
          "r1_k5_s11_e6_i64_o96", "r2_k5_s22_e6_i96_o96", "r1_k3_s11_e6_i96_o128"]
PARAMS = GlobalParams(width_coefficient=0.25, depth_coefficient=1.0, image_size=SIDE, dropout_rate=0.0, num_classes=10,
                      batch_norm_momentum=0.99, batch_norm_epsilon=1e-3, drop_connect_rate=0.0, depth_divisor=8, min_depth=None,
                      relu_fn="relu6", fix_head_stem=False, local_pooling=False, use_se=False)

torch.manual_seed(1)
network = EfficientNet(BlockDecoder.decode(BLOCKS), PARAMS)
norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
for norm in norms:
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    torch.nn.init.uniform_(norm.bias, -0.5, 1.5)
    norm.momentum = None
network.train()
with torch.no_grad():
    network(torch.randn(16, 3, SIDE, SIDE))
    for value in network.state_dict().values():
        if value.dtype == torch.float32:
            value.copy_(value.half().float())
network.eval()

y, x, c = np.meshgrid(np.arange(SIDE), np.arange(SIDE), np.arange(3), indexing="ij")
picture = (7 * y + 13 * x + 29 * c + 11 * (x * y % 17)) % 256
seen = torch.from_numpy(((picture.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None].copy())
with torch.no_grad():
    features = network.extract_features(seen)
    classes = network(seen)
arrays = {name: value.numpy().astype("<f2") for name, value in network.state_dict().items() if value.dtype == torch.float32}
arrays["expected.map"] = features[0].permute(1, 2, 0).contiguous().numpy().astype("<f4")
arrays["expected.pooled"] = features[0].mean((1, 2)).numpy().astype("<f4")
arrays["expected.classes"] = classes[0].numpy().astype("<f4")
header, data = {}, b""
for name, value in arrays.items():
    begin, data = len(data), data + value.tobytes()
    header[name] = {"dtype": {"<f2": "F16", "<f4": "F32"}[value.dtype.str], "shape": list(value.shape), "data_offsets": [begin, len(data)]}
text = json.dumps(header, separators=(",", ":")).encode()
text += b" " * (-len(text) % 8)
with open("lite-small.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)

state = network.state_dict()
some = {name: state[name] for name in ["_bn0.weight", "_bn0.num_batches_tracked", "_conv_stem.weight"]}
some["_conv_stem.weight"] = some["_conv_stem.weight"].contiguous(memory_format=torch.channels_last)
torch.save(some, "lite-small.pth", _use_new_zipfile_serialization=False)
print("share of zeros and of sixes", (features == 0).float().mean(), (features == 6).float().mean(), "classes", classes)
