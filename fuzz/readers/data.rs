//! Datasets and what lies in their folders.

use std::{io::Write, path::Path};

use xmbench_datasets::trec;

use super::{Refused, Stage};

/// Opens a dataset and reads all of it.
fn open(name: &str, options: toml::Table) -> impl Fn(&Path, &[u8]) -> Result<(), Refused> + 'static {
    let name = name.to_owned();
    move |root, _| {
        let dataset = xmbench_datasets::open(&name, &options, Some(root))?;
        let found = xmbench_datasets::audit(&dataset, &[].into())?;
        drop(found);
        for (_, collection) in dataset.splits() {
            let (images, texts) = (&collection.images, &collection.texts);
            for table in [&images.global, &images.fragments, &texts.global].into_iter().flatten() {
                table.all()?;
            }
        }
        Ok(())
    }
}

/// A `.npy` file of small values.
fn npy_of(descr: &str, shape: &[usize], width: usize) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({},), }}", lengths.join(", "));
    let header = format!("{header:<117}\n");
    let mut out = [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    for number in 0..shape.iter().product::<usize>() {
        // A float of moderate size by its last byte, or 0 or 1 by its first.
        let mut value = vec![0; width];
        match descr.contains('f') {
            true => value[width - 1] = 0x3c + (number % 3) as u8,
            false => value[0] = (number % 2) as u8,
        }
        out.extend(value);
    }
    out
}

const CAPTIONS: &str = "a dog runs .\nthe dog's ball\na man doesn't sit\nred t-shirt, 3.5 feet\ntwo cats\nsnow\n";

/// A precomp folder of three images with two captions each, three more to test on.
fn precomp(seeds: Vec<Vec<u8>>, file: &str) -> Result<Stage, Refused> {
    precomp_with(seeds, file, toml::toml! { path = "data" min_count = 1 })
}

fn precomp_with(seeds: Vec<Vec<u8>>, file: &str, options: toml::Table) -> Result<Stage, Refused> {
    let images = npy_of("<f4", &[3, 16], 4);
    let mut stage = Stage::new(seeds, open("precomp", options))?.into(&format!("data/{file}"))?;
    for (name, bytes) in [
        ("train_ims.npy", images.as_slice()),
        ("train_caps.txt", CAPTIONS.as_bytes()),
        ("test_ims.npy", &images),
        ("test_caps.txt", CAPTIONS.as_bytes()),
    ] {
        if name != file {
            stage = stage.beside(&format!("data/{name}"), bytes)?;
        }
    }
    Ok(stage)
}

pub fn npy() -> Result<Stage, Refused> {
    let seeds = vec![npy_of("<f4", &[3, 16], 4), npy_of("<f8", &[3, 16], 8), npy_of("<f2", &[6, 16], 2)];
    precomp(seeds, "train_ims.npy")
}

pub fn captions() -> Result<Stage, Refused> {
    precomp(
        vec![CAPTIONS.into(), "\u{feff}caf\u{e9} \u{130}\u{2019}s\n\u{1f600}\n.\n1,2\na\nb\n".into()],
        "train_caps.txt",
    )
}

pub fn word_vectors() -> Result<Stage, Refused> {
    let options = toml::toml! { path = "data" min_count = 1 word_vectors = "data/v.txt" };
    let seeds =
        vec!["5 3\ndog 1 2 3\na -1e-3 0.5 2 \n. . 1 2 3\nr\u{e9}d 0 0 0\ncat 1 1 1\n".into(), "a\t1\ndog\t2\n".into()];
    precomp_with(seeds, "v.txt", options)
}

pub fn word_vectors_binary() -> Result<Stage, Refused> {
    let options = toml::toml! { path = "data" min_count = 1 word_vectors = "data/v.bin" };
    let vector = |word: &str| [word.as_bytes(), b" ", &1.5f32.to_le_bytes(), &(-2.0f32).to_le_bytes(), b"\n"].concat();
    let seed = [b"3 2\n".to_vec(), vector("dog"), vector("a"), vector("the")].concat();
    precomp_with(vec![seed], "v.bin", options)
}

pub fn trec_run() -> Result<Stage, Refused> {
    let seeds = vec!["q1 Q0 a 1 0.5 t\nq1\tQ0\tb\t2\t-1e-3\tt\n\nq2 Q0 a 1 7 t\n".into()];
    Stage::new(seeds, |_, bytes| {
        trec::parse_run(Path::new("fuzz.run"), bytes)?;
        Ok(())
    })
}

pub fn trec_qrels() -> Result<Stage, Refused> {
    Stage::new(vec!["q1 0 a 1\nq1 0 b 0\nq2\t0\ta\t-1\n".into()], |_, bytes| {
        trec::parse_qrels(Path::new("fuzz.qrels"), bytes)?;
        Ok(())
    })
}

pub fn ids() -> Result<Stage, Refused> {
    precomp(vec!["a.jpg\nb.jpg\nc.jpg\n".into(), "1\n1\n2\n2\n3\n3\n".into()], "train_ids.txt")
}

