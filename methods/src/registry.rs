//! Every method, found by name.

use crate::{Method, attention, correlation, dense, external, golden::Operation, hashing, loss, metric, nn, relation};

/// Lists a family's methods: one line a method declares its module and puts it into `METHODS`.
#[macro_export]
macro_rules! family {
    ($($module:ident :: $method:ident),* $(,)?) => {
        $(pub mod $module;)*
        /// The methods of this family.
        pub static METHODS: &[&dyn $crate::Method] = &[$(&$module::$method),*];
    };
}

/// Every built-in method that is fitted here, family by family.
pub fn methods() -> impl Iterator<Item = &'static dyn Method> {
    let families = [
        correlation::METHODS,
        metric::METHODS,
        attention::METHODS,
        dense::METHODS,
        relation::METHODS,
        hashing::METHODS,
    ];
    families.into_iter().flatten().copied()
}

/// Methods that take what another program made, and fit nothing.
pub fn external() -> impl Iterator<Item = &'static dyn Method> {
    external::METHODS.iter().copied()
}

/// The method of the given name, fitted here or not.
pub fn find(name: &str) -> Option<&'static dyn Method> {
    methods().chain(external()).find(|method| method.card().name == name)
}

/// Every golden operation of this crate: those of the methods and those of shared layers and losses.
pub fn operations() -> Vec<Operation> {
    methods().flat_map(|method| method.operations()).chain(nn::operations()).chain(loss::operations()).collect()
}
