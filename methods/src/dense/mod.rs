//! The dense family: fine-grained signals train, one vector an item retrieves.

mod nce;
mod parts;
#[cfg(test)]
mod placed;

crate::family! {
    dense_cl::DENSE_CL,
    loc_vtp::LOC_VTP,
    self_align::SELF_ALIGN,
}
