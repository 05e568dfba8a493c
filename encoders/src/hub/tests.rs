use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use xmbench_datasets::random::Seed;

use super::{
    pillow::{Filter, resize},
    *,
};

/// A folder that `scripts/transformers/make.py` wrote.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers").join(name)
}

/// What the reference computes of it.
struct Expected(Weights);

impl Expected {
    fn of(name: &str) -> Self {
        Self(Weights::read(&folder(name).join("expected.safetensors")).unwrap())
    }

    fn take(&self, name: &str) -> Vec<f32> {
        let shape = self.0.shapes().find(|(found, _)| *found == name).unwrap().1.to_vec();
        self.0.take(name, &shape).unwrap()
    }

    /// The largest difference, of values whose largest is beside it.
    fn off(&self, name: &str, found: &[f32]) -> f32 {
        let expected = self.take(name);
        assert_eq!(found.len(), expected.len(), "{name}");
        let most = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name}: off by {off:.2e} of {most:.2}");
        assert!(most > 0.1, "{name}: {most}");
        off
    }
}

/// The picture of `make.py`.
fn picture(width: usize, height: usize) -> Picture {
    let value = |y: usize, x: usize, c: usize| ((7 * y + 13 * x + 29 * c + 11 * (x * y % 17)) % 256) as u8;
    let rgb = (0..height * width * 3).map(|i| value(i / (3 * width), i / 3 % width, i % 3)).collect();
    Picture { width, height, rgb }
}

fn encoded(network: &Pictures) -> Encoded {
    network.encode(&[picture(61, 45)]).unwrap().remove(0)
}

/// Two layers of sums of 32 to 2,000 products, each rounded to 24 bits, leave about `2^-24 sqrt(2000)` of values up to ten; ten times that is
/// allowed. The reference sums in another order.
const TOLERANCE: f32 = 3e-5;

/// Every tower for pictures: pixels to the bit, vector and regions.
#[test]
fn pictures_are_seen_as_the_reference_sees_them() {
    for (name, cells) in
        [("clip", 4), ("siglip", 4), ("vit", 4), ("dinov2", 6), ("resnet-bottleneck", 5), ("resnet-basic", 3)]
    {
        let expected = Expected::of(name);
        let (network, digest) = pictures(&folder(name), Fit::Published, cells).unwrap();
        assert_eq!(digest.len(), 64);
        println!("{name}");
        if expected.0.has("pixels") {
            let side = network.pixels.side();
            let seen = network.prepare(&picture(61, 45)).values;
            let planes = expected.take("pixels");
            let turned: Vec<f32> = (0..3 * side * side).map(|i| planes[i % 3 * side * side + i / 3]).collect();
            assert!(seen == turned, "{name}: pixels");
        }
        let found = encoded(&network);
        assert!(expected.off("vector", &found.global) < TOLERANCE, "{name}");
        assert!(expected.off("regions", &found.regions) < TOLERANCE, "{name}");
        assert_eq!(network.recipe().width, found.global.len());
        assert_eq!(network.recipe().region_width * cells * cells, found.regions.len());
        assert_eq!(found.boxes.len(), cells * cells);
    }
}

/// Every tower for texts: token numbers, vectors and tokens; one text is cut, one is empty, one has letters that the vocabulary lacks.
#[test]
fn texts_are_read_as_the_reference_reads_them() {
    for name in ["clip", "siglip", "bert"] {
        let expected = Expected::of(name);
        let network = texts(&folder(name)).unwrap();
        let written: Value = serde_json::from_slice(&fs::read(folder(name).join("texts.json")).unwrap()).unwrap();
        let lines: Vec<&str> = written["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        for (line, ids) in lines.iter().zip(written["ids"].as_array().unwrap()) {
            assert_eq!(json!(network.tokens.of(line).unwrap()), *ids, "{name}: {line}");
        }
        println!("{name}");
        let found = network.encode_texts(&lines).unwrap();
        let vectors: Vec<f32> = found.iter().flat_map(|text| text.vector.clone()).collect();
        let tokens: Vec<f32> = found.iter().flat_map(|text| text.tokens.clone()).collect();
        assert!(expected.off("captions", &vectors) < TOLERANCE, "{name}");
        assert!(expected.off("tokens", &tokens) < TOLERANCE, "{name}");
        assert_eq!(network.recipe().width * lines.len(), vectors.len());
    }
}

