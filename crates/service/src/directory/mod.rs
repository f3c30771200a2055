mod kind;
pub use kind::PrincipalKind;
