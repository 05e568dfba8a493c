//! What the home promises to every method in it, tried with methods of the tests' own that use all that a loss can ask for.

use std::{
    ops::Range,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use candle_core::{D, Tensor, Var};
use serde::Deserialize;
use xmbench_datasets::{Collection, Matrix, random::Seed};

use super::{planted::*, *};
use crate::{
    Error, Fragments, PairScorer,
    hashing::networks::Networks,
    loss::{cosines, info_nce, reconstruct},
    method::{Epoch, Observer, Silent},
    nn::{Joint, Linear},
    train::Moves,
};

fn card(name: &str) -> Card {
    toml::from_str(&format!(
        "name = \"{name}\"\nfamily = \"tests\"\nlabel = \"T\"\ntitle = \"T\"\nauthors = \"T\"\nvenue = \"T\"\nyear = 2000\nidentifier = \
         \"T\"\nneeds = []\ncodes = \"dense\""
    ))
    .unwrap()
}

/// Vectors of past steps are further negatives, a momentum layer makes them, and codes are two vectors side by side.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Queued {}

struct Queue {
    layer: Linear,
    slow: Linear,
    keys: Var,
    latest: Mutex<Option<Tensor>>,
}

const KEYS: usize = 40;

impl Queued {
    fn code(x: &Tensor, layer: &Linear) -> Result<Tensor> {
        Ok(Tensor::cat(&[x, &crate::nn::unit(&layer.forward(x)?)?], 1)?)
    }
}

impl Loss for Queued {
    type Body = Joint;
    type Head = Queue;

    fn card() -> &'static Card {
        static CARD: LazyLock<Card> = LazyLock::new(|| card("queued"));
        &CARD
    }

    fn check(&self, _: &Shared<Joint>) -> Result<()> {
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Joint>) -> Result<Queue> {
        let width = fitting.body.width();
        let layer = Linear::new(fitting.weights, "head", width, 8)?;
        let slow = Linear::new(fitting.weights, "slow.head", width, 8)?;
        let keys = Tensor::zeros((KEYS, 8), candle_core::DType::F32, &fitting.device())?;
        Ok(Queue { layer, slow, keys: fitting.weights.state("keys", keys)?, latest: Mutex::new(None) })
    }

    fn loss(&self, head: &Queue, batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let (v, t) = (batch.v()?, batch.t()?);
        let (q, k) = (head.layer.forward(v)?, head.slow.forward(&t.detach())?.detach());
        *head.latest.lock().expect("one step at a time") = Some(k);
        let past = q.matmul(&head.keys.as_detached_tensor().t()?)?.log_sum_exp(D::Minus1)?.mean_all()?;
        let relations = batch.relations()?;
        let side = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
            let [loss, _, _] = info_nce(&(a.matmul(&b.t()?)? * 10.0)?, &relations)?;
            Ok(loss)
        };
        Ok(((side(v, t)? + side(&crate::nn::unit(&q)?, &crate::nn::unit(&head.layer.forward(t)?)?)?)?
            + (past * 0.01)?)?)
    }

    fn after(&self, head: &Queue, weights: &Weights, _: &Step) -> Result<()> {
        if let Some(new) = head.latest.lock().expect("one step at a time").take() {
            head.keys.set(&Tensor::cat(&[&new, &head.keys.as_detached_tensor()], 0)?.narrow(0, 0, KEYS)?)?;
        }
        for part in ["weight", "bias"] {
            let (slow, fast) = (weights.var(&format!("slow.head.{part}")), weights.var(&format!("head.{part}")));
            let (slow, fast) = (slow.expect("a weight"), fast.expect("a weight"));
            slow.set(&((slow.as_detached_tensor() * 0.9)? + (fast.as_detached_tensor() * 0.1)?)?)?;
        }
        Ok(())
    }

    fn encode_images(&self, head: &Queue, body: &Joint, images: &Images) -> Result<Codes> {
        body.codes_of_images(images, body.width() + 8, |items| {
            Self::code(&body.images(images, items, None)?, &head.layer)
        })
    }

    fn encode_texts(&self, head: &Queue, body: &Joint, texts: &Texts) -> Result<Codes> {
        let Codes::Dense(rows) = body.encode_texts(texts)? else { unreachable!("codes of this body are dense") };
        body.codes_of_texts(texts, body.width() + 8, |items| {
            let some = items.iter().flat_map(|&i| rows.row(i)).copied().collect();
            Self::code(&Tensor::from_vec(some, (items.len(), rows.cols), &Device::Cpu)?, &head.layer)
        })
    }
}

