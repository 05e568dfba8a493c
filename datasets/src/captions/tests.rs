use super::*;

/// Reads a file of that name among pictures of these names.
fn read_in(files: &[(&str, &str)], pictures: &[&str], captions: &[&str]) -> std::result::Result<Listing, String> {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    pictures.iter().for_each(|name| put(name, "a picture"));
    files.iter().for_each(|(name, content)| put(name, content));
    let named: Vec<PathBuf> = captions.iter().map(|name| folder.path().join(name)).collect();
    read(folder.path(), &named).map_err(|error| error.to_string().replace(&*folder.path().to_string_lossy(), "DIR"))
}

fn one(name: &str, content: &str) -> Vec<Captioned> {
    read_in(&[(name, content)], &[], &[name]).unwrap().items
}

fn message(name: &str, content: &str) -> String {
    read_in(&[(name, content)], &[], &[name]).unwrap_err()
}

fn captioned(image: &str, captions: &[&str], labels: &[&str], split: Option<&str>) -> Captioned {
    let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Captioned { image: image.into(), captions: owned(captions), labels: owned(labels), split: split.map(str::to_owned) }
}

/// The header and first rows as Flickr8k is passed around, Flickr30k's with bars, and one with classes and splits.
#[test]
fn tables_are_read() {
    let flickr8k = "image,caption\n\
                    1000268201_693b08cb0e.jpg,A child in a pink dress is climbing up a set of stairs in an entry way .\n\
                    1000268201_693b08cb0e.jpg,A girl going into a wooden building .\n\
                    1001773457_577c3a7d70.jpg,\"A black dog, and a \"\"spotted\"\" dog\nare fighting\"\n";
    let expected = [
        captioned(
            "1000268201_693b08cb0e.jpg",
            &[
                "A child in a pink dress is climbing up a set of stairs in an entry way .",
                "A girl going into a wooden building .",
            ],
            &[],
            None,
        ),
        captioned("1001773457_577c3a7d70.jpg", &["A black dog, and a \"spotted\" dog are fighting"], &[], None),
    ];
    assert_eq!(one("captions.csv", flickr8k), expected);
    // Under the name that Kaggle gives it, with a byte order mark and Windows' ends of lines.
    assert_eq!(one("captions.txt", &format!("\u{feff}{}", flickr8k.replace(".\n", ".\r\n"))), expected);
    let flickr30k = "image_name| comment_number| comment\n\
                     1000092795.jpg| 0| Two young guys with shaggy hair look at their hands .\n\
                     1000092795.jpg| 1| Two young , White males are outside near many bushes .\n";
    let found = one("results.csv", flickr30k);
    assert_eq!((found.len(), found[0].captions.len()), (1, 2));
    assert_eq!(found[0].captions[1], "Two young , White males are outside near many bushes .");
    let full =
        "File_Name\tText\tLabels\tSplit\na/b.png\tone\tcat;dog\tval\na/b.png\ttwo\tcat\tdev\nc.png\tthree\t\tTrain\n";
    let expected = [
        captioned("a/b.png", &["one", "two"], &["cat", "dog"], Some("dev")),
        captioned("c.png", &["three"], &[], Some("train")),
    ];
    assert_eq!(one("x.tsv", full), expected);
}

#[test]
fn broken_rows_of_tables_are_named() {
    let cases = [
        (
            "image,text\na.png,one\nb.png,two,three\n",
            "DIR/x.csv, line 3: expected 2 columns, as in the header, found 3; quote a caption that holds the separator, as \"one, two\"",
        ),
        (
            "image,text\na.png,one\nb.png,\" \"\n",
            "DIR/x.csv, line 3: expected a caption, found none; correct the row, or leave it out",
        ),
        (
            "image,text\n,one\n",
            "DIR/x.csv, line 2: expected the name of an image within the folder of pictures, found none; correct the row, or leave it out",
        ),
        (
            "image,text\n../../etc/passwd,one\n",
            "DIR/x.csv, line 2: expected the name of an image within the folder of pictures, found `../../etc/passwd`; correct the row, or leave it out",
        ),
        (
            "image,text\n/etc/passwd,one\n",
            "DIR/x.csv, line 2: expected the name of an image within the folder of pictures, found `/etc/passwd`; correct the row, or leave it out",
        ),
        (
            "image,text,split\na.png,one,train\na.png,two,test\n",
            "DIR/x.csv, line 3: expected split train for a.png, as in a row before, found test; correct the row, or leave it out",
        ),
        (
            "image,text,split\na.png,one,some\n",
            "DIR/x.csv, line 2: expected a split: train, val or test, found `some`; correct the row, or leave it out",
        ),
        (
            "picture,words\na.png,one\n",
            "DIR/x.csv, line 1: expected a header with a column `image` and a column `caption`, found [\"picture\", \"words\"]; name the columns in the first line",
        ),
    ];
    for (content, expected) in cases {
        assert_eq!(message("x.csv", content), expected);
    }
}

