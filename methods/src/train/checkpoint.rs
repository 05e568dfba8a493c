use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use candle_core::{Device, Tensor};

use super::{Best, Phase, Progress, Schedule};
use crate::{Error, Result, Run, Training, method::Epoch, nn::Weights};

/// Everything that a training needs to go on, in one safetensors file that is replaced after each epoch.
///
/// Tensors: `weight.NAME`, `moment.NAME.I`, `best.NAME`; `epochs [n, 6]` in f64, a row an epoch (number, loss, learning rate,
/// validation or NaN, seconds, pairs); `best [2]` in f64 (score, epoch). Metadata: `training`, which names what was trained;
/// `steps`, those of the training; `moved`, the optimiser steps of each weight; `collapse`, steps in a row near a collapse.
pub(super) struct Checkpoint {
    path: PathBuf,
    training: String,
}

const FILE: &str = "training.safetensors";

impl Checkpoint {
    /// The checkpoint of a run, if it keeps one.
    pub(super) fn new(
        run: &Run<'_>,
        schedule: &Schedule,
        phases: &[Phase],
        training: &Training<'_>,
        weights: &Weights,
    ) -> Option<Self> {
        let shapes: BTreeMap<&str, &[usize]> = weights.iter().map(|(name, var)| (name, var.dims())).collect();
        let training = serde_json::json!({
            "dataset": training.dataset,
            "pairs": training.train.pairs.all().len(),
            "schedule": schedule,
            "phases": phases,
            "seed": run.seed,
            "weights": shapes,
        });
        run.checkpoints.as_ref().map(|folder| Self { path: folder.join(FILE), training: training.to_string() })
    }

    /// Takes back the state of an earlier run, if there is one, and says how many epochs it had done.
    pub(super) fn read(&self, weights: &Weights, progress: &mut Progress, history: &mut Vec<Epoch>) -> Result<usize> {
        let file = self.path.display().to_string();
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(Error::io(&self.path)(error)),
        };
        let wrong = |expected: &str, found: &str| Error::Format {
            file: file.clone(),
            expected: format!("{expected}; delete the file to start anew"),
            found: found.into(),
        };
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|error| wrong("a safetensors file", &error.to_string()))?;
        let meta = header.metadata().clone().unwrap_or_default();
        let found = meta.get("training").map_or("none", String::as_str);
        if found != self.training {
            return Err(wrong(&format!("the checkpoint of the training {}", self.training), found));
        }
        let number = |key: &str| {
            let value = meta.get(key).and_then(|value| value.parse::<usize>().ok());
            value.ok_or_else(|| wrong(&format!("a number `{key}`"), meta.get(key).map_or("none", String::as_str)))
        };
        let moved: BTreeMap<String, u64> =
            meta.get("moved").and_then(|moved| serde_json::from_str(moved).ok()).ok_or_else(|| {
                wrong("the optimiser steps of each weight", meta.get("moved").map_or("none", String::as_str))
            })?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| wrong("a safetensors file", &error.to_string()))?;
        let under = |prefix: &str| -> BTreeMap<String, Tensor> {
            tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_string(), t.clone()))).collect()
        };
        let epochs = tensors
            .get("epochs")
            .and_then(|epochs| epochs.to_vec2::<f64>().ok())
            .filter(|epochs| epochs.iter().all(|row| row.len() == 6))
            .ok_or_else(|| wrong("a tensor `epochs` [n, 6] of f64", "none"))?;
        weights.restore(&under("weight."))?;
        progress.optimiser.restore(&moved, &under("moment."), &file)?;
        (progress.steps, progress.collapse.steps) = (number("steps")?, number("collapse")?);
        progress.best = match tensors.get("best").and_then(|best| best.to_vec1::<f64>().ok()).as_deref() {
            Some(&[score, epoch]) => {
                let weights = under("best.");
                Some(Best { score, epoch: epoch as usize, weights })
            }
            _ => None,
        };
        *history = epochs
            .iter()
            .map(|row| Epoch {
                epoch: row[0] as usize,
                loss: row[1],
                learning_rate: row[2],
                validation: Some(row[3]).filter(|score| !score.is_nan()),
                seconds: row[4],
                pairs: row[5] as usize,
            })
            .collect();
        Ok(epochs.len())
    }

    /// Replaces the checkpoint: the new one is written beside the old one, then renamed over it.
    pub(super) fn write(&self, weights: &Weights, progress: &Progress, history: &[Epoch]) -> Result<()> {
        let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut add = |prefix: &str, values: BTreeMap<String, Tensor>| {
            tensors.extend(values.into_iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor)));
        };
        add("weight", weights.iter().map(|(name, var)| (name.to_string(), var.as_detached_tensor())).collect());
        add("moment", progress.optimiser.tensors(weights)?);
        if let Some(best) = &progress.best {
            add("best", best.weights.clone());
            tensors.insert("best".into(), Tensor::new(&[best.score, best.epoch as f64], &Device::Cpu)?);
        }
        let rows: Vec<f64> = history
            .iter()
            .flat_map(|e| {
                let validation = e.validation.unwrap_or(f64::NAN);
                [e.epoch as f64, e.loss, e.learning_rate, validation, e.seconds, e.pairs as f64]
            })
            .collect();
        tensors.insert("epochs".into(), Tensor::from_vec(rows, (history.len(), 6), &Device::Cpu)?);
        let meta: HashMap<String, String> = [
            ("training".into(), self.training.clone()),
            ("steps".into(), progress.steps.to_string()),
            ("moved".into(), serde_json::json!(progress.optimiser.moved()).to_string()),
            ("collapse".into(), progress.collapse.steps.to_string()),
        ]
        .into();
        let folder = self.path.parent().expect("the path was joined from a folder");
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let part = self.path.with_extension("part");
        let failed = |error: &dyn std::fmt::Display| Error::Io {
            path: part.clone(),
            source: std::io::Error::other(error.to_string()),
        };
        safetensors::serialize_to_file(tensors, Some(meta), &part).map_err(|error| failed(&error))?;
        // Without this a crash of the machine could leave a renamed file whose content never reached the disk.
        std::fs::File::open(&part).and_then(|file| file.sync_all()).map_err(Error::io(&part))?;
        std::fs::rename(&part, &self.path).map_err(Error::io(&self.path))
    }
}
