//! The sharp edges of the core, each shown to be handled.