/// MiniLM on its own weights, where `XMBENCH_MINILM` names its folder with what `make.py --real` wrote of it, `expected.safetensors`.
#[test]
fn minilm_is_the_reference_on_its_own_weights() {
    let Some(place) = std::env::var_os("XMBENCH_MINILM").map(PathBuf::from) else {
        println!("skipped: XMBENCH_MINILM is not set");
        return;
    };
    let expected = Expected(Weights::read(&place.join("expected.safetensors")).unwrap());
    let network = texts(&place).unwrap();
    assert_eq!((network.recipe().width, network.recipe().length), (384, 256));
    let written: Value = serde_json::from_slice(&fs::read(folder("bert/texts.json")).unwrap()).unwrap();
    let lines: Vec<&str> = written["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let found = network.encode_texts(&lines).unwrap();
    let vectors: Vec<f32> = found.iter().flat_map(|text| text.vector.clone()).collect();
    // Values of a vector of length one, behind six layers.
    assert!(expected.off("captions", &vectors) < 1e-6);
}

/// The tower of a pair is the same alone and beside the pictures'.
#[test]
fn a_pair_reads_texts_beside_pictures() {
    for name in ["clip", "siglip"] {
        let (pair, digest) = pictures(&folder(name), Fit::Published, 0).unwrap();
        let (beside, alone) = (pair.texts().unwrap(), texts(&folder(name)).unwrap());
        assert_eq!(beside.encode_texts(&["a dog"]).unwrap(), alone.encode_texts(&["a dog"]).unwrap());
        assert_eq!((beside.recipe().width, &beside.recipe().weights_sha256), (pair.recipe().width, &digest));
    }
    let (alone, _) = pictures(&folder("vit"), Fit::Published, 0).unwrap();
    assert!(alone.texts().is_none() && encoded(&alone).regions.is_empty());
}

/// A copy of a folder with one of its files changed.
fn changed(name: &str, file: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join(file);
    let mut value = fs::read(&path).map_or(json!({}), |bytes| serde_json::from_slice(&bytes).unwrap());
    change(&mut value);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, value.to_string()).unwrap();
    copy
}

/// Fewer positions than there are, a bottleneck that reduces first, the first token of a sentence: other outputs of the reference, of the same weights.
#[test]
fn other_settings_are_those_of_the_reference() {
    let small = changed("dinov2", "preprocessor_config.json", |value| {
        value["size"] = json!({"shortest_edge": 21});
        value["crop_size"] = json!(21);
    });
    let (network, _) = pictures(small.path(), Fit::Published, 3).unwrap();
    assert!(Expected::of("dinov2").off("fewer", &encoded(&network).global) < TOLERANCE);

    let first = changed("resnet-bottleneck", "config.json", |value| value["downsample_in_bottleneck"] = json!(true));
    let (network, _) = pictures(first.path(), Fit::Published, 0).unwrap();
    assert!(Expected::of("resnet-bottleneck").off("first", &encoded(&network).global) < TOLERANCE);

    let first = changed("bert", "1_Pooling/config.json", |value| *value = json!({"pooling_mode_cls_token": true}));
    let network = texts(first.path()).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(folder("bert/texts.json")).unwrap()).unwrap();
    let lines: Vec<&str> = written["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let found = network.encode_texts(&lines).unwrap();
    let vectors: Vec<f32> = found.iter().flat_map(|text| text.vector.clone()).collect();
    assert!(Expected::of("bert").off("first", &vectors) < TOLERANCE);

    // Old files of CLIP name an end that no text has; the highest number stands in its place.
    let old = changed("clip", "config.json", |value| value["text_config"]["eos_token_id"] = json!(2));
    let lines = ["two dogs", "Zwei Hunde spielen im Café"];
    assert_eq!(
        texts(old.path()).unwrap().encode_texts(&lines).unwrap(),
        texts(&folder("clip")).unwrap().encode_texts(&lines).unwrap()
    );
}

