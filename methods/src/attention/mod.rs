//! The attention family.

crate::family! {
    scan::SCAN,
    imram::IMRAM,
    san::SAN,
    dime::DIME,
    show_attend_tell::SHOW_ATTEND_TELL,
    naaf::NAAF,
    uarda::UARDA,
}
