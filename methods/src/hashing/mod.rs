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
    cvh::Cvh,
    itq_cca::ItqCca,
    cmfh::Cmfh,
    dgcpn::DGCPN,
    duch::DUCH,
    dsah::DSAH,
    hnh::HNH,
    agch::AGCH,
}