/// Every filter, smaller, larger and both: the bytes of Pillow.
#[test]
fn pictures_are_resized_as_pillow_does() {
    let bytes = fs::read(folder("filters.safetensors")).unwrap();
    let expected = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let picture = picture(31, 23);
    let mut seen = 0;
    for filter in Filter::ALL {
        for (height, width) in [(7, 9), (40, 50), (11, 60), (23, 5)] {
            let whole = resize(&picture, filter, [width, height], 0..width, 0..height);
            let name = format!("{}-{height}x{width}", filter.name());
            assert!(whole == expected.tensor(&name).unwrap().data(), "{name}");
            // A window is a part of the whole.
            let window = resize(&picture, filter, [width, height], 1..4, 2..5);
            let part: Vec<u8> = (2..5).flat_map(|y| whole[(y * width + 1) * 3..][..9].to_vec()).collect();
            assert_eq!(window, part, "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 24);
}

/// A picture of one column and a hundred thousand rows: what is cut out of its 3,200,000 resized rows is all that is computed.
#[test]
fn a_thin_picture_takes_no_more_memory() {
    let thin = Picture { width: 1, height: 100_000, rgb: (0..300_000).map(|i| (i / 3 % 251) as u8).collect() };
    let (network, _) = pictures(&folder("clip"), Fit::Published, 4).unwrap();
    let found = &network.encode(std::slice::from_ref(&thin)).unwrap()[0];
    // The middle row of the middle: 50,000, of which 32 of 36 resized ones are seen.
    assert!((found.boxes[0][1] - (0.5 - 16.0 / 3_600_000.0)).abs() < 1e-6, "{:?}", found.boxes[0]);
    assert_eq!((found.boxes[0][0], found.boxes[15][2]), (2.0 / 36.0, 34.0 / 36.0));
    let (network, _) = pictures(&folder("siglip"), Fit::Published, 0).unwrap();
    assert!(network.encode(&[thin]).unwrap()[0].global.iter().all(|value| value.is_finite()));
}

/// Where cells lie: of 61 x 45 pixels, CLIP's processor makes 48 x 36 and cuts 32 x 32 out of the middle, 8 and 2 pixels from the edges.
#[test]
fn boxes_are_where_cells_lie_in_the_picture() {
    let (network, _) = pictures(&folder("clip"), Fit::Published, 4).unwrap();
    let close = |found: [f32; 4], expected: [f64; 4]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{found:?} {expected:?}");
    };
    close(encoded(&network).boxes[6], [24.0 / 48.0, 10.0 / 36.0, 32.0 / 48.0, 18.0 / 36.0]);
    let (coarse, _) = pictures(&folder("clip"), Fit::Published, 1).unwrap();
    close(encoded(&coarse).boxes[0], [8.0 / 48.0, 2.0 / 36.0, 40.0 / 48.0, 34.0 / 36.0]);
    // Its region is the mean of all sixteen.
    let all = encoded(&network).regions;
    let mean: f32 = (0..16).map(|cell| all[cell * 32 + 5]).sum::<f32>() / 16.0;
    assert!((encoded(&coarse).regions[5] - mean).abs() < 1e-6);
    let (whole, _) = pictures(&folder("clip"), Fit::Stretch, 4).unwrap();
    close(encoded(&whole).boxes[6], [0.5, 0.25, 0.75, 0.5]);
    // A picture that is smaller than what is cut out lies in the middle of black.
    let small = changed("clip", "preprocessor_config.json", |value| value["do_resize"] = json!(false));
    let (network, _) = pictures(small.path(), Fit::Published, 4).unwrap();
    let seen = network.prepare(&picture(10, 7)).values;
    let black = network.pixels.prepare(&Picture { width: 1, height: 1, rgb: vec![0; 3] }).values[..3].to_vec();
    let at = |y: usize, x: usize| seen[(y * 32 + x) * 3..][..3].to_vec();
    // ceil((32 - 7) / 2) = 13 rows and 11 columns stand before it; the first pixel is (0, 29, 58).
    assert_eq!((at(12, 11), at(13, 10)), (black.clone(), black.clone()));
    assert!((at(13, 11)[1] - (29.0 / 255.0 - 0.457_827_5) / 0.261_302_6).abs() < 1e-6);
}

/// Alone or among others, on one thread or two: the same bits.
#[test]
fn company_and_threads_change_nothing() {
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let shown: Vec<Picture> = (0..5).map(|by| picture(61 - by, 45 + by)).collect();
    for name in ["clip", "siglip", "vit", "dinov2", "resnet-bottleneck", "resnet-basic"] {
        let (network, _) = pictures(&folder(name), Fit::Published, 2).unwrap();
        let together = pool(2).install(|| network.encode(&shown)).unwrap();
        assert_eq!(pool(1).install(|| network.encode(&shown)).unwrap(), together, "{name}");
        for (one, encoded) in shown.iter().zip(&together) {
            assert_eq!(network.encode(std::slice::from_ref(one)).unwrap()[0], *encoded, "{name}");
        }
        assert_ne!(together[0].global, together[1].global, "{name}");
    }
    let lines = ["a dog", "the man", "snow and walls and a bicycle", ""];
    for name in ["clip", "siglip", "bert"] {
        let network = texts(&folder(name)).unwrap();
        let together = pool(2).install(|| network.encode_texts(&lines)).unwrap();
        assert_eq!(pool(1).install(|| network.encode_texts(&lines)).unwrap(), together, "{name}");
        for (line, encoded) in lines.iter().zip(&together) {
            assert_eq!(network.encode_texts(&[line]).unwrap()[0], *encoded, "{name}");
        }
    }
}

fn refused<T>(result: Result<T>) -> String {
    let text = result.err().expect("an error").to_string();
    // Folders differ from run to run, and are before the name of the file.
    text.split_once("config.json").map_or(text.clone(), |(_, rest)| format!("config.json{rest}"))
}

#[test]
fn what_is_not_known_is_named() {
    let config = |name: &str, change: fn(&mut Value)| {
        let copy = changed(name, "config.json", change);
        refused(pictures(copy.path(), Fit::Published, 0))
    };
    assert_eq!(
        config("clip", |value| value["model_type"] = json!("clipp")),
        "config.json, model_type: expected one of clip, siglip, vit, dinov2, resnet, bert, found `clipp`, near to `clip`; \
         name a folder whose network is of a known form"
    );
    assert_eq!(
        config("vit", |value| value["hidden_act"] = json!("mish")),
        "config.json, hidden_act: expected one of quick_gelu, gelu, gelu_new, gelu_pytorch_tanh, relu, found `mish`; \
         name a folder whose network is of a known form"
    );
    assert!(config("dinov2", |value| value["use_swiglu_ffn"] = json!(true)).contains("use_swiglu_ffn: expected false"));
    assert!(
        config("siglip", |value| value["vision_config"]["vision_use_head"] = json!(false)).contains("vision_use_head")
    );
    assert!(
        config("vit", |value| value["num_attention_heads"] = json!(5)).contains("expected a divisor of the width 32")
    );
    assert!(config("vit", |value| value["image_size"] = json!([32, 40])).contains("expected a square, found [32, 40]"));
    assert!(config("vit", |value| value["hidden_size"] = json!("wide")).contains("invalid type: string"));
    assert!(config("resnet-basic", |value| value["layer_type"] = json!("deep")).contains("`basic` or `bottleneck`"));
    assert!(
        config("vit", |value| value["num_hidden_layers"] = json!(3))
            .contains("expected an array `vit.encoder.layer.2.attention.attention.query.weight` of shape [32, 32]")
    );

    let processor = |change: fn(&mut Value)| {
        let copy = changed("vit", "preprocessor_config.json", change);
        refused(pictures(copy.path(), Fit::Published, 0))
    };
    assert!(processor(|value| value["image_processor_type"] = json!("SamImageProcessor")).contains(
        "expected one of CLIPImageProcessor, SiglipImageProcessor, ViTImageProcessor, BitImageProcessor, \
         ConvNextImageProcessor, found `SamImageProcessor`"
    ));
    assert!(processor(|value| value["size"] = json!(48)).contains("expected 32 pixels a side"));
    assert!(processor(|value| value["size"] = json!({"height": 32, "width": 40})).contains("as many rows as columns"));
    assert!(processor(|value| value["resample"] = json!(6)).contains("a filter of Pillow, 0 to 5, found 6"));
    assert!(processor(|value| value["image_std"] = json!([1, 0, 1])).contains("positive numbers, found 0"));
    assert!(processor(|value| value["size"] = json!({"shortest_edge": 1_000_000})).contains("1 to 2048 pixels"));

    assert!(refused(pictures(&folder("bert"), Fit::Published, 0)).contains("--text-weights"));
    assert!(refused(texts(&folder("vit"))).contains("one for pictures"));
    assert!(refused(pictures(&folder("clip"), Fit::Published, 5)).contains("0 to 4 cells a side, found 5"));
    assert!(refused(pictures(&folder("clip"), Fit::Crop, 0)).contains("config.json says"));
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(pictures(empty.path(), Fit::Published, 0)).contains("expected a file, found nothing"));
    let pooled = changed("bert", "1_Pooling/config.json", |value| *value = json!({"pooling_mode_max_tokens": true}));
    assert!(refused(texts(pooled.path())).contains("one of them alone"));
    let split = changed("vit", "config.json", |_| ());
    fs::remove_file(split.path().join("model.safetensors")).unwrap();
    fs::write(split.path().join("pytorch_model.bin"), b"").unwrap();
    let error = pictures(split.path(), Fit::Published, 0).err().unwrap().to_string();
    assert!(error.contains("found pytorch_model.bin") && error.contains("save_pretrained"), "{error}");
}

/// A copy of a folder whose weights lie in two parts, with the list that says which array is where.
fn in_two_parts(name: &str) -> (tempfile::TempDir, Value) {
    let copy = changed(name, "config.json", |_| ());
    let whole = copy.path().join("model.safetensors");
    let bytes = fs::read(&whole).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors();
    let mut list = json!({"metadata": {"total_size": bytes.len()}, "weight_map": {}});
    for (part, tensors) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", part + 1);
        tensors.iter().for_each(|(array, _)| list["weight_map"][array] = json!(file));
        let bytes = safetensors::serialize(tensors.iter().map(|(array, view)| (array, view)), None).unwrap();
        fs::write(copy.path().join(file), bytes).unwrap();
    }
    fs::remove_file(whole).unwrap();
    relist(&copy, &list);
    (copy, list)
}

