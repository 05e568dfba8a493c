//! What people write: experiments and cards.

use xmbench::run::{Experiment, Methods, Profile, plan};
use xmbench_methods::card::Card;

use super::{Refused, Stage};

pub fn experiment() -> Result<Stage, Refused> {
    let seeds = [
        include_bytes!("../../harness/experiments/01-emoji-pairs.toml").to_vec(),
        include_bytes!("../../harness/experiments/03-wiki-correlation.toml").to_vec(),
        include_bytes!("../../harness/experiments/16-wiki-hashing.toml").to_vec(),
    ];
    let methods = Methods::with(&[]);
    Stage::new(seeds.into(), move |_, bytes| {
        let text = std::str::from_utf8(bytes)?;
        let experiment = Experiment::parse("fuzz", "fuzz.toml", text, Profile::Smoke)?;
        plan(&experiment, &methods)?;
        Ok(())
    })
}

pub fn card() -> Result<Stage, Refused> {
    let seeds = [
        include_bytes!("../../methods/src/correlation/cca.toml").to_vec(),
        include_bytes!("../../methods/src/metric/vse.toml").to_vec(),
        include_bytes!("../../harness/examples/own_method.toml").to_vec(),
    ];
    Stage::new(seeds.into(), |_, bytes| {
        let card = Card::parse("fuzz.toml", std::str::from_utf8(bytes)?)?;
        card.numbers().count();
        Ok(())
    })
}
