use anyhow::{Result, anyhow};
use xmbench_methods::{Method, registry};

use super::nearest;

/// The methods that experiments may name: the built-in ones, and those that another crate brings.
pub struct Methods(Vec<&'static dyn Method>);

impl Methods {
    /// The built-in methods and `extra`; an extra one stands in for a built-in one of its name.
    pub fn with(extra: &[&'static dyn Method]) -> Self {
        let replaced = |name: &str| extra.iter().any(|method| method.card().name == name);
        let built_in = registry::methods().chain(registry::external());
        Self(built_in.filter(|method| !replaced(&method.card().name)).chain(extra.iter().copied()).collect())
    }

    /// Every method.
    pub fn iter(&self) -> impl Iterator<Item = &'static dyn Method> {
        self.0.iter().copied()
    }

    /// The method of that name.
    ///
    /// # Errors
    /// If there is none; the nearest name is given.
    pub fn find(&self, name: &str) -> Result<&'static dyn Method> {
        self.iter().find(|method| method.card().name == name).ok_or_else(|| {
            let hint = nearest(name, self.iter().map(|method| method.card().name.as_str()));
            anyhow!("no method `{name}`{hint}; `xmbench list methods` shows them all")
        })
    }
}
