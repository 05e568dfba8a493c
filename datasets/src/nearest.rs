/// The known name that `name` was most likely meant to be, if any is like it: what an error about an unknown name suggests.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known| strsim::jaro_winkler(name, known).max(strsim::sorensen_dice(name, known));
    let scored = known.into_iter().map(|known| (likeness(known), known));
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|&(likeness, _)| likeness > 0.7).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_recognised_and_strangers_are_not() {
        let known = ["components", "image", "power", "ridge", "text_components"];
        assert_eq!(nearest("component", known), Some("components"));
        assert_eq!(nearest("rigde", known), Some("ridge"));
        assert_eq!(nearest("Ridge", known), Some("ridge"));
        assert_eq!(nearest("dimensions", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
