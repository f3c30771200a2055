//! portolan-service
