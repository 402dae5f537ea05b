//! Which request goes where: conditions, targets and their grammar.
