//! The attention family.

crate::family! {
    scan::SCAN,
    imram::IMRAM,
    san::SAN,
    dime::DIME,
}
