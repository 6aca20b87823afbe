//! The MongoDB adapter: one document an aggregate, concurrent commands share one `update` command.
