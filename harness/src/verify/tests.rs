use super::*;

/// Where tests compute.
const CPU: (&Device, &str) = (&Device::Cpu, "cpu");

#[test]
fn metrics_agree_with_the_authors() {
    let lines = verify(&xmbench_methods::golden::folder(), Some("metric.*"), CPU).unwrap();
    assert!(lines.len() >= 10);
    for line in lines {
        assert_eq!(line.verdict, Verdict::Pass, "{line:?}");
    }
}

#[test]
fn globs_match_whole_names() {
    for (pattern, text, matches) in [
        ("*", "", true),
        ("loss.*", "loss.vse_max", true),
        ("loss.*", "metric.loss.x", false),
        ("*.map", "metric.map", true),
        ("metric.?ap", "metric.map", true),
        ("metric.map", "metric.maps", false),
        ("m*t*p", "metric.map", true),
        ("?", "", false),
    ] {
        assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
    }
}

/// A safetensors file of one f64 tensor, `in.sims`.
fn write(folder: &std::path::Path, name: &str, op: &str, values: &[f64]) {
    write_tensor(folder, name, op, "in.sims", values);
}

fn write_tensor(folder: &std::path::Path, name: &str, op: &str, tensor: &str, values: &[f64]) {
    let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape = vec![1, values.len()];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F64, shape, &data).unwrap();
    let meta = [("op", op), ("config", "{}"), ("rtol", "1e-9"), ("atol", "1e-9")];
    let meta = meta.map(|(key, value)| (key.to_string(), value.to_string())).into();
    safetensors::serialize_to_file([(tensor, view)], Some(meta), &folder.join(name)).unwrap();
}

#[test]
fn broken_and_unknown_files_have_lines_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::write(path.join("a.safetensors"), b"not a tensor file").unwrap();
    std::fs::write(path.join("ignored.json"), b"{}").unwrap();
    write(path, "b.safetensors", "metric.unheard_of", &[1.0]);
    std::fs::create_dir(path.join("sub")).unwrap();
    write(&path.join("sub"), "c.safetensors", "metric.recall", &[0.5, 0.25]);
    write(&path.join("sub"), "d.safetensors", "metric.recall", &[0.5, f64::NAN, 1.0, 2.0, 3.0]);
    let lines = verify(path, None, CPU).unwrap();
    let seen: Vec<_> = lines.iter().map(|line| (line.file.as_str(), line.verdict)).collect();
    assert_eq!(
        seen,
        [
            ("a.safetensors", Verdict::Fail),
            ("b.safetensors", Verdict::Unsupported),
            ("sub/c.safetensors", Verdict::Fail),
            ("sub/d.safetensors", Verdict::Fail),
        ]
    );
    assert!(lines[0].error.as_ref().unwrap().contains("safetensors"), "{:?}", lines[0]);
    assert!(lines[2].error.as_ref().unwrap().contains("2 captions"), "{:?}", lines[2]);
    assert!(lines[3].error.as_ref().unwrap().contains("NaN"), "{:?}", lines[3]);
    insta::assert_snapshot!(command::table(&lines[1..3], false), @r"
    operation          case   max abs  max rel  verdict
    metric.unheard_of  b      -        -        unsupported
    metric.recall      sub/c  -        -        FAIL: c.safetensors: expected 5 captions an image, found 1 images and 2 captions

    operation          pass  fail  unsupported
    metric.recall      .     1     .
    metric.unheard_of  .     .     1
    total              .     1     1
    ");
    let json = serde_json::to_string(&lines[1]).unwrap();
    insta::assert_snapshot!(json, @r#"{"op":"metric.unheard_of","file":"b.safetensors","verdict":"unsupported","max_abs":null,"max_rel":null,"worst":""}"#);
    assert!(verify(&path.join("absent"), None, CPU).is_err());
    assert!(verify(path, Some("nothing.*"), CPU).is_ok_and(|lines| lines.len() == 1));
}

#[test]
fn a_line_says_where_its_tensors_lay() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.safetensors", "metric.recall", &[0.5, 0.25]);
    // The first tensor is made before the second is missed.
    write_tensor(folder.path(), "b.safetensors", "loss.infonce", "in.image", &[1.0, 0.5]);
    write(folder.path(), "c.safetensors", "metric.unheard_of", &[1.0]);
    let lines = verify(folder.path(), None, (&Device::Cpu, "elsewhere:0")).unwrap();
    let places: Vec<_> = lines.iter().map(|line| line.device.as_deref()).collect();
    assert_eq!(places, [Some("cpu"), Some("elsewhere:0"), None]);
    assert!(serde_json::to_string(&lines[1]).unwrap().ends_with(r#""device":"elsewhere:0"}"#));
    insta::assert_snapshot!(command::table(&lines, true), @r"
    operation          case  device       max abs  max rel  verdict
    metric.recall      a     cpu          -        -        FAIL: a.safetensors: expected 5 captions an image, found 1 images and 2 captions
    loss.infonce       b     elsewhere:0  -        -        FAIL: b.safetensors: expected a tensor `in.text`, found in.image
    metric.unheard_of  c     -            -        -        unsupported

    operation          pass  fail  unsupported
    loss.infonce       .     1     .
    metric.recall      .     1     .
    metric.unheard_of  .     .     1
    total              .     2     1
    ");
}

#[test]
fn an_operation_that_nothing_answers_fails_only_when_all_are_required() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "b.safetensors", "metric.unheard_of", &[1.0]);
    let args = |require_all| VerifyArgs {
        golden: Some(folder.path().into()),
        op: None,
        json: true,
        require_all,
        device: crate::run::device::Choice::Cpu,
    };
    assert!(run(&args(false)).unwrap());
    assert!(!run(&args(true)).unwrap());
}
