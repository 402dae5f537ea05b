//! The rules of the hub, through its public interface.

mod desk;
mod listeners;
mod log;
mod observer;
mod order;
mod sequence;
mod subscription;