fn relist(folder: &tempfile::TempDir, list: &Value) {
    fs::write(folder.path().join("model.safetensors.index.json"), list.to_string()).unwrap();
}

/// Weights in parts are those of one file, picture and text, and have a checksum that `sha256sum` makes again.
#[test]
fn weights_in_parts_are_one_network() {
    for name in ["clip", "dinov2"] {
        let (parts, _) = in_two_parts(name);
        let (network, digest) = pictures(parts.path(), Fit::Published, 2).unwrap();
        let (whole, other) = pictures(&folder(name), Fit::Published, 2).unwrap();
        assert_eq!(encoded(&network), encoded(&whole), "{name}");
        assert_ne!(digest, other, "{name}");
        let sums: String = [1, 2]
            .map(|part| {
                let file = format!("model-{part:05}-of-00002.safetensors");
                format!("{}  {file}\n", crate::weights::hexadecimal(&fs::read(parts.path().join(&file)).unwrap()))
            })
            .concat();
        assert_eq!(digest, crate::weights::hexadecimal(sums.as_bytes()), "{name}");
        assert!(network.recipe().files.contains_key("model.safetensors.index.json"), "{name}");
    }
    let (parts, _) = in_two_parts("bert");
    let read = |network: Sentences| network.encode_texts(&["a dog", ""]).unwrap();
    assert_eq!(read(texts(parts.path()).unwrap()), read(texts(&folder("bert")).unwrap()));
}

