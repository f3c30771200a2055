//! portolan-tasks