/// Words see the region that a learnt layer likes best, above a threshold that follows the batches.
#[derive(Clone, Serialize, Deserialize)]
struct Gated {
    #[serde(flatten)]
    ranking: Ranking,
}

impl Default for Gated {
    fn default() -> Self {
        Self { ranking: Ranking { max_violation: false, ..Ranking::default() } }
    }
}

struct Gate {
    layer: Linear,
    threshold: Var,
    seen: Mutex<f64>,
}

impl Gate {
    /// Mean over words of the best of their similarities that pass, `[images, texts]`.
    fn scores(&self, regions: &Tensor, words: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let (images, each, width) = regions.dims3()?;
        let asked = self.layer.forward(&words.contiguous()?)?;
        let all = asked.matmul(&regions.reshape((images * each, width))?.t()?)?;
        let best = all.reshape((words.dim(0)?, images, each))?.max(D::Minus1)?;
        *self.seen.lock().expect("one step at a time") = f64::from(best.mean_all()?.to_scalar::<f32>()?);
        let passed = best.broadcast_sub(&self.threshold.as_detached_tensor())?.relu()?;
        let mut start = 0;
        let columns = lengths.iter().map(|&n| {
            start += n;
            Ok(passed.narrow(0, start - n, n)?.mean(0)?)
        });
        Ok(Tensor::stack(&columns.collect::<Result<Vec<_>>>()?, 1)?)
    }
}

impl PairScorer for Gate {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let (Codes::Fragments(images), Codes::Fragments(texts)) = (images, texts) else {
            return Err(Error::Numeric("gated: expected fragments".into()));
        };
        let tensor = |from: &Fragments, items: &Range<usize>| -> Result<Tensor> {
            let data: Vec<f32> = items.clone().flat_map(|i| from.item(i)).copied().collect();
            let n = data.len() / from.dim;
            Ok(Tensor::from_vec(data, (n, from.dim), &Device::Cpu)?)
        };
        let (regions, words) = (tensor(images, &rows)?, tensor(texts, &columns)?);
        let regions = regions.reshape((rows.len(), regions.dim(0)? / rows.len(), images.dim))?;
        let lengths: Vec<usize> = columns.map(|j| texts.offsets[j + 1] - texts.offsets[j]).collect();
        out.copy_from_slice(&self.scores(&regions, &words, &lengths)?.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

impl Loss for Gated {
    type Body = Attended;
    type Head = Gate;

    fn card() -> &'static Card {
        static CARD: LazyLock<Card> = LazyLock::new(|| card("gated"));
        &CARD
    }

    fn shared() -> Shared<Attended> {
        Shared { options: FragmentEncoders { dropout: 0.0, ..FragmentEncoders::default() }, ..Shared::default() }
    }

    fn check(&self, _: &Shared<Attended>) -> Result<()> {
        self.ranking.check("gated")
    }

    fn head(&self, fitting: &mut Fitting<'_, Attended>) -> Result<Gate> {
        let (width, device) = (fitting.shared.options.embedding, fitting.device());
        Ok(Gate {
            layer: Linear::xavier(fitting.weights, "gate", width, width)?,
            threshold: fitting.weights.state("threshold", Tensor::new(&[0f32], &device)?)?,
            seen: Mutex::new(0.0),
        })
    }

    fn loss(&self, head: &Gate, batch: &Batch<'_, Attended>) -> Result<Tensor> {
        let (regions, words) = (batch.regions()?, batch.words()?);
        assert_eq!((regions.raw.dims(), words.raw.dims()), (regions.ends.dims(), words.ends.dims()));
        assert_eq!(words.lengths.len(), batch.items.texts.len());
        let scores = head.scores(&regions.ends, &words.ends, words.lengths.as_slice())?;
        self.ranking.loss(&scores, &batch.relations()?, batch.epoch)
    }

    fn after(&self, head: &Gate, _: &Weights, _: &Step) -> Result<()> {
        let seen = *head.seen.lock().expect("one step at a time");
        Ok(head.threshold.set(&((head.threshold.as_detached_tensor() * 0.9)? + 0.1 * 0.5 * seen)?)?)
    }

    fn similarity<'a>(&'a self, head: &'a Gate) -> Similarity<'a> {
        Similarity::Pairwise(head)
    }
}

/// An affinity of the whole training set by position, three phases that alternate, batches of classes.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Halves {}

impl Loss for Halves {
    type Body = Networks;
    /// Of all training images; none in a matcher.
    type Head = Option<Tensor>;