pub fn counts() -> Result<Stage, Refused> {
    precomp(vec!["1\n4\n1\n".into(), "2\n2\n2\n".into()], "train_counts.txt")
}

pub fn labels() -> Result<Stage, Refused> {
    // Splits have labels all or none: the training split's are refused where the test split has none, behind their reader.
    precomp(vec!["cats\tdogs\n\ncats\n".into()], "train_labels.txt")?.beside("data/test_labels.txt", b"dogs\n\nbirds\n")
}

/// Regions and their boxes: three images of two regions.
pub fn boxes() -> Result<Stage, Refused> {
    let rows = npy_of("<f4", &[3, 2, 4], 4);
    let mut seed = rows.clone();
    let start = seed.len() - 3 * 2 * 4 * 4;
    let values = [0.0f32, 0.0, 0.5, 1.0].into_iter().cycle().flat_map(f32::to_le_bytes);
    seed.splice(start.., values.take(3 * 2 * 4 * 4));
    precomp(vec![seed], "train_boxes.npy")?.beside("data/train_ims.npy", &rows)?.beside("data/test_ims.npy", &rows)
}

pub fn notice() -> Result<Stage, Refused> {
    let seed = "title = 'Pets'\nlicence = \"none\"\nattribution = '''\nnobody'''\ncaveat = \"two regions\"\n";
    precomp(vec![seed.into()], "notice.toml")
}

pub fn npy_labels() -> Result<Stage, Refused> {
    let options = toml::toml! { path = "data" split = "first" queries = 1 };
    let seeds = vec![npy_of("|u1", &[4], 1), npy_of("<i8", &[4, 2], 8), npy_of("|b1", &[4, 3], 1)];
    Stage::new(seeds, open("features", options))?
        .into("data/labels.npy")?
        .beside("data/images.npy", &npy_of("<f4", &[4, 16], 4))?
        .beside("data/texts.npy", &npy_of("<f4", &[4, 5], 4))
}

pub fn lists() -> Result<Stage, Refused> {
    let seeds = vec!["t0\ti0\t1\nt1\ti1\t3\nt2\ti2\t2\nt3\ti3\t2\nt4\ti4\t1\n".into()];
    wiki(seeds, "wiki/trainset_txt_img_cat.list")
}

pub fn mat_wiki() -> Result<Stage, Refused> {
    wiki(vec![wiki_features()], "wiki/raw_features.mat")
}

/// The Wikipedia folder with three classes, five documents to train on and three that ask.
fn wiki(seeds: Vec<Vec<u8>>, file: &str) -> Result<Stage, Refused> {
    let list = |classes: &[u32]| -> String {
        classes.iter().enumerate().map(|(i, class)| format!("t{i}\ti{i}\t{class}\n")).collect()
    };
    let mut stage = Stage::new(seeds, open("wiki", toml::Table::new()))?.into(file)?;
    for (name, bytes) in [
        ("wiki/categories.list", b"art\nbiology\nmusic\n".to_vec()),
        ("wiki/trainset_txt_img_cat.list", list(&[1, 3, 2, 2, 1]).into()),
        ("wiki/testset_txt_img_cat.list", list(&[2, 1, 3]).into()),
        ("wiki/raw_features.mat", wiki_features()),
    ] {
        if name != file {
            stage = stage.beside(name, &bytes)?;
        }
    }
    Ok(stage)
}

