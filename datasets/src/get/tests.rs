use std::fs;

use npyz::Order;

use super::*;

#[test]
fn the_table_is_complete() {
    let names: Vec<String> = sets().into_iter().map(|set| set.name).collect();
    assert_eq!(names, ["flickr8k", "flickr30k", "coco", "mirflickr25k", "nuswide", "wiki", "vsepp", "scan"]);
    for set in sets() {
        assert!(!set.places.is_empty() && !set.terms.is_empty() && !set.layouts.is_empty(), "{}", set.name);
        for layout in &set.layouts {
            assert!(layout.next.starts_with("xmbench "), "{}", layout.title);
            assert!(!layout.files.is_empty() || layout.kind.is_some(), "{}: nothing is wanted", layout.title);
            for file in &layout.files {
                assert_eq!(file.bytes.is_some(), file.sha256.is_some(), "{}", file.name);
                let digits = |digest: &String| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
                assert!(file.sha256.as_ref().is_none_or(digits), "{}", file.name);
            }
        }
    }
    let error = set("flickr3k").unwrap_err().to_string();
    assert!(error.contains("one of flickr8k, flickr30k") && error.contains("did you mean `flickr30k`?"), "{error}");
}

/// A set with a file of three bytes whose SHA-256 FIPS 180-4 prints: "abc".
fn small() -> Set {
    let wanted = |name: &str, known: bool, optional| Wanted {
        name: name.into(),
        what: "letters".into(),
        bytes: known.then_some(3),
        sha256: known.then(|| "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into()),
        optional,
    };
    let layout = Layout {
        title: "letters".into(),
        folders: vec!["letters".into()],
        kind: None,
        files: vec![wanted("abc", true, false), wanted("rest", false, false), wanted("more", false, true)],
        next: "xmbench data audit precomp path=FOLDER".into(),
    };
    let text = String::new;
    Set { name: "small".into(), title: text(), what: text(), places: vec![], terms: text(), layouts: vec![layout] }
}

#[test]
fn files_are_held_against_what_is_known() {
    let place = tempfile::tempdir().unwrap();
    let look = || check(&small(), place.path()).unwrap().remove(0);
    let states = |checked: &Checked| checked.files.iter().map(|(_, state)| state.clone()).collect::<Vec<_>>();
    let nothing = look();
    assert_eq!(states(&nothing), [State::Missing, State::Missing, State::Missing]);
    assert_eq!((nothing.folder, nothing.complete), (None, false));

    // In a folder of the publisher's name, and then in the data folder itself.
    let folder = place.path().join("letters");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("abc"), "abc").unwrap();
    let half = look();
    assert_eq!(states(&half), [State::Right, State::Missing, State::Missing]);
    assert!(half.folder.as_ref().unwrap().ends_with("letters") && !half.complete);
    fs::write(folder.join("rest"), "of it").unwrap();
    let whole = look();
    assert_eq!(states(&whole), [State::Right, State::There, State::Missing]);
    assert!(whole.complete && whole.next.ends_with("/letters"), "{}", whole.next);

    fs::write(folder.join("abc"), "abcd").unwrap();
    assert_eq!(states(&look())[0], State::Length { expected: 3, found: 4 });
    fs::write(folder.join("abc"), "abd").unwrap();
    let State::Content { expected, found } = &states(&look())[0] else { panic!("other content") };
    assert!(expected.starts_with("ba7816bf") && found.starts_with("a52d159f"), "{found}");
    assert!(!look().complete);
    fs::remove_file(folder.join("abc")).unwrap();
    fs::create_dir(folder.join("abc")).unwrap();
    assert_eq!(states(&look())[0], State::Unreadable("expected a file, found a folder".into()));
    assert!(check(&small(), &place.path().join("absent")).is_err());
}

/// Precomputed features are recognised by their files, and labelled ones by their arrays.
#[test]
fn layouts_are_recognised() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data/f30k_precomp");
    fs::create_dir_all(&folder).unwrap();
    for split in ["train", "dev", "test"] {
        fs::write(folder.join(format!("{split}_caps.txt")), "a dog\n").unwrap();
        crate::npy::tests::write(&folder.join(format!("{split}_ims.npy")), &[1, 2], Order::C, &[1.0f32, 2.0]);
    }
    let found = check(&set("scan").unwrap(), place.path()).unwrap();
    assert_eq!(found.iter().map(|layout| layout.complete).collect::<Vec<_>>(), [true, false]);
    assert_eq!(found[0].recognised.as_ref().unwrap().kind, "precomp folder");
    assert!(found[1].folder.is_none());
    fs::remove_file(folder.join("dev_ims.npy")).unwrap();
    let found = check(&set("scan").unwrap(), place.path()).unwrap();
    assert!(!found[0].complete && found[0].files.contains(&("dev_ims.npy".into(), State::Missing)));
}

/// The files that recorded numbers were made on, where they are.
#[test]
fn wiki_is_what_the_table_says() {
    let Some(root) = crate::test_data("wiki") else { return };
    let found = check(&set("wiki").unwrap(), &root).unwrap().remove(0);
    assert!(found.files.iter().all(|(_, state)| *state == State::Right), "{:?}", found.files);
    assert!(found.complete);
}
