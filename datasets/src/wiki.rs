//! wip
use crate::{options::Options, *};
use std::path::Path;
pub(crate) const SOURCE: Source = Source {
    name: "wiki",
    doc: "x",
    options: &[OptionSpec { name: "path", doc: "x", default: OptionValue::Text("wiki") }],
    representations: &["x"],
    get: "svcl.ucsd.edu",
    load,
};
fn load(options: &Options, root: Option<&Path>) -> Result<Dataset> {
    crate::source::folder(options, root, SOURCE.get)?;
    Err(Error::option("wiki", "", "", ""))
}
