//! What both subgraphs need.
