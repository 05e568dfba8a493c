//! Deep unsupervised contrastive hashing (Mikriukov, Ravanbakhsh, Demir, ICASSP 2022): pairs contrasted with the rest of the batch, each item
//! with an augmented copy of itself, and a discriminator that must not tell the modalities apart.
//!
//! For the codes `H_I`, `H_T [m, c]` of a batch and `H_I'`, `H_T'` of second views of its items, with NT-Xent of [`crate::loss`]:
//!
//! ```text
//! L_c = NTXent(H_I, H_T) + image_views NTXent(H_I, H_I') + text_views NTXent(H_T, H_T')           (1)
//! B   = sign(H_I + H_I' + H_T + H_T')                                                             (2)
//! L_q = sum over the four H of |B - H|²                                                           (3)
//! L_b = sum over the four H and over items of (sum of the bits of h)²                             (4)
//! L_a = -sum over texts and their second views of log s(D(h))                                     (5)
//! L   = L_c + adversary L_a + quantisation L_q + balance L_b                                      (6)  networks
//! L_D = -sum over images and their second views of log s(D(h)) - sum over texts of log(1 - s(D(h)))    (7)  discriminator
//! ```
//!
//! All are sums; `s` is the logistic function, `D` has one hidden layer with ReLU. A step is (7) for the discriminator, then (6) for the networks:
//! two phases. (3) to (5) are as released (comrados/duch@b908ed4), where the balance is of the bits of an item, not of a bit over
//! items, and texts are the side that has to pass for the other.
//!
//! Departures: second views. The paper crops, blurs and turns images and rewrites captions by rules; features are given here, so that a
//! view is the networks' standardised input with normal noise (`view_noise`, in the unit of the inputs' spread) and a share of its entries set to 0
//! (`view_drop`). No gradient penalty on the discriminator: candle has no derivative of a derivative. `B` is that of the batch at every step, not
//! kept for an epoch. One Adam, where the discriminator has other momenta there. The temperature is not known; 0.5 is SimCLR's.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    golden::{gradient, values, variable},
    networks::{Networks, Options},
    settings,
};
use crate::{
    Result,
    card::Card,
    golden::{Answer, Case, Operation},
    loss::{Contrast, nt_xent},
    nn::Linear,
    params::out_of_range,
    train::{Moves, Optimiser, Phase, Schedule},
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "duch";

/// Keeps the logarithm of NT-Xent finite, as released.
const EPS: f64 = 1e-6;

/// The method.
pub static DUCH: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Temperature of NT-Xent.
    pub temperature: f64,
    /// Which rows stand against a positive.
    pub contrast: Contrast,
    /// Weight of the images' views in equation (1).
    pub image_views: f64,
    /// Weight of the texts' views in equation (1).
    pub text_views: f64,
    /// Weight of equation (5); 0 leaves the discriminator out.
    pub adversary: f64,
    /// Weight of equation (3).
    pub quantisation: f64,
    /// Weight of equation (4).
    pub balance: f64,
    /// Hidden width of the discriminator.
    pub discriminator: usize,
    /// Deviation of the noise of second views.
    pub view_noise: f64,
    /// Share of the entries that second views lose.
    pub view_drop: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            temperature: 0.5,
            contrast: Contrast::Orig,
            image_views: 1.0,
            text_views: 1.0,
            adversary: 0.01,
            quantisation: 0.001,
            balance: 0.01,
            discriminator: 256,
            view_noise: 0.3,
            view_drop: 0.2,
        }
    }
}

/// `D` of equations (5) and (7), `[n, c]` to `[n, 1]`.
pub struct Discriminator([Linear; 2]);

impl Discriminator {
    fn forward(&self, codes: &Tensor) -> Result<Tensor> {
        self.0[1].forward(&self.0[0].forward(codes)?.relu()?)
    }

    /// `-sum log s(D(h))`, or for what is not of that side `-sum log(1 - s(D(h)))`.
    fn cost(&self, codes: &Tensor, own: bool) -> Result<Tensor> {
        let scores = self.forward(codes)?;
        Ok(softplus(&if own { scores.neg()? } else { scores })?.sum_all()?)
    }
}

/// `log(1 + exp(x))`, which cannot overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    Ok((x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?)
}