    fn card() -> &'static Card {
        static CARD: LazyLock<Card> = LazyLock::new(|| card("halves"));
        &CARD
    }

    fn shared() -> Shared<Networks> {
        Shared { negatives: None, ..Shared::default() }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Networks>) -> Result<Option<Tensor>> {
        let Some(training) = fitting.training else { return Ok(None) };
        let labels =
            training.train.images.labels.as_ref().ok_or_else(|| training.missing("halves", "images.labels"))?;
        let n = labels.of.len();
        let alike = |i: usize, j: usize| if labels.of[i] == labels.of[j] { 1f32 } else { -0.3 };
        let values = (0..n * n).map(|at| alike(at / n, at % n)).collect();
        Ok(Some(Tensor::from_vec(values, (n, n), &fitting.device())?))
    }

    fn phases(&self) -> Vec<Phase> {
        let only =
            |name: &str| Phase { weights: Moves::Under(vec![format!("{name}.")]), rate: 0.5, ..Phase::default() };
        vec![Phase::default(), only("image"), only("text")]
    }

    fn sampler(&self, _: &Option<Tensor>, _: &Networks, training: &Training<'_>, _: usize) -> Result<Sampler> {
        let labels =
            training.train.images.labels.as_ref().ok_or_else(|| training.missing("halves", "images.labels"))?;
        let of = training.train.pairs.all().iter().map(|pair| labels.of[pair.0 as usize][0]).collect();
        Ok(Sampler::Groups { of, each: 8 })
    }

    fn loss(&self, head: &Option<Tensor>, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let classes = batch.classes()?;
        // Four classes, eight pairs each.
        assert!((0..4).all(|class| classes[0].iter().filter(|&&c| c == class).count() == 8), "{classes:?}");
        let rows: Vec<u32> = batch.items.images.iter().map(|&i| i as u32).collect();
        let rows = Tensor::from_vec(rows, batch.items.images.len(), batch.device())?;
        let all = head.as_ref().expect("a training has it");
        let target = all.index_select(&rows, 0)?.index_select(&rows, 1)?;
        let [images, texts] = batch.relaxed()?;
        let signs = |x: &Tensor| -> Result<Tensor> { Ok(x.detach().sign()?) };
        let (images, texts) = match batch.phase {
            0 => (images, texts),
            1 => (images, signs(&texts)?),
            _ => (signs(&images)?, texts),
        };
        reconstruct(&cosines(&images, &texts)?, &target)
    }
}

static QUEUED: Trained<Queued> = Trained::new();
static GATED: Trained<Gated> = Trained::new();
static HALVES: Trained<Halves> = Trained::new();