/// A list that leads elsewhere, names what is not there, or whose parts are not its own.
#[test]
fn a_wrong_list_of_parts_is_refused() {
    let refused = |change: &dyn Fn(&tempfile::TempDir, &mut Value)| {
        let (copy, mut list) = in_two_parts("vit");
        change(&copy, &mut list);
        relist(&copy, &list);
        pictures(copy.path(), Fit::Published, 0).err().expect("an error").to_string()
    };
    let first = |list: &Value| list["weight_map"].as_object().unwrap().keys().next().unwrap().clone();
    for elsewhere in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "./b.safetensors", "..", "", "b.bin"] {
        let text = refused(&|_, list| {
            let array = first(list);
            list["weight_map"][array] = json!(elsewhere);
        });
        let expected = format!("expected the name of a .safetensors file in the same folder, found `{elsewhere}`");
        assert!(text.contains(&expected), "{text}");
    }
    let text = refused(&|_, list| {
        let array = first(list);
        list["weight_map"][array] = json!("other.safetensors");
    });
    assert!(text.contains("other.safetensors"), "{text}");
    let text = refused(&|_, list| list["weight_map"]["more"] = json!("model-00002-of-00002.safetensors"));
    assert!(text.contains("expected an array `more`, as the list says, found none"), "{text}");
    let text = refused(&|copy, _| {
        let [one, two] = [1, 2].map(|part| copy.path().join(format!("model-{part:05}-of-00002.safetensors")));
        fs::copy(one, two).unwrap();
    });
    assert!(text.contains("as the list says"), "{text}");
    let text = refused(&|copy, list| {
        let [one, two] = [1, 2].map(|part| copy.path().join(format!("model-{part:05}-of-00002.safetensors")));
        fs::copy(one, two).unwrap();
        let all = list["weight_map"].as_object_mut().unwrap();
        all.retain(|_, file| file == "model-00001-of-00002.safetensors");
        let twice = all.keys().next().unwrap().clone();
        all[&twice] = json!("model-00002-of-00002.safetensors");
    });
    assert!(text.contains("expected in one of the parts, found in two"), "{text}");
    let text = refused(&|_, list| *list = json!({"metadata": {}}));
    assert!(text.contains("missing field `weight_map`"), "{text}");
    let text = refused(&|_, list| list["weight_map"] = json!({}));
    assert!(text.contains("expected an array"), "{text}");
}

