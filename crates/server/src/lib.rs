//! portolan-server
