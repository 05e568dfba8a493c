//! The hashing family.

#[cfg(test)]
mod checks;
mod cosines;
mod golden;
mod linear;
pub mod networks;
mod settings;

crate::family! {
    djsrh::DJSRH,
    jdsh::JDSH,
    cfrh::CFRH,
    dsah::DSAH,
    hnh::HNH,
    agch::AGCH,
    dgcpn::DGCPN,
    duch::DUCH,
    cvh::Cvh,
    itq_cca::ItqCca,
    cmfh::Cmfh,
}
