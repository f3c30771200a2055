//! Steps that mean harm: to the machine's network, its disk, its other processes, its log.

mod leftovers;
mod network;
mod phases;
