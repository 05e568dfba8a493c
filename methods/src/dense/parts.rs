//! What the methods of this family see of items: vectors of fragments beside the vector of the whole.
//!
//! The vector of an image is the mean of the vectors of its regions (with `image_pooling = "gpo"` their learnt pooling), so that
//! a step passes regions through the layer once. The first and the last token of a text of three or more are the dataset's marks
//! of start and end: they are read, but are no words that could mean a region. In a text of one or two tokens all are words.

use candle_core::Tensor;
use xmbench_datasets::{Images, Texts};

use crate::{
    Codes, Result,
    linalg::views::ImageInput,
    nn::{Encoders, Joint, Lengths, States, TextLayer, TextModel, TextPooling, index},
    params::out_of_range,
    trained::{Batch, Shared},
};

/// Vectors of the fragments of some items, and of the items.
pub(super) struct Parts {
    /// `[total, d]`, item after item; of texts without the marks.
    pub fragments: Tensor,
    /// Fragments of each item.
    pub lengths: Lengths,
    /// `[items, d]`, as the encoder ends.
    pub whole: Tensor,
}

impl Parts {
    /// Of images, from the vectors of their regions `[images, regions, d]`.
    pub fn of_regions(joint: &Joint, regions: &Tensor) -> Result<Self> {
        let (images, each, width) = regions.dims3()?;
        let whole = match joint.pools_regions() {
            true => joint.pool_regions(regions)?,
            false => joint.finish_images(&regions.mean(1)?)?,
        };
        let lengths = Lengths::new(std::iter::repeat_n(each, images))?;
        Ok(Self { fragments: regions.reshape((images * each, width))?, lengths, whole })
    }

    /// Of the images of a step.
    pub fn images(batch: &Batch<'_, Joint>) -> Result<Self> {
        Self::of_regions(batch.body(), &batch.regions()?.raw)
    }

    /// Of the texts of a step.
    pub fn texts(batch: &Batch<'_, Joint>) -> Result<Self> {
        let words = batch.words()?;
        let (fragments, lengths) = without_marks(&words.raw, &words.lengths)?;
        Ok(Self { fragments, lengths, whole: batch.t()?.clone() })
    }

    /// Of texts that are read outside a step.
    pub fn of_states(joint: &Joint, texts: &Texts, items: &[usize], states: &States) -> Result<Self> {
        let whole = match joint.pools_states() {
            true => joint.pool_states(states)?,
            false => joint.training_texts(texts, items, None)?,
        };
        let (fragments, lengths) = without_marks(&joint.words(states)?, &states.tokens.lengths)?;
        Ok(Self { fragments, lengths, whole })
    }

    /// The item of each fragment.
    pub fn owners(&self) -> Vec<usize> {
        owners(&self.lengths)
    }
}

/// The item of each row.
pub(super) fn owners(lengths: &Lengths) -> Vec<usize> {
    lengths.as_slice().iter().enumerate().flat_map(|(item, &n)| std::iter::repeat_n(item, n)).collect()
}

/// Rows without the first and the last of each item that has three or more.
fn without_marks(rows: &Tensor, lengths: &Lengths) -> Result<(Tensor, Lengths)> {
    let words = |item: usize| {
        let range = lengths.range(item);
        if range.len() > 2 { range.start + 1..range.end - 1 } else { range }
    };
    let kept = index((0..lengths.len()).flat_map(words), rows.device())?;
    Ok((rows.index_select(&kept, 0)?, Lengths::new((0..lengths.len()).map(|item| words(item).len()))?))
}

/// Rows of a tensor by number.
pub(super) fn select(rows: &Tensor, numbers: &[usize]) -> Result<Tensor> {
    Ok(rows.index_select(&index(numbers.iter().copied(), rows.device())?, 0)?)
}

/// Codes of all images, `[items, width]` from the parts of a block.
pub(super) fn image_codes(
    joint: &Joint,
    images: &Images,
    width: usize,
    code: impl Fn(&Parts) -> Result<Tensor>,
) -> Result<Codes> {
    joint.codes_of_images(images, width, |items| code(&Parts::of_regions(joint, &joint.regions(images, items, None)?)?))
}

/// Codes of all texts, `[items, width]` from the parts of a block.
pub(super) fn text_codes(
    joint: &Joint,
    texts: &Texts,
    width: usize,
    code: impl Fn(&Parts) -> Result<Tensor>,
) -> Result<Codes> {
    joint.codes_of_texts(texts, width, |items| {
        code(&Parts::of_states(joint, texts, items, &joint.states(texts, items)?)?)
    })
}

/// Vectors of one image's regions and of all tokens of one text, marks included: what a map is made from.
pub(super) fn pair(joint: &Joint, image: (&Images, usize), text: (&Texts, usize)) -> Result<[Tensor; 2]> {
    let regions = joint.regions(image.0, &[image.1], None)?.squeeze(0)?;
    Ok([regions, joint.words(&joint.states(text.0, &[text.1])?)?])
}

/// Encoders of this family: fragments for an image, words read in both directions and averaged, where nothing else is said.
pub(super) fn encoders() -> Encoders {
    Encoders {
        image: ImageInput::Fragments,
        text_encoder: TextModel::Words(TextLayer::Bigru),
        text_pooling: TextPooling::Mean,
        ..Encoders::default()
    }
}

/// Fragments stand for an image where nothing else is said.
pub(super) fn imply(written: &mut toml::Table) {
    written.entry("image").or_insert_with(|| "fragments".into());
}

/// Refuses encoders without fragments.
pub(super) fn check(method: &str, shared: &Shared<Joint>) -> Result<()> {
    let options = &shared.options;
    if options.image != ImageInput::Fragments {
        return Err(out_of_range(
            method,
            "image",
            "fragments, which words are set against",
            format!("{:?}", options.image).to_lowercase(),
        ));
    }
    if options.text_encoder == TextModel::Vectors {
        return Err(out_of_range(method, "text_encoder", "an encoder that reads words", "vectors"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn marks_are_left_out_where_words_remain() {
        let rows = Tensor::arange(0f32, 8.0, &Device::Cpu).unwrap().reshape((8, 1)).unwrap();
        let (words, lengths) = without_marks(&rows, &Lengths::new([4, 1, 3]).unwrap()).unwrap();
        assert_eq!(words.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0, 4.0, 6.0]);
        assert_eq!((lengths.as_slice(), owners(&lengths)), (&[2, 1, 1][..], vec![0, 0, 1, 2]));
        let (words, lengths) = without_marks(&rows.narrow(0, 0, 2).unwrap(), &Lengths::new([2]).unwrap()).unwrap();
        assert_eq!((words.dims(), lengths.as_slice()), (&[2, 1][..], &[2][..]));
    }
}