/// The codes of a batch and of its second views.
struct Codes {
    images: [Tensor; 2],
    texts: [Tensor; 2],
}

impl Codes {
    fn all(&self) -> impl Iterator<Item = &Tensor> {
        self.images.iter().chain(&self.texts)
    }

    /// Equation (2).
    fn signs(&self) -> Result<Tensor> {
        let [images, texts] = [&self.images, &self.texts].map(|[first, second]| first + second);
        Ok((images? + texts?)?.sign()?.detach())
    }

    /// Equation (3).
    fn quantisation(&self, signs: &Tensor) -> Result<Tensor> {
        sum(self.all().map(|codes| Ok((signs - codes)?.sqr()?.sum_all()?)))
    }

    /// Equation (4).
    fn balance(&self) -> Result<Tensor> {
        sum(self.all().map(|codes| Ok(codes.sum(1)?.sqr()?.sum_all()?)))
    }

    /// Equation (5).
    fn adversary(&self, discriminator: &Discriminator) -> Result<Tensor> {
        sum(self.texts.iter().map(|codes| discriminator.cost(codes, true)))
    }

    /// Equation (7), which moves the discriminator alone.
    fn told_apart(&self, discriminator: &Discriminator) -> Result<Tensor> {
        let images = self.images.iter().map(|codes| discriminator.cost(&codes.detach(), true));
        sum(images.chain(self.texts.iter().map(|codes| discriminator.cost(&codes.detach(), false))))
    }
}

fn sum(mut terms: impl Iterator<Item = Result<Tensor>>) -> Result<Tensor> {
    let first = terms.next().expect("there are two terms or four")?;
    terms.try_fold(first, |sum, term| Ok((sum + term?)?))
}

impl Loss for Params {
    type Body = Networks;
    type Head = Option<Discriminator>;

    fn card() -> &'static Card {
        crate::card!("duch.toml")
    }

    fn shared() -> Shared<Networks> {
        let options = Options { image_hidden: 4096, batch_norm: true, annealed: false, ..Options::default() };
        let schedule = Schedule {
            epochs: 100,
            batch: 256,
            optimiser: Optimiser::Adam,
            learning_rate: 1e-4,
            decay_every: 50,
            decay: 0.8,
            ..settings::schedule(100, 1e-4)
        };
        Shared { options, schedule, negatives: None }
    }

    fn check(&self, shared: &Shared<Networks>) -> Result<()> {
        shared.has_negatives(NAME)?;
        let Self { temperature, image_views, text_views, adversary, quantisation, balance, .. } = *self;
        // exp(1 / T) has to be a number in f32.
        if !(temperature >= 0.02 && temperature.is_finite()) {
            return Err(out_of_range(NAME, "temperature", "a number from 0.02 up", temperature));
        }
        settings::not_negative(NAME, &[("image_views", image_views), ("text_views", text_views)])?;
        settings::not_negative(
            NAME,
            &[("adversary", adversary), ("quantisation", quantisation), ("balance", balance)],
        )?;
        settings::not_negative(NAME, &[("view_noise", self.view_noise)])?;
        if !(0.0..1.0).contains(&self.view_drop) {
            return Err(out_of_range(NAME, "view_drop", "a share in [0, 1)", self.view_drop));
        }
        match self.discriminator {
            1..=65_536 => Ok(()),
            width => Err(out_of_range(NAME, "discriminator", "1 to 65536", width)),
        }
    }

    fn phases(&self) -> Vec<Phase> {
        let under = |starts: &[&str]| Phase {
            weights: Moves::Under(starts.iter().map(|start| start.to_string()).collect()),
            ..Phase::default()
        };
        match self.adversary > 0.0 {
            true => vec![under(&["discriminator."]), under(&["image.", "text."])],
            false => vec![under(&["image.", "text."])],
        }
    }

    fn head(&self, fitting: &mut Fitting<'_, Networks>) -> Result<Self::Head> {
        if self.adversary == 0.0 {
            return Ok(None);
        }
        let (bits, hidden) = (fitting.body.bits(), self.discriminator);
        let first = Linear::new(fitting.weights, "discriminator.0", bits, hidden)?;
        Ok(Some(Discriminator([first, Linear::new(fitting.weights, "discriminator.1", hidden, 1)?])))
    }

    fn loss(&self, discriminator: &Self::Head, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let codes = self.codes(batch)?;
        let Some(discriminator) = discriminator else { return self.total(&codes) };
        match batch.phase {
            0 => codes.told_apart(discriminator),
            _ => Ok((self.total(&codes)? + (codes.adversary(discriminator)? * self.adversary)?)?),
        }
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "hash.duch", run: golden, ignored: &[] }]
    }
}

