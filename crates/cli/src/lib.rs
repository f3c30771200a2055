//! portolan-cli