#[test]
fn json_lines_and_lists_are_read() {
    let lines = "{\"file_name\": \"0001.png\", \"text\": \"a golden retriever\"}\n\n\
                 {\"image\": \"0002.png\", \"captions\": [\"one\", \"two\\nlines\"], \"labels\": [3, \"dog\"], \"split\": \"test\"}\n";
    let expected = [
        captioned("0001.png", &["a golden retriever"], &[], None),
        captioned("0002.png", &["one", "two lines"], &["3", "dog"], Some("test")),
    ];
    assert_eq!(one("metadata.jsonl", lines), expected);
    let list = format!("[{}]", lines.trim().replace("\n\n", ","));
    assert_eq!(one("captions.json", &list), expected);
}

const COCO: &str = r#"{"info": {"year": 2014}, "licenses": [], "images": [
    {"license": 3, "file_name": "COCO_val2014_000000391895.jpg", "height": 360, "width": 640, "id": 391895},
    {"license": 4, "file_name": "COCO_val2014_000000522418.jpg", "height": 480, "width": 640, "id": 522418}],
    "annotations": [
    {"image_id": 522418, "id": 681330, "caption": "A woman wearing a net on her head cutting a cake. "},
    {"image_id": 391895, "id": 770337, "caption": "A man with a red helmet on a small moped on a dirt road. "},
    {"image_id": 391895, "id": 771687, "caption": "Man riding a motor bike on a dirt road on the countryside."}]}"#;

const INSTANCES: &str = r#"{"images": [{"file_name": "COCO_val2014_000000391895.jpg", "id": 391895},
    {"file_name": "COCO_val2014_000000000042.jpg", "id": 42}],
    "annotations": [{"image_id": 391895, "category_id": 4, "bbox": [1, 2, 3, 4], "segmentation": [[1.5, 2]], "id": 1},
    {"image_id": 391895, "category_id": 1, "id": 2}, {"image_id": 391895, "category_id": 4, "id": 3},
    {"image_id": 42, "category_id": 1, "id": 4}],
    "categories": [{"supercategory": "person", "id": 1, "name": "person"}, {"id": 4, "name": "motorcycle"}]}"#;

#[test]
fn coco_is_read_with_its_instances() {
    let files = [("captions_val2014.json", COCO), ("instances_val2014.json", INSTANCES)];
    let found = read_in(&files, &[], &["captions_val2014.json", "instances_val2014.json"]).unwrap();
    let expected = [
        captioned(
            "COCO_val2014_000000391895.jpg",
            &[
                "A man with a red helmet on a small moped on a dirt road.",
                "Man riding a motor bike on a dirt road on the countryside.",
            ],
            &["motorcycle", "person"],
            None,
        ),
        captioned("COCO_val2014_000000522418.jpg", &["A woman wearing a net on her head cutting a cake."], &[], None),
    ];
    assert_eq!(found.items, expected);
    assert_eq!((found.bare, found.origins[1].format), (1, "JSON of COCO"));
    assert_eq!(found.origins[0].sha256.len(), 64);
}

