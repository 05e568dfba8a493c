//! `--device auto|cpu|cuda[:N]`.

use anyhow::{Context, Result};
use candle_core::Device;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// CUDA where there is one, the processor otherwise.
    Auto,
    /// The processor.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err("expected `auto`, `cpu`, `cuda` or `cuda:N`".into()),
        }
    }
}

/// The device and its name: `cpu`, `cuda:0`.
///
/// # Errors
/// If CUDA was asked for by name and is not there.
pub fn open(choice: Choice) -> Result<(Device, String)> {
    match choice {
        Choice::Cpu => Ok((Device::Cpu, "cpu".into())),
        Choice::Cuda(_) if !cfg!(feature = "cuda") => anyhow::bail!(
            "this xmbench was built without CUDA; build it with `bash scripts/cuda-build.sh`, or use --device cpu"
        ),
        Choice::Cuda(number) => {
            let device = Device::new_cuda(number).with_context(|| {
                format!(
                    "cannot open CUDA device {number}; `nvidia-smi -L` lists what there is, --device cpu does without"
                )
            })?;
            Ok((device, format!("cuda:{number}")))
        }
        Choice::Auto => Ok(Device::new_cuda(0).map_or((Device::Cpu, "cpu".into()), |device| (device, "cuda:0".into()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(Choice::Cuda(3)));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda3", ""] {
            assert!(wrong.parse::<Choice>().is_err(), "{wrong}");
        }
    }
}
