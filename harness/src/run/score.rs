//! What fitted matchers score: their codes of the splits that a protocol names, its metrics, and the time of a search.

use xmbench_datasets::{Collection, Dataset, Split, Texts};
use xmbench_methods::{Codes, Error, Matcher, Similarity};

use super::{clock::Clock, execute::Failure, timing};
use crate::{
    protocol::{self, Direction, Evaluation, Protocol, Side},
    record::{Timing, phase},
    retrieval::{Compared, Member, Search, TopK},
};

/// Results a query asks for while it is timed.
const WANTED: usize = 10;

/// Texts that are encoded one by one, in turn.
const ALONE: usize = 64;

/// What rows that score together go through one after another.
pub const IN_TURN: [&str; 3] = [phase::ENCODE_IMAGES, phase::ENCODE_TEXTS, phase::ENCODE_TEXT];

/// Codes of a collection, found sound: a list a matcher.
#[derive(Default)]
struct Coded {
    images: Vec<Codes>,
    texts: Vec<Codes>,
}

impl Coded {
    fn add(&mut self, matcher: &dyn Matcher, collection: &Collection) -> Result<(), Error> {
        let images = matcher.encode_images(&collection.images)?;
        sound(&images, collection.images.len(), "image")?;
        let texts = matcher.encode_texts(&collection.texts)?;
        sound(&texts, collection.texts.len(), "text")?;
        self.images.push(images);
        self.texts.push(texts);
        Ok(())
    }

    fn side<'a>(&'a self, collection: &'a Collection) -> Side<'a> {
        Side { collection, images: &self.images, texts: &self.texts }
    }
}

/// The scored split and what it searches, with the codes of one matcher or of several.
pub struct Encoded<'a> {
    scored: (&'a Collection, Coded),
    searched: Option<(&'a Collection, Coded)>,
    unified: bool,
}

impl<'a> Encoded<'a> {
    /// The splits of the protocol, without codes.
    ///
    /// # Errors
    /// If the dataset lacks one.
    pub fn of(dataset: &'a Dataset, protocol: &Protocol) -> Result<Self, Failure> {
        let scored = (split(dataset, protocol.split)?, Coded::default());
        let searched = match protocol.gallery() {
            gallery if gallery == protocol.split => None,
            gallery => Some((split(dataset, gallery)?, Coded::default())),
        };
        Ok(Self { scored, searched, unified: false })
    }

    /// Adds the codes of a matcher.
    ///
    /// # Errors
    /// The matcher's own, or codes that are not one an item or not finite.
    pub fn add(&mut self, matcher: &dyn Matcher) -> Result<(), Error> {
        for (collection, coded) in [&mut self.scored].into_iter().chain(&mut self.searched) {
            coded.add(matcher, collection)?;
        }
        self.unified |= matcher.unified();
        Ok(())
    }

    /// Whether a matcher gives items codes of both their modalities.
    pub fn unified(&self) -> bool {
        self.unified
    }

    fn queries(&self) -> Side<'_> {
        self.scored.1.side(self.scored.0)
    }

    fn gallery(&self) -> Side<'_> {
        let (collection, coded) = self.searched.as_ref().unwrap_or(&self.scored);
        coded.side(collection)
    }

    /// Bytes of one image code and one text code of the scored split, over all matchers.
    pub fn bytes_per_item(&self) -> [f64; 2] {
        let Coded { images, texts } = &self.scored.1;
        [images, texts].map(|lists| lists.iter().map(Codes::bytes_per_item).sum())
    }

    /// The metrics under the protocol, what a pair scorer measures besides of texts asking for images, and the `best` items of each
    /// query.
    ///
    /// # Errors
    /// What [`protocol::evaluate`] refuses, or a metric that is not finite.
    pub fn evaluate<'b>(
        &'b self,
        protocol: &Protocol,
        compared: &Compared<'b>,
        best: usize,
    ) -> Result<Evaluation, Failure> {
        let (queries, gallery) = (self.queries(), self.gallery());
        let mut evaluation = protocol::evaluate_and_keep(protocol, queries, gallery, compared.clone(), best)?;
        if let ([Member { codes, similarity: Similarity::Pairwise(scorer) }], None) =
            (compared.first.as_slice(), &compared.second)
        {
            let (asked, answers) = (self.queries().texts, self.gallery().images);
            let measures = scorer.measures(&answers[*codes], &asked[*codes])?;
            evaluation.metrics.extend(measures.into_iter().map(|(name, value)| (name.to_string(), value)));
        }
        match evaluation.metrics.iter().find(|(_, value)| !value.is_finite()) {
            Some((name, value)) => Err(Failure::Reason(format!("metric {name} is {value}"))),
            None => Ok(evaluation),
        }
    }

    /// Times encoding the scored split, and one text alone where the matcher takes one.
    ///
    /// # Errors
    /// The matcher's own.
    pub fn clock_encoding(&self, matcher: &dyn Matcher, clock: &Clock) -> Result<Vec<Timing>, Error> {
        let collection = self.scored.0;
        let (images, texts) = (&collection.images, &collection.texts);
        let mut timings = vec![
            timing(
                phase::ENCODE_IMAGES,
                images.len(),
                timing::sample(clock.long, |_| matcher.encode_images(images).map(drop))?,
            ),
            timing(
                phase::ENCODE_TEXTS,
                texts.len(),
                timing::sample(clock.long, |_| matcher.encode_texts(texts).map(drop))?,
            ),
        ];
        let alone: Vec<Texts> = (0..texts.len().min(ALONE)).map(|text| texts.subset(&[text])).collect();
        // What was made elsewhere, of whole splits, knows no text alone.
        let taken = alone.first().is_some_and(|text| matcher.encode_texts(text).is_ok());
        if taken {
            let one = |call: usize| matcher.encode_texts(&alone[call % alone.len()]).map(drop);
            timings.push(timing(phase::ENCODE_TEXT, 1, timing::sample(clock.short, one)?));
        }
        Ok(timings)
    }

    /// Times the texts of the scored split asking for images, one by one and together (`batch` of them; all, or as many as there is time for,
    /// where it is absent), and the stages of one query where there are two.
    ///
    /// # Errors
    /// The search's own.
    pub fn clock_search<'b>(
        &'b self,
        compared: &Compared<'b>,
        clock: &Clock,
        batch: Option<usize>,
    ) -> Result<Vec<Timing>, Error> {
        let Clock { long, short, .. } = *clock;
        let (asked, answers) = (self.queries().texts, self.gallery().images);
        let texts = self.scored.0.texts.len();
        let build = || Search::new(asked, answers, compared, Direction::T2i);
        let indexing = timing::sample(long, |_| build().map(drop))?;
        let search = build()?;
        let one = |call: usize| call % texts..call % texts + 1;
        let single = timing::sample(short, |call| search.best(one(call), WANTED).map(drop))?;
        let together = batch.unwrap_or_else(|| long.fits(&single, texts));
        let batch = timing::sample(long, |_| search.best(0..together, WANTED).map(drop))?;
        let mut timings = vec![
            timing(phase::INDEX, self.gallery().collection.images.len(), indexing),
            timing(phase::QUERY_SINGLE, 1, single),
            timing(phase::QUERY_BATCH, together, batch),
        ];
        if let Some(shortlist) = search.shortlist() {
            let deep = shortlist.max(WANTED);
            let first = timing::sample(short, |call| search.first(one(call), deep).map(drop))?;
            let all = search.first(0..texts, deep)?;
            let found: Vec<TopK> = (0..texts).map(|query| all.row(query)).collect();
            let second =
                timing::sample(short, |call| search.reorder(one(call), &found[call % texts], WANTED).map(drop))?;
            timings.extend([timing(phase::FIRST_STAGE, 1, first), timing(phase::SECOND_STAGE, 1, second)]);
        }
        Ok(timings)
    }
}