#[test]
fn karpathy_is_read() {
    let content = r#"{"images": [
        {"filepath": "val2014", "sentids": [770337], "filename": "COCO_val2014_000000391895.jpg", "imgid": 0, "split": "test",
         "sentences": [{"tokens": ["a", "man"], "raw": "A man with a red helmet", "imgid": 0, "sentid": 770337}], "cocoid": 391895},
        {"sentids": [0], "imgid": 1, "sentences": [{"tokens": [], "raw": "A dog .", "imgid": 1, "sentid": 0}], "split": "restval",
         "filename": "b.jpg"}], "dataset": "coco"}"#;
    // The folder of one is not there: it is found without.
    let found = read_in(&[("dataset_coco.json", content)], &["COCO_val2014_000000391895.jpg"], &["dataset_coco.json"]);
    let expected = [
        captioned("COCO_val2014_000000391895.jpg", &["A man with a red helmet"], &[], Some("test")),
        captioned("b.jpg", &["A dog ."], &[], Some("train")),
    ];
    assert_eq!(found.unwrap().items, expected);
    assert_eq!(one("dataset_coco.json", content)[0].image, "val2014/COCO_val2014_000000391895.jpg");
}

#[test]
fn broken_rows_of_json_are_named() {
    let said = |name: &str, content: &str| {
        let text = message(name, content);
        text.strip_prefix("DIR/").unwrap().split_once("; ").unwrap().0.to_owned()
    };
    for (content, expected) in [
        (
            "{\"image\": \"a.png\", \"text\": \"one\"}\n{\"image\": \"a.png\"}",
            "x.jsonl, line 2: expected a key `caption` or `captions`, found none",
        ),
        ("{\"text\": \"one\"}", "x.jsonl, line 1: expected a key `image`, found none"),
        (
            "\n{\"image\": \"a.png\", \"text\": \"on",
            "x.jsonl, line 2: expected captions in JSON, found EOF while parsing a string at line 1 column 30",
        ),
        ("{\"image\": \"a.png\", \"captions\": [\"one\", \"\"]}", "x.jsonl, line 1: expected a caption, found none"),
    ] {
        assert_eq!(said("x.jsonl", content), expected);
    }
    for (from, to, expected) in [
        ("\"image_id\": 522418", "\"image_id\": 7", "annotations[0]: expected the `id` of one of `images`, found 7"),
        ("\"image_id\": 522418, ", "", "annotations[0]: expected an `image_id`, found none"),
        (
            "\"caption\": \"Man riding",
            "\"text\": \"Man riding",
            "annotations[2]: expected a `caption` or a `category_id`, found none of both",
        ),
        ("\"id\": 522418", "\"id\": 391895", "images[1]: expected an `id` of its own, found 391895 again"),
        (
            "\"file_name\": \"COCO_val2014_000000391895.jpg\", ",
            "",
            "images[0]: expected `id` and `file_name`, found an image without one of them",
        ),
    ] {
        assert_eq!(said("x.json", &COCO.replacen(from, to, 1)), format!("x.json, {expected}"));
    }
    let instances = INSTANCES.replace("\"category_id\": 4", "\"category_id\": 9");
    assert_eq!(said("x.json", &instances), "x.json, annotations[0]: expected the `id` of one of `categories`, found 9");
    assert_eq!(
        said("x.json", "{\"a\": 1}"),
        "x.json: expected a list, COCO's `images` and `annotations`, or `images` with `sentences`, found an object without `images`"
    );
    for (content, expected) in [
        (r#"{"images": [{"filename": "a", "sentences": []}]}"#, "images[0]: expected `sentences`, found none"),
        (
            r#"{"images": [{"filename": "a", "sentences": [{"raw": "x"}, {}]}]}"#,
            "images[0], sentences[1]: expected a sentence `raw`, found none",
        ),
        (r#"{"images": [{"sentences": [{"raw": "x"}]}]}"#, "images[0]: expected a `filename`, found none"),
        (
            r#"{"images": [{"filename": "a", "split": "x", "sentences": [{"raw": "x"}]}]}"#,
            "images[0]: expected a split: train, val or test, found `x`",
        ),
    ] {
        assert_eq!(said("x.json", content), format!("x.json, {expected}"));
    }
}

const TOKEN: &str = "1000268201_693b08cb0e.jpg#0\tA child in a pink dress .\n1000268201_693b08cb0e.jpg#1\tA girl .\n\
                     1001773457_577c3a7d70.jpg#0\tA black dog and a spotted dog are fighting\n";

#[test]
fn token_files_and_their_lists_are_read() {
    let found = one("Flickr8k.token.txt", TOKEN);
    assert_eq!((found.len(), found[0].captions.len()), (2, 2));
    assert_eq!(found[1].captions, ["A black dog and a spotted dog are fighting"]);
    assert_eq!(
        message("Flickr8k.token.txt", &format!("{TOKEN}no name here\n")),
        "DIR/Flickr8k.token.txt, line 4: expected NAME#NUMBER, a tab and a caption, found `no name here`; correct the row, or leave it out"
    );
    let list = |items: &mut [Captioned], split: &str, names: &[&str]| {
        let lines: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        parse_list(items, split, Path::new("list.txt"), &lines).map_err(|error| error.to_string())
    };
    let mut items = found.clone();
    list(&mut items, "train", &["1000268201_693b08cb0e.jpg", ""]).unwrap();
    list(&mut items, "val", &["1001773457_577c3a7d70"]).unwrap();
    assert_eq!(items.iter().map(|item| item.split.as_deref()).collect::<Vec<_>>(), [Some("train"), Some("dev")]);
    let next = "; correct the row, or leave it out";
    assert_eq!(
        list(&mut items, "test", &["1001773457_577c3a7d70.jpg"]).unwrap_err(),
        format!(
            "list.txt, line 1: expected an image that is in no other list than test's, found `1001773457_577c3a7d70.jpg`, which is in dev's{next}"
        )
    );
    assert_eq!(
        list(&mut items, "test", &["", "strange.jpg"]).unwrap_err(),
        format!("list.txt, line 2: expected the name of an image that has captions, found `strange.jpg`{next}")
    );
    assert!(
        list(&mut items, "query", &[]).unwrap_err().contains("expected a split: train, val or test, found `query`")
    );
    let mut twins = vec![captioned("a/x.jpg", &["one"], &[], None), captioned("b/x.jpg", &["two"], &[], None)];
    assert_eq!(
        list(&mut twins, "test", &["b/x.jpg", "x"]).unwrap_err(),
        format!("list.txt, line 2: expected the name of one image, found `x`, which several have{next}")
    );
    list(&mut twins, "test", &["b/x"]).unwrap();
    assert_eq!((twins[0].split.clone(), twins[1].split.as_deref()), (None, Some("test")));
}

#[test]
fn texts_beside_pictures_are_read() {
    let files = [("dogs/1.txt", "A dog\n\n  runs \n"), ("cats/2.txt", "a cat\n"), ("notes.txt", "not one\n")];
    let found = read_in(&files, &["dogs/1.JPG", "cats/2.webp", "cats/3.png"], &[]).unwrap();
    let expected = [
        captioned("cats/2.webp", &["a cat"], &["cats"], None),
        captioned("dogs/1.JPG", &["A dog", "runs"], &["dogs"], None),
    ];
    assert_eq!((found.items.as_slice(), found.bare), (expected.as_slice(), 1));
    let said = |files: &[(&str, &str)], pictures: &[&str]| read_in(files, pictures, &[]).unwrap_err();
    let empty = said(&[("a.txt", "\n")], &["a.png"]);
    assert!(empty.contains("DIR/a.txt: expected a caption a line, found an empty file"), "{empty}");
    assert!(
        said(&[], &["a.png"])
            .contains("put one of captions.csv, captions.tsv, captions.jsonl, metadata.jsonl or a .txt")
    );
    // What lies there under a usual name goes before.
    let found = read_in(&[("captions.csv", "image,caption\na,one\n"), ("a.txt", "two\n")], &["a.png"], &[]).unwrap();
    assert_eq!(found.items, [captioned("a.png", &["one"], &[], None)]);
}

#[test]
fn other_files_are_refused() {
    assert!(
        message("x.txt", "a list of things\n")
            .starts_with("DIR/x.txt, line 1: expected captions: .csv or .tsv with a header")
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    std::fs::write(&path, b"image,text\na.png,\xff\n").unwrap();
    let error = read(folder.path(), std::slice::from_ref(&path)).unwrap_err().to_string();
    assert!(error.contains("x.csv, line 2: expected text in UTF-8, found other bytes"), "{error}");
    assert!(read(&path, &[]).unwrap_err().to_string().contains("expected a folder of pictures"));
    let twice = read_in(&[("x.csv", "image,text\na,one\na.png,two\n")], &["a.png"], &["x.csv"]).unwrap_err();
    assert!(twice.contains("DIR/a.png: expected one name for a picture, found it twice, once for `one`"), "{twice}");
}
