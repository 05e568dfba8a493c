//! Tensors: golden files, matchers, checkpoints.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use candle_core::Device;
use xmbench_datasets::{Dataset, Features, arrays::Array, random::Seed};
use xmbench_methods::{Method, Run, Training, golden::Case, method::Silent, registry};

use super::{Refused, Stage};

/// A safetensors file of f64 tensors and metadata.
fn tensors(meta: &str, tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let (mut header, mut data) = (format!("{{\"__metadata__\":{meta}"), Vec::new());
    for (name, shape) in tensors {
        let (begin, values) = (data.len(), shape.iter().product::<usize>());
        (0..values).for_each(|i| data.extend((i as f64 / 4.0).to_le_bytes()));
        let end = data.len();
        header += &format!(",\"{name}\":{{\"dtype\":\"F64\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}");
    }
    header.push('}');
    [(header.len() as u64).to_le_bytes().to_vec(), header.into_bytes(), data].concat()
}

/// A zip archive of one stored entry, as `numpy.savez` makes it.
fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    let size = (content.len() as u32).to_le_bytes();
    // Versions, flags, method, time and a checksum that nobody asks of what is stored; sizes; lengths of the name and of nothing.
    let both = [&[0u8; 10][..], &[0; 4], &size, &size, &(name.len() as u16).to_le_bytes(), &[0; 2]].concat();
    let own = [&b"PK\x03\x04"[..], &both, name.as_bytes(), content].concat();
    let listed = [&b"PK\x01\x02"[..], &[0; 2], &both, &[0; 10], &[0; 4], name.as_bytes()].concat();
    let (length, at) = ((listed.len() as u32).to_le_bytes(), (own.len() as u32).to_le_bytes());
    [&own[..], &listed, b"PK\x05\x06", &[0; 4], &[1, 0, 1, 0], &length, &at, &[0; 2]].concat()
}

/// Arrays of other programs: `.npy`, `.npz`, safetensors.
pub fn array() -> Result<Stage, Refused> {
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }").bytes());
    npy.extend([0.5f32, 1.0, -2.0, 3.0].iter().flat_map(|value| value.to_le_bytes()));
    let seeds = vec![zip("a.npy", &npy), tensors("{}", &[("a", &[2, 3])]), npy];
    let read = |root: &Path, _: &[u8]| -> Result<(), Refused> {
        let place = root.join("a.bin");
        let array = Array::open(place.to_str().ok_or("a name in UTF-8")?)?;
        let table: &dyn Features = &array;
        table.all()?;
        Ok(())
    };
    Stage::new(seeds, read)?.into("a.bin")
}

pub fn golden() -> Result<Stage, Refused> {
    let meta = "{\"op\":\"o\",\"rtol\":\"1e-3\",\"atol\":\"0\",\"config\":\"{\\\"k\\\":1}\"}";
    let read = |root: &Path, _: &[u8]| -> Result<(), Refused> {
        let case = Case::read(&root.join("a.safetensors"))?;
        case.get("in.x")?;
        case.config::<usize>("k")?;
        Ok(())
    };
    Stage::new(vec![tensors(meta, &[("in.x", &[2, 3]), ("out.y", &[4])])], read)?.into("a.safetensors")
}

/// A planted dataset of a few items, and a method with parameters that make it small.
fn small(method: &str) -> Result<(Dataset, &'static dyn Method, toml::Table), Refused> {
    let dataset = xmbench_datasets::open("planted-fragments", &toml::toml! { train = 12 val = 0 test = 4 }, None)?;
    let method = registry::find(method).ok_or("a built-in method")?;
    let wanted = toml::toml! {
        components = 2
        bits = 8
        embedding = 8
        word = 4
        hidden = 8
        image_hidden = 0
        text_hidden = 8
        epochs = 1
        batch = 6
        warmup = 0
    };
    let known = method.resolve(&toml::Table::new())?;
    Ok((dataset, method, wanted.into_iter().filter(|(key, _)| known.contains_key(key)).collect()))
}

/// A matcher that was saved, one file of it replaced: it is loaded, and encodes.
pub fn matcher(name: &str, file: &str) -> Result<Stage, Refused> {
    let (dataset, method, params) = small(name)?;
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let fitted = method.fit(&Training::of(&dataset), &params, &mut Run::new(Seed(1), &mut silent, &stop))?;
    let saved = tempfile::tempdir()?;
    fitted.save(saved.path())?;
    // The name that was asked for, or the only safetensors file.
    let entries: Vec<PathBuf> =
        fs::read_dir(saved.path())?.map(|entry| Ok(entry?.path())).collect::<Result<_, Refused>>()?;
    let ending = Path::new(file).extension();
    let chosen = entries
        .iter()
        .find(|path| path.ends_with(file))
        .or_else(|| entries.iter().find(|path| path.extension() == ending));
    let chosen = chosen.ok_or_else(|| format!("{name} saves no {file}: {entries:?}"))?;
    let read = move |root: &Path, _: &[u8]| -> Result<(), Refused> {
        let matcher = method.load(root, &Device::Cpu)?;
        matcher.encode_images(&dataset.test.images)?;
        matcher.encode_texts(&dataset.test.texts)?;
        Ok(())
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut stage = Stage::new(vec![fs::read(chosen)?], read)?.into(&name(chosen))?;
    for other in entries.iter().filter(|path| *path != chosen) {
        stage = stage.beside(&name(other), &fs::read(other)?)?;
    }
    Ok(stage)
}

/// A checkpoint of a finished training, which is taken up again.
pub fn checkpoint() -> Result<Stage, Refused> {
    let (dataset, method, params) = small("vse")?;
    let fit = move |root: &Path| -> Result<(), Refused> {
        let (stop, mut silent) = (AtomicBool::new(false), Silent);
        let mut run = Run::new(Seed(1), &mut silent, &stop);
        run.checkpoints = Some(root.to_owned());
        method.fit(&Training::of(&dataset), &params, &mut run)?;
        Ok(())
    };
    let first = tempfile::tempdir()?;
    fit(first.path())?;
    let seed = fs::read(first.path().join("training.safetensors"))?;
    Stage::new(vec![seed], move |root, _| fit(root))?.into("training.safetensors")
}