/// Raw samples of a phase.
fn timing(phase: &str, items: usize, seconds: Vec<f64>) -> Timing {
    Timing { phase: phase.into(), items, seconds }
}

/// A split of a dataset.
///
/// # Errors
/// If the dataset has none of that name.
pub fn split(dataset: &Dataset, split: Split) -> Result<&Collection, Failure> {
    dataset.split(split).ok_or_else(|| {
        Failure::Reason(format!(
            "the protocol asks for split `{split}`, which dataset `{}` does not have",
            dataset.name
        ))
    })
}

/// Scores a fitted matcher under a protocol, and times nothing.
///
/// # Errors
/// A split that the dataset lacks, the matcher's own errors, or what the protocol refuses.
pub fn evaluate(matcher: &dyn Matcher, dataset: &Dataset, protocol: &Protocol) -> Result<Evaluation, Failure> {
    let mut encoded = Encoded::of(dataset, protocol)?;
    encoded.add(matcher)?;
    encoded.evaluate(protocol, &matcher.similarity().into(), 0)
}

/// The validation score of a matcher. The validation split is its own gallery, whatever the protocol searches later: encoding
/// the training split after every epoch would take longer than the epoch.
///
/// # Errors
/// If the matcher cannot encode the split, its codes are not finite, or the protocol asks for what the split lacks.
pub fn validate(matcher: &dyn Matcher, collection: &Collection, protocol: &Protocol) -> Result<f64, Error> {
    let mut codes = Coded::default();
    codes.add(matcher, collection)?;
    let side = codes.side(collection);
    protocol::judge(protocol, side, side, matcher.similarity())
}

/// One code an item, every value finite.
fn sound(codes: &Codes, items: usize, kind: &str) -> Result<(), Error> {
    if codes.len() != items {
        return Err(Error::Numeric(format!("the method made {} codes of {items} {kind}s", codes.len())));
    }
    let bad = |item: usize| Err(Error::Numeric(format!("the code of {kind} {item} holds NaN or infinity")));
    match codes {
        Codes::Binary(_) => Ok(()),
        Codes::Dense(matrix) => {
            let at = matrix.data.iter().position(|value| !value.is_finite());
            at.map_or(Ok(()), |at| bad(at / matrix.cols.max(1)))
        }
        Codes::Fragments(fragments) => {
            let at = fragments.data.iter().position(|value| !value.is_finite());
            let item = |at: usize| fragments.offsets.partition_point(|&offset| offset * fragments.dim <= at) - 1;
            at.map_or(Ok(()), |at| bad(item(at)))
        }
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::Matrix;
    use xmbench_methods::Fragments;

    use super::*;

    #[test]
    fn a_bad_value_is_traced_to_its_item() {
        let message = |codes: &Codes, items| sound(codes, items, "image").unwrap_err().to_string();
        let dense = |data: Vec<f32>| Codes::Dense(Matrix { rows: 3, cols: 2, data });
        assert!(sound(&dense(vec![0.0; 6]), 3, "image").is_ok());
        let nan = dense(vec![0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0]);
        assert_eq!(message(&nan, 3), "the code of image 2 holds NaN or infinity");
        assert_eq!(message(&nan, 4), "the method made 3 codes of 4 images");
        // The first item has no vectors, the second one of two numbers, the third two.
        let data = vec![0.0, 0.0, 0.0, f32::INFINITY, 0.0, 0.0];
        let fragments = Codes::Fragments(Fragments { dim: 2, offsets: vec![0, 0, 1, 3], data });
        assert_eq!(message(&fragments, 3), "the code of image 2 holds NaN or infinity");
    }
}