/// Files as the hub has them: a processor in the keys of 2021, and one inside the file of all processors.
#[test]
fn older_and_newer_processors_are_read() {
    let (plain, _) = pictures(&folder("clip"), Fit::Published, 0).unwrap();
    let old = changed("clip", "preprocessor_config.json", |value| {
        *value = json!({
            "feature_extractor_type": "CLIPFeatureExtractor", "size": 36, "crop_size": 32, "do_resize": true,
            "do_center_crop": true, "do_normalize": true, "resample": 3,
            "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        });
    });
    let (other, _) = pictures(old.path(), Fit::Published, 0).unwrap();
    assert_eq!((encoded(&other), &other.recipe().pixels), (encoded(&plain), &plain.recipe().pixels));
    let written: Value =
        serde_json::from_slice(&fs::read(folder("clip").join("preprocessor_config.json")).unwrap()).unwrap();
    let new = changed("clip", "processor_config.json", |value| *value = json!({"image_processor": written}));
    fs::remove_file(new.path().join("preprocessor_config.json")).unwrap();
    assert_eq!(encoded(&pictures(new.path(), Fit::Published, 0).unwrap().0), encoded(&plain));
    // Files that say it twice: the second counts.
    let twice = changed("clip", "config.json", |value| {
        value["text_config_dict"] = value["text_config"].take();
        value["text_config"] = json!({"hidden_size": 999, "hidden_act": "gelu"});
        value["vision_config_dict"] = json!(null);
    });
    let read = |network: &Sentences| network.encode_texts(&["a dog"]).unwrap();
    assert_eq!(read(&texts(twice.path()).unwrap()), read(&texts(&folder("clip")).unwrap()));
    // What is done to a picture stands in the manifest.
    assert_eq!(
        plain.recipe().pixels,
        "turned as EXIF says, alpha on white, shorter side to 36 by Pillow's bicubic filter, the middle 32 x 32, \
         (v * 0.00392156862745098 - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]"
    );
    let files: Vec<&str> = plain.recipe().files.keys().map(String::as_str).collect();
    assert_eq!(files, ["config.json", "preprocessor_config.json", "tokenizer.json"]);
}

/// Sound files with bytes changed, left out, doubled and put elsewhere: each is read or refused, and none panics or takes long.
#[test]
fn hostile_files_are_refused() {
    let mut stream = Seed(7).stream(&["hub", "mutations"]);
    let (mut read, mut refused) = (0, 0);
    for name in ["clip", "siglip", "vit", "dinov2", "resnet-basic", "bert"] {
        for file in ["config.json", "preprocessor_config.json"] {
            let path = folder(name).join(file);
            let Ok(sound) = fs::read(&path) else { continue };
            for _ in 0..500 {
                let mut bytes = sound.clone();
                for _ in 0..1 + stream.below(3) {
                    let at = stream.below(bytes.len());
                    match stream.below(4) {
                        0 => bytes[at] = stream.below(256) as u8,
                        1 => bytes[at] = b"0129-.eE[]{},:"[stream.below(14)],
                        2 => drop(bytes.drain(at..(at + 1 + stream.below(8)).min(bytes.len()))),
                        _ => {
                            let part = bytes[at..(at + 12).min(bytes.len())].to_vec();
                            let to = stream.below(bytes.len());
                            bytes.splice(to..to, part);
                        }
                    }
                    if bytes.is_empty() {
                        bytes.push(b'{');
                    }
                }
                let parsed = folder::object(&path, &bytes).and_then(|value| match file {
                    "config.json" => Config::parse(&path, &value).map(|_| ()),
                    _ => Pixels::parse(&path, &value, Fit::Published).map(|pixels| {
                        // A picture goes through whatever was taken for a processor.
                        assert_eq!(pixels.prepare(&picture(9, 5)).values.len(), 3 * pixels.side() * pixels.side());
                    }),
                });
                *if parsed.is_ok() { &mut read } else { &mut refused } += 1;
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused");
}