fn methods() -> [&'static dyn Method; 3] {
    [&QUEUED, &GATED, &HALVES]
}

/// Asks to stop after some epochs.
struct StopAfter<'a>(usize, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, _: usize, _: usize, _: f64) {}
    fn epoch(&mut self, epoch: &Epoch) {
        self.1.store(epoch.epoch == self.0, Ordering::Relaxed);
    }
}

fn codes(matcher: &dyn Matcher, test: &Collection) -> (Codes, Codes) {
    (matcher.encode_images(&test.images).unwrap(), matcher.encode_texts(&test.texts).unwrap())
}

#[test]
fn all_that_a_loss_can_ask_for_learns() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for (method, least) in methods().into_iter().zip([0.4, 0.25, 0.05]) {
        let matcher = fit(method, &train, toml::Table::new()).unwrap();
        let recall = recall(&*matcher, &test);
        println!("{}: recall at 1 {recall}", method.card().name);
        // Chance is 0.025; the last learns classes alone.
        assert!(recall > least, "{}: recall at 1 {recall}", method.card().name);
    }
    let matcher = fit(&QUEUED, &train, toml::toml! { epochs = 1 }).unwrap();
    let Codes::Dense(Matrix { cols, .. }) = matcher.encode_images(&test.images).unwrap() else { panic!("dense") };
    assert_eq!(cols, 32 + 8);
}

#[test]
fn heads_and_their_state_survive_the_disk_and_an_interruption() {
    let (train, test) = (planted("train", 96), planted("test", 30));
    for method in methods() {
        let name = &method.card().name;
        let params = small(method, toml::toml! { epochs = 4 });
        let stop = AtomicBool::new(false);
        let whole = method.fit(&view(&train), &params, &mut Run::new(Seed(2), &mut Silent, &stop)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut stopper = StopAfter(2, &stop);
        let mut run = Run::new(Seed(2), &mut stopper, &stop);
        run.checkpoints = Some(folder.path().into());
        assert!(matches!(method.fit(&view(&train), &params, &mut run), Err(Error::Interrupted)), "{name}");
        stop.store(false, Ordering::Relaxed);
        let mut silent = Silent;
        let mut run = Run::new(Seed(2), &mut silent, &stop);
        run.checkpoints = Some(folder.path().into());
        let resumed = method.fit(&view(&train), &params, &mut run).unwrap();
        let before = scores(&*whole, &test);
        assert!(
            codes(&*whole, &test) == codes(&*resumed, &test) && before == scores(&*resumed, &test),
            "{name}: resumed"
        );
        let folder = tempfile::tempdir().unwrap();
        whole.save(folder.path()).unwrap();
        let loaded = method.load(folder.path(), &Device::Cpu).unwrap();
        assert!(codes(&*whole, &test) == codes(&*loaded, &test) && before == scores(&*loaded, &test), "{name}: loaded");
    }
}

#[test]
fn shared_parameters_are_those_of_the_body_and_no_other() {
    let keys = |method: &dyn Method| method.resolve(&toml::Table::new()).unwrap().keys().cloned().collect::<Vec<_>>();
    for (method, has, has_not) in [
        (&QUEUED as &dyn Method, &["embedding", "text_pooling", "epochs", "negatives"][..], &["bits", "margin"][..]),
        (&GATED, &["embedding", "text_encoder", "margin", "negatives"], &["text_pooling", "image", "bits"]),
        (&HALVES, &["bits", "text_hidden", "epochs"], &["embedding", "negatives"]),
    ] {
        let keys = keys(method);
        assert!(has.iter().all(|key| keys.iter().any(|k| k == key)), "{keys:?}");
        assert!(!has_not.iter().any(|key| keys.iter().any(|k| k == key)), "{keys:?}");
    }
    let error = HALVES.resolve(&toml::toml! { negatives = "paper" }).unwrap_err().to_string();
    assert!(error.contains("unknown key `negatives`"), "{error}");
}
