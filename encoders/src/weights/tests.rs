use super::*;

const CHECKPOINT: &[u8] = include_bytes!("../../tests/data/lite-small.pth");
const TENSORS: &[u8] = include_bytes!("../../tests/data/lite-small.safetensors");

fn parse(bytes: &[u8]) -> Result<Weights> {
    Weights::parse(Path::new("weights"), bytes.to_vec())
}

fn message(bytes: &[u8]) -> String {
    parse(bytes).err().unwrap().to_string()
}

/// The same tensor is in both files; in the checkpoint its channel varies fastest.
#[test]
fn both_forms_hold_the_same_values() {
    let (old, new) = (parse(CHECKPOINT).unwrap(), parse(TENSORS).unwrap());
    let shapes: Vec<_> = old.shapes().map(|(name, shape)| (name, shape.to_vec())).collect();
    assert_eq!(
        shapes,
        [("_bn0.num_batches_tracked", vec![]), ("_bn0.weight", vec![8]), ("_conv_stem.weight", vec![8, 3, 3, 3])]
    );
    let stem = old.take("_conv_stem.weight", &[8, 3, 3, 3]).unwrap();
    assert_eq!(stem, new.take("_conv_stem.weight", &[8, 3, 3, 3]).unwrap());
    // As PyTorch prints them: [1, 2, 0, :] and [7, 0, 2, 1].
    let shown = |at: usize| (stem[at] * 1e4).round() / 1e4;
    assert_eq!([shown(45), shown(46), shown(47), shown(7 * 27 + 7)], [0.0989, -0.1022, 0.0566, 0.0904]);
    assert_eq!(old.take("_bn0.weight", &[8]).unwrap(), new.take("_bn0.weight", &[8]).unwrap());
}

#[test]
fn what_is_missing_or_of_another_shape_is_named() {
    let weights = parse(CHECKPOINT).unwrap();
    let said = |name: &str, shape: &[usize]| weights.take(name, shape).unwrap_err().to_string();
    let next = "; name the weights of this network, or another --encoder";
    assert_eq!(
        said("_bn0.weights", &[8]),
        format!("weights: expected an array `_bn0.weights` of shape [8], found `_bn0.weight` and no such array{next}")
    );
    assert_eq!(said("_bn0.weight", &[9]), format!("weights, array `_bn0.weight`: expected shape [9], found [8]{next}"));
    assert!(said("_bn0.num_batches_tracked", &[]).contains("expected floating-point numbers, found whole numbers"));
    assert!(message(b"PK\x03\x04").contains("found a zip archive, as torch.save writes since 1.6"));
    assert!(message(b"no weights at all, but a long enough text").contains("found neither ("));
    let mut nan = CHECKPOINT.to_vec();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let weights = parse(&nan).unwrap();
    let errors: Vec<_> = [("_bn0.weight", &[8][..]), ("_conv_stem.weight", &[8, 3, 3, 3])]
        .map(|(name, shape)| weights.take(name, shape))
        .into();
    let text: String = errors.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    assert!(text.contains("expected finite numbers, found NaN at ["), "{text}");
}

/// Every prefix and every damaged byte of a checkpoint is an error or a sound file, and never a panic.
#[test]
fn hostile_checkpoints_are_errors() {
    for end in 15..CHECKPOINT.len() {
        assert!(parse(&CHECKPOINT[..end]).is_err(), "{end}");
    }
    for at in 15..CHECKPOINT.len() {
        for byte in [0, 1, b'.', b'(', b'h', b'R', 0x7f, 0xff] {
            let mut damaged = CHECKPOINT.to_vec();
            damaged[at] = byte;
            if let Ok(weights) = parse(&damaged) {
                let shapes: Vec<_> = weights.shapes().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect();
                let small = |shape: &[usize]| {
                    shape.iter().try_fold(1usize, |n, &m| n.checked_mul(m)).is_some_and(|n| n < 1 << 16)
                };
                for (name, shape) in shapes.iter().filter(|(_, shape)| small(shape)) {
                    let _ = weights.take(name, shape);
                }
            }
        }
    }
}

/// A tuple that holds another one twice, which holds another one twice: as many objects as instructions, not two to the power of them.
#[test]
fn an_object_that_is_used_twice_is_there_once() {
    let mut bytes = b")q\0".to_vec();
    for _ in 0..60 {
        bytes.extend(b"h\0h\0\x86q\0");
    }
    bytes.push(b'.');
    let read = pickle::read(&bytes, 0).ok().unwrap();
    assert_eq!((read.objects.len(), read.length), (61, bytes.len()));
    // A list that holds itself.
    assert!(pickle::read(b"]q\0h\0a.", 0).is_ok());
}

#[test]
fn a_tensor_has_to_lie_in_its_storage() {
    let place = |from: &[u8], to: &[u8]| {
        let at = CHECKPOINT.windows(from.len()).position(|window| window == from).unwrap();
        let mut bytes = CHECKPOINT.to_vec();
        bytes[at..at + from.len()].copy_from_slice(to);
        message(&bytes)
    };
    // The shape (8, 3, 3, 3), whose last number becomes 4; then the offset of a tensor.
    let text = place(b"(K\x08K\x03K\x03K\x03t", b"(K\x08K\x03K\x03K\x04t");
    assert!(
        text.contains("tensor `_conv_stem.weight`: expected a storage for shape [8, 3, 3, 4] with strides [27, 1, 9, 3], found one of 216 elements"),
        "{text}"
    );
}