impl Params {
    fn codes(&self, batch: &Batch<'_, Networks>) -> Result<Codes> {
        let inputs = batch.inputs()?;
        let [first, second] = &inputs;
        let views = [self.view(batch, first)?, self.view(batch, second)?];
        let [images, texts] = batch.relax(batch.outputs_of(&inputs)?)?;
        let [image_views, text_views] = batch.relax(batch.outputs_of(&views)?)?;
        Ok(Codes { images: [images, image_views], texts: [texts, text_views] })
    }

    /// A second view of inputs.
    fn view(&self, batch: &Batch<'_, Networks>, inputs: &Tensor) -> Result<Tensor> {
        let mut stream = batch.stream();
        let (mut noise, mut keep) = (Vec::new(), Vec::new());
        for _ in 0..inputs.elem_count() {
            noise.push((self.view_noise * stream.normal()) as f32);
            keep.push(if stream.unit() < self.view_drop { 0f32 } else { 1.0 });
        }
        let [noise, keep] = [noise, keep]
            .map(|values| Tensor::from_vec(values, inputs.shape(), &Device::Cpu)?.to_device(inputs.device()));
        Ok(((inputs + noise?)? * keep?)?)
    }

    /// Equation (6) but for the discriminator.
    fn total(&self, codes: &Codes) -> Result<Tensor> {
        let Codes { images: [images, image_views], texts: [texts, text_views] } = codes;
        let contrast = |x: &Tensor, y: &Tensor| nt_xent(x, y, self.temperature, EPS, self.contrast);
        let pairs = contrast(images, texts)?;
        let views =
            ((contrast(images, image_views)? * self.image_views)? + (contrast(texts, text_views)? * self.text_views)?)?; // (1)
        let signs = codes.signs()?;
        let bits = ((codes.quantisation(&signs)? * self.quantisation)? + (codes.balance()? * self.balance)?)?;
        Ok(((pairs + views)? + bits)?)
    }
}

/// Golden operation `hash.duch`.
fn golden(case: &Case) -> Result<Answer> {
    case.only(&["bits"])?;
    let names = ["h_img1", "h_img2", "h_txt1", "h_txt2"];
    let inputs = names.map(|name| variable(case, &format!("in.{name}")));
    let [a, b, c, d] = inputs;
    let inputs = [a?, b?, c?, d?];
    if inputs[0].dim(1)? != case.config::<usize>("bits")? {
        return Err(case.unsupported("bits", &format!("{}, the width of the codes", inputs[0].dim(1)?)));
    }
    let tensor = |i: usize| inputs[i].as_tensor().clone();
    let codes = Codes { images: [tensor(0), tensor(1)], texts: [tensor(2), tensor(3)] };
    let layer = |at: usize| -> Result<Linear> {
        let weight = case.get(&format!("param.disc.{at}.weight"))?.tensor(DType::F64)?.t()?.contiguous()?;
        Ok(Linear::from_parts(weight, case.get(&format!("param.disc.{at}.bias"))?.tensor(DType::F64)?))
    };
    let discriminator = Discriminator([layer(0)?, layer(2)?]);
    let signs = case.get("in.B")?.tensor(DType::F64)?;
    let (quantisation, balance) = (codes.quantisation(&signs)?, codes.balance()?);
    let mut answer = Answer::default()
        .with("out.quantization", values(&quantisation)?)
        .with("out.bit_balance", values(&balance)?)
        .with("out.adversarial_generator", values(&codes.adversary(&discriminator)?)?);
    for (term, loss) in [("quantization", quantisation), ("bit_balance", balance)] {
        let gradients = loss.backward()?;
        for (name, input) in names.iter().zip(&inputs) {
            answer = answer.with(&format!("grad.{term}_{name}"), gradient(&gradients, input)?);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
