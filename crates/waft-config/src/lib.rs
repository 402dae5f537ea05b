//! Configuration: files, environment and flags read into one validated plan.
