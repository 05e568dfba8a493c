//! What `xmbench data extract` reads beside pictures: captions in every form, lists of splits, weights.

use std::path::Path;

use xmbench_datasets::captions::{parse_bytes, parse_list};
use xmbench_encoders::weights::Weights;

use super::{Refused, Stage};

/// Captions in a file with this ending.
fn captions(ending: &'static str, seeds: Vec<Vec<u8>>) -> Result<Stage, Refused> {
    Stage::new(seeds, move |_, bytes| {
        parse_bytes(Path::new(ending), bytes)?;
        Ok(())
    })
}

pub fn table() -> Result<Stage, Refused> {
    let seeds = [
        "image,caption\na.jpg,\"A black dog, and a \"\"spotted\"\" dog\"\nb.jpg,two\n",
        "image_name| comment_number| comment\n1.jpg| 0| one .\n1.jpg| 1| two .\n",
        "file_name;text;labels;split\na/b.png;one;cat|dog;val\nc.png;two;;train\n",
    ];
    captions("x.csv", seeds.map(|seed| seed.as_bytes().to_vec()).into())
}

pub fn lines() -> Result<Stage, Refused> {
    let seed = b"{\"file_name\": \"a.png\", \"text\": \"one\"}\n{\"image\": \"b\", \"captions\": [\"two\", 3], \"labels\": \"c\", \"split\": \"test\"}\n";
    captions("x.jsonl", vec![seed.to_vec()])
}

pub fn json() -> Result<Stage, Refused> {
    let seeds = [
        r#"{"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 7, "category_id": 2}], "categories": [{"id": 2, "name": "cat"}]}"#,
        r#"{"images": [{"filepath": "val", "filename": "a.jpg", "split": "restval", "sentences": [{"raw": "one"}]}], "dataset": "coco"}"#,
        r#"[{"image": "a.png", "caption": "one"}]"#,
    ];
    captions("x.json", seeds.map(|seed| seed.as_bytes().to_vec()).into())
}

pub fn token() -> Result<Stage, Refused> {
    captions("x.token.txt", vec![b"a.jpg#0\tA dog .\na.jpg#1\tA cat .\n".to_vec()])
}

pub fn list() -> Result<Stage, Refused> {
    let known = parse_bytes(Path::new("x.csv"), b"image,caption\na/x.jpg,one\nb/x.jpg,two\nc.png,three\n")?;
    Stage::new(vec![b"a/x.jpg\nc\n".to_vec()], move |_, bytes| {
        let lines: Vec<String> = std::str::from_utf8(bytes)?.lines().map(str::to_owned).collect();
        parse_list(&mut known.clone(), "test", Path::new("list.txt"), &lines)?;
        Ok(())
    })
}

/// Weights, all arrays of which are read that are small.
fn arrays(seed: &'static [u8]) -> Result<Stage, Refused> {
    Stage::new(vec![seed.to_vec()], |_, bytes| {
        let weights = Weights::parse(Path::new("weights"), bytes.to_vec())?;
        let shapes: Vec<(String, Vec<usize>)> =
            weights.shapes().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect();
        for (name, shape) in shapes {
            let count = shape.iter().try_fold(1usize, |count, &length| count.checked_mul(length));
            if count.is_some_and(|count| count < 1 << 16) {
                weights.take(&name, &shape)?;
            }
        }
        Ok(())
    })
}

pub fn weights() -> Result<Stage, Refused> {
    arrays(include_bytes!("../../encoders/tests/data/lite-small.safetensors"))
}

pub fn checkpoint() -> Result<Stage, Refused> {
    arrays(include_bytes!("../../encoders/tests/data/lite-small.pth"))
}