/// An element of a MAT-file of version 5, as MATLAB writes it without compression.
fn element(name: &str, size: [u32; 2], values: &[f64]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut part = |kind: u32, bytes: Vec<u8>| {
        body.extend([kind, bytes.len() as u32].map(u32::to_le_bytes).concat());
        body.extend(&bytes);
        body.resize(body.len().next_multiple_of(8), 0);
    };
    part(6, [6u32, 0].map(u32::to_le_bytes).concat());
    part(5, size.map(u32::to_le_bytes).concat());
    part(1, name.into());
    part(9, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    [[14, body.len() as u32].map(u32::to_le_bytes).concat(), body].concat()
}

fn mat5_head() -> Vec<u8> {
    let mut out = b"MATLAB 5.0 MAT-file".to_vec();
    out.resize(124, b' ');
    out.extend([0, 1, b'I', b'M']);
    out
}

fn wiki_features() -> Vec<u8> {
    let values: Vec<f64> = (0..10).map(f64::from).collect();
    let mut out = mat5_head();
    for (part, rows) in [("tr", 5), ("te", 3)] {
        for side in ["I", "T"] {
            out.extend(element(&format!("{side}_{part}"), [rows, 2], &values[..2 * rows as usize]));
        }
    }
    out.extend(element("L_te", [3, 1], &[2., 1., 3.]));
    out
}

const V5: &[u8] = include_bytes!("../../datasets/tests/data/v5.mat");
const V5_PACKED: &[u8] = include_bytes!("../../datasets/tests/data/v5-packed.mat");
const V73: [&[u8]; 6] = [
    include_bytes!("../../datasets/tests/data/v73.mat"),
    include_bytes!("../../datasets/tests/data/v73-deflate.mat"),
    include_bytes!("../../datasets/tests/data/v73-superblock2.mat"),
    include_bytes!("../../datasets/tests/data/v73-latest.mat"),
    include_bytes!("../../datasets/tests/data/v73-hdf5storage.mat"),
    include_bytes!("../../datasets/tests/data/bomb.mat"),
];

/// Features in one MAT-file.
fn mat(seeds: Vec<Vec<u8>>) -> Result<Stage, Refused> {
    let options =
        toml::toml! { path = "a.mat" split = "first" queries = 2 images = "I_tr" texts = "T_tr" labels = "L_tr" };
    Stage::new(seeds, open("features", options))?.into("a.mat")
}

pub fn mat5() -> Result<Stage, Refused> {
    mat(vec![V5.into(), V5_PACKED.into()])
}

/// Seeds are elements without the file's head; each is packed again.
pub fn mat5_packed() -> Result<Stage, Refused> {
    let plain = [("I_tr", 3), ("T_tr", 4), ("L_tr", 1)].map(|(name, cols): (&str, u32)| {
        let values: Vec<f64> = (0..5 * cols).map(|i| f64::from(i % 3)).collect();
        element(name, [5, cols], &values)
    });
    Ok(mat(vec![plain.concat()])?.packed(|elements| {
        let mut out = mat5_head();
        let mut rest = elements;
        // As far as lengths say where elements end; what is left is one more.
        while !rest.is_empty() {
            let length = rest.get(4..8).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            let end = (length as usize).saturating_add(8).min(rest.len());
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&rest[..end]).expect("memory takes what it is given");
            let body = encoder.finish().expect("memory takes what it is given");
            out.extend([15, body.len() as u32].map(u32::to_le_bytes).concat());
            out.extend(body);
            rest = &rest[end..];
        }
        out
    }))
}

pub fn mat73() -> Result<Stage, Refused> {
    mat(V73.map(<[u8]>::to_vec).into())
}

fn idx_of(shape: &[u32], values: usize) -> Vec<u8> {
    let lengths = shape.iter().flat_map(|length| length.to_be_bytes());
    let head = [0, 0, 8, shape.len() as u8].into_iter().chain(lengths);
    head.chain((0..values).map(|i| (i % 7) as u8)).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes what it is given");
    encoder.finish().expect("memory takes what it is given")
}

/// Twenty digits of 4 x 8 pixels.
fn mnist(seeds: Vec<Vec<u8>>) -> Result<Stage, Refused> {
    Stage::new(seeds, open("mnist-halves", toml::Table::new()))?
        .into("mnist/train-images-idx3-ubyte")?
        .beside("mnist/train-labels-idx1-ubyte", &idx_of(&[20], 20))?
        .beside("mnist/t10k-images-idx3-ubyte", &idx_of(&[3, 4, 8], 96))?
        .beside("mnist/t10k-labels-idx1-ubyte", &idx_of(&[3], 3))
}

pub fn idx() -> Result<Stage, Refused> {
    mnist(vec![idx_of(&[20, 4, 8], 640)])
}

pub fn idx_gzip() -> Result<Stage, Refused> {
    Ok(mnist(vec![idx_of(&[20, 4, 8], 640)])?.packed(gzip))
}

/// The stream itself is mutated.
pub fn gzip_stream() -> Result<Stage, Refused> {
    mnist(vec![gzip(&idx_of(&[20, 4, 8], 640))])
}

pub fn mfeat() -> Result<Stage, Refused> {
    let rows = |width: usize, between: &str, digit: bool| -> Vec<u8> {
        let row = |i: usize| {
            let values: Vec<String> = (0..width).map(|j| ((i + j) % 10).to_string()).collect();
            format!("{}{}\n", values.join(between), if digit { format!(",{}", i / 200) } else { String::new() })
        };
        (0..2000).map(row).collect::<String>().into()
    };
    let options = toml::toml! { image = "mor" text = "zer" };
    Stage::new(vec![rows(6, " ", false)], open("mfeat", options))?
        .into("mfeat/mfeat-mor")?
        .beside("mfeat/mfeat-zer.csv", &[b"heading\n".to_vec(), rows(47, ",", true)].concat())
}

/// A look at a file of any kind.
pub fn inspect() -> Result<Stage, Refused> {
    let mut seeds = vec![
        npy_of("<f4", &[3, 16], 4),
        CAPTIONS.into(),
        V5.to_vec(),
        V5_PACKED.to_vec(),
        idx_of(&[20, 4, 8], 640),
        gzip(&idx_of(&[3], 3)),
    ];
    seeds.extend(V73.map(<[u8]>::to_vec));
    let look = |root: &Path, _: &[u8]| -> Result<(), Refused> {
        xmbench_datasets::inspect(root)?;
        xmbench_datasets::inspect(&root.join("a.mat"))?;
        Ok(())
    };
    Stage::new(seeds, look)?.into("a.mat")
}
