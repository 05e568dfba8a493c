//! What cards say of their papers, as BibTeX: `\cite{vse}` names the method as experiments do.

use xmbench_methods::card::Card;

use super::latex::escape;

/// One entry a card, in their order; what is not published has none.
pub fn bibliography<'a>(cards: impl IntoIterator<Item = &'a Card>) -> String {
    let published = cards.into_iter().filter(|card| card.venue != "not published");
    published.map(entry).collect::<Vec<_>>().join("\n")
}

fn entry(card: &Card) -> String {
    let authors = card.authors.replace(" et al.", ", others").replace(" and ", ", ");
    let authors: Vec<&str> = authors.split(", ").collect();
    // A title keeps its capitals in braces.
    let mut fields = vec![
        ("author", format!("{{{}}}", escape(&authors.join(" and ")))),
        ("title", format!("{{{{{}}}}}", escape(&card.title))),
        ("howpublished", format!("{{{}}}", escape(&card.venue))),
        ("year", card.year.to_string()),
    ];
    let identifier = card.identifier.trim_start_matches("doi:");
    fields.extend(match identifier.strip_prefix("arXiv:") {
        Some(number) => vec![("eprint", format!("{{{}}}", escape(number))), ("archiveprefix", "{arXiv}".into())],
        None if identifier.starts_with("10.") => vec![("doi", format!("{{{identifier}}}"))],
        None if identifier == "none" => Vec::new(),
        None => vec![("note", format!("{{{}}}", escape(identifier)))],
    });
    let fields: Vec<String> = fields.into_iter().map(|(key, value)| format!("  {key} = {value},\n")).collect();
    format!("@misc{{{},\n{}}}\n", card.name, fields.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_what_the_cards_say() {
        let card = |name: &str| xmbench_methods::registry::find(name).unwrap().card();
        insta::assert_snapshot!(bibliography(["vse", "given", "info_nce", "djsrh", "kcca"].map(card)));
        let all: Vec<&Card> = xmbench_methods::registry::methods().map(|method| method.card()).collect();
        let whole = bibliography(all.iter().copied());
        assert_eq!(whole.matches("@misc{").count(), all.iter().filter(|card| card.venue != "not published").count());
        // Braces close, whatever stands in a title.
        let depth = whole.chars().fold(0, |depth, c| depth + i32::from(c == '{') - i32::from(c == '}'));
        assert_eq!(depth, 0);
    }
}
